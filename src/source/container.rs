//! What every format of a dump offers: which machine addresses it describes, and their bytes.

use super::segments::Segments;
use crate::error::Absence;
use crate::units::{FileOffset, MachineAddr, Mfn, PAGE_BYTES, Page};
use std::fmt::Debug;
use std::ops::Range;

/// What stands at a machine address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file from here on, as it is.
    File(FileOffset),
    /// In the file, page by page, and perhaps compressed: [`Container::unpack`] has it.
    Packed,
    /// Zeros that the file does not store.
    Zeros,
    /// Nothing.
    Absent(Absence),
}

/// Pages of a container, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// So many pages were appended to the buffer.
    Pages(usize),
    /// So many pages are zero, known without reading.
    Zeros(usize),
    /// So many pages stand in the file from here on, as they are.
    File(FileOffset, usize),
}

/// Ranges of machine addresses: start, and one more than the end.
pub type Ranges<'a> = Box<dyn Iterator<Item = (MachineAddr, MachineAddr)> + 'a>;

/// A format: the map of machine memory in a file.
pub trait Container: Send + Sync + Debug {
    /// What stands at `addr`, and for how many bytes it is alike; never beyond what can be told at a glance.
    fn find(&self, addr: MachineAddr) -> (Place, u64);

    /// Start and end of each range that the file speaks of, present or not, in order of address, neighbours joined.
    fn ranges(&self) -> Ranges<'_>;

    /// The same without what was left out on purpose, told without a look at each page.
    fn stored(&self) -> Ranges<'_> {
        self.ranges()
    }

    /// Unpacks pages from `mfn` on, at least one and at most `count`, which is not 0, to the end of `buf`. Only of
    /// places that [`Self::find`] calls [`Place::Packed`].
    ///
    /// # Errors
    /// Why the first of them cannot be had.
    fn unpack(&self, mfn: Mfn, count: usize, buf: &mut Vec<u8>) -> Result<Unpacked, Absence>;

    /// Fills `page` with one page, which is likely to be asked for again.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn page(&self, mfn: Mfn, page: &mut Page) -> Result<(), Absence>;

    /// Tells which bytes of the file are read for `count` pages from `mfn` on.
    fn stored_at(&self, mfn: Mfn, count: u64, each: &mut dyn FnMut(Range<u64>)) {
        let (mut at, end) = (mfn.0, mfn.0.saturating_add(count));
        while let Some(addr) = Mfn(at).addr().filter(|_| at < end) {
            let (place, len) = self.find(addr);
            let bytes = len.min((end - at).saturating_mul(PAGE_BYTES));
            if let Place::File(from) = place {
                each(from.0..from.0.saturating_add(bytes));
            }
            at += (bytes / PAGE_BYTES).max(1);
        }
    }

    /// Whether all of it is [`Place::Packed`], so that [`Self::page`] answers for any frame and nothing need be found first.
    fn is_paged(&self) -> bool {
        false
    }

    /// Bytes that headers promise beyond the end of the file.
    fn cut_off(&self) -> u64 {
        0
    }

    /// Whether there is no [`Place::Zeros`] in it.
    fn stores_all(&self) -> bool {
        true
    }

    /// Bytes that more than one header claims.
    fn overlapping(&self) -> u64 {
        0
    }
}

impl dyn Container + '_ {
    /// The frames that lie wholly in a range: first MFN and one more than the last, in order.
    pub fn frames(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        Self::whole(self.ranges())
    }

    /// The same of [`Container::stored`].
    pub fn stored_frames(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        Self::whole(self.stored())
    }

    fn whole(ranges: Ranges<'_>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let frames = ranges.map(|(start, end)| (start.0.div_ceil(PAGE_BYTES), end.0 / PAGE_BYTES));
        frames.filter(|(first, end)| first < end)
    }
}

/// ELF: nothing is packed.
impl Container for Segments {
    fn find(&self, addr: MachineAddr) -> (Place, u64) {
        Self::find(self, addr)
    }

    fn ranges(&self) -> Ranges<'_> {
        Box::new(Self::ranges(self))
    }

    fn unpack(&self, _: Mfn, _: usize, _: &mut Vec<u8>) -> Result<Unpacked, Absence> {
        Err(Absence::NotInDump)
    }

    fn page(&self, _: Mfn, _: &mut Page) -> Result<(), Absence> {
        Err(Absence::NotInDump)
    }

    fn cut_off(&self) -> u64 {
        self.cut_off
    }

    fn stores_all(&self) -> bool {
        self.beyond_file_size == 0
    }

    fn overlapping(&self) -> u64 {
        self.overlapping
    }
}
