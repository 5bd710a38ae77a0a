//! What a cut of the synthetic dump has to show.

use super::mem::{Frame, Mem, Owner, PTE_FRAME, Page};
use super::pages::PageKind;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

/// struct cpu_user_regs up to ss, in its own order (Xen 4.x, x86_64).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rip: u64,
    pub rflags: u64,
    pub rsp: u64,
    /// FLAT_RING3_CS64 and FLAT_RING3_SS64 for a PV kernel.
    pub cs: u16,
    pub ss: u16,
}

impl Regs {
    /// The 168 bytes from r15 to ss as Xen stores them.
    pub fn bytes(&self) -> Vec<u8> {
        let words = [
            self.r15, self.r14, self.r13, self.r12, self.rbp, self.rbx, self.r11, self.r10, self.r9, self.r8, self.rax,
            self.rcx, self.rdx, self.rsi, self.rdi,
        ];
        let mut out: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        // error_code 0, entry_vector 0x100 (TRAP_syscall), as on every vCPU that stood in a hypercall.
        for w in [0x100 << 32, self.rip, u64::from(self.cs), self.rflags, self.rsp, u64::from(self.ss)] {
            out.extend_from_slice(&w.to_le_bytes());
        }
        out
    }
}

#[derive(Clone, Debug)]
pub struct VcpuTruth {
    pub domain: usize,
    pub vcpu: usize,
    pub regs: Regs,
    /// The physical CPU it is on; None: saved in struct vcpu.
    pub on_cpu: Option<usize>,
    /// What struct vcpu says (stale while on a CPU).
    pub saved: Regs,
}

/// What an entry of a live dom0 page table becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    Exact(u64),
    /// Present, the same flags, a PFN above dom0's highest whose page is this Xen-heap frame.
    XenHeap {
        mfn: u64,
        raw: u64,
    },
    /// The present bit is clear.
    NotPresent {
        raw: u64,
    },
    /// Another domain's frame with no FOREIGN P2M entry: not present, or a number that no PFN of the output has.
    Foreign {
        raw: u64,
    },
}

