//! The holes of a sparse file.

use rustix::fs::{SeekFrom, seek};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

/// More data ranges than this are not listed one by one: the rest of the file counts as data. 16 bytes each.
const MOST_RANGES: usize = 1 << 16;

/// Ranges of a file without blocks, in order, by SEEK_HOLE. They read as zeros by POSIX; a copy that lost data (a rescue
/// that skipped bad sectors) looks the same, so their amount is reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holes {
    /// Start and end of each hole, in bytes.
    ranges: Vec<(u64, u64)>,
}

impl Holes {
    /// No holes at all.
    pub fn none() -> &'static Self {
        static NONE: Holes = Holes { ranges: Vec::new() };
        &NONE
    }

    /// Asks the file system, but only for a regular file with fewer blocks than its size needs: devices have
    /// no holes, and asking costs a call per range.
    pub(super) fn of(file: &File, meta: &Metadata) -> Self {
        let mut ranges = Vec::new();
        if !meta.is_file() || meta.blocks().saturating_mul(512) >= meta.len() {
            return Self { ranges };
        }
        let mut at = 0;
        while at < meta.len() && ranges.len() < MOST_RANGES {
            let Ok(hole) = seek(file, SeekFrom::Hole(at)) else { break };
            if hole >= meta.len() {
                break;
            }
            // ENXIO: no data up to the end.
            let data = seek(file, SeekFrom::Data(hole)).unwrap_or(meta.len());
            if data <= hole {
                break;
            }
            ranges.push((hole, data));
            at = data;
        }
        Self { ranges }
    }

    /// Adds those of a file that begins at `base`, behind all that are here.
    pub(super) fn append(&mut self, file: &Self, base: u64) {
        let moved = file.ranges.iter().filter_map(|(a, b)| Some((a.checked_add(base)?, b.checked_add(base)?)));
        self.ranges.extend(moved);
    }

    /// Bytes in holes.
    pub fn total(&self) -> u64 {
        self.ranges.iter().map(|(a, b)| b - a).sum()
    }

    /// Whether the range lies wholly in a hole.
    pub fn covers(&self, at: u64, len: u64) -> bool {
        let next = self.ranges.partition_point(|r| r.0 <= at);
        let before = next.checked_sub(1).and_then(|i| self.ranges.get(i));
        before.is_some_and(|r| at.checked_add(len).is_some_and(|end| end <= r.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn holes_of_a_real_file() {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(&[1; 4096]).unwrap();
        f.seek(std::io::SeekFrom::Start(1 << 20)).unwrap();
        f.write_all(&[1; 4096]).unwrap();
        f.set_len(2 << 20).unwrap();
        let holes = Holes::of(&f, &f.metadata().unwrap());
        if holes == Holes::default() {
            return; // a file system without holes
        }
        assert!(holes.covers(8192, 4096) && holes.covers((1 << 20) + 65536, 4096));
        let mut two = holes.clone();
        two.append(&holes, 4 << 20);
        assert!(two.covers(8192, 4096) && two.covers((4 << 20) + 8192, 4096) && two.total() == 2 * holes.total());
        assert!(!two.covers(4 << 20, 4096) && !two.covers((2 << 20) - 4096, 8192));
        assert!(!holes.covers(0, 4096) && !holes.covers((1 << 20) - 4096, 8192) && !holes.covers(1 << 20, 1));
    }
}
