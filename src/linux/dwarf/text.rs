//! The lines of the note, in the kernel's order.

use crate::bytes::{text, u64_at};
use crate::dwarf::Image;
use crate::dwarf::Types;
use crate::vmcoreinfo::MOST_TEXT;
use std::fmt::Display;

/// Variables that some kernel exports under their own name and address.
const SYMBOLS: &[&str] = &["init_uts_ns", "_stext", "vmap_area_list", "mem_map", "contig_page_data", "node_data"];
/// The root table; Linux writes it as `swapper_pg_dir` too, which is a macro.
const ROOTS: &[&str] = &["init_top_pgt", "init_level4_pgt"];
/// printk's since 5.10.
const RING: &[&str] = &["prb", "printk_rb_static", "clear_seq"];
/// printk's before.
const LOG: &[&str] = &["log_buf", "log_buf_len", "log_first_idx", "clear_idx", "log_next_idx"];
/// Tables of symbols, in the note since 6.0.
const KALLSYMS: &[&str] = &[
    "kallsyms_names",
    "kallsyms_num_syms",
    "kallsyms_token_table",
    "kallsyms_token_index",
    "kallsyms_offsets",
    "kallsyms_relative_base",
];
/// Not in the note, but what values are read from.
const READ: &[&str] = &[
    "linux_banner",
    "node_states",
    "mem_section",
    "vmemmap_base",
    "vmalloc_base",
    "level2_kernel_pgt",
    "free_huge_page",
];

/// `SIZE(..)` lines.
const SIZES: &[&str] = &["page", "pglist_data", "zone", "free_area", "list_head", "nodemask_t"];
/// `OFFSET(..)` lines; those that a kernel lacks are left out.
const OFFSETS: &[(&str, &[&str])] = &[
    ("page", &["flags", "_refcount", "_count", "mapping", "lru", "_mapcount", "private"]),
    ("page", &["compound_dtor", "compound_order", "compound_head", "compound_info"]),
    ("pglist_data", &["node_zones", "nr_zones", "node_mem_map", "node_start_pfn", "node_spanned_pages", "node_id"]),
    ("zone", &["free_area", "vm_stat", "spanned_pages"]),
    ("free_area", &["free_list"]),
    ("list_head", &["next", "prev"]),
];
/// Structures of printk's ring buffer with their members, in the note since 5.10.
const RING_LAYOUTS: &[(&str, &[&str])] = &[
    ("printk_ringbuffer", &["desc_ring", "text_data_ring", "fail"]),
    ("prb_desc_ring", &["count_bits", "descs", "infos", "head_id", "tail_id"]),
    ("prb_desc", &["state_var", "text_blk_lpos"]),
    ("prb_data_blk_lpos", &["begin", "next"]),
    ("printk_info", &["seq", "ts_nsec", "text_len", "caller_id", "dev_info"]),
    ("dev_printk_info", &["subsystem", "device"]),
    ("prb_data_ring", &["size_bits", "data", "head_lpos", "tail_lpos"]),
    ("atomic_long_t", &["counter"]),
    ("latched_seq", &["val"]),
];
/// A record of the older log; 3.5 to 3.10 call it `log`.
const LOG_LAYOUTS: &[(&str, &[&str])] = &[
    ("printk_log", &["ts_nsec", "len", "text_len", "dict_len", "caller_id"]),
    ("log", &["ts_nsec", "len", "text_len", "dict_len"]),
];
/// `NUMBER(..)` lines of `enum pageflags`.
const FLAGS: &[&str] =
    &["PG_lru", "PG_private", "PG_swapcache", "PG_swapbacked", "PG_slab", "PG_hwpoison", "PG_hugetlb"];

/// A PV domain's, if the file does not hold the variable.
const VMALLOC_START: u64 = 0xffff_c900_0000_0000;
const VMEMMAP_START: u64 = 0xffff_ea00_0000_0000;
const SECTION_SIZE_BITS: u32 = 27;
const MAX_PHYSMEM_BITS: u32 = 46;
const PAGE_SIZE: u64 = crate::units::PAGE_SIZE as u64;
const POINTER: u64 = 8;
/// Bytes of a string in `struct new_utsname`; the release is the third.
const UTS_FIELD: u64 = 65;

/// Whether a symbol is of use.
pub(super) fn wants(symbol: &str) -> bool {
    [SYMBOLS, ROOTS, RING, LOG, KALLSYMS, READ].iter().any(|list| list.contains(&symbol))
}

