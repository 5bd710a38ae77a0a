//! Writer of synthetic Xen system dumps: a whole small machine (hypervisor, PV dom0, PV domUs) laid out
//! frame by frame, then saved as the ELF vmcore that kdump makes under Xen. Shares nothing with the
//! reader: every layout here is taken from Xen's and Linux's sources and from real dumps.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, missing_debug_implementations)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod build;
pub mod dom0;
pub mod domains;
pub mod elf;
pub mod far;
pub mod generation;
pub mod hap;
pub mod kallsyms;
pub mod kdump;
pub mod kernel;
pub mod layout;
pub mod log;
pub mod mem;
pub mod memmap;
pub mod memread;
pub mod pages;
pub mod reader;
pub mod syms;
pub mod tables;
pub mod truth;
pub mod vmcoreinfo;
pub mod xen;

pub use elf::ElfOptions;
pub use far::Unmapped;
pub use layout::{Pdx, Xen, XenLayout};
pub use log::LogRing;
pub use mem::{PAGE, Page};
pub use pages::PageKind;
pub use truth::{Dump, Expect, Regs, TableTruth, Truth, VcpuTruth};

/// How Xen maps its directmap, frame table and M2P.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// 4 KiB everywhere.
    Small,
    /// 2 MiB leaves for all three, the first 2 MiB of the directmap in 4 KiB ones (as seen on 4.17).
    Large,
    /// One 1 GiB leaf for the directmap (pdpe1gb), 2 MiB for the rest.
    Huge,
}

/// Dom0's kernel, as far as VMCOREINFO and the tool can tell. In the order of their releases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kernel {
    /// 3.10 of Enterprise Linux 7: the release of 3.10, keys that came with 3.16.
    V3_10,
    /// 3.12: static vmcoreinfo_note[], SYMBOL(phys_base), init_level4_pgt, pv_init_ops, no p2m_cr3.
    V3_12,
    /// 3.18: SYMBOL(free_huge_page), PG_head_mask.
    V3_18,
    /// 4.4: compound_head; order and destructor are u16.
    V4_4,
    /// 4.19: NUMBER(phys_base), pv_init_ops, no kallsyms keys; page types, struct page's new order.
    V4_19,
    /// 5.4: PageOffline.
    V5_4,
    /// 5.10: neither pv_init_ops nor kallsyms keys.
    V5_10,
    /// 6.1: kallsyms keys; struct mem_section of 32 bytes.
    V6_1,
    /// 6.4: folio._folio_order.
    V6_4,
    /// 6.6: PG_hugetlb; the order is in page\[1\].flags.
    V6_6,
    /// 6.10: slab and hugetlb are page types.
    V6_10,
    /// 6.12: the page type is the top byte of _mapcount.
    V6_12,
    /// 7.1: compound_info; kallsyms_offsets relative to their own place.
    V7_1,
}

impl Kernel {
    pub const ALL: [Kernel; 13] = {
        use Kernel::*;
        [V3_10, V3_12, V3_18, V4_4, V4_19, V5_4, V5_10, V6_1, V6_4, V6_6, V6_10, V6_12, V7_1]
    };
}

/// How kallsyms_offsets encodes addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KallsymsBase {
    /// CONFIG_KALLSYMS_ABSOLUTE_PERCPU (x86_64 SMP up to 6.14): >= 0 is absolute, < 0 is base - 1 - offset.
    AbsolutePercpu,
    /// base + u32 offset.
    Relative,
    /// No relative base (7.0): each offset is relative to its own place.
    Place,
}

/// Where dom0's VMCOREINFO note lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotePlace {
    /// A page of its own (alloc_pages_exact, 4.13 on).
    Page,
    /// So long that it runs over two PFNs whose MFNs are not adjacent.
    TwoPages,
    /// `u32 vmcoreinfo_note[]` in the kernel's bss at a 4-byte aligned place, over a page's edge (3.10, 3.12).
    StaticArray,
    /// Not there at all.
    None,
}

