//! Where machine memory lies in the file: PT_LOADs, sorted, without overlaps, clipped to what the file really holds.

use super::container::Place;
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
    /// How much of that the file really has.
    pub present: u64,
    /// `p_memsz`; what it has beyond `p_filesz` reads as zeros, as the ELF rules say.
    pub mem_size: u64,
}

impl Load {
    /// The same in a file of `len` bytes.
    pub fn in_file(self, len: u64) -> Self {
        Self { present: len.saturating_sub(self.offset.0).min(self.file_size), ..self }
    }
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    start: u64,
    end: u64,
    place: Place,
}

impl Extent {
    /// What its bytes of the file are at, from their address on; nothing for what is in no file.
    fn shift(&self) -> Option<u64> {
        match self.place {
            Place::File(offset) => Some(offset.0.wrapping_sub(self.start)),
            _ => None,
        }
    }

    /// The part of it from `start` to `end`, if that is anything.
    fn piece(&self, start: u64, end: u64) -> Option<Self> {
        let place = match self.place {
            Place::File(offset) => Place::File(FileOffset(offset.0.wrapping_add(start.wrapping_sub(self.start)))),
            other => other,
        };
        (start < end).then_some(Self { start, end, place })
    }
}

/// All PT_LOADs, made searchable.
#[derive(Debug, Default)]
pub struct Segments {
    extents: Vec<Extent>,
    /// Bytes that headers promise beyond the end of the file.
    pub cut_off: u64,
    /// Bytes that more than one header claims and the file holds; the header with the lower address has them.
    pub overlapping: u64,
    /// Bytes that stand beyond `p_filesz`: zeros by the ELF rules.
    pub beyond_file_size: u64,
}

impl Segments {
    /// Sorts and clips. Where headers overlap, bytes that are in the file come before zeros, and zeros before what is cut
    /// off.
    pub fn new(mut loads: Vec<Load>) -> Self {
        loads.sort_by_key(|l| (l.start, l.offset));
        let mut all = Self::default();
        let part = |load: &Load, from: u64, to: u64, place: Place| {
            let start = load.start.0.checked_add(from)?;
            Some(Extent { start, end: load.start.0.checked_add(to)?, place }).filter(|e| e.start < e.end)
        };
        let data = loads.iter().filter_map(|l| part(l, 0, l.present, Place::File(l.offset)));
        let zeros = loads.iter().filter_map(|l| part(l, l.file_size, l.mem_size, Place::Zeros));
        let cut_off = loads.iter().filter_map(|l| part(l, l.present, l.file_size, Place::Absent(Absence::CutOff)));
        all.overlapping = all.fill(data.collect());
        all.fill(zeros.collect());
        all.fill(cut_off.collect());
        for e in &all.extents {
            match e.place {
                Place::Absent(_) => all.cut_off += e.end - e.start,
                Place::Zeros => all.beyond_file_size += e.end - e.start,
                Place::File(_) | Place::Packed => {}
            }
        }
        all
    }