/// The note's text.
///
/// # Errors
/// What the file lacks that no note goes without.
pub(super) fn compose(image: &Image<'_>, types: &Types) -> Result<String, String> {
    let mut note = Note { image, types, text: String::new() };
    let release = release(image, types).ok_or("does not hold the kernel's release (linux_banner, init_uts_ns)")?;
    if image.symbol("_stext").is_none() {
        return Err("has no symbol _stext (.symtab)".into());
    }
    note.line("OSRELEASE", &release);
    if let Some(id) = image.build_id() {
        note.line("BUILD-ID", id);
    }
    note.line("PAGESIZE", PAGE_SIZE);
    note.offsets("uts_namespace", &["name"]);
    let root = ROOTS.iter().find_map(|name| image.symbol(name));
    if let Some(root) = root {
        note.line("SYMBOL(swapper_pg_dir)", format_args!("{:x}", root.address));
    }
    // Another macro: the second of the masks.
    let online = image.symbol("node_states").zip(types.layout("nodemask_t"));
    if let Some(online) = online.and_then(|(states, mask)| states.address.checked_add(mask.size)) {
        note.line("SYMBOL(node_online_map)", format_args!("{online:x}"));
    }
    note.symbols(SYMBOLS);
    if image.symbol("node_data").is_some_and(|s| s.size >= POINTER) {
        let nodes = image.symbol("node_data").map_or(0, |s| s.size / POINTER);
        note.line("LENGTH(node_data)", nodes);
    }
    note.memory_map();
    SIZES.iter().for_each(|name| note.size(name));
    OFFSETS.iter().for_each(|(name, members)| note.offsets(name, members));
    if types.member("page", "compound_dtor").is_none() {
        note.offsets("folio", &["_folio_dtor", "_folio_order"]);
    }
    if image.symbol("vmap_area_list").is_some() {
        note.offsets("vmap_area", &["va_start", "list"]);
    }
    note.length("zone.free_area", "zone", "free_area");
    note.length("free_area.free_list", "free_area", "free_list");
    note.log();
    note.numbers(&release);
    note.symbols(KALLSYMS);
    note.line("NUMBER(phys_base)", 0);
    note.symbols(ROOTS);
    for constant in ["NUMBER(pgtable_l5_enabled)", "KERNELOFFSET", "NUMBER(sme_mask)"] {
        note.line(constant, 0);
    }
    if let Some(size) = image_size(image) {
        note.line("NUMBER(KERNEL_IMAGE_SIZE)", size);
    }
    if note.text.len() > MOST_TEXT {
        return Err(format!("would make a note of {} bytes", note.text.len()));
    }
    Ok(note.text)
}

struct Note<'a> {
    image: &'a Image<'a>,
    types: &'a Types,
    text: String,
}

