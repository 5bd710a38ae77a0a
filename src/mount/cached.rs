//! Bytes that were made, kept in blocks for the next who wants them.

use crate::cache::Cache;
use crate::source::ReadAt;
use crate::source::holes::Holes;
use crate::units::FileOffset;
use std::io;

/// Bytes that are made at once: neighbours of a page are likely to be wanted next.
const BLOCK: u64 = 128 << 10;
/// Files are told apart by the bits above those that number blocks.
const FILE_SHIFT: u32 = 44;

/// A file, seen through a cache that it may share with others.
#[derive(Debug)]
pub(super) struct Cached<'a> {
    inner: &'a dyn ReadAt,
    cache: &'a Cache,
    file: u64,
}

impl<'a> Cached<'a> {
    pub(super) fn new(inner: &'a dyn ReadAt, cache: &'a Cache, file: usize) -> Self {
        Self { inner, cache, file: (file as u64) << FILE_SHIFT }
    }
}

impl ReadAt for Cached<'_> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (at.0, buf);
        while !rest.is_empty() {
            let (number, skip) = (at / BLOCK, (at % BLOCK) as usize);
            let start = number * BLOCK;
            let size = self.len().checked_sub(start).filter(|n| *n > 0).ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = size.min(BLOCK) as usize;
            let n = size.checked_sub(skip).filter(|n| *n > 0).ok_or(io::ErrorKind::UnexpectedEof)?.min(rest.len());
            let (part, tail) = rest.split_at_mut(n);
            let block = self.cache.get(self.file | number, size, || {
                let mut block = vec![0; size];
                self.inner.read_exact_at(FileOffset(start), &mut block).map(|()| block)
            });
            match block.as_ref().map(|b| b.get(skip..skip + n)) {
                Ok(Some(from)) => part.copy_from_slice(from),
                // A bad page in the block: those beside it are good.
                _ => self.inner.read_exact_at(FileOffset(at), part)?,
            }
            rest = tail;
            at += n as u64;
        }
        Ok(())
    }

    fn slice(&self, at: FileOffset, len: usize) -> Option<&[u8]> {
        self.inner.slice(at, len)
    }

    fn holes(&self) -> &Holes {
        self.inner.holes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LEN: u64 = 3 * BLOCK + 777;
    const BAD: std::ops::Range<u64> = BLOCK + 4096..BLOCK + 8192;

    /// A file of which each byte tells where it is, with a bad page.
    #[derive(Debug, Default)]
    struct File {
        reads: AtomicUsize,
    }

    fn byte(at: u64) -> u8 {
        (at % 251) as u8
    }

    impl ReadAt for File {
        fn len(&self) -> u64 {
            LEN
        }

        fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let end = at.0 + buf.len() as u64;
            if end > LEN {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if at.0 < BAD.end && end > BAD.start {
                return Err(io::Error::other("bad"));
            }
            (at.0..).zip(buf).for_each(|(at, b)| *b = byte(at));
            Ok(())
        }

        fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
            None
        }

        fn holes(&self) -> &Holes {
            Holes::none()
        }
    }

    proptest! {
        #[test]
        fn a_read_is_right_or_fails(at in 0..LEN + 9000, len in 0_usize..300_000, size in 0_u64..1 << 20) {
            let (file, cache) = (File::default(), Cache::new(size));
            let cached = Cached::new(&file, &cache, 7);
            for _ in 0..2 {
                let mut buf = vec![0xee; len];
                let end = at + len as u64;
                let good = len == 0 || end <= LEN && (end <= BAD.start || at >= BAD.end);
                prop_assert_eq!(cached.read_exact_at(FileOffset(at), &mut buf).is_ok(), good);
                prop_assert!(!good || (at..).zip(&buf).all(|(at, b)| *b == byte(at)));
                prop_assert!(cache.bytes() as u64 <= size);
            }
        }
    }

    #[test]
    fn what_was_read_is_not_read_again() {
        let (file, cache) = (File::default(), Cache::new(1 << 20));
        let cached = Cached::new(&file, &cache, 0);
        let read = |at| cached.read_exact_at(FileOffset(at), &mut [0; 4096]).is_ok();
        assert!((0..10).all(|_| read(0) && read(8192)));
        assert_eq!(file.reads.load(Ordering::Relaxed), 1);
        // of another file it is
        assert!(Cached::new(&file, &cache, 1).read_exact_at(FileOffset(0), &mut [0; 9]).is_ok());
        assert_eq!(file.reads.load(Ordering::Relaxed), 2);
    }
}