    /// Adds what of `parts` is not covered yet; says how many bytes were, by others. The same bytes of the file under two
    /// virtual addresses, as this program's own files have the kernel's image, are no others.
    fn fill(&mut self, mut parts: Vec<Extent>) -> u64 {
        parts.sort_by_key(|e| e.start);
        let (mut added, mut covered, mut upto) = (Vec::new(), 0_u64, 0_u64);
        // Whose `upto` is.
        let mut last = None;
        for part in parts {
            let mut at = part.start.max(upto).min(part.end);
            if last != Some(part.shift()) {
                covered = covered.saturating_add(at - part.start);
            }
            if part.end > upto {
                last = Some(part.shift());
            }
            let next = self.extents.partition_point(|e| e.end <= at);
            for there in self.extents.get(next..).unwrap_or_default().iter().take_while(|e| e.start < part.end) {
                added.extend(part.piece(at, there.start));
                let end = there.end.min(part.end);
                covered = covered.saturating_add(end - at.max(there.start));
                at = end;
            }
            added.extend(part.piece(at, part.end));
            upto = upto.max(part.end);
        }
        self.extents.extend(added);
        self.extents.sort_by_key(|e| e.start);
        covered
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

    fn new(loads: Vec<Load>, len: u64) -> Segments {
        Segments::new(loads.into_iter().map(|l| l.in_file(len)).collect())
    }

    fn load(start: u64, offset: u64, file_size: u64, mem_size: u64) -> Load {
        Load { start: MachineAddr(start), offset: FileOffset(offset), file_size, present: 0, mem_size }
    }

    #[test]
    fn unsorted_overlapping_and_cut_off() {
        let s = new(vec![load(0x3000, 0x500, 0x1000, 0x3000), load(0x1000, 0x100, 0x2800, 0x2800)], 0x1280);
        assert_eq!(s.find(MachineAddr(0)), (Place::Absent(Absence::NotInDump), 0x1000));
        assert_eq!(s.find(MachineAddr(0x1010)), (Place::File(FileOffset(0x110)), 0x1170));
        assert_eq!(s.find(MachineAddr(0x2180)), (Place::Absent(Absence::CutOff), 0xe80));
        assert_eq!(s.find(MachineAddr(0x3800)), (Place::File(FileOffset(0xd00)), 0x580));
        assert_eq!(s.find(MachineAddr(0x3d80)), (Place::Absent(Absence::CutOff), 0x280));
        assert_eq!(s.find(MachineAddr(0x4000)), (Place::Zeros, 0x2000));
        assert_eq!(s.find(MachineAddr(0x6000)).0, Place::Absent(Absence::NotInDump));
        assert_eq!((s.overlapping, s.cut_off, s.beyond_file_size), (0, 0x1100, 0x2000));
        assert_eq!(s.ranges().collect::<Vec<_>>(), [(MachineAddr(0x1000), MachineAddr(0x6000))]);
    }

    #[test]
    fn what_the_file_holds_comes_before_zeros_and_what_is_cut_off() {
        let s = new(vec![load(0, 0x100, 0x1000, 0x4000), load(0x1000, 0x1100, 0x1000, 0x1000)], 0x2100);
        assert_eq!(s.find(MachineAddr(0x1000)), (Place::File(FileOffset(0x1100)), 0x1000));
        assert_eq!(s.find(MachineAddr(0x2000)), (Place::Zeros, 0x2000));
        let s = new(vec![load(0, 0x5000, 0x3000, 0x3000), load(0x1000, 0, 0x1000, 0x1000)], 0x2000);
        assert_eq!(s.find(MachineAddr(0x1800)), (Place::File(FileOffset(0x800)), 0x800));
        assert_eq!(s.find(MachineAddr(0x2800)), (Place::Absent(Absence::CutOff), 0x800));
        assert_eq!(s.cut_off, 0x2000);
    }

    #[test]
    fn the_same_bytes_twice_are_no_overlap() {
        let s = new(vec![load(0, 0x1000, 0x8000, 0x9000), load(0x2000, 0x3000, 0x2000, 0x2000)], 0x9000);
        assert_eq!((s.overlapping, s.find(MachineAddr(0x2010))), (0, (Place::File(FileOffset(0x3010)), 0x5ff0)));
        let s = new(vec![load(0, 0x1000, 0x8000, 0x9000), load(0x2000, 0x4000, 0x2000, 0x2000)], 0x9000);
        assert_eq!(s.overlapping, 0x2000);
    }

    #[test]
    fn numbers_at_the_edge_do_not_wrap() {
        new(vec![load(0, 0, 1 << 63, 1 << 63); 3], u64::MAX);
        let s = new(vec![load(u64::MAX - 10, 0, 100, 100), load(0, u64::MAX, 100, 100)], 50);
        assert_eq!(s.find(MachineAddr(u64::MAX)).1, 0);
        assert_eq!(s.find(MachineAddr(5)), (Place::Absent(Absence::CutOff), 95));
    }
}
