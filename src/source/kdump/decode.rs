//! Pages of kdump-compressed files, decompressed into exactly one page: nothing in a file can make it more.

use crate::bytes::{u32_at, u64_at};
use crate::error::Absence;
use crate::units::{FileOffset, PAGE_SIZE, Page};
use flate2::{Decompress, FlushDecompress, Status};
use std::fmt;

/// A page descriptor: where a page's bytes are, and how they are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) at: FileOffset,
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// Codec flags (makedumpfile: DUMP_DH_COMPRESSED_*).
const ZLIB: u32 = 0x1;
const LZO: u32 = 0x2;
const SNAPPY: u32 = 0x4;
const ZSTD: u32 = 0x20;

/// Names of the codecs in a status word.
pub(super) fn codec_names(status: u32) -> String {
    let names = [(ZLIB, "zlib"), (LZO, "lzo"), (SNAPPY, "snappy"), (ZSTD, "zstd")];
    let named: Vec<&str> = names.iter().filter(|(bit, _)| status & bit != 0).map(|n| n.1).collect();
    if named.is_empty() { "none".into() } else { named.join(" and ") }
}

impl Descriptor {
    /// `offset i64, size u32, flags u32, page_flags u64`, little-endian.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self { at: FileOffset(u64_at(bytes, 0)?), size: u32_at(bytes, 8)?, flags: u32_at(bytes, 12)? })
    }

    /// Whether the page stands in the file as it is.
    pub(super) fn is_raw(self) -> bool {
        self.flags == 0
    }

    /// Whether it can be right in a file of `len` bytes whose page data begins not before `data`.
    pub(super) fn check(self, data: FileOffset, len: u64) -> Result<(), Absence> {
        if self.at.0 == 0 {
            return Err(Absence::Incomplete);
        }
        let whole = self.size as usize == PAGE_SIZE;
        let fits = match self.flags {
            0 => whole,
            ZLIB | LZO | SNAPPY | ZSTD => self.size > 0 && self.size as usize <= PAGE_SIZE,
            _ => false,
        };
        match self.at.0.checked_add(u64::from(self.size)) {
            _ if !fits || self.at < data => Err(Absence::Damaged),
            Some(end) if end <= len => Ok(()),
            Some(end) if end <= i64::MAX as u64 => Err(Absence::CutOff),
            _ => Err(Absence::Damaged),
        }
    }
}

/// Contexts of all codecs, and room; each worker has its own.
pub(super) struct Decoder {
    zlib: Decompress,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    snappy: snap::raw::Decoder,
    /// Compressed bytes, where the storage is not memory.
    pub(super) input: Vec<u8>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            zlib: Decompress::new(true),
            zstd: zstd::bulk::Decompressor::new().ok(),
            snappy: snap::raw::Decoder::new(),
            input: Vec::new(),
        }
    }

    /// Fills `page` from what `flags` say of `bytes`.
    pub(super) fn decode(&mut self, flags: u32, bytes: &[u8], page: &mut Page) -> Result<(), Absence> {
        let len = match flags {
            0 => {
                let whole: &Page = bytes.try_into().map_err(|_| Absence::Damaged)?;
                *page = *whole;
                Some(PAGE_SIZE)
            }
            ZLIB => {
                self.zlib.reset(true);
                match self.zlib.decompress(bytes, page, FlushDecompress::Finish) {
                    Ok(Status::StreamEnd) => usize::try_from(self.zlib.total_out()).ok(),
                    _ => None,
                }
            }
            LZO => lzokay::decompress::decompress(bytes, page).ok(),
            SNAPPY => self.snappy.decompress(bytes, page).ok(),
            ZSTD => self.zstd.as_mut().and_then(|z| z.decompress_to_buffer(bytes, &mut page[..]).ok()),
            _ => None,
        };
        if len == Some(PAGE_SIZE) { Ok(()) } else { Err(Absence::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn descriptors_that_cannot_be_right() {
        let d = |at, size, flags| Descriptor { at: FileOffset(at), size, flags }.check(FileOffset(0x4000), 0x9000);
        assert_eq!(d(0x8000, 0x1000, 0), Ok(()));
        assert_eq!(d(0x8ff0, 0x10, ZSTD), Ok(()));
        assert_eq!(d(0, 0, 0), Err(Absence::Incomplete));
        assert_eq!(d(0x8001, 0x1000, 0), Err(Absence::CutOff));
        for (at, size, flags) in
            [(0x3fff, 1, ZLIB), (0x5000, 0xfff, 0), (0x5000, 0, LZO), (0x5000, 0x1001, SNAPPY), (0x5000, 9, 3)]
        {
            assert_eq!(d(at, size, flags), Err(Absence::Damaged), "{at:#x} {size} {flags}");
        }
        assert_eq!(d(u64::MAX, 9, ZLIB), Err(Absence::Damaged));
    }

    proptest! {
        /// Also a page that is larger than a page when decompressed is refused.
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300), len in 0usize..9000) {
            let mut decoder = Decoder::new();
            let mut page = [0; PAGE_SIZE];
            let plain = vec![7; len];
            let zlib = {
                let mut z = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut z, &plain).unwrap();
                z.finish().unwrap()
            };
            let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
            for (flags, good) in [(ZLIB, zlib), (SNAPPY, snappy), (ZSTD, zstd::bulk::compress(&plain, 1).unwrap())] {
                prop_assert_eq!(decoder.decode(flags, &good, &mut page).is_ok(), len == PAGE_SIZE);
            }
            for flags in [0, ZLIB, LZO, SNAPPY, ZSTD, 8] {
                let _ = decoder.decode(flags, &bytes, &mut page);
            }
        }
    }
}
