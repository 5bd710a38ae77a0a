//! Dom0's kernel image: 64 pages of text, rodata, data and bss with the variables a reader looks for.

use super::generation::{Gen, Hugetlb};
use super::kallsyms::{self, Symbol};
use super::mem::Rng;
use super::{Kernel, Machine, NotePlace, OwnList};
use std::fmt::Write;

/// __START_KERNEL_map; a PV kernel is never relocated, so phys_base is 0.
pub const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// 2 MiB: where the image of this small guest starts (16 MiB on real ones).
pub const KERNEL_PFN: u64 = 0x200;
pub const KERNEL_PAGES: u64 = 64;

/// Pages of the image that are page tables, in the order of head_64.S.
pub const SWAPPER: u64 = 24;
pub const LEVEL3_KERNEL: u64 = 25;
pub const LEVEL2_KERNEL: u64 = 26;
pub const LEVEL2_FIXMAP: u64 = 27;
pub const LEVEL1_FIXMAP: u64 = 28;

const PLACES: &[(&str, char, u64)] = &[
    ("_text", 'T', 0),
    ("_stext", 'T', 0),
    ("xen_hypercall_pv", 'T', 0x200),
    ("xen_patch", 't', 0x1100),
    ("free_huge_page", 'T', 0x1180),
    ("_etext", 'T', 0x8000),
    ("linux_banner", 'D', 0x8010),
    ("kallsyms_num_syms", 'D', 0x8098),
    ("kallsyms_names", 'D', 0x80a0),
    ("kallsyms_token_table", 'D', 0x102c8),
    ("kallsyms_token_index", 'D', 0x11228),
    ("kallsyms_offsets", 'D', 0x11428),
    ("_sdata", 'D', 0x14000),
    ("kallsyms_relative_base", 'D', 0x14008),
    ("phys_base", 'D', 0x14010),
    ("pv_init_ops", 'D', 0x14140),
    ("HYPERVISOR_shared_info", 'D', 0x14220),
    ("init_uts_ns", 'D', 0x14960),
    ("node_online_map", 'D', 0x15088),
    ("pgd_list", 'D', 0x15120),
    ("swapper_pg_dir", 'D', SWAPPER << 12),
    ("level3_kernel_pgt", 'D', LEVEL3_KERNEL << 12),
    ("level2_kernel_pgt", 'D', LEVEL2_KERNEL << 12),
    ("level2_fixmap_pgt", 'D', LEVEL2_FIXMAP << 12),
    ("level1_fixmap_pgt", 'D', LEVEL1_FIXMAP << 12),
    ("_edata", 'D', 0x20000),
    ("__bss_start", 'B', 0x20000),
    ("xen_start_info_decoy", 'b', 0x212b0),
    ("xen_start_info", 'B', 0x212c0),
    ("xen_start_info_copy", 'b', 0x21740),
    ("xen_p2m_addr", 'B', 0x21760),
    ("xen_p2m_size", 'B', 0x21768),
    ("phys_to_machine_mapping", 'B', 0x21770),
    ("max_pfn", 'B', 0x21778),
    ("mem_section", 'B', 0x21800),
    ("vmcoreinfo_data", 'B', 0x28090),
    ("vmcoreinfo_note", 'B', 0x280a0),
    ("_end", 'B', 0x40000),
];

/// `u32 vmcoreinfo_note[]` of 3.12: 4-byte aligned, and long enough to reach the next page.
const STATIC_NOTE: u64 = 0x28a34;

/// `mem_section[]` of kernels that have it in bss: 2048 pointers.
const SECTIONS: u64 = 0x2c000;

pub struct KernelImage {
    pub base: u64,
    pub bytes: Vec<u8>,
    pub symbols: Vec<Symbol>,
    pub release: String,
    /// Lines of the log that the ring still has, with their number.
    pub log: Vec<(usize, String)>,
}

