//! The kernel's log: what `dmesg` would have said.
//!
//! There have been three rings, told apart by what the kernel's VMCOREINFO exports:
//!
//! | Linux | ring | exported |
//! |---|---|---|
//! | before 3.5 | bytes: text with `<level>` before each line ([`bytes`]) | `log_end` |
//! | 3.5 to 5.9 | records of varying length (commit 7ff9554bb578) ([`records`]) | `log_first_idx`, `log_next_idx` |
//! | 5.10 and later | descriptors and text apart, without locks (commit 896fbe20b4e2) ([`lockless`]) | `prb` |
//!
//! Where a key is missing, the kernel's kallsyms tell the variable, and the structures are as all kernels of the ring have
//! them on x86_64; what is read is checked all the same.

pub mod bytes;
pub mod lockless;
pub mod records;

use super::kallsyms;
use super::kernel::Kernel;
use crate::error::{Error, Result};
use crate::units::VirtAddr;
use crate::vmcoreinfo::Vmcoreinfo;

/// No kernel's log is larger (Linux: LOG_BUF_LEN_MAX, 2 GiB).
pub const MOST_LOG: u64 = 1 << 31;
/// The variables that lead to a ring.
const VARIABLES: [&str; 7] =
    ["prb", "log_buf", "log_buf_len", "log_first_idx", "log_next_idx", "log_end", "logged_chars"];

/// Memory of a kernel.
pub trait Memory {
    /// Fills `buf` from `va` on; `false` if any byte of it cannot be had.
    fn fill(&self, va: VirtAddr, buf: &mut [u8]) -> bool;

    /// `N` bytes.
    fn array<const N: usize>(&self, va: VirtAddr) -> Option<[u8; N]>
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.fill(va, &mut bytes).then_some(bytes)
    }

    /// A 32-bit word.
    fn word(&self, va: VirtAddr) -> Option<u32>
    where
        Self: Sized,
    {
        self.array(va).map(u32::from_le_bytes)
    }

    /// A 64-bit word.
    fn long(&self, va: VirtAddr) -> Option<u64>
    where
        Self: Sized,
    {
        self.array(va).map(u64::from_le_bytes)
    }
}

impl Memory for Kernel<'_> {
    fn fill(&self, va: VirtAddr, buf: &mut [u8]) -> bool {
        self.read("the kernel's log", va, buf).is_ok()
    }
}

/// A line or more of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since boot; `None` where the text has its own time, if any.
    pub time: Option<u64>,
    /// Facility times 8 plus level, as `<6>` in `dmesg -r`; `None` where the text goes on with a line.
    pub priority: Option<u16>,
    /// The text, with newlines between its lines.
    pub text: Vec<u8>,
    /// Whether it goes on with the line before.
    pub joins: bool,
    /// Whether its last line is open: the next record may go on with it.
    pub open: bool,
}

/// What could not be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records whose memory the dump lacks.
    pub absent: u64,
    /// Bytes that the dump lacks, where nothing tells how many records they were; whole records that cannot be found for
    /// it count as well.
    pub absent_bytes: u64,
    /// Records that contradict the ring.
    pub damaged: u64,
    /// Records that were being written when the machine died.
    pub unfinished: u64,
    /// Records whose text the kernel itself had no room for.
    pub dropped: u64,
    /// Whether the rest behind a damaged record was given up, since nothing tells where the next one is.
    pub broken: bool,
}

impl Losses {
    /// The same for people; nothing if nothing was lost.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut say = |n: u64, what: &str| {
            if n > 0 {
                all.push(format!("kernel log: {what}: {n}"));
            }
        };
        say(self.absent, "records left out, as the dump lacks their memory");
        say(self.absent_bytes, "bytes left out, as the dump lacks their memory");
        say(self.damaged, "damaged records left out");
        say(self.unfinished, "records left out that were being written when the machine died");
        say(self.dropped, "records without text, as the kernel had no room for it");
        if self.broken {
            all.push("kernel log: the rest behind a damaged record cannot be found".into());
        }
        all
    }
}

/// Takes records, in order. An error ends the reading.
pub type Sink<'s> = dyn FnMut(Record) -> Result<()> + 's;

/// A kernel's log, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// Since 5.10.
    Lockless(lockless::Ring),
    /// 3.5 to 5.9.
    Records(records::Ring),
    /// Before 3.5.
    Bytes(bytes::Ring),
}