impl Note<'_> {
    fn line(&mut self, key: &str, value: impl Display) {
        self.text.push_str(&format!("{key}={value}\n"));
    }

    fn number(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.line(&format!("NUMBER({name})"), value);
        }
    }

    fn symbols(&mut self, names: &[&str]) {
        for name in names {
            if let Some(symbol) = self.image.symbol(name) {
                self.line(&format!("SYMBOL({name})"), format_args!("{:x}", symbol.address));
            }
        }
    }

    fn size(&mut self, name: &str) {
        if let Some(layout) = self.types.layout(name) {
            self.line(&format!("SIZE({name})"), layout.size);
        }
    }

    fn offsets(&mut self, name: &str, members: &[&str]) {
        for member in members {
            if let Some(found) = self.types.member(name, member) {
                self.line(&format!("OFFSET({name}.{member})"), found.offset);
            }
        }
    }

    fn length(&mut self, key: &str, name: &str, member: &str) {
        if let Some(count) = self.types.member(name, member).and_then(|m| m.count) {
            self.line(&format!("LENGTH({key})"), count);
        }
    }

    /// Where the map of pages is.
    fn memory_map(&mut self) {
        // Linux 6.9 exports these instead of the list of areas.
        if self.image.symbol("vmap_area_list").is_none() && self.types.member("page", "page_type").is_some() {
            let value = |name, default| variable(self.image, name).unwrap_or(default);
            let (vmalloc, vmemmap) = (value("vmalloc_base", VMALLOC_START), value("vmemmap_base", VMEMMAP_START));
            self.line("NUMBER(VMALLOC_START)", format_args!("{vmalloc:#x}"));
            self.line("SYMBOL(vmemmap)", format_args!("{vmemmap:x}"));
        }
        let (Some(roots), Some(size)) = (self.image.symbol("mem_section"), self.types.layout("mem_section")) else {
            return;
        };
        let size = size.size;
        let per_root = PAGE_SIZE.checked_div(size).unwrap_or(0).max(1);
        // A pointer since 4.15, for an array of as many roots as four-level paging needs; the array itself before.
        let length = match roots.size / POINTER {
            0 | 1 => (1_u64 << (MAX_PHYSMEM_BITS - SECTION_SIZE_BITS)).div_ceil(per_root),
            array => array,
        };
        let bits = length.checked_mul(per_root).and_then(u64::checked_ilog2).map(|bits| bits + SECTION_SIZE_BITS);
        self.symbols(&["mem_section"]);
        self.line("LENGTH(mem_section)", length);
        self.size("mem_section");
        self.offsets("mem_section", &["section_mem_map"]);
        self.number("SECTION_SIZE_BITS", Some(SECTION_SIZE_BITS.into()));
        self.number("MAX_PHYSMEM_BITS", bits.map(i64::from));
    }

    /// Where the kernel's log is.
    fn log(&mut self) {
        let (symbols, layouts) =
            if self.image.symbol("prb").is_some() { (RING, RING_LAYOUTS) } else { (LOG, LOG_LAYOUTS) };
        self.symbols(symbols);
        for (name, members) in layouts {
            self.size(name);
            self.offsets(name, members);
        }
        if self.image.symbol("prb").is_some() {
            self.length("printk_info_subsystem", "dev_printk_info", "subsystem");
            self.length("printk_info_device", "dev_printk_info", "device");
        }
    }

    /// What tells pages from each other.
    fn numbers(&mut self, release: &str) {
        let types = self.types;
        self.number("NR_FREE_PAGES", types.value("zone_stat_item", "NR_FREE_PAGES"));
        for flag in FLAGS {
            self.number(flag, types.value("pageflags", flag));
        }
        let head = types.value("pageflags", "PG_head").and_then(|bit| 1_i64.checked_shl(u32::try_from(bit).ok()?));
        self.number("PG_head_mask", head);
        self.number("HUGETLB_PAGE_DTOR", types.value("compound_dtor_id", "HUGETLB_PAGE_DTOR"));
        let kinds = PageTypes::of(types, release);
        self.number("PAGE_BUDDY_MAPCOUNT_VALUE", kinds.buddy);
        self.number("PAGE_OFFLINE_MAPCOUNT_VALUE", kinds.offline);
        self.number("PAGE_HUGETLB_MAPCOUNT_VALUE", kinds.hugetlb);
        self.number("PAGE_SLAB_MAPCOUNT_VALUE", kinds.slab);
        self.number("PAGE_UNACCEPTED_MAPCOUNT_VALUE", kinds.unaccepted);
        // Before there was an enum of destructors, a huge page was told by the address of its own.
        if types.member("page", "compound_dtor").is_none() && types.member("page", "page_type").is_none() {
            self.symbols(&["free_huge_page"]);
        }
    }
}

/// What `_mapcount` holds in pages that are not mapped but of a type.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageTypes {
    buddy: Option<i64>,
    offline: Option<i64>,
    hugetlb: Option<i64>,
    slab: Option<i64>,
    unaccepted: Option<i64>,
}

impl PageTypes {
    fn of(types: &Types, release: &str) -> Self {
        if types.has_enum("pagetype") {
            // A number in the top byte since 6.12, bits that are cleared before.
            let kind = |name: &str| {
                let number = types.value("pagetype", &format!("PGTY_{name}")).map(|v| v << 24);
                let value = number.or_else(|| types.value("pagetype", &format!("PG_{name}")).map(|v| !v))?;
                Some(i64::from(value as i32))
            };
            let [buddy, offline, hugetlb, slab, unaccepted] =
                ["buddy", "offline", "hugetlb", "slab", "unaccepted"].map(kind);
            return Self { buddy, offline, hugetlb, slab, unaccepted };
        }
        // Macros, which are not in DWARF.
        if types.member("page", "page_type").is_none() {
            return Self { buddy: Some(-128), ..Self::default() };
        }
        let version = version(release);
        if version >= (6, 11) {
            return Self::default();
        }
        let has = |name, member| types.member(name, member).is_some();
        let huge_elsewhere = has("page", "compound_dtor")
            || has("folio", "_folio_dtor")
            || types.value("pageflags", "PG_hugetlb").is_some();
        Self {
            buddy: Some(!0x80),
            // The same bit meant something else before.
            offline: (version >= (5, 1)).then_some(!0x100),
            hugetlb: (!huge_elsewhere).then_some(!0x800),
            slab: types.value("pageflags", "PG_slab").is_none().then_some(!0x1000),
            unaccepted: None,
        }
    }
}