impl KernelImage {
    pub fn new(o: &Machine) -> Self {
        let base = KERNEL_MAP + (KERNEL_PFN << 12);
        let mut image = KernelImage {
            base,
            bytes: vec![0; KERNEL_PAGES as usize * 4096],
            symbols: Vec::new(),
            release: String::new(),
            log: Vec::new(),
        };
        image.release = match o.kernel {
            // The last that SLES 11 had.
            _ if o.own_list == OwnList::XenLinux => "3.0.101-108-xen-synth",
            Kernel::V3_10 => "3.10.0-1160.el7.synth",
            Kernel::V3_12 => "3.12.9-synth",
            Kernel::V3_18 => "3.18.140-synth",
            Kernel::V4_4 => "4.4.302-synth",
            Kernel::V4_19 => "4.19.191-synth",
            Kernel::V5_4 => "5.4.302-synth",
            Kernel::V5_10 => "5.10.209-synth",
            Kernel::V6_1 => "6.1.192-synth",
            Kernel::V6_4 => "6.4.16-synth",
            Kernel::V6_6 => "6.6.119-synth",
            Kernel::V6_10 => "6.10.14-synth",
            Kernel::V6_12 => "6.12.117-synth",
            Kernel::V7_1 => "7.1.0-synth",
        }
        .to_owned();
        // Per-CPU symbols: offsets from 0, "absolute" in kallsyms' eyes.
        for (va, name) in [(0, "fixed_percpu_data"), (0x1000, "cpu_debug_store"), (0x6000, "exception_stacks")] {
            image.symbols.push(Symbol::new(va, 'D', name));
        }
        let generation = Gen::of(o.kernel);
        for &(name, kind, off) in PLACES {
            let old = o.kernel <= Kernel::V4_19;
            let there = match name {
                "pv_init_ops" | "xen_patch" => old && o.own_list != OwnList::XenLinux,
                "xen_p2m_addr" | "xen_p2m_size" => o.own_list == OwnList::Linear,
                "phys_to_machine_mapping" | "max_pfn" => o.own_list == OwnList::XenLinux,
                "mem_section" if generation.static_sections() => false,
                "free_huge_page" => generation.hugetlb == Hugetlb::Address,
                "xen_start_info_copy" => o.ambiguous_start_info,
                n if n.starts_with("kallsyms_rel") => o.kallsyms.is_some_and(|k| k != super::KallsymsBase::Place),
                n if n.starts_with("kallsyms_") => o.kallsyms.is_some(),
                _ => true,
            };
            if there {
                let off =
                    if name == "vmcoreinfo_note" && o.note_place == NotePlace::StaticArray { STATIC_NOTE } else { off };
                image.symbols.push(Symbol::new(base + off, kind, name));
            }
        }
        if o.kernel < Kernel::V4_19 {
            image.symbols.push(Symbol::new(base + (SWAPPER << 12), 'D', "init_level4_pgt"));
        }
        if generation.static_sections() {
            image.symbols.push(Symbol::new(base + SECTIONS, 'B', "mem_section"));
        }
        image.log = super::log::fill(o, &mut image);
        image.fillers(o);
        image.symbols.sort_by_key(|s| s.va);
        image.fill_text(o.seed);
        image.uts(o);
        let list = image.va("pgd_list");
        image.put(list, &list.to_le_bytes());
        image.put(list + 8, &list.to_le_bytes());
        if let Some(encoding) = o.kallsyms {
            image.kallsyms(encoding);
        } else if o.hidden_kallsyms {
            image.hidden_kallsyms(o.kernel);
        }
        if image.has("pv_init_ops") {
            let (ops, patch) = (image.va("pv_init_ops"), image.va("xen_patch"));
            image.put(ops, &patch.to_le_bytes());
        }
        image
    }

    pub fn has(&self, name: &str) -> bool {
        self.symbols.iter().any(|s| s.name == name)
    }

    pub fn va(&self, name: &str) -> u64 {
        self.symbols.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no symbol {name}")).va
    }

    pub fn put(&mut self, va: u64, bytes: &[u8]) {
        let off = (va - self.base) as usize;
        self.bytes[off..off + bytes.len()].copy_from_slice(bytes);
    }

    /// PFN and offset of an image address.
    pub fn place(&self, va: u64) -> (u64, u64) {
        (KERNEL_PFN + ((va - self.base) >> 12), va & 0xfff)
    }

    pub fn is_table(page: u64) -> bool {
        (SWAPPER..=LEVEL1_FIXMAP).contains(&page)
    }

