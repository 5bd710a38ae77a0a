//! A file through a few mapped windows: for /proc/vmcore, and wherever memory is short.
//!
//! A mapping of all of /proc/vmcore has page tables for all of it from the start (Linux: fs/proc/vmcore.c,
//! `mmap_vmcore` → `remap_pfn_range`), 2 GiB per TiB, in a kernel that has 128 MiB. Reading it instead maps and copies each
//! page by itself. So windows of it are mapped as they are needed, and few kept.

use super::holes::Holes;
use super::storage::{FileSource, History, ReadAt, map_part};
use crate::units::FileOffset;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes of a window at most: a few microseconds of mapping for what takes milliseconds to work on.
const MOST: u64 = 16 << 20;
/// ... and at least.
const LEAST: u64 = 64 << 10;

/// A file, of which some windows are mapped at a time. What cannot be mapped is read.
#[derive(Debug)]
pub struct WindowSource {
    file: File,
    len: u64,
    holes: Holes,
    history: History,
    /// Bytes of a window: a power of two.
    size: u64,
    /// Windows that are kept.
    most: usize,
    /// Number of the window and its bytes; what was used last is last.
    windows: Mutex<Vec<(u64, Arc<Mmap>)>>,
    /// Whether mapping failed where nothing else had worked: the file cannot be mapped at all.
    reads: AtomicBool,
}

impl WindowSource {
    /// Windows for so many threads, together `bytes` at most.
    pub(super) fn new(source: FileSource, threads: usize, bytes: u64) -> Self {
        // Each thread reads pages here and struct pages there.
        let most = 2 * threads + 2;
        let size = (bytes / most as u64).clamp(LEAST, MOST);
        let size = if size.is_power_of_two() { size } else { size.next_power_of_two() / 2 };
        let FileSource { file, len, holes, history } = source;
        let (windows, reads) = (Mutex::default(), AtomicBool::new(false));
        Self { file, len, holes, history, size, most, windows, reads }
    }

    /// The window of this number, if it can be mapped.
    fn window(&self, number: u64) -> Option<Arc<Mmap>> {
        if self.reads.load(Ordering::Relaxed) {
            return None;
        }
        let mut windows = self.windows.lock().ok()?;
        if let Some(at) = windows.iter().position(|w| w.0 == number) {
            let found = windows.remove(at);
            let map = Arc::clone(&found.1);
            windows.push(found);
            return Some(map);
        }
        if windows.len() >= self.most {
            windows.remove(0);
        }
        let start = number * self.size;
        let len = usize::try_from(self.size.min(self.len.checked_sub(start)?)).ok()?;
        match map_part(&self.file, start, len) {
            Ok(map) => {
                let map = Arc::new(map);
                windows.push((number, Arc::clone(&map)));
                Some(map)
            }
            Err(_) => {
                // A bad part is read; a file that has never been mapped is not tried again and again.
                self.reads.store(windows.is_empty(), Ordering::Relaxed);
                None
            }
        }
    }
}

impl ReadAt for WindowSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> io::Result<()> {
        let end = at.0.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut at, mut rest) = (at.0, buf);
        while !rest.is_empty() {
            let into = at % self.size;
            let n = rest.len().min((self.size - into) as usize);
            let (part, tail) = rest.split_at_mut(n);
            let window = self.window(at / self.size);
            match window.as_ref().and_then(|map| map.get(into as usize..into as usize + n)) {
                Some(bytes) => part.copy_from_slice(bytes),
                None => self.file.read_exact_at(part, at)?,
            }
            (at, rest) = (at + n as u64, tail);
        }
        Ok(())
    }

    fn slice(&self, _: FileOffset, _: usize) -> Option<&[u8]> {
        None
    }

    fn holes(&self) -> &Holes {
        &self.holes
    }

    fn history(&self) -> &History {
        &self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn open(bytes: &[u8], threads: usize, most: u64) -> WindowSource {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        WindowSource::new(FileSource::new(file).unwrap(), threads, most)
    }

    #[test]
    fn all_bytes_from_everywhere_by_several_threads() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let source = open(&bytes, 2, 1);
        assert_eq!((source.size, source.most, ReadAt::len(&source)), (LEAST, 6, 1_000_003));
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (source, bytes) = (&source, &bytes);
                scope.spawn(move || {
                    for n in 0..500 {
                        let at = (n * 7919 + thread * 250_007) % bytes.len();
                        let len = (n * 631).min(bytes.len() - at).min(200_000);
                        let mut buf = vec![0; len];
                        source.read_exact_at(FileOffset(at as u64), &mut buf).unwrap();
                        assert!(buf == bytes[at..at + len], "{len} from {at}");
                    }
                });
            }
        });
        assert!(source.windows.lock().unwrap().len() <= 6);
        for (at, len) in [(1_000_003, 1), (1_000_000, 4), (u64::MAX, 2)] {
            let e = source.read_exact_at(FileOffset(at), &mut vec![0; len]).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        }
        source.read_exact_at(FileOffset(1_000_003), &mut []).unwrap();
    }

    #[test]
    fn what_cannot_be_mapped_is_read() {
        // The kernel maps no file of /proc but a few.
        let all = std::fs::read("/proc/version").unwrap();
        let plain = FileSource::new(File::open("/proc/version").unwrap()).unwrap();
        let source = WindowSource::new(FileSource { len: all.len() as u64, ..plain }, 1, MOST);
        let mut buf = vec![0; all.len() - 3];
        source.read_exact_at(FileOffset(3), &mut buf).unwrap();
        assert_eq!(buf, all[3..]);
        assert!(source.reads.load(Ordering::Relaxed));
    }

    #[test]
    fn sizes_keep_to_the_bound() {
        for (threads, bytes) in [(1, 1 << 20), (2, 16 << 20), (8, 200 << 20), (64, 1 << 30)] {
            let source = open(b"x", threads, bytes);
            assert!(source.size.is_power_of_two() && source.size * source.most as u64 <= bytes, "{source:?}");
        }
    }
}
