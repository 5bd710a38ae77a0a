//! Entries of the tables: two kinds of hardware, three ways to write types (Xen: arch/x86/mm/p2m-pt.c, p2m-ept.c,
//! asm/p2m.h).
//!
//! | | NPT, and the P2M of shadow mode | EPT |
//! |---|---|---|
//! | present | bit 0 | at a leaf: a type that is one; else any of bits 0-2 |
//! | table below | bit 7 clear; low bits 0x67, or 0x63 to be recalculated | bit 7 clear; low bits 7, or 0x3f to be recalculated |
//! | type | bits 52-58; before 4.2 bits 9-11 and above them 52-62 | bits 52-57; before 4.1 bits 8-11 |
//! | otherwise used | 61-62 and 9-11 for an IOMMU | 3-6 memory type, 8-9 accessed and dirty, 10 recalculate, 58-62 access, 63 |
//!
//! Since 4.2 memory is type 0 and nothing is 1, before it was the other way round.

use crate::units::Mfn;
use crate::xen::paging::{PSE, frame};

/// Whose tables these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AMD's, in the format of ordinary page tables; also of domains without hardware's help.
    Npt,
    /// Intel's.
    Ept,
}

/// How types are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    /// Xen 4.2 and later.
    Since42,
    /// Xen 4.1.
    V41,
    /// Xen 3.3 to 4.0.
    Before41,
}

/// What a leaf stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Memory of the domain's own.
    Memory,
    /// Another domain's memory: a grant, a foreign mapping, or pages that several domains share.
    Foreign,
    /// A device.
    Device,
    /// Nothing: emulated devices, memory that was never populated or is paged out.
    Hole,
}

/// An entry, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Leads to a table.
    Table(Mfn),
    /// Ends the walk, at any level: frames from this one on.
    Leaf(Mfn, Meaning),
    /// Nothing.
    Hole,
}

/// Suppress #VE: set in blank EPT entries since 4.6.
const SUPPRESS_VE: u64 = 1 << 63;

impl Kind {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npt => "NPT",
            Self::Ept => "EPT",
        }
    }

    /// The kind of tables that has this entry, which leads to another table; `None` for any other entry.
    pub fn of_upper(entry: u64) -> Option<Self> {
        match entry & 0xff {
            0x67 | 0x63 => Some(Self::Npt),
            0x07 | 0x3f => Some(Self::Ept),
            _ => None,
        }
    }

    /// Whether an upper entry of this kind stands for nothing.
    pub fn is_blank(self, entry: u64) -> bool {
        match self {
            Self::Npt => entry & 1 == 0,
            Self::Ept => entry & !SUPPRESS_VE == 0,
        }
    }

    /// The way of writing types that a leaf proves which is known to be ordinary memory.
    pub fn proves(self, entry: u64) -> Option<Types> {
        match self {
            Self::Npt => match (entry >> 9 & 7, entry >> 52 & 0x7f) {
                (0, 0) => Some(Types::Since42),
                (1, 0) => Some(Types::Before41),
                _ => None,
            },
            // Since 4.1 the access bits of memory are set. Bits 8 and 9 then mean accessed and dirty.
            Self::Ept => match (entry >> 8 & 0xf, entry >> 52 & 0x3f, entry >> 52) {
                (1, _, 0) => Some(Types::Before41),
                (_, 0, _) => Some(Types::Since42),
                (_, 1, _) => Some(Types::V41),
                _ => None,
            },
        }
    }
}

impl Types {
    /// All of them, the likeliest first.
    pub const ALL: [Self; 3] = [Self::Since42, Self::V41, Self::Before41];

    fn of(self, kind: Kind, entry: u64) -> u64 {
        match (kind, self) {
            (Kind::Npt, Self::Since42) => entry >> 52 & 0x7f,
            (Kind::Npt, _) => entry >> 9 & 7 | (entry >> 52 & 0x7ff) << 3,
            (Kind::Ept, Self::Since42 | Self::V41) => entry >> 52 & 0x3f,
            (Kind::Ept, Self::Before41) => entry >> 8 & 0xf,
        }
    }

    /// What a leaf stands for.
    pub fn meaning(self, kind: Kind, entry: u64) -> Meaning {
        let before = self != Self::Since42;
        match self.of(kind, entry) {
            // Memory: writable, being logged, read-only, on its way out, with a device model that looks on writes (15).
            0 if !before => Meaning::Memory,
            1 if before => Meaning::Memory,
            2 | 3 | 9 => Meaning::Memory,
            15 if !before => Meaning::Memory,
            // Broken memory: its owner, or that it has none, tells the rest.
            13 if !before => Meaning::Memory,
            14 if before => Meaning::Memory,
            5 => Meaning::Device,
            // Grants, memory shared by several domains, foreign mappings.
            7 | 8 => Meaning::Foreign,
            12 | 14 if !before => Meaning::Foreign,
            13 if before => Meaning::Foreign,
            _ => Meaning::Hole,
        }
    }
}