/// `6.12` of `6.12.3-amd64`; zeros if it does not begin so.
fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// A variable's initial value.
fn variable(image: &Image<'_>, name: &str) -> Option<u64> {
    u64_at(image.at(image.symbol(name)?.address, 8)?, 0)
}

/// The kernel's release, of its banner or of its initial namespace.
fn release(image: &Image<'_>, types: &Types) -> Option<String> {
    let banner = || {
        let line = text(image.at(image.symbol("linux_banner")?.address, 256)?);
        Some(line.strip_prefix("Linux version ")?.split(' ').next()?.to_owned())
    };
    let name = || {
        let at = types.member("uts_namespace", "name")?.offset.checked_add(2 * UTS_FIELD)?;
        Some(text(image.at(image.symbol("init_uts_ns")?.address.checked_add(at)?, UTS_FIELD as usize)?))
    };
    banner().or_else(name).filter(|r| !r.is_empty() && r.chars().all(|c| c.is_ascii_graphic()))
}

/// KERNEL_IMAGE_SIZE: the built-in table of the image maps just so much, in pages of 2 MiB.
fn image_size(image: &Image<'_>) -> Option<u64> {
    let table = image.at(image.symbol("level2_kernel_pgt")?.address, PAGE_SIZE as usize)?;
    let pages = crate::bytes::words(table).take_while(|entry| *entry != 0).count() as u64;
    (pages > 0).then_some(pages << 21)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.12.117+deb13-amd64"), (6, 12));
        assert_eq!(version("4.4"), (4, 4));
        assert_eq!(version("x"), (0, 0));
    }

    /// Each way in which kernels have told types of pages.
    #[test]
    fn types_of_pages() {
        let kinds = |release, members: &[(&'static str, &str)], values: &[(&'static str, &str, i64)]| {
            let k = PageTypes::of(&Types::with(members, values), release);
            [k.buddy, k.offline, k.hugetlb, k.slab].map(|v| v.unwrap_or(0))
        };
        let (typed, dtor, folio) = (("page", "page_type"), ("page", "compound_dtor"), ("folio", "_folio_dtor"));
        let slab = ("pageflags", "PG_slab", 9);
        assert_eq!(kinds("4.4.0", &[dtor], &[slab]), [-128, 0, 0, 0]);
        assert_eq!(kinds("4.19.0", &[typed, dtor], &[slab]), [-129, 0, 0, 0]);
        assert_eq!(kinds("5.10.0", &[typed, dtor], &[slab]), [-129, -257, 0, 0]);
        assert_eq!(kinds("6.4.0", &[typed, folio], &[slab]), [-129, -257, 0, 0]);
        assert_eq!(kinds("6.6.0", &[typed], &[slab, ("pageflags", "PG_hugetlb", 8)]), [-129, -257, 0, 0]);
        assert_eq!(kinds("6.9.0", &[typed], &[slab]), [-129, -257, -2049, 0]);
        assert_eq!(kinds("6.10.0", &[typed], &[]), [-129, -257, -2049, -4097]);
        let bits = [("pagetype", "PG_buddy", 0x4000_0000), ("pagetype", "PG_slab", 0x0200_0000)];
        assert_eq!(kinds("6.11.0", &[typed], &bits), [!0x4000_0000, 0, 0, !0x0200_0000]);
        let numbers = [("pagetype", "PGTY_buddy", 0xf0), ("pagetype", "PGTY_offline", 0xf1)];
        assert_eq!(kinds("6.12.0", &[typed], &numbers), [-268_435_456, -251_658_240, 0, 0]);
        assert_eq!(kinds("6.12.0", &[typed], &[]), [0; 4]);
    }
}