    fn fillers(&mut self, o: &Machine) {
        const PARTS: [&str; 6] = ["dev", "page", "net_driver", "__x64_sys", "vfs", "_probe"];
        for i in 0..o.kallsyms_fillers as u64 {
            let name = format!("{}_{}_{i}", PARTS[i as usize % 6], PARTS[(i as usize / 6) % 6]);
            self.symbols.push(Symbol::new(self.base + 0x300 + i * 0x10, 't', &name));
        }
        if o.hidden_kallsyms {
            return; // before 6.1 no compressed name was longer than 127
        }
        // A Rust-like name whose compressed form needs a length of two bytes; sorts before xen_start_info.
        let long = format!("_RNv{}", "Qw7Zk3Vx".repeat(32));
        self.symbols.push(Symbol::new(self.base + 0x7f00, 't', &long));
    }

    fn fill_text(&mut self, seed: u64) {
        let mut rng = Rng::new(seed ^ 0x7e47);
        for word in self.bytes[..0x8000].chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next().to_le_bytes());
        }
        let banner = format!("Linux version {} (synth)\n", self.release);
        self.put(self.base + 0x8010, &banner.as_bytes()[..banner.len().min(0x80)]);
    }

    /// struct uts_namespace: six strings of 65 bytes, behind a kref in older kernels.
    fn uts(&mut self, o: &Machine) {
        let at = self.va("init_uts_ns");
        if o.uts_offset >= 4 {
            self.put(at, &2u32.to_le_bytes());
        }
        let release = self.release.clone();
        let fields = ["Linux", "synth-dom0", &release, "#1 SMP PREEMPT_DYNAMIC", "x86_64", "(none)"];
        for (i, s) in fields.iter().enumerate() {
            self.put(at + o.uts_offset + 65 * i as u64, s.as_bytes());
        }
    }

    fn kallsyms(&mut self, encoding: super::KallsymsBase) {
        let t = kallsyms::encode(&self.symbols, encoding, self.va("kallsyms_offsets"));
        assert!(
            t.names.len() <= 0x8200 && t.token_table.len() <= 0xf60 && t.offsets.len() <= 0x2bd8,
            "too many symbols"
        );
        for (name, bytes) in [
            ("kallsyms_names", &t.names),
            ("kallsyms_token_table", &t.token_table),
            ("kallsyms_token_index", &t.token_index),
            ("kallsyms_offsets", &t.offsets),
            ("kallsyms_num_syms", &t.count.to_le_bytes().to_vec()),
        ] {
            self.put(self.va(name), bytes);
        }
        if self.has("kallsyms_relative_base") {
            self.put(self.va("kallsyms_relative_base"), &t.relative_base.to_le_bytes());
        }
    }

    /// One part after the other, as kernels before 6.0 have them: 64-bit addresses in 3.12, 64-bit num_syms and markers
    /// up to 4.19.
    fn hidden_kallsyms(&mut self, kernel: Kernel) {
        let start = self.base + 0x8200;
        let t = kallsyms::encode(&self.symbols, super::KallsymsBase::AbsolutePercpu, start);
        let mut bytes = Vec::new();
        let align = |b: &mut Vec<u8>| b.resize(b.len().next_multiple_of(8), 0);
        // Offsets are there since 4.6.
        if kernel < Kernel::V4_19 {
            self.symbols.iter().for_each(|s| bytes.extend(s.va.to_le_bytes()));
        } else {
            bytes.extend(&t.offsets);
            align(&mut bytes);
            bytes.extend(t.relative_base.to_le_bytes());
        }
        let wide = kernel <= Kernel::V4_19;
        let number =
            |n: usize| if wide { (n as u64).to_le_bytes().to_vec() } else { (n as u32).to_le_bytes().to_vec() };
        bytes.extend(number(t.count as usize));
        align(&mut bytes);
        bytes.extend(&t.names);
        align(&mut bytes);
        let mut at = 0;
        for i in 0..t.count {
            if i % 256 == 0 {
                bytes.extend(number(at));
            }
            at += 1 + usize::from(t.names[at]);
        }
        align(&mut bytes);
        bytes.extend(&t.token_table);
        align(&mut bytes);
        bytes.extend(&t.token_index);
        assert!(bytes.len() < 0x14000 - 0x8200, "too many symbols");
        self.put(start, &bytes);
    }

    pub fn system_map(&self) -> String {
        self.symbols.iter().fold(String::new(), |mut out, s| {
            writeln!(out, "{:016x} {} {}", s.va, s.kind, s.name).unwrap();
            out
        })
    }
}