/// The kernel's own word for where its P2M is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnList {
    /// No such symbols.
    None,
    /// xen_p2m_addr and xen_p2m_size (Linux 3.19 on): the linear list.
    Linear,
    /// XenLinux: phys_to_machine_mapping and max_pfn, an array in the direct map whose pages are the tree's leaves.
    /// Neither a linear list nor paravirt_ops, and zeros where the tree has nothing.
    XenLinux,
}

/// Things that are wrong in the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// pfn_to_mfn_frame_list_list, in the shared info and hence in the crash note.
    FrameListListInvalid,
    FrameListListZero,
    FrameListListOutside,
    FrameListListForeign,
    /// The list page, or a leaf of the P2M, is not in the dump.
    ListPageAbsent,
    LeafPageAbsent,
    /// A list entry / a list-list entry of a frame that another domain owns.
    LeafForeign,
    /// A plain P2M entry of a frame that domain 1 owns.
    P2mForeignPlain,
    /// Two PFNs with one MFN (3.12's balloon scratch page); M2P names the first.
    P2mDuplicate,
    /// M2P of a dom0 frame names another PFN.
    M2pDisagrees,
    /// The first list entry names the second leaf, which has its own place too.
    LeafTwice,
    /// max_pfn in the shared info is 2^40.
    MaxPfnHuge,
    /// The domain list comes back to dom0.
    DomainListLoop,
    /// The last domain's next_in_list is an address that nothing maps.
    DomainListOutside,
    /// A frame table page with dom0's frames is not mapped / is mapped but not in the dump.
    FrameTableUnmapped,
    FrameTableAbsent,
}

