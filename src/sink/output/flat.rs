//! The flattened format (makedumpfile -F), for pipes: a file as records of place and bytes, in any order.
//!
//! 4096 bytes that begin with `makedumpfile`, type 1 and version 1 as big-endian `i64` at 16 and 24; then records: place
//! and size, big-endian `i64` each, and so many bytes; -1 and -1 end it (makedumpfile: makedumpfile.h,
//! `struct makedumpfile_data_header`). Records here never overlap.

use crate::units::PAGE_SIZE;
use std::io::{self, Write};

/// Bytes that go out at once.
const BUFFER: usize = 1 << 20;

/// A flattened stream.
pub(super) struct Flat<W: Write> {
    to: io::BufWriter<W>,
    /// Bytes of the stream so far.
    len: u64,
}

impl<W: Write> Flat<W> {
    /// A stream of which nothing is written yet: what fails before it has a page should not look like a dump.
    pub(super) fn new(to: W) -> Self {
        Self { to: io::BufWriter::with_capacity(BUFFER, to), len: 0 }
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut head = Vec::with_capacity(PAGE_SIZE);
        head.extend(b"makedumpfile\0\0\0\0");
        head.extend([1_i64, 1].iter().flat_map(|n| n.to_be_bytes()));
        head.resize(PAGE_SIZE, 0);
        self.put(&head)
    }

    /// Appends a record.
    pub(super) fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.len == 0 {
            self.begin()?;
        }
        let mut head = [0; 16];
        let (place, size) = head.split_at_mut(8);
        place.copy_from_slice(&at.to_be_bytes());
        size.copy_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.put(&head)?;
        self.put(bytes)
    }

    /// Bytes that it has with another record of so many, and its end.
    pub(super) fn with(&self, bytes: usize) -> u64 {
        self.len.max(PAGE_SIZE as u64) + 32 + bytes as u64
    }

    /// Ends it; how many bytes it has.
    pub(super) fn end(&mut self) -> io::Result<u64> {
        self.put(&[0xff; 16])?;
        self.to.flush()?;
        Ok(self.len)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_as_makedumpfile_writes_them() {
        let mut out = Vec::new();
        let mut flat = Flat::new(&mut out);
        flat.write_at(b"abc", 0x10_0000).unwrap();
        flat.write_at(b"", 7).unwrap();
        let len = flat.end().unwrap();
        drop(flat);
        assert_eq!(out.len() as u64, len);
        assert_eq!(out[..16], *b"makedumpfile\0\0\0\0");
        assert_eq!(out[16..32], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(out[32..4096].iter().all(|b| *b == 0));
        assert_eq!(out[4096..4115], *b"\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\x03abc");
        assert_eq!(out[4115..], [0xff; 16]);
    }
}
