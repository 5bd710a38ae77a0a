//! `struct page_info`: what Xen knows of a frame, in the layouts of Xen 4.0 to today.
//!
//! The bits moved twice, so both positions are found from the dump:
//! * the page state (in use, offlining, offlined, free) stood in bits 55-56 of `count_info` until XSA-402 and stands in
//!   58-59 since (Xen commit ae09597da3; in 4.13.5, 4.14.6, 4.15.3, 4.16.2, 4.17 and vendors' older trees). A free page
//!   holds the state 3 and nothing else but "needs scrubbing" (bit 63, or 57 from 4.22);
//! * the type took bits 60-63 of `type_info` up to 4.9 and takes 61-63 since (commit 1ae4be859b). Every domain has
//!   writable pages (type 7), which tell the two apart.

const ALLOCATED: u64 = 1 << 63;
const XEN_HEAP: u64 = 1 << 62;
const NEED_SCRUB: u64 = 1 << 63 | 1 << 57;
const PINNED: u64 = 1 << 59;
const VALIDATED: u64 = 1 << 58;
/// `type_info` count: bits 0 to 54 in every version (55 was part of it before XSA-402, and never reached).
const TYPE_COUNT: u64 = (1 << 55) - 1;

/// One entry of the frame table, raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageInfo {
    /// `count_info`.
    pub count: u64,
    /// `u.inuse.type_info`.
    pub kind: u64,
    /// `v.inuse._domain`: PDX of the owner's struct domain; 0 is nobody.
    pub owner: u64,
}

/// Where the page state stands in `count_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateBits {
    /// Bits 55-56: before XSA-402.
    Before402,
    /// Bits 58-59: since XSA-402.
    Since402,
}

/// Where the type stands in `type_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeBits {
    /// Bits 60-63: Xen 4.0 to 4.9.
    Four,
    /// Bits 61-63: Xen 4.10 and later.
    Three,
}

/// `PGC_state_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// In use.
    InUse,
    /// In use, to be taken offline.
    Offlining,
    /// Offline: not to be read.
    Offlined,
    /// Free.
    Free,
}

impl StateBits {
    /// The position that a free page with this `count_info` proves, if it is one.
    pub fn proven_by(count: u64) -> Option<Self> {
        match count & !NEED_SCRUB {
            c if c == 3 << 55 => Some(Self::Before402),
            c if c == 3 << 58 => Some(Self::Since402),
            _ => None,
        }
    }

    /// The position by Xen's version: only for a host without a single free page.
    pub fn by_version(major: u64, minor: u64, extra: &str) -> Self {
        let point: u64 = extra
            .trim_start_matches('.')
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|d| d.parse().ok())
            .unwrap_or(0);
        let since = match (major, minor) {
            (4, 13) => point >= 5,
            (4, 14) => point >= 6,
            (4, 15) => point >= 3,
            (4, 16) => point >= 2,
            (4, m) => m >= 17,
            (m, _) => m > 4,
        };
        if since { Self::Since402 } else { Self::Before402 }
    }

    /// The lower of the two bits.
    pub fn shift(self) -> u32 {
        match self {
            Self::Before402 => 55,
            Self::Since402 => 58,
        }
    }
}

impl TypeBits {
    /// The width that a writable page with this `type_info` proves, if it is one.
    pub fn proven_by(kind: u64) -> Option<Self> {
        match kind >> 60 {
            7 => Some(Self::Four),
            0xe | 0xf => Some(Self::Three),
            _ => None,
        }
    }

    fn kind(self, info: u64) -> u64 {
        match self {
            Self::Four => info >> 60,
            Self::Three => info >> 61,
        }
    }
}

impl PageInfo {
    /// The state.
    pub fn state(&self, bits: StateBits) -> PageState {
        match self.count >> bits.shift() & 3 {
            0 => PageState::InUse,
            1 => PageState::Offlining,
            2 => PageState::Offlined,
            _ => PageState::Free,
        }
    }

    /// `PGC_xen_heap`.
    pub fn is_xen_heap(&self) -> bool {
        self.count & XEN_HEAP != 0
    }

    /// `PGC_allocated`, for a frame that is not free: memory that was given to a domain.
    pub fn is_allocated(&self) -> bool {
        self.count & ALLOCATED != 0
    }

    /// Whether the owner field means an owner: free pages keep their order there, Xen's own nothing.
    pub fn has_owner(&self, bits: StateBits) -> bool {
        matches!(self.state(bits), PageState::InUse | PageState::Offlining)
            && self.count & !XEN_HEAP != 0
            && self.owner != 0
    }

    /// The level of a live page table of a PV domain. A type without count, pin or validation is left over from an
    /// earlier use of the frame.
    pub fn table_level(&self, bits: TypeBits) -> Option<u8> {
        let level = bits.kind(self.kind);
        let live = self.kind & (TYPE_COUNT | PINNED | VALIDATED) != 0;
        (live && (1..=4).contains(&level)).then_some(level as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_tell_the_layout() {
        for (count, bits) in [
            (0x0180_0000_0000_0000, Some(StateBits::Before402)),
            (0x8180_0000_0000_0000, Some(StateBits::Before402)),
            (0x0c00_0000_0000_0000, Some(StateBits::Since402)),
            (0x8c00_0000_0000_0000, Some(StateBits::Since402)),
            (0x0e00_0000_0000_0000, Some(StateBits::Since402)),
            (0x8000_0000_0000_0001, None),
            (u64::MAX, None),
        ] {
            assert_eq!(StateBits::proven_by(count), bits, "{count:#x}");
        }
    }

    #[test]
    fn versions_as_xsa_402_landed() {
        for (minor, extra, since) in [
            (12, ".4", false),
            (13, ".4", false),
            (13, ".5", true),
            (14, ".5", false),
            (16, ".2-xs1", true),
            (17, "-rc1", true),
        ] {
            let bits = if since { StateBits::Since402 } else { StateBits::Before402 };
            assert_eq!(StateBits::by_version(4, minor, extra), bits, "4.{minor}{extra}");
        }
    }

    #[test]
    fn stale_types_are_no_tables() {
        let page = |kind| PageInfo { count: 1 << 63 | 1, kind, owner: 1 };
        assert_eq!(page(1 << 61 | 1).table_level(TypeBits::Three), Some(1));
        assert_eq!(page(4 << 61 | PINNED).table_level(TypeBits::Three), Some(4));
        assert_eq!(page(4 << 60 | VALIDATED).table_level(TypeBits::Four), Some(4));
        assert_eq!(page(1 << 61).table_level(TypeBits::Three), None);
        assert_eq!(page(7 << 61 | 1).table_level(TypeBits::Three), None);
    }
}
