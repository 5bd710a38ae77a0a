//! The notes that Xen leaves for a crash kernel (Xen: xen/include/xen/elfcore.h, xen/common/kexec.c).
//!
//! | name | type | descriptor |
//! |---|---|---|
//! | `CORE` | 1 | `NT_PRSTATUS`, 336 bytes, one per *physical* CPU; hypervisor registers at 112 |
//! | `Xen` | 0x1000002 | per physical CPU: cr0, cr2, cr3, cr4 |
//! | `Xen` | 0x1000001 | once: 10 words (9 before Xen 3.3), see [`CrashInfo`] |
//! | `VMCOREINFO_XEN` | 0 | text, see [`crate::vmcoreinfo`] |
//! | `QEMU` | 0 | per CPU, in dumps that QEMU made: see [`super::qemu`] |
//!
//! Where Xen's own are missing, `super::find` makes an equal [`XenNotes`] from memory.

use super::paging::AddressSpace;
use super::qemu::QemuCpu;
use crate::bytes::{text, u64_at, words};
use crate::error::{Error, Result};
use crate::source::notes::Note;
use crate::source::{MachineMemory, Vmcore};
use crate::units::{MachineAddr, Mfn, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;

const NT_PRSTATUS: u32 = 1;
/// Type of the crash note, named `Xen`.
pub const XEN_CRASH_INFO: u32 = 0x100_0001;
const XEN_CRASH_REGS: u32 = 0x100_0002;
/// `pr_reg` in `struct elf_prstatus` of x86_64, and rsp in `struct user_regs_struct` (19th of 27 words).
const PR_REG: usize = 112;
const PR_RSP: usize = PR_REG + 19 * 8;
const PR_RIP: usize = PR_REG + 16 * 8;
/// Bound of the physical CPUs that are listed (Xen's NR_CPUS is at most 4095).
const MOST_CPUS: usize = 4096;

/// `crash_xen_info_t`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashInfo {
    /// Major version.
    pub major: u64,
    /// Minor version.
    pub minor: u64,
    /// Machine addresses of five strings: extra version, changeset, compiler, compile date, compile time.
    pub(super) strings: [u64; 5],
    /// Taint bits; `None` if neither a note nor a symbol tells.
    pub tainted: Option<u64>,
    /// Machine address of Xen's image; not in the note before Xen 3.3.
    pub phys_start: Option<MachineAddr>,
    /// Head of the hardware domain's P2M tree, as its shared info had it: 0 if not set up (PVH), `~0` if invalid.
    pub frame_list_list: Mfn,
}

/// What a physical CPU left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuNote {
    /// Hypervisor stack pointer.
    pub rsp: u64,
    /// Hypervisor instruction pointer.
    pub rip: u64,
    /// CR3: a root that maps all of Xen; low 12 bits may hold a PCID.
    pub cr3: Option<u64>,
    /// The machine's CPU as QEMU saw it.
    pub qemu: Option<QemuCpu>,
}

/// Where [`XenNotes`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// From Xen's notes in the dump.
    Notes,
    /// From the dump's memory and the xen-syms that the user gave.
    XenSyms,
    /// From the dump's memory alone.
    Memory,
    /// From nowhere: the dump is of a domain alone, as `xl dump-core` writes it.
    DumpCore,
}

/// All of Xen's notes.
#[derive(Clone, Debug)]
pub struct XenNotes {
    /// The crash note.
    pub crash: CrashInfo,
    /// In order of CPU number.
    pub cpus: Vec<CpuNote>,
    /// VMCOREINFO_XEN. If it was made up, `NUMBER(name)` may state the value of a variable whose address is not known.
    pub info: Vmcoreinfo,
    /// A VMCOREINFO of the domain's kernel, which old kexec-tools and some sites' scripts add.
    pub linux: Option<Vmcoreinfo>,
    /// Name, type and size of each note, for `info`.
    pub list: Vec<(String, u32, usize)>,
    /// FNV-1a over name, type and descriptor of every note: the same for every container of the same dump.
    pub identity: u64,
    /// Where they come from.
    pub origin: Origin,
}

/// The notes that there are; Xen's may be missing.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The crash note.
    pub crash: Option<CrashInfo>,
    /// In order of CPU number.
    pub cpus: Vec<CpuNote>,
    /// VMCOREINFO_XEN.
    pub info: Option<Vmcoreinfo>,
    /// As in [`XenNotes`].
    pub linux: Option<Vmcoreinfo>,
    /// As in [`XenNotes`].
    pub list: Vec<(String, u32, usize)>,
    /// As in [`XenNotes`].
    pub identity: u64,
}

impl Parts {
    /// Collects the notes of a core.
    pub fn collect(core: &Vmcore) -> Self {
        let mut parts = Self::default();
        let (mut cr3s, mut qemu) = (Vec::new(), Vec::new());
        let mut identity = Fnv::default();
        for note in core.notes() {
            identity.note(&note);
            if parts.list.len() < 4 * MOST_CPUS {
                parts.list.push((text(note.name), note.kind, note.desc.len()));
            }
            match (note.name, note.kind) {
                (b"CORE", NT_PRSTATUS) if parts.cpus.len() < MOST_CPUS => {
                    let word = |at| u64_at(note.desc, at).unwrap_or_default();
                    parts.cpus.push(CpuNote { rsp: word(PR_RSP), rip: word(PR_RIP), ..CpuNote::default() });
                }
                (b"Xen", XEN_CRASH_REGS) => cr3s.push(u64_at(note.desc, 16)),
                (b"Xen", XEN_CRASH_INFO) => parts.crash = parts.crash.or(CrashInfo::parse(note.desc)),
                (b"VMCOREINFO_XEN", _) => parts.info = Some(Vmcoreinfo::parse(note.desc)),
                (b"VMCOREINFO", _) => parts.linux = Some(Vmcoreinfo::parse(note.desc)),
                (b"QEMU", 0) if qemu.len() < MOST_CPUS => qemu.push(QemuCpu::parse(note.desc)),
                _ => {}
            }
        }
        // The n-th PRSTATUS and the n-th CRASH_REGS are of one CPU: kexec-tools lists them in CPU order. So does QEMU.
        for (cpu, cr3) in parts.cpus.iter_mut().zip(cr3s) {
            cpu.cr3 = cr3;
        }
        for (cpu, state) in parts.cpus.iter_mut().zip(qemu) {
            cpu.qemu = state;
            cpu.cr3 = cpu.cr3.or(state.map(|s| s.control.cr3));
        }
        parts.identity = identity.0;
        parts
    }

