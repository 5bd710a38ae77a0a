//! A reader of kdump-compressed files (diskdump version 6), as strict as crash: what crash would refuse fails here.

use super::dump::{Dump, Note, PAGE, Page, parse_notes, u32_at, u64_at};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

const ZLIB: u32 = 0x1;
const LZO: u32 = 0x2;
const SNAPPY: u32 = 0x4;
const ZSTD: u32 = 0x20;

/// A kdump-compressed file.
pub(crate) struct Kdump {
    file: File,
    pub(crate) header: Vec<u8>,
    pub(crate) sub_header: Vec<u8>,
    max_mapnr: u64,
    /// The first bitmap: frames that are memory.
    exists: Vec<u8>,
    /// The second: those that have a descriptor.
    stored: Vec<u8>,
    /// Descriptors before each byte of `stored`.
    before: Vec<u64>,
    descriptors: Vec<u8>,
    notes: Vec<Note>,
}

impl Kdump {
    pub(crate) fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file_len = file.metadata().unwrap().len();
        let read = |at: u64, len: u64| {
            assert!(at + len <= file_len, "{len} bytes at {at:#x} lie beyond the end of {}", path.display());
            let mut bytes = vec![0; len as usize];
            file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        let block = PAGE as u64;
        let header = read(0, block);
        assert_eq!(&header[..8], b"KDUMP   ", "{}", path.display());
        assert_eq!(u32_at(&header, 8), 6, "version of the header");
        assert_eq!(u64::from(u32_at(&header, 428)), block, "block size");
        let sub_header = read(block, block);
        let max_mapnr = u64_at(&sub_header, 96);
        let (sub_blocks, bitmap_blocks) = (u64::from(u32_at(&header, 432)), u64::from(u32_at(&header, 436)));
        let half = max_mapnr.div_ceil(8).div_ceil(block);
        // crash takes a shorter one for a file without a second bitmap
        assert_eq!(bitmap_blocks, half * 2, "blocks of both bitmaps");
        let bitmaps = (1 + sub_blocks) * block;
        let exists = read(bitmaps, half * block);
        let stored = read(bitmaps + half * block, half * block);
        assert!(exists.iter().zip(&stored).all(|(e, s)| s & !e == 0), "a page is stored that does not exist");
        let mut total = 0;
        let before = stored
            .iter()
            .map(|byte| {
                total += u64::from(byte.count_ones());
                total - u64::from(byte.count_ones())
            })
            .collect();
        let descriptors = read((1 + sub_blocks + bitmap_blocks) * block, total * 24);
        let notes = parse_notes(&read(u64_at(&sub_header, 48), u64_at(&sub_header, 56)));
        Self { file, header, sub_header, max_mapnr, exists, stored, before, descriptors, notes }
    }

    /// The VMCOREINFO text that the sub-header points at.
    pub(crate) fn vmcoreinfo(&self) -> Vec<u8> {
        let mut bytes = vec![0; u64_at(&self.sub_header, 40) as usize];
        self.file.read_exact_at(&mut bytes, u64_at(&self.sub_header, 32)).unwrap();
        bytes
    }

    /// Frames that are memory, stored or left out.
    pub(crate) fn existing(&self) -> BTreeSet<u64> {
        (0..self.max_mapnr).filter(|&frame| is_set(&self.exists, frame)).collect()
    }

    /// The size and the flags that each stored page's descriptor has.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (u32, u32)> {
        self.descriptors.chunks_exact(24).map(|descriptor| (u32_at(descriptor, 8), u32_at(descriptor, 12)))
    }

    /// The descriptor of a frame that is stored.
    fn descriptor(&self, frame: u64) -> &[u8] {
        let byte = frame as usize / 8;
        let below = self.stored[byte] & ((1u8 << (frame % 8)) - 1);
        let at = (self.before[byte] + u64::from(below.count_ones())) as usize * 24;
        &self.descriptors[at..at + 24]
    }

    /// Where a frame's bytes are in the file, as they are there.
    pub(crate) fn place(&self, frame: u64) -> u64 {
        u64_at(self.descriptor(frame), 0)
    }

    fn is_stored(&self, frame: u64) -> bool {
        frame < self.max_mapnr && is_set(&self.stored, frame)
    }
}

fn is_set(bitmap: &[u8], frame: u64) -> bool {
    bitmap[frame as usize / 8] >> (frame % 8) & 1 == 1
}

impl Dump for Kdump {
    fn frames(&self) -> BTreeSet<u64> {
        (0..self.max_mapnr).filter(|&frame| self.is_stored(frame)).collect()
    }

    fn page(&self, frame: u64) -> Option<Page> {
        if !self.is_stored(frame) {
            return None;
        }
        let descriptor = self.descriptor(frame);
        let (offset, size, flags) = (u64_at(descriptor, 0), u32_at(descriptor, 8), u32_at(descriptor, 12));
        assert!(offset != 0 && size as usize <= PAGE, "frame {frame:#x}: {size} bytes at {offset:#x}");
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset).unwrap_or_else(|e| panic!("frame {frame:#x}: {e}"));
        let bytes = match flags {
            0 => bytes,
            ZSTD => zstd::bulk::decompress(&bytes, PAGE).unwrap_or_else(|e| panic!("frame {frame:#x}: {e}")),
            ZLIB => {
                let mut page = Vec::with_capacity(PAGE);
                let read = flate2::read::ZlibDecoder::new(&bytes[..]).read_to_end(&mut page);
                read.unwrap_or_else(|e| panic!("frame {frame:#x}: {e}"));
                page
            }
            LZO => {
                let mut page = vec![0; PAGE];
                let len = lzokay::decompress::decompress(&bytes, &mut page);
                page.truncate(len.unwrap_or_else(|e| panic!("frame {frame:#x}: {e:?}")));
                page
            }
            SNAPPY => {
                let page = snap::raw::Decoder::new().decompress_vec(&bytes);
                page.unwrap_or_else(|e| panic!("frame {frame:#x}: {e}"))
            }
            other => panic!("frame {frame:#x}: flags {other:#x}"),
        };
        Some(Box::new(bytes.try_into().unwrap_or_else(|b: Vec<u8>| panic!("frame {frame:#x}: {} bytes", b.len()))))
    }

    fn is_there(&self, frame: u64) -> bool {
        self.is_stored(frame) && self.place(frame) != 0
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}