impl Log {
    /// Finds the ring by what VMCOREINFO exports, or where that is too little, by kallsyms.
    ///
    /// # Errors
    /// [`Error::Missing`] if nothing tells where it is, or its head cannot be read; [`Error::Damaged`] if the head makes no
    /// sense.
    pub fn find(kernel: &Kernel<'_>, info: &Vmcoreinfo) -> Result<Self> {
        if let Some(log) = Self::open(kernel, info, &|name| info.symbol(name)) {
            return log;
        }
        let own = kallsyms::lookup(kernel, info, &VARIABLES);
        let named = |name: &str| info.symbol(name).or_else(|| own.as_ref()?.found.get(name).copied());
        Self::open(kernel, info, &named).unwrap_or_else(|| {
            let why = "neither VMCOREINFO nor kallsyms of its kernel name prb, log_first_idx or log_end";
            Err(Error::missing("the kernel's log", why))
        })
    }

    /// The same in any memory, by the addresses of its variables; `None` if those of no ring are known.
    pub fn open<M: Memory>(
        mem: &M,
        info: &Vmcoreinfo,
        symbol: &dyn Fn(&str) -> Option<VirtAddr>,
    ) -> Option<Result<Self>> {
        if let Some(prb) = symbol("prb") {
            return Some(lockless::Ring::open(mem, prb, info).map(Self::Lockless));
        }
        let (buf, len) = (symbol("log_buf")?, symbol("log_buf_len")?);
        if let (Some(first), Some(next)) = (symbol("log_first_idx"), symbol("log_next_idx")) {
            return Some(records::Ring::open(mem, [buf, len, first, next], info).map(Self::Records));
        }
        Some(bytes::Ring::open(mem, [buf, len, symbol("log_end")?], symbol("logged_chars")).map(Self::Bytes))
    }

    /// Reads it, oldest first.
    ///
    /// # Errors
    /// Those of `sink` only: what is lost is counted.
    pub fn read<M: Memory>(&self, mem: &M, sink: &mut Sink<'_>) -> Result<Losses> {
        match self {
            Self::Lockless(ring) => ring.read(mem, sink),
            Self::Records(ring) => ring.read(mem, sink),
            Self::Bytes(ring) => ring.read(mem, sink),
        }
    }
}

/// The variable cannot be read.
fn unreadable(name: &'static str, va: VirtAddr) -> Error {
    Error::missing(name, format!("the kernel's log needs it, and what is at {va} cannot be read"))
}

/// The head of the ring lies.
fn lies(why: String) -> Error {
    Error::damaged("kernel log", why)
}

#[cfg(test)]
mod testing {
    //! Memory for tests.

    use super::*;
    use std::collections::BTreeMap;

    /// Pages of 64 bytes, so that little text spans many of them.
    #[derive(Clone, Debug, Default)]
    pub(super) struct Ram(BTreeMap<u64, [u8; 64]>);

    impl Ram {
        pub(super) fn put(&mut self, va: u64, bytes: &[u8]) {
            for (i, byte) in bytes.iter().enumerate() {
                let at = va + i as u64;
                self.0.entry(at / 64).or_insert([0; 64])[(at % 64) as usize] = *byte;
            }
        }

        /// Takes away the page of an address.
        pub(super) fn drop_page(&mut self, va: u64) {
            self.0.remove(&(va / 64)).unwrap();
        }

        /// Each copy with one byte of `range` turned over.
        pub(super) fn flips(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = Self> + '_ {
            range.filter(|at| self.0.contains_key(&(at / 64))).flat_map(move |at| {
                [0x01, 0x80, 0xff].map(|bits| {
                    let mut copy = self.clone();
                    copy.0.get_mut(&(at / 64)).unwrap()[(at % 64) as usize] ^= bits;
                    copy
                })
            })
        }
    }

    impl Memory for Ram {
        fn fill(&self, va: VirtAddr, buf: &mut [u8]) -> bool {
            buf.iter_mut().enumerate().all(|(i, byte)| {
                let at = va.0.wrapping_add(i as u64);
                let page = self.0.get(&(at / 64));
                page.inspect(|p| *byte = p[(at % 64) as usize]).is_some()
            })
        }
    }

    /// All records, and what was lost.
    pub(super) fn all(log: &Log, ram: &Ram) -> (Vec<Record>, Losses) {
        let mut records = Vec::new();
        let losses = log.read(ram, &mut |r| {
            records.push(r);
            Ok(())
        });
        (records, losses.unwrap())
    }

    /// The texts only.
    pub(super) fn texts(records: &[Record]) -> Vec<String> {
        records.iter().map(|r| String::from_utf8_lossy(&r.text).into_owned()).collect()
    }
}