impl Expect {
    /// Is `value` right, where `content` gives the output's page of a PFN?
    pub fn holds(&self, value: u64, max_pfn: u64, content: &dyn Fn(u64) -> Option<Vec<u8>>, machine: &Mem) -> bool {
        let pfn = (value & PTE_FRAME) >> 12;
        match *self {
            Expect::Exact(want) => value == want,
            Expect::NotPresent { .. } => value & 1 == 0,
            Expect::Foreign { .. } => value & 1 == 0 || content(pfn).is_none(),
            Expect::XenHeap { mfn, raw } => {
                value & !PTE_FRAME == raw & !PTE_FRAME
                    && pfn >= max_pfn
                    && content(pfn).is_some_and(|c| c == machine.page(mfn)[..])
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct TableTruth {
    pub level: u64,
    pub pinned: bool,
    pub entries: Vec<Expect>,
}

#[derive(Clone, Default)]
pub struct Truth {
    /// Lines that the kernel's log still has, with their number.
    pub log: Vec<(usize, String)>,
    /// Address of the kernel's image.
    pub kernel_base: u64,
    /// MFNs of Xen's console ring.
    pub conring: Vec<u64>,
    /// Dom0's RAM: PFN -> MFN.
    pub dom0: BTreeMap<u64, u64>,
    pub zero_pfns: BTreeSet<u64>,
    pub foreign: BTreeMap<u64, u64>,
    pub identity: BTreeSet<u64>,
    pub ballooned: BTreeSet<u64>,
    pub max_pfn: u64,
    /// Live page tables by PFN.
    pub tables: BTreeMap<u64, TableTruth>,
    /// Interesting entries by name: (table PFN, index).
    pub named: BTreeMap<String, (u64, usize)>,
    /// Pages that look like tables and are none: stale type, no count (must come out unchanged).
    pub stale_tables: Vec<u64>,
    /// Tables of an mm that is not pinned (Xen type writable), lowest level first.
    pub unpinned_tables: Vec<u64>,
    /// What these become where struct pages and the symbol pgd_list lead to them.
    pub unpinned: BTreeMap<u64, TableTruth>,
    /// PFNs of all processes' L4 tables in the order of pgd_list.
    pub pgd_list: Vec<u64>,
    pub pgd_list_va: u64,
    /// Pages with struct pages that the dump does not have.
    pub absent: BTreeSet<u64>,
    /// What each PFN is used for, if there is a mem_map.
    pub pages: BTreeMap<u64, PageKind>,
    /// Xen-heap frames that dom0 owns: shared info first, then grant frames.
    pub xen_heap: Vec<u64>,
    pub shared_info_mfn: u64,
    pub start_info_pfn: u64,
    pub frame_list_list: u64,
    pub p2m_cr3: u64,
    pub p2m_vaddr: u64,
    pub p2m_pages: BTreeSet<u64>,
    /// MFNs of the pages of ~0 that stand in many places of the linear list.
    pub shared_leaves: Vec<u64>,
    pub vcpus: Vec<VcpuTruth>,
    /// The physical CPU that no NMI stopped.
    pub crashed_cpu: Option<usize>,
    /// Each domain's id and the directmap address of its struct domain.
    pub domains: Vec<(u16, u64)>,
    pub dom_xen: u64,
    pub dom_io: u64,
    pub domu_frames: BTreeMap<u64, usize>,
    pub free_frames: BTreeSet<u64>,
    pub xen_phys_start: u64,
    pub frame_table: u64,
    pub max_page: u64,
    pub pgd_l4_mfn: u64,
    pub crash_area: (u64, u64),
    /// VMCOREINFO_XEN's text and dom0's VMCOREINFO text.
    pub vmcoreinfo_xen: String,
    pub vmcoreinfo: String,
    /// Where dom0's note is: PFN, offset.
    pub note_at: Option<(u64, u64)>,
    pub page_offset: u64,
    pub kernel_pfn: u64,
    pub kernel_pages: u64,
    pub swapper_va: u64,
    pub swapper_pfn: u64,
    pub xen_start_info_va: u64,
    /// Where the 8 bytes stand: PFN, offset.
    pub xen_start_info_at: (u64, u64),
    pub start_info_va: u64,
    pub pv_init_ops: Option<(u64, u64)>,
    pub xen_patch_va: Option<u64>,
    pub release: String,
    pub system_map: String,
    /// PFNs that a defect touched.
    pub defect_pfns: Vec<u64>,
}

impl Truth {
    /// PFNs with memory that a dump level drops, as far as struct pages tell; zero pages are not counted.
    pub fn excluded(&self, level: u8) -> BTreeSet<u64> {
        let dropped = |(pfn, kind): (&u64, &PageKind)| {
            (kind.dropped_by() & level != 0 && self.dom0.contains_key(pfn)).then_some(*pfn)
        };
        self.pages.iter().filter_map(dropped).collect()
    }
}

/// A built machine.
pub struct Dump {
    pub bytes: Vec<u8>,
    pub truth: Truth,
    pub mem: Mem,
    pub frames: BTreeMap<u64, Frame>,
    /// Machine ranges (in bytes) that the PT_LOADs hold.
    pub saved: Vec<(u64, u64)>,
}

impl Dump {
    pub fn page(&self, mfn: u64) -> &Page {
        self.mem.page(mfn)
    }

    /// Dom0's page as it is in the machine.
    pub fn dom0_page(&self, pfn: u64) -> Option<&Page> {
        self.truth.dom0.get(&pfn).map(|&mfn| self.mem.page(mfn))
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::File::create(path)?.write_all(&self.bytes)
    }

    /// The same file with holes where the dump has zero pages.
    pub fn write_sparse(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(path)?;
        file.set_len(self.bytes.len() as u64)?;
        for (i, page) in self.bytes.chunks(4096).enumerate() {
            if page.iter().any(|&b| b != 0) {
                file.write_all_at(page, i as u64 * 4096)?;
            }
        }
        Ok(())
    }
}

/// In a table that nothing proves to be one, only what leads to dom0's own memory is altered.
pub fn expect_unpinned(truth: &Truth, rev: &BTreeMap<u64, u64>, raw: u64) -> Expect {
    let own = rev.get(&((raw & PTE_FRAME) >> 12)).filter(|pfn| truth.dom0.contains_key(pfn));
    match own {
        Some(pfn) if raw & 1 == 1 => Expect::Exact(raw & !PTE_FRAME | pfn << 12),
        _ => Expect::Exact(raw),
    }
}

/// Works out what each entry of a table becomes, from the machine's own bookkeeping.
pub fn expect_entry(
    truth: &Truth,
    frames: &BTreeMap<u64, Frame>,
    rev: &BTreeMap<u64, u64>,
    level: u64,
    index: usize,
    raw: u64,
) -> Expect {
    // Slots 256-271 are Xen's in every PV guest's L4.
    if level == 4 && (256..272).contains(&index) {
        return Expect::Exact(0);
    }
    if raw & 1 == 0 {
        return Expect::Exact(raw);
    }
    let mfn = (raw & PTE_FRAME) >> 12;
    if let Some(pfn) = rev.get(&mfn) {
        return Expect::Exact(raw & !PTE_FRAME | pfn << 12);
    }
    let collides = truth.dom0.contains_key(&mfn);
    match frames.get(&mfn) {
        Some(f) if f.xen_heap && f.owner == Owner::Dom(0) => Expect::XenHeap { mfn, raw },
        Some(f) if !collides && matches!(f.owner, Owner::Dom(d) if d != 0) => Expect::Foreign { raw },
        _ if collides => Expect::NotPresent { raw },
        _ => Expect::Exact(raw),
    }
}
