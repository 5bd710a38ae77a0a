//! Where machine memory lies in the file: PT_LOADs, sorted, without overlaps, clipped to what the file really holds.

use crate::error::Absence;
use crate::units::{FileOffset, MachineAddr};

/// A PT_LOAD as the file states it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// `p_paddr`: the machine address.
    pub start: MachineAddr,
    /// `p_offset`.
    pub offset: FileOffset,
    /// `p_filesz`.
    pub file_size: u64,
    /// `p_memsz`; what it has beyond `p_filesz` reads as zeros, as the ELF rules say.
    pub mem_size: u64,
}

/// What stands at a machine address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file from here on.
    File(FileOffset),
    /// Zeros that the file does not store.
    Zeros,
    /// Nothing.
    Absent(Absence),
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    start: u64,
    end: u64,
    place: Place,
}

/// All PT_LOADs, made searchable.
#[derive(Debug, Default)]
pub struct Segments {
    extents: Vec<Extent>,
    /// Bytes that headers promise beyond the end of the file.
    pub cut_off: u64,
    /// Bytes that more than one header claims; the header with the lower address has them.
    pub overlapping: u64,
    /// Bytes that stand beyond `p_filesz`: zeros by the ELF rules.
    pub beyond_file_size: u64,
}

impl Segments {
    /// Sorts and clips. `file_len` is the size of the file in bytes.
    pub fn new(mut loads: Vec<Load>, file_len: u64) -> Self {
        let mut all = Self::default();
        loads.sort_by_key(|l| (l.start, l.offset));
        let mut covered = 0_u64;
        for load in loads {
            let start = load.start.0;
            let Some(end) = start.checked_add(load.mem_size.max(load.file_size)) else { continue };
            let from = start.max(covered);
            all.overlapping += from.min(end).saturating_sub(start);
            if from >= end {
                continue;
            }
            covered = end;
            // Three parts at most: in the file, promised but cut off, beyond p_filesz.
            let stored = file_len.saturating_sub(load.offset.0).min(load.file_size);
            let parts = [
                (start, start + stored, Place::File(load.offset)),
                (start + stored, start + load.file_size, Place::Absent(Absence::CutOff)),
                (start + load.file_size, end, Place::Zeros),
            ];
            for (a, b, place) in parts {
                let a = a.max(from);
                if a >= b {
                    continue;
                }
                let place = match place {
                    Place::File(offset) => Place::File(FileOffset(offset.0 + (a - start))),
                    other => other,
                };
                match place {
                    Place::Absent(_) => all.cut_off += b - a,
                    Place::Zeros => all.beyond_file_size += b - a,
                    Place::File(_) => {}
                }
                all.extents.push(Extent { start: a, end: b, place });
            }
        }
        all
    }

    /// What stands at `addr`, and for how many bytes.
    pub fn find(&self, addr: MachineAddr) -> (Place, u64) {
        let next = self.extents.partition_point(|e| e.start <= addr.0);
        if let Some(e) = next.checked_sub(1).and_then(|i| self.extents.get(i)).filter(|e| addr.0 < e.end) {
            let into = addr.0 - e.start;
            let place = match e.place {
                Place::File(offset) => Place::File(FileOffset(offset.0 + into)),
                other => other,
            };
            return (place, e.end - addr.0);
        }
        let gap = self.extents.get(next).map_or(u64::MAX - addr.0, |e| e.start - addr.0);
        (Place::Absent(Absence::NotInDump), gap)
    }

    /// Bytes of machine memory that headers describe, present or cut off.
    pub fn total(&self) -> u64 {
        self.extents.iter().map(|e| e.end - e.start).sum()
    }

    /// Start and end of each range in order of address, neighbours joined.
    pub fn ranges(&self) -> impl Iterator<Item = (MachineAddr, MachineAddr)> + '_ {
        let mut rest = self.extents.iter().peekable();
        std::iter::from_fn(move || {
            let first = rest.next()?;
            let mut end = first.end;
            while let Some(e) = rest.next_if(|e| e.start == end) {
                end = e.end;
            }
            Some((MachineAddr(first.start), MachineAddr(end)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(start: u64, offset: u64, file_size: u64, mem_size: u64) -> Load {
        Load { start: MachineAddr(start), offset: FileOffset(offset), file_size, mem_size }
    }

    #[test]
    fn unsorted_overlapping_and_cut_off() {
        let s = Segments::new(vec![load(0x3000, 0x500, 0x1000, 0x3000), load(0x1000, 0x100, 0x2800, 0x2800)], 0x1280);
        assert_eq!(s.find(MachineAddr(0)), (Place::Absent(Absence::NotInDump), 0x1000));
        assert_eq!(s.find(MachineAddr(0x1010)), (Place::File(FileOffset(0x110)), 0x1170));
        assert_eq!(s.find(MachineAddr(0x2180)), (Place::Absent(Absence::CutOff), 0x1680));
        assert_eq!(s.find(MachineAddr(0x3800)), (Place::File(FileOffset(0xd00)), 0x580));
        assert_eq!(s.find(MachineAddr(0x3d80)), (Place::Absent(Absence::CutOff), 0x280));
        assert_eq!(s.find(MachineAddr(0x4000)), (Place::Zeros, 0x2000));
        assert_eq!(s.find(MachineAddr(0x6000)).0, Place::Absent(Absence::NotInDump));
        assert_eq!((s.overlapping, s.cut_off, s.beyond_file_size), (0x800, 0x1900, 0x2000));
        assert_eq!(s.ranges().collect::<Vec<_>>(), [(MachineAddr(0x1000), MachineAddr(0x6000))]);
    }

    #[test]
    fn numbers_at_the_edge_do_not_wrap() {
        let s = Segments::new(vec![load(u64::MAX - 10, 0, 100, 100), load(0, u64::MAX, 100, 100)], 50);
        assert_eq!(s.find(MachineAddr(u64::MAX)).1, 0);
        assert_eq!(s.find(MachineAddr(5)), (Place::Absent(Absence::CutOff), 95));
    }
}
