//! Xen's page tables, and what is added to them.

use super::Result;
use super::memory::Memory;
use xdump_cut::units::{PAGE_BYTES, PAGE_SHIFT, PTE_FRAME_MASK};

const PRESENT: u64 = 1;
const PSE: u64 = 1 << 7;
const PAT_OF_LARGE: u64 = 1 << 12;
/// Entries of a table.
const FAN: u64 = 512;

/// Frames in order, for whoever needs one.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) next: u64,
    pub(crate) end: u64,
}

impl Stock {
    pub(crate) fn take(&mut self) -> Result<u64> {
        let mfn = self.next;
        self.next += 1;
        if mfn < self.end { Ok(mfn) } else { Err("too few frames were set aside".into()) }
    }
}

/// The tables below a root.
#[derive(Debug)]
pub(crate) struct Tables<'m> {
    pub(crate) memory: &'m Memory,
    pub(crate) root: u64,
    pub(crate) stock: Stock,
}

fn shift(level: u32) -> u32 {
    PAGE_SHIFT + 9 * (level - 1)
}

fn place(table: u64, va: u64, level: u32) -> u64 {
    table * PAGE_BYTES + (va >> shift(level) & (FAN - 1)) * 8
}

impl Tables<'_> {
    /// The flags of what maps an address, as those of a large page.
    pub(crate) fn flags(&self, va: u64) -> Result<u64> {
        let (entry, _) = self.leaf(va)?;
        Ok(entry & !PTE_FRAME_MASK | PSE)
    }

    /// The machine address behind an address.
    pub(crate) fn find(&self, va: u64) -> Result<u64> {
        let (entry, level) = self.leaf(va)?;
        let into = (1 << shift(level)) - 1;
        Ok(entry & PTE_FRAME_MASK & !into | va & into)
    }

    fn leaf(&self, va: u64) -> Result<(u64, u32)> {
        let mut table = self.root;
        for level in (1..=4).rev() {
            let entry = self.memory.word(place(table, va, level))?;
            if entry & PRESENT == 0 {
                break;
            }
            if level == 1 || level < 4 && entry & PSE != 0 {
                return Ok((entry, level));
            }
            table = (entry & PTE_FRAME_MASK) / PAGE_BYTES;
        }
        Err(format!("Xen maps nothing at {va:#x}").into())
    }

    /// Maps an address to a large page of level 2 or 3, making tables where there are none.
    pub(crate) fn map(&mut self, va: u64, mfn: u64, large: u32, flags: u64) -> Result<()> {
        let mut table = self.root;
        for level in (large + 1..=4).rev() {
            let at = place(table, va, level);
            let mut entry = self.memory.word(at)?;
            if entry & PRESENT == 0 {
                // The flags of tables: those of any neighbour.
                entry = (self.stock.take()? * PAGE_BYTES) | self.table_flags(table)?;
                self.memory.set_word(at, entry)?;
            } else if level < 4 && entry & PSE != 0 {
                entry = self.split(at, entry, level)?;
            }
            table = (entry & PTE_FRAME_MASK) / PAGE_BYTES;
        }
        self.memory.set_word(place(table, va, large), (mfn * PAGE_BYTES) | flags)
    }

    fn table_flags(&self, table: u64) -> Result<u64> {
        let entries = (0..FAN).map(|i| self.memory.word(table * PAGE_BYTES + i * 8));
        let used = entries.collect::<Result<Vec<u64>>>()?.into_iter().find(|e| e & (PRESENT | PSE) == PRESENT);
        // Present, writable, accessed, dirty: Xen's __PAGE_HYPERVISOR.
        Ok(used.map_or(0x63, |e| e & !PTE_FRAME_MASK))
    }

    /// Replaces a large page by a table of smaller ones.
    fn split(&mut self, at: u64, entry: u64, level: u32) -> Result<u64> {
        let table = self.stock.take()?;
        let step = 1 << shift(level - 1);
        let words: Vec<u64> = (0..FAN).map(|i| (entry & !PAT_OF_LARGE) + i * step).collect();
        self.memory.set_words(table * PAGE_BYTES, &words)?;
        let entry = (table * PAGE_BYTES) | (entry & !PTE_FRAME_MASK & !PSE);
        self.memory.set_word(at, entry)?;
        Ok(entry)
    }

    /// The L4 entry of an address.
    pub(crate) fn slot(&self, va: u64) -> Result<(u64, u64)> {
        let index = va >> shift(4) & (FAN - 1);
        Ok((index, self.memory.word(place(self.root, va, 4))?))
    }
}
