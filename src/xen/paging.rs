//! Four-level x86_64 page tables: Xen's own and those of PV domains, whose entries hold machine frames; and those of
//! translated domains, whose entries hold PFNs.

use super::p2m::P2m;
use crate::bytes::words;
use crate::error::{Absence, Error, Result};
use crate::source::MachineMemory;
use crate::units::{MachineAddr, Mfn, PAGE_BYTES, PAGE_SHIFT, PTE_FRAME_MASK, Page, Pfn, VirtAddr};

/// Present.
pub const PRESENT: u64 = 1;
/// Large page, at levels 2 and 3.
pub const PSE: u64 = 1 << 7;

/// An address space.
#[derive(Clone, Copy, Debug)]
pub struct AddressSpace<'a> {
    mem: &'a MachineMemory<'a>,
    root: Mfn,
    /// Of a translated domain: where its PFNs are.
    p2m: Option<&'a P2m>,
}

/// Where an address is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The byte's machine address.
    pub addr: MachineAddr,
    /// Bytes from there to the end of the leaf.
    pub left: u64,
}

/// Why an address is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The entry at this level is not present.
    NotPresent(u8),
    /// The table at this level cannot be read.
    Table(u8, Absence),
    /// The entry at this level names a PFN that is not the domain's memory.
    NoMemory(u8),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPresent(level) => write!(f, "no entry at level {level}"),
            Self::Table(level, why) => write!(f, "the level {level} table {why}"),
            Self::NoMemory(level) => write!(f, "the entry at level {level} leads to no memory of the domain"),
        }
    }
}

impl<'a> AddressSpace<'a> {
    /// The space below `root`, an L4 table.
    pub fn new(mem: &'a MachineMemory<'a>, root: Mfn) -> Self {
        Self { mem, root, p2m: None }
    }

    /// The space of a translated domain below `root`.
    pub fn translated(mem: &'a MachineMemory<'a>, root: Mfn, p2m: &'a P2m) -> Self {
        Self { mem, root, p2m: Some(p2m) }
    }

    /// The machine frame that an entry's frame number stands for; `None` if it is a PFN that is not the domain's memory.
    pub fn machine(&self, frame: Mfn) -> Option<Mfn> {
        self.p2m.map_or(Some(frame), |p2m| p2m.mfn(Pfn(frame.0)))
    }

    /// The L4 table.
    pub fn root(&self) -> Mfn {
        self.root
    }

    /// The memory that the tables lie in.
    pub fn memory(&self) -> &'a MachineMemory<'a> {
        self.mem
    }

    /// Walks the tables.
    ///
    /// # Errors
    /// The level at which the walk ended.
    pub fn translate(&self, va: VirtAddr) -> Result<Mapping, Fault> {
        let mut table = self.root;
        for level in (1..=4_u8).rev() {
            let shift = PAGE_SHIFT + 9 * u32::from(level - 1);
            let index = va.0 >> shift & 511;
            let entry = self.entry(table, index).map_err(|why| Fault::Table(level, why))?;
            if entry & PRESENT == 0 {
                return Err(Fault::NotPresent(level));
            }
            if level == 1 || (level <= 3 && entry & PSE != 0) {
                // In large entries the lowest frame bit is PAT; the other low bits must be zero.
                let size = 1_u64 << shift;
                let into = va.0 & (size - 1);
                let addr = MachineAddr((entry & PTE_FRAME_MASK & !(size - 1)) + into);
                if self.p2m.is_none() {
                    return Ok(Mapping { addr, left: size - into });
                }
                // Frames that follow each other for the domain need not do so on the machine.
                let page = self.machine(addr.mfn()).and_then(Mfn::addr).ok_or(Fault::NoMemory(level))?;
                let at = addr.in_page() as u64;
                return Ok(Mapping { addr: MachineAddr(page.0 + at), left: PAGE_BYTES - at });
            }
            table = self.machine(frame(entry)).ok_or(Fault::NoMemory(level))?;
        }
        Err(Fault::NotPresent(0))
    }

    fn entry(&self, table: Mfn, index: u64) -> Result<u64, Absence> {
        let base = table.addr().ok_or(Absence::NotInDump)?;
        let mut bytes = [0; 8];
        self.mem.read(MachineAddr(base.0 + index * 8), &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Fills `buf` from `va` on.
    ///
    /// # Errors
    /// [`Error::Unmapped`] or [`Error::Absent`], naming `what`.
    pub fn read(&self, what: &str, va: VirtAddr, buf: &mut [u8]) -> Result<()> {
        let (mut va, mut rest) = (va, buf);
        while !rest.is_empty() {
            let at = self.translate(va).map_err(|why| unmapped(what, va, why))?;
            let n = usize::try_from(at.left).unwrap_or(usize::MAX).min(rest.len());
            let (part, tail) = rest.split_at_mut(n);
            self.mem.need(what, at.addr, part)?;
            rest = tail;
            va = VirtAddr(va.0.wrapping_add(n as u64));
        }
        Ok(())
    }

    /// A 64-bit word.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u64(&self, what: &str, va: VirtAddr) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(what, va, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The present entries of the table at `mfn`, a machine frame, with their index; nothing if it cannot be read.
    pub fn entries(&self, mfn: Mfn) -> Vec<(u64, u64)> {
        let mut page: Page = [0; 4096];
        match mfn.addr().map(|a| self.mem.read(a, &mut page)) {
            Some(Ok(())) => (0..).zip(words(&page)).filter(|(_, e)| e & PRESENT != 0).collect(),
            _ => Vec::new(),
        }
    }
}

/// The frame that an entry holds.
pub fn frame(entry: u64) -> Mfn {
    Mfn((entry & PTE_FRAME_MASK) >> PAGE_SHIFT)
}

fn unmapped(what: &str, addr: VirtAddr, why: Fault) -> Error {
    Error::Unmapped { what: what.to_owned(), addr, why: why.to_string() }
}
