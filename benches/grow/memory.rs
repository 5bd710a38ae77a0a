//! A dump as a machine that can be written: the copy of a fixture, made longer.

use super::Result;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use xdump_cut::bytes::{u16_at, u32_at, u64_at};
use xdump_cut::source::ReadAt;
use xdump_cut::units::{FileOffset, PAGE_BYTES, PAGE_SIZE, Page};
use xdump_cut::zero::is_zero;

const PT_LOAD: u32 = 1;
const EHDR: usize = 64;
const PHDR: usize = 56;
/// What kdump writes into `p_vaddr` besides the address: Linux' direct map, which means nothing under Xen.
const P_VADDR: u64 = 0xffff_8880_0000_0000;
/// What is copied at a time.
const PIECE: usize = 1 << 20;

/// A PT_LOAD: machine address, bytes, place in the file.
#[derive(Clone, Copy, Debug)]
struct Load {
    start: u64,
    len: u64,
    offset: u64,
}

/// The dump that is made. Addresses are the machine's, in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    loads: Vec<Load>,
}

impl Memory {
    /// Copies a dump; zeros become holes.
    pub(crate) fn copy(source: &dyn ReadAt, out: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(out)?;
        file.set_len(source.len())?;
        let mut piece = vec![0; PIECE];
        for at in (0..source.len()).step_by(PIECE) {
            let n = (source.len() - at).min(PIECE as u64) as usize;
            let piece = &mut piece[..n];
            source.read_exact_at(FileOffset(at), piece)?;
            for (page, bytes) in piece.chunks(PAGE_SIZE).enumerate().filter(|(_, bytes)| !is_zero(bytes)) {
                file.write_all_at(bytes, at + (page * PAGE_SIZE) as u64)?;
            }
        }
        let mut head = vec![0; EHDR];
        file.read_exact_at(&mut head, 0)?;
        let count = usize::from(u16_at(&head, 56).unwrap_or_default());
        head.resize(EHDR + count * PHDR, 0);
        file.read_exact_at(&mut head, 0)?;
        let loads = head[EHDR..].chunks_exact(PHDR).filter(|p| u32_at(p, 0) == Some(PT_LOAD));
        let word = |p: &[u8], at| u64_at(p, at).unwrap_or_default();
        let loads = loads.map(|p| Load { start: word(p, 24), len: word(p, 32), offset: word(p, 8) }).collect();
        Ok(Self { file, loads })
    }

    /// Bytes of RAM.
    pub(crate) fn len(&self) -> u64 {
        self.loads.iter().map(|l| l.len).sum()
    }

    /// The end of the highest PT_LOAD.
    pub(crate) fn end(&self) -> u64 {
        self.loads.iter().map(|l| l.start + l.len).max().unwrap_or(0)
    }

    /// Adds a PT_LOAD of zeros. Its header goes behind the others, where kdump leaves the rest of a page.
    pub(crate) fn add(&mut self, start: u64, len: u64) -> Result<()> {
        let offset = self.file.metadata()?.len().next_multiple_of(PAGE_BYTES);
        let mut count = [0; 2];
        self.file.read_exact_at(&mut count, 56)?;
        let number = u16::from_le_bytes(count);
        let at = (EHDR + usize::from(number) * PHDR) as u64;
        let mut room = [0; PHDR];
        self.file.read_exact_at(&mut room, at)?;
        if room.iter().any(|b| *b != 0) {
            return Err("no room for another program header".into());
        }
        let mut header = Vec::new();
        header.extend(PT_LOAD.to_le_bytes());
        header.extend(7_u32.to_le_bytes());
        [offset, P_VADDR + start, start, len, len, 0].iter().for_each(|word| header.extend(word.to_le_bytes()));
        self.file.write_all_at(&header, at)?;
        self.file.write_all_at(&(number + 1).to_le_bytes(), 56)?;
        self.file.set_len(offset + len)?;
        self.loads.push(Load { start, len, offset });
        Ok(())
    }

    fn place(&self, addr: u64, len: usize) -> Result<u64> {
        let load = self.loads.iter().find(|l| addr >= l.start && addr + len as u64 <= l.start + l.len);
        load.map(|l| addr - l.start + l.offset).ok_or_else(|| format!("no RAM at {addr:#x}").into())
    }

    pub(crate) fn read(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.file.read_exact_at(buf, self.place(addr, buf.len())?)?)
    }

    pub(crate) fn write(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.file.write_all_at(bytes, self.place(addr, bytes.len())?)?)
    }

    pub(crate) fn page(&self, mfn: u64) -> Result<Page> {
        let mut page = [0; PAGE_SIZE];
        self.read(mfn * PAGE_BYTES, &mut page)?;
        Ok(page)
    }

    pub(crate) fn word(&self, addr: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn set_word(&self, addr: u64, word: u64) -> Result<()> {
        self.write(addr, &word.to_le_bytes())
    }

    /// Writes words one behind the other.
    pub(crate) fn set_words(&self, addr: u64, words: &[u64]) -> Result<()> {
        self.write(addr, &words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>())
    }
}