/// A machine to build. Every field has a setter of the same name.
#[derive(Clone, Debug)]
pub struct Machine {
    pub layout: XenLayout,
    pub ram_mib: u64,
    pub leaves: Leaves,
    /// First MFNs of further RAM regions of 4 MiB each, ascending; a multiple of 2 MiB, and of 1 GiB with large leaves.
    pub high: Vec<u64>,
    /// How MFNs become PDX values.
    pub pdx: Pdx,
    pub pcpus: usize,
    pub dom0_pages: u64,
    pub dom0_vcpus: usize,
    pub domus: usize,
    pub domu_pages: u64,
    /// Domain 1 is translated.
    pub hap: Option<hap::Hap>,
    pub zero_percent: u64,
    pub kernel: Kernel,
    pub note_place: NotePlace,
    pub kallsyms: Option<KallsymsBase>,
    pub kallsyms_fillers: usize,
    /// 64 lists behind dom0's memory lead to one shared identity page, as on real hosts with holes.
    pub shared_identity: bool,
    /// L3 tables are locked (bit 60 of type_info, Xen 4.10 and later): a CPU died in the middle of an update.
    pub locked_l3: bool,
    /// The physical CPU that crashed; it stopped the others by NMI.
    pub crashed_cpu: usize,
    /// It crashed by an NMI itself, and nothing tells it from those that it stopped.
    pub crash_like_stop: bool,
    /// dom0's vCPUs from this one on were never brought up.
    pub never_ran_from: usize,
    /// No frame is free.
    pub no_free: bool,
    /// This physical CPU did not answer and left no notes.
    pub silent_cpu: Option<usize>,
    /// Its notes are there, but all zeros (Xen 4.2 and later).
    pub silent_zeros: bool,
    /// The M2P says nothing of any frame.
    pub m2p_unset: bool,
    /// The tables are there in the layout of kernels before 6.0, but nothing tells where (with `kallsyms` None).
    pub hidden_kallsyms: bool,
    /// 0xffff888000000000 (slot 273); 3.12 and 4.19 without back-ports had 0xffff880000000000 (slot 272).
    pub page_offset: u64,
    /// OFFSET(uts_namespace.name): 4 with a kref before it (up to 5.11), 0 since.
    pub uts_offset: u64,
    /// Unused list entries are 0 (classic XenLinux) instead of "missing" pages.
    pub classic_p2m: bool,
    /// p2m_cr3 and p2m_vaddr in the shared info (None: by kernel).
    pub linear_p2m: Option<bool>,
    /// Further memory of dom0's, first PFN and number, ascending: for the linear list.
    pub far: Vec<(u64, u64)>,
    /// Where the linear list is, and what the shared info says of that.
    pub p2m_vaddr: u64,
    pub told_vaddr: Option<u64>,
    /// Odd: dom0 was changing the list's mapping.
    pub p2m_generation: u64,
    /// Entries that lead to the linear list and are not there.
    pub unmapped: Vec<far::Unmapped>,
    /// The kernel's own variables for the P2M: none, those of its time, or XenLinux's.
    pub own_list: OwnList,
    /// The number of entries that they tell, where it is not the right one.
    pub told_own_end: Option<u64>,
    /// Domain 1's linear list is mapped here, in one page; otherwise nowhere.
    pub domu_list: Option<u64>,
    /// Another word in the kernel image equals xen_start_info's value.
    pub ambiguous_start_info: bool,
    /// A process whose page tables are not pinned yet: MFNs in pages of type writable.
    pub unpinned_mm: bool,
    /// Struct pages for all of dom0's memory (otherwise no section is present).
    pub mem_map: bool,
    /// With `mem_map`: one page of struct pages is mapped, but not in the dump.
    pub mem_map_absent: bool,
    /// SYMBOL(mem_section) is the address of the pointer, not its value (some 4.14 and 4.15).
    pub mem_section_by_address: bool,
    /// SECTION_SIZE_BITS; with 18 a few sections lack a mem_map. Kernels before 6.1 do not tell, so it must be 27 there.
    pub section_bits: u64,
    /// VMCOREINFO keys to leave out of dom0's note.
    pub without_keys: Vec<&'static str>,
    /// pCPU -> (index of the domain, vCPU); CPUs left out run their idle vCPU.
    pub running: Vec<(usize, usize, usize)>,
    /// pCPU 1's idle vCPU took over lazily: its stack top has dom0 vCPU 1's newest registers.
    pub lazy_idle: bool,
    /// These CPUs were in the guest that they run, not in Xen.
    pub in_guest: Vec<usize>,
    pub defects: Vec<Defect>,
    pub elf: ElfOptions,
    /// Lines that dom0's kernel logged, and the ring that they went to; without lines there is no ring.
    pub log: Vec<String>,
    pub log_ring: LogRing,
    /// Half of its text, and a page of Xen's ring, are not in the dump.
    pub log_absent: bool,
    /// All that Xen ever wrote to its console ring.
    pub conring: Option<String>,
    /// It was cleared (xl dmesg -c), which moves a counter only.
    pub conring_cleared: bool,
    /// Its counters are not in the image.
    pub conring_uncounted: bool,
    pub seed: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            layout: XenLayout::of(Xen::V4_17),
            ram_mib: 16,
            leaves: Leaves::Small,
            high: Vec::new(),
            pdx: Pdx::None,
            pcpus: 2,
            dom0_pages: 1500,
            dom0_vcpus: 2,
            domus: 1,
            domu_pages: 200,
            hap: None,
            zero_percent: 30,
            kernel: Kernel::V6_12,
            note_place: NotePlace::Page,
            kallsyms: Some(KallsymsBase::AbsolutePercpu),
            kallsyms_fillers: 300,
            hidden_kallsyms: false,
            shared_identity: false,
            locked_l3: false,
            crashed_cpu: 0,
            crash_like_stop: false,
            never_ran_from: usize::MAX,
            no_free: false,
            silent_cpu: None,
            silent_zeros: false,
            m2p_unset: false,
            page_offset: 0xffff_8880_0000_0000,
            uts_offset: 0,
            classic_p2m: false,
            linear_p2m: None,
            far: Vec::new(),
            p2m_vaddr: dom0::P2M_VADDR,
            told_vaddr: None,
            p2m_generation: 0,
            unmapped: Vec::new(),
            own_list: OwnList::None,
            told_own_end: None,
            domu_list: None,
            ambiguous_start_info: false,
            unpinned_mm: false,
            mem_map: false,
            mem_map_absent: false,
            mem_section_by_address: false,
            section_bits: 27,
            without_keys: Vec::new(),
            running: vec![(0, 0, 0)],
            lazy_idle: false,
            in_guest: Vec::new(),
            defects: Vec::new(),
            elf: ElfOptions::default(),
            log: Vec::new(),
            log_ring: LogRing::OfKernel,
            log_absent: false,
            conring: None,
            conring_cleared: false,
            conring_uncounted: false,
            seed: 1,
        }
    }
}

