//! A reader of ELF64 cores by physical address: of the uncut dumps (machine frames) and of our ELF output.

use super::dump::{Dump, Note, PAGE, Page, parse_notes, u16_at, u32_at, u64_at};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A PT_LOAD.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) filesz: u64,
    pub(crate) memsz: u64,
    pub(crate) align: u64,
}

/// `__START_KERNEL_map`: a PV kernel's image stands at its physical address above it.
pub(crate) const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// An ELF core.
pub(crate) struct Elf {
    file: File,
    pub(crate) file_len: u64,
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    /// Those of the direct map, in the order of their physical addresses.
    pub(crate) loads: Vec<Load>,
    /// Those of the kernel's image, which show pages a second time.
    pub(crate) image: Vec<Load>,
    notes: Vec<Note>,
}

fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap_or_else(|e| panic!("{len} bytes at {at:#x}: {e}"));
    bytes
}

impl Elf {
    pub(crate) fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let head = read(&file, 0, 64);
        assert!(head.starts_with(b"\x7fELF\x02\x01"), "{} is not a little-endian ELF64", path.display());
        let mut count = u64::from(u16_at(&head, 56));
        if count == 0xffff {
            // PN_XNUM: the number stands in section header 0
            count = u64::from(u32_at(&read(&file, u64_at(&head, 40), 64), 44));
        }
        let table = read(&file, u64_at(&head, 32), count as usize * 56);
        let (mut loads, mut notes) = (Vec::new(), Vec::new());
        for entry in table.chunks_exact(56) {
            let [offset, vaddr, paddr, filesz, memsz, align] = [8, 16, 24, 32, 40, 48].map(|at| u64_at(entry, at));
            match u32_at(entry, 0) {
                1 => loads.push(Load { offset, vaddr, paddr, filesz, memsz, align }),
                4 => notes.extend(parse_notes(&read(&file, offset, filesz as usize))),
                _ => {}
            }
        }
        loads.sort_by_key(|load| load.paddr);
        let (image, loads) = loads.into_iter().partition(|load| load.vaddr >= IMAGE);
        let file_len = file.metadata().unwrap().len();
        Self { file, file_len, kind: u16_at(&head, 16), machine: u16_at(&head, 18), loads, image, notes }
    }
}

impl Dump for Elf {
    fn frames(&self) -> BTreeSet<u64> {
        let page = PAGE as u64;
        self.loads.iter().flat_map(|load| load.paddr / page..(load.paddr + load.memsz) / page).collect()
    }

    fn page(&self, frame: u64) -> Option<Page> {
        let addr = frame * PAGE as u64;
        let after = self.loads.partition_point(|load| load.paddr <= addr);
        let load = &self.loads[after.checked_sub(1)?];
        let within = addr - load.paddr;
        if within + PAGE as u64 > load.memsz {
            return None;
        }
        let mut page: Page = Box::new([0; PAGE]);
        let stored = load.filesz.saturating_sub(within).min(PAGE as u64) as usize;
        self.file
            .read_exact_at(&mut page[..stored], load.offset + within)
            .unwrap_or_else(|e| panic!("frame {frame:#x} at {:#x}: {e}", load.offset + within));
        Some(page)
    }

    fn is_there(&self, frame: u64) -> bool {
        let addr = frame * PAGE as u64;
        let load = self.loads.iter().find(|load| (load.paddr..load.paddr + load.memsz).contains(&addr));
        // Zeros at the end of a segment need nothing of the file.
        load.is_some_and(|load| {
            let within = addr - load.paddr;
            within >= load.filesz || load.offset + within + PAGE as u64 <= self.file_len
        })
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}
