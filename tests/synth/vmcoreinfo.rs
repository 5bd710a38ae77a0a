//! The two VMCOREINFO texts: Xen's (complete since 4.3) and Linux's (keys by version).

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
}

pub fn xen_text(s: &XenSymbols) -> String {
    format!(
        "PAGESIZE=4096\nSYMBOL(domain_list)={:x}\nSYMBOL(frame_table)={:x}\nSYMBOL(max_page)={:x}\n\
         SIZE(page_info)=32\nSIZE(domain)=2304\nOFFSET(page_info.count_info)=8\nOFFSET(page_info._domain)=24\n\
         OFFSET(domain.domain_id)=0\nOFFSET(domain.next_in_list)={}\nSYMBOL(dom_xen)={:x}\nSYMBOL(dom_io)={:x}\n\
         SYMBOL(pgd_l4)={:x}\n",
        s.domain_list, s.frame_table, s.max_page, s.next_in_list, s.dom_xen, s.dom_io, s.pgd_l4
    )
}

/// VMCOREINFO_BYTES: the text never grows beyond it.
pub const LINUX_MAX: usize = 4096;

pub fn linux_text(o: &Machine, image: &KernelImage, build_id: &str, mem_section: u64) -> String {
    let mut t = format!("OSRELEASE={}\n", image.release);
    let sym = |t: &mut String, key: &str, name: &str| writeln!(t, "SYMBOL({key})={:x}", image.va(name)).unwrap();
    if o.kernel != Kernel::V3_12 {
        writeln!(t, "BUILD-ID={build_id}").unwrap();
    }
    t.push_str("PAGESIZE=4096\n");
    sym(&mut t, "init_uts_ns", "init_uts_ns");
    if o.kernel != Kernel::V3_12 {
        writeln!(t, "OFFSET(uts_namespace.name)={}", o.uts_offset).unwrap();
    }
    sym(&mut t, "node_online_map", "node_online_map");
    sym(&mut t, "swapper_pg_dir", "swapper_pg_dir");
    sym(&mut t, "_stext", "_stext");
    // No section is present in the array, so that a filter finds no struct page and keeps every page.
    writeln!(t, "SYMBOL(mem_section)={mem_section:x}\nLENGTH(mem_section)=2048\nSIZE(mem_section)=16").unwrap();
    t.push_str("OFFSET(mem_section.section_mem_map)=0\n");
    if o.kernel == Kernel::V6_12 {
        t.push_str("NUMBER(VMALLOC_START)=0xffffc90000000000\nSYMBOL(vmemmap)=ffffea0000000000\n");
        t.push_str("NUMBER(SECTION_SIZE_BITS)=27\nNUMBER(MAX_PHYSMEM_BITS)=46\n");
    }
    t.push_str(
        "SIZE(page)=64\nSIZE(pglist_data)=5184\nSIZE(zone)=1408\nSIZE(free_area)=88\nSIZE(list_head)=16\n\
         SIZE(nodemask_t)=8\nOFFSET(page.flags)=0\nOFFSET(page.mapping)=24\nOFFSET(page.lru)=8\n\
         OFFSET(page._mapcount)=48\nOFFSET(page.private)=40\nOFFSET(pglist_data.node_zones)=0\n\
         OFFSET(pglist_data.nr_zones)=4288\nOFFSET(zone.free_area)=192\nOFFSET(zone.vm_stat)=1280\n\
         OFFSET(zone.spanned_pages)=136\nOFFSET(free_area.free_list)=0\nOFFSET(list_head.next)=0\n\
         OFFSET(list_head.prev)=8\nLENGTH(zone.free_area)=11\nLENGTH(free_area.free_list)=5\n\
         NUMBER(NR_FREE_PAGES)=0\nNUMBER(PG_lru)=5\nNUMBER(PG_private)=11\nNUMBER(PG_swapcache)=10\n\
         NUMBER(PG_swapbacked)=19\nNUMBER(PG_hwpoison)=23\n",
    );
    t.push_str(if o.kernel == Kernel::V3_12 {
        "OFFSET(page._count)=28\nNUMBER(PG_slab)=7\nNUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-128\n"
    } else {
        "OFFSET(page._refcount)=52\nOFFSET(page.compound_head)=8\nNUMBER(PG_head_mask)=65536\n\
         NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\n"
    });
    if o.kallsyms.is_some() {
        for table in ["names", "num_syms", "token_table", "token_index", "offsets", "relative_base"] {
            let name = format!("kallsyms_{table}");
            if image.has(&name) {
                sym(&mut t, &name, &name);
            }
        }
    }
    match o.kernel {
        Kernel::V3_12 => {
            sym(&mut t, "phys_base", "phys_base");
            sym(&mut t, "init_level4_pgt", "swapper_pg_dir");
        }
        _ => {
            t.push_str("NUMBER(phys_base)=0\n");
            sym(&mut t, "init_top_pgt", "swapper_pg_dir");
            t.push_str("NUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=0\nNUMBER(KERNEL_IMAGE_SIZE)=1073741824\n");
        }
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
