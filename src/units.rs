//! The numbers of the field, kept apart by type.
//!
//! A Xen dump is full of 64-bit numbers that look alike and mean different things. Each has a type here, so that an MFN
//! cannot stand where a PFN is meant. All of them count 4 KiB pages or bytes; none is ever scaled implicitly.

use std::fmt;

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page: x86_64 frames, page tables and pages of kdump-compressed files are all this large.
pub const PAGE_SIZE: usize = 4096;
/// [`PAGE_SIZE`] for 64-bit arithmetic.
pub const PAGE_BYTES: u64 = 4096;
/// The frame bits of an x86_64 page-table entry (bits 12 to 51); bit 52 and up are software's or NX.
pub const PTE_FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;
/// The highest frame number that an entry can hold, and so the bound of every MFN and PFN.
pub const MAX_FRAME: u64 = PTE_FRAME_MASK >> PAGE_SHIFT;

/// One page of memory.
pub type Page = [u8; PAGE_SIZE];

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The number `n` further on; `None` past 64 bits.
            pub fn checked_add(self, n: u64) -> Option<Self> {
                self.0.checked_add(n).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

number! {
    /// A pseudo-physical frame number: a domain's own count of its pages, what Linux calls a PFN.
    Pfn
}
number! {
    /// A machine frame number: the host's count of its pages, what a PV page-table entry holds.
    Mfn
}
number! {
    /// A compressed frame number of Xen ("page index"): position in the frame table and in Xen's direct map.
    Pdx
}
number! {
    /// A machine address in bytes: what `p_paddr` of a Xen vmcore means.
    MachineAddr
}
number! {
    /// A virtual address, of the hypervisor or of a domain.
    VirtAddr
}
number! {
    /// A position in a file, in bytes from its start.
    FileOffset
}

impl Mfn {
    /// The first byte of the frame; `None` for a number that no page-table entry can hold.
    pub fn addr(self) -> Option<MachineAddr> {
        (self.0 <= MAX_FRAME).then_some(MachineAddr(self.0 << PAGE_SHIFT))
    }
}

impl MachineAddr {
    /// The frame that holds this byte.
    pub fn mfn(self) -> Mfn {
        Mfn(self.0 >> PAGE_SHIFT)
    }

    /// Bytes from the start of the frame.
    pub fn in_page(self) -> usize {
        (self.0 & (PAGE_BYTES - 1)) as usize
    }
}

impl VirtAddr {
    /// Bytes from the start of the page.
    pub fn in_page(self) -> usize {
        (self.0 & (PAGE_BYTES - 1)) as usize
    }

    /// The page's own address.
    pub fn page(self) -> Self {
        Self(self.0 & !(PAGE_BYTES - 1))
    }

    /// Whether bits 47 to 63 are all alike, as x86_64 with four levels demands.
    pub fn is_canonical(self) -> bool {
        let top = self.0 >> 47;
        top == 0 || top == 0x1_ffff
    }
}