/// Understands an entry of a table of `level`, 1 to 4.
pub fn item(kind: Kind, types: Types, level: u32, entry: u64) -> Item {
    let leaf = level == 1 || entry & PSE != 0;
    let present = match kind {
        Kind::Npt => entry & 1 != 0,
        Kind::Ept if leaf => entry & !SUPPRESS_VE != 0,
        Kind::Ept => entry & 7 != 0,
    };
    if !present || (leaf && level > 3) {
        return Item::Hole;
    }
    if !leaf {
        return Item::Table(frame(entry));
    }
    match types.meaning(kind, entry) {
        Meaning::Hole => Item::Hole,
        // The low frame bits of a large page are none: at least the lowest is PAT.
        meaning => Item::Leaf(Mfn(frame(entry).0 & !((1 << (9 * (level - 1))) - 1)), meaning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_entries_tell_the_kind() {
        for (entry, kind) in [
            (0x1234_0067, Some(Kind::Npt)),
            (0x1234_0063, Some(Kind::Npt)),
            (0x1234_0007, Some(Kind::Ept)),
            (0x8000_0000_1234_0007, Some(Kind::Ept)),
            (0x1234_003f, Some(Kind::Ept)),
            (0x1234_0107, Some(Kind::Ept)),
            (0x1234_00e7, None),
            (0x1234_0025, None),
            (0, None),
        ] {
            assert_eq!(Kind::of_upper(entry), kind, "{entry:#x}");
        }
        assert!(Kind::Ept.is_blank(1 << 63) && Kind::Npt.is_blank(0) && !Kind::Ept.is_blank(1 << 62));
    }

    #[test]
    fn memory_tells_how_types_are_written() {
        // Write-back, read-write-execute, with and without access bits, accessed, dirty.
        let ept = |high: u64, low: u64| high << 52 | 0x1234_0037 | low;
        for (kind, entry, types) in [
            (Kind::Npt, 0x1234_0067, Types::Since42),
            (Kind::Npt, 3 << 61 | 0x1234_0067, Types::Since42),
            (Kind::Npt, 0x1234_0267, Types::Before41),
            (Kind::Ept, ept(7 << 6, 0), Types::Since42),
            (Kind::Ept, ept(7 << 6, 0x100), Types::Since42),
            (Kind::Ept, ept(7 << 7 | 1 << 11, 0x300), Types::Since42),
            (Kind::Ept, ept(7 << 6 | 1, 0), Types::V41),
            (Kind::Ept, ept(0, 0x100), Types::Before41),
        ] {
            assert_eq!(kind.proves(entry), Some(types), "{kind:?} {entry:#x}");
            assert_eq!(item(kind, types, 1, entry), Item::Leaf(Mfn(0x12340), Meaning::Memory), "{kind:?} {entry:#x}");
        }
    }

    #[test]
    fn types_by_number() {
        use Meaning::{Device, Foreign, Hole, Memory};
        let now = [
            Memory, Hole, Memory, Memory, Hole, Device, Hole, Foreign, Foreign, Memory, Hole, Hole, Foreign, Memory,
            Foreign, Memory,
        ];
        let before = [
            Hole, Memory, Memory, Memory, Hole, Device, Hole, Foreign, Foreign, Memory, Hole, Hole, Hole, Foreign,
            Memory, Hole,
        ];
        for n in 0..16_u64 {
            let at = n as usize;
            let access = 7 << 58;
            assert_eq!(Types::Since42.meaning(Kind::Npt, n << 52 | 0x67), now[at], "{n}");
            assert_eq!(Types::Since42.meaning(Kind::Ept, n << 52 | access | 7), now[at], "{n}");
            assert_eq!(Types::V41.meaning(Kind::Ept, n << 52 | access | 7), before[at], "{n}");
            assert_eq!(Types::Before41.meaning(Kind::Ept, n << 8 | 7), before[at], "{n}");
            assert_eq!(Types::Before41.meaning(Kind::Npt, (n & 7) << 9 | (n >> 3) << 52 | 0x67), before[at], "{n}");
        }
    }

    #[test]
    fn large_pages_holes_and_tables() {
        let leaf = |level, entry| item(Kind::Npt, Types::Since42, level, entry);
        assert_eq!(leaf(2, 0x1234_51e7), Item::Leaf(Mfn(0x12200), Meaning::Memory));
        assert_eq!(leaf(3, 0x1_4000_01e7), Item::Leaf(Mfn(0x14_0000), Meaning::Memory));
        assert_eq!(leaf(4, 0x1_4000_01e7), Item::Hole);
        assert_eq!(leaf(2, 0x1234_5067), Item::Table(Mfn(0x12345)));
        assert_eq!(leaf(1, 6 << 52), Item::Hole);
        let ept = |level, entry| item(Kind::Ept, Types::Since42, level, entry);
        assert_eq!(ept(1, 1 << 63), Item::Hole);
        assert_eq!(ept(2, 1 << 63), Item::Hole);
        // A large hole with a type: populate on demand.
        assert_eq!(ept(2, 6 << 52 | 0x80), Item::Hole);
        // No access at all, but memory.
        assert_eq!(ept(1, 0x1234_5030), Item::Leaf(Mfn(0x12345), Meaning::Memory));
        assert_eq!(ept(3, 0x1234_503f), Item::Table(Mfn(0x12345)));
    }
}