    /// The notes of the file, in words.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.list.iter().take(6).map(|(n, k, _)| format!("{n}/{k:#x}")).collect();
        if names.is_empty() { "no notes at all".into() } else { format!("only {}", names.join(", ")) }
    }

    /// Joins the parts, if none is missing.
    pub(super) fn whole(self) -> Result<XenNotes, Box<Self>> {
        let Self { crash: Some(crash), info: Some(info), .. } = self else { return Err(Box::new(self)) };
        let Self { cpus, linux, list, identity, .. } = self;
        Ok(XenNotes { crash, cpus, info, linux, list, identity, origin: Origin::Notes })
    }
}

impl XenNotes {
    /// Collects the notes of a core.
    ///
    /// # Errors
    /// [`Error::NotXen`] without any of Xen's notes, [`Error::Missing`] without the crash note or VMCOREINFO_XEN.
    pub fn collect(core: &Vmcore) -> Result<Self> {
        Parts::collect(core).whole().map_err(|parts| match (&parts.crash, &parts.info) {
            (None, None) => Error::NotXen(format!("it has no note of Xen's ({})", parts.names())),
            (None, _) => Error::missing("Xen's crash note", "no note Xen/0x1000001"),
            _ => Error::missing("VMCOREINFO_XEN", "no such note"),
        })
    }

    /// The value of one of Xen's variables: what was found in memory, or else what stands at its symbol.
    ///
    /// # Errors
    /// [`Error::Missing`] if neither is known, or what reading it gives.
    pub fn variable(&self, space: &AddressSpace<'_>, name: &str) -> Result<u64> {
        if let Some(value) = self.info.number(name) {
            return Ok(value as u64);
        }
        let symbol = self.info.symbol(name);
        let missing = || Error::missing("a key of VMCOREINFO_XEN", format!("SYMBOL({name}) is not there"));
        space.read_u64(name, symbol.ok_or_else(missing)?)
    }

    /// The address of one of Xen's variables.
    pub fn symbol(&self, name: &str) -> Option<VirtAddr> {
        self.info.symbol(name)
    }
}

impl CrashInfo {
    /// Words after the first two grew once: `xen_phys_start` came in Xen 3.3 (commit 96967abdc7), before the last.
    fn parse(desc: &[u8]) -> Option<Self> {
        let words: Vec<u64> = words(desc).take(16).collect();
        let (&frame_list_list, before) = words.split_last()?;
        if words.len() < 9 {
            return None;
        }
        let word = |i: usize| words.get(i).copied().unwrap_or_default();
        Some(Self {
            major: word(0),
            minor: word(1),
            strings: [word(2), word(3), word(4), word(5), word(6)],
            tainted: Some(word(7)),
            phys_start: (words.len() > 9).then(|| before.last().copied().map(MachineAddr)).flatten(),
            frame_list_list: Mfn(frame_list_list),
        })
    }

    /// The note's ten words, with another `frame_list_list`.
    pub(crate) fn words(&self, frame_list_list: Mfn) -> [u64; 10] {
        let [a, b, c, d, e] = self.strings;
        let (tainted, start) = (self.tainted.unwrap_or(0), self.phys_start.map_or(0, |a| a.0));
        [self.major, self.minor, a, b, c, d, e, tainted, start, frame_list_list.0]
    }

    /// The five strings, where they can be read: extra version, changeset, compiler, date, time.
    pub fn strings(&self, mem: &MachineMemory<'_>) -> [String; 5] {
        self.strings.map(|addr| {
            let mut bytes = [0; 128];
            // A string may end right before a hole: take what the page has.
            let n = (crate::units::PAGE_SIZE - MachineAddr(addr).in_page()).min(bytes.len());
            let Some(part) = bytes.get_mut(..n) else { return String::new() };
            if mem.read(MachineAddr(addr), part).is_err() {
                return String::new();
            }
            text(part).chars().filter(|c| !c.is_control()).collect()
        })
    }
}

/// FNV-1a, 64 bits: names a dump, guards nothing.
pub(super) struct Fnv(pub(super) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn note(&mut self, note: &Note<'_>) {
        let bytes =
            note.name.iter().chain(&[0]).copied().chain(note.kind.to_le_bytes()).chain(note.desc.iter().copied());
        self.bytes(bytes);
    }

    pub(super) fn bytes(&mut self, bytes: impl Iterator<Item = u8>) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_words_have_no_phys_start() {
        let desc: Vec<u8> = (1_u64..=10).flat_map(u64::to_le_bytes).collect();
        let new = CrashInfo::parse(&desc).unwrap();
        assert_eq!((new.phys_start, new.frame_list_list), (Some(MachineAddr(9)), Mfn(10)));
        let old = CrashInfo::parse(&desc[..72]).unwrap();
        assert_eq!((old.phys_start, old.frame_list_list), (None, Mfn(9)));
        assert_eq!(CrashInfo::parse(&desc[..64]), None);
    }
}