macro_rules! setters {
    ($($name:ident: $t:ty),* $(,)?) => {
        impl Machine { $(pub fn $name(mut self, value: $t) -> Self { self.$name = value; self })* }
    };
}

setters! {
    layout: XenLayout, ram_mib: u64, leaves: Leaves, high: Vec<u64>, pdx: Pdx, pcpus: usize, dom0_pages: u64,
    dom0_vcpus: usize, domus: usize, domu_pages: u64, zero_percent: u64, note_place: NotePlace,
    kallsyms: Option<KallsymsBase>, kallsyms_fillers: usize, page_offset: u64, uts_offset: u64,
    far: Vec<(u64, u64)>, p2m_vaddr: u64, told_vaddr: Option<u64>, p2m_generation: u64,
    unmapped: Vec<far::Unmapped>, own_list: OwnList, told_own_end: Option<u64>, domu_list: Option<u64>,
    classic_p2m: bool, linear_p2m: Option<bool>, ambiguous_start_info: bool, unpinned_mm: bool,
    hap: Option<hap::Hap>, running: Vec<(usize, usize, usize)>, lazy_idle: bool, in_guest: Vec<usize>, hidden_kallsyms: bool,
    mem_map: bool, mem_map_absent: bool, mem_section_by_address: bool, section_bits: u64,
    without_keys: Vec<&'static str>, shared_identity: bool, locked_l3: bool, silent_cpu: Option<usize>, silent_zeros: bool, m2p_unset: bool,
    crashed_cpu: usize, crash_like_stop: bool, never_ran_from: usize, no_free: bool, elf: ElfOptions, seed: u64,
    log: Vec<String>, log_ring: LogRing, log_absent: bool, conring: Option<String>, conring_cleared: bool, conring_uncounted: bool,
}

impl Machine {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn xen(mut self, xen: Xen) -> Self {
        self.layout = XenLayout::of(xen);
        self
    }

    /// A second RAM region at 64 GiB, and masked PDX values.
    pub fn pdx_hole(self, hole: bool) -> Self {
        if hole { self.high(vec![layout::GIB_64]).pdx(Pdx::Mask) } else { self }
    }

    /// Sets the kernel and what comes with it (each can be changed afterwards).
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self.kallsyms = match kernel {
            Kernel::V7_1 => Some(KallsymsBase::Place),
            k if k >= Kernel::V6_1 => Some(KallsymsBase::AbsolutePercpu),
            _ => None,
        };
        self.note_place = if kernel < Kernel::V4_19 { NotePlace::StaticArray } else { NotePlace::Page };
        self.page_offset = if kernel < Kernel::V4_19 { 0xffff_8800_0000_0000 } else { 0xffff_8880_0000_0000 };
        self.uts_offset = if kernel >= Kernel::V6_1 { 0 } else { 4 };
        self
    }

    /// A XenLinux kernel (2.6.18-xen to SLES 11's 3.0).
    pub fn xenlinux(self) -> Self {
        self.kernel(Kernel::V3_12).classic_p2m(true).own_list(OwnList::XenLinux)
    }

    pub fn defect(mut self, defect: Defect) -> Self {
        self.defects.push(defect);
        self
    }

    pub fn has(&self, defect: Defect) -> bool {
        self.defects.contains(&defect)
    }

    /// Changes the ELF options in place: `.with_elf(|e| e.loads = 40)`.
    pub fn with_elf(mut self, change: impl FnOnce(&mut ElfOptions)) -> Self {
        change(&mut self.elf);
        self
    }

    /// Whether dom0's VMCOREINFO has a key.
    pub fn tells(&self, key: &str) -> bool {
        !self.without_keys.contains(&key)
    }

    pub fn build(self) -> Dump {
        build::build(self)
    }
}
