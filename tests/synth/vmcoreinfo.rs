//! The two VMCOREINFO texts: Xen's (complete since 4.3) and Linux's (keys by version).

use super::generation::Gen;
use super::kernel::KernelImage;
use super::{Kernel, Machine, NotePlace};
use std::fmt::Write;

pub struct XenSymbols {
    pub domain_list: u64,
    pub frame_table: u64,
    pub max_page: u64,
    pub dom_xen: u64,
    pub dom_io: u64,
    pub pgd_l4: u64,
    pub next_in_list: u64,
    /// Size, count_info, _domain.
    pub page_info: (u64, u64, u64),
}

pub fn xen_text(s: &XenSymbols) -> String {
    format!(
        "PAGESIZE=4096\nSYMBOL(domain_list)={:x}\nSYMBOL(frame_table)={:x}\nSYMBOL(max_page)={:x}\n\
         SIZE(page_info)={}\nSIZE(domain)=2304\nOFFSET(page_info.count_info)={}\nOFFSET(page_info._domain)={}\n\
         OFFSET(domain.domain_id)=0\nOFFSET(domain.next_in_list)={}\nSYMBOL(dom_xen)={:x}\nSYMBOL(dom_io)={:x}\n\
         SYMBOL(pgd_l4)={:x}\n",
        s.domain_list,
        s.frame_table,
        s.max_page,
        s.page_info.0,
        s.page_info.1,
        s.page_info.2,
        s.next_in_list,
        s.dom_xen,
        s.dom_io,
        s.pgd_l4
    )
}

/// VMCOREINFO_BYTES: the text never grows beyond it.
pub const LINUX_MAX: usize = 4096;

pub fn linux_text(o: &Machine, image: &KernelImage, build_id: &str, mem_section: u64) -> String {
    let mut t = format!("OSRELEASE={}\n", image.release);
    let sym = |t: &mut String, key: &str, name: &str| writeln!(t, "SYMBOL({key})={:x}", image.va(name)).unwrap();
    if o.kernel >= Kernel::V5_10 {
        writeln!(t, "BUILD-ID={build_id}").unwrap();
    }
    t.push_str("PAGESIZE=4096\n");
    sym(&mut t, "init_uts_ns", "init_uts_ns");
    if o.kernel >= Kernel::V5_10 {
        writeln!(t, "OFFSET(uts_namespace.name)={}", o.uts_offset).unwrap();
    }
    sym(&mut t, "node_online_map", "node_online_map");
    sym(&mut t, "swapper_pg_dir", "swapper_pg_dir");
    sym(&mut t, "_stext", "_stext");
    let free_huge_page = image.has("free_huge_page").then(|| image.va("free_huge_page"));
    t.push_str(&Gen::of(o.kernel).keys(o, mem_section, free_huge_page));
    t.push_str(&super::log::keys(o, image.base));
    if o.kallsyms.is_some() {
        for table in ["names", "num_syms", "token_table", "token_index", "offsets", "relative_base"] {
            let name = format!("kallsyms_{table}");
            if image.has(&name) {
                sym(&mut t, &name, &name);
            }
        }
    }
    if o.kernel < Kernel::V4_19 {
        sym(&mut t, "phys_base", "phys_base");
        sym(&mut t, "init_level4_pgt", "swapper_pg_dir");
    } else {
        t.push_str("NUMBER(phys_base)=0\n");
        sym(&mut t, "init_top_pgt", "swapper_pg_dir");
        t.push_str("NUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=0\nNUMBER(KERNEL_IMAGE_SIZE)=1073741824\n");
    }
    if o.kernel >= Kernel::V5_10 {
        t.push_str("NUMBER(sme_mask)=0\n");
    }
    if !o.without_keys.is_empty() {
        let keep = |l: &&str| l.split('=').next().is_some_and(|key| o.tells(key));
        t = t.lines().filter(keep).fold(String::new(), |t, l| t + l + "\n");
    }
    if o.note_place == NotePlace::TwoPages {
        // Longer than what a page holds behind the note's 24-byte head.
        for i in 0.. {
            let line = format!("NUMBER(SYNTH_FILLER_{i:03})={i}\n");
            if t.len() + line.len() > LINUX_MAX {
                break;
            }
            t.push_str(&line);
        }
    }
    assert!(t.len() <= LINUX_MAX);
    t
}

/// An ELF note: both name and descriptor padded to 4 bytes.
pub fn note(name: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(name.len() as u32 + 1).to_le_bytes());
    out.extend_from_slice(&(desc.len() as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(desc);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
