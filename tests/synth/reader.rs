//! A reader of its own for the self-test: knows the file alone, shares nothing with the writer.

use std::collections::BTreeMap;

pub const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// A vmcore as a reader sees it.
pub struct Core<'a> {
    pub file: &'a [u8],
    pub loads: Vec<(u64, u64, usize)>,
    /// File offset of each whole page.
    pub pages: BTreeMap<u64, usize>,
    pub notes: Vec<(String, u32, &'a [u8])>,
    pub xen: BTreeMap<String, u64>,
    pub root: u64,
    pub frame_table: u64,
}

pub fn le(b: &[u8], at: usize, n: usize) -> u64 {
    b[at..at + n].iter().rev().fold(0, |v, &x| v << 8 | u64::from(x))
}

impl<'a> Core<'a> {
    pub fn open(file: &'a [u8]) -> Self {
        assert_eq!(&file[..6], b"\x7fELF\x02\x01");
        let (phoff, mut phnum) = (le(file, 32, 8) as usize, le(file, 56, 2) as usize);
        if phnum == 0xffff {
            phnum = le(file, le(file, 40, 8) as usize + 44, 4) as usize;
        }
        let (mut loads, mut notes) = (Vec::new(), Vec::new());
        for i in 0..phnum {
            let h = phoff + 56 * i;
            let field = |k: usize| le(file, h + k, 8);
            let (off, size) = (field(8) as usize, field(32));
            assert!(field(40) >= size);
            match le(file, h, 4) {
                1 => loads.push((field(24), size, off)),
                4 => {
                    let mut at = off;
                    while at + 12 <= off + size as usize {
                        let (n, d) = (le(file, at, 4) as usize, le(file, at + 4, 4) as usize);
                        let name = String::from_utf8(file[at + 12..at + 11 + n].to_vec()).unwrap();
                        let desc = at + 12 + n.next_multiple_of(4);
                        notes.push((name, le(file, at + 8, 4) as u32, &file[desc..desc + d]));
                        at = desc + d.next_multiple_of(4);
                    }
                    assert_eq!(at, off + size as usize, "notes fill their segment");
                }
                kind => assert_eq!(kind, 0),
            }
        }
        let mut pages = BTreeMap::new();
        for &(pa, size, off) in &loads {
            assert_eq!(pa % 4096, 0);
            pages.extend((0..size >> 12).map(|i| ((pa >> 12) + i, off + (i << 12) as usize)));
        }
        let mut core = Core { file, loads, pages, notes, xen: BTreeMap::new(), root: 0, frame_table: 0 };
        let text = core.note("VMCOREINFO_XEN").iter().copied().take_while(|&b| b != 0).collect();
        for line in String::from_utf8(text).unwrap().lines() {
            let (key, value) = line.split_once('=').unwrap();
            let radix = if key.starts_with("SYMBOL") { 16 } else { 10 };
            core.xen.insert(key.to_owned(), u64::from_str_radix(value, radix).unwrap());
        }
        let pgd = core.xen["SYMBOL(pgd_l4)"];
        core.root = (pgd & 0x3fff_ffff) + core.crash(8);
        assert_eq!(core.walk(core.root, pgd), Some(core.root), "pgd_l4 maps itself");
        core.frame_table = core.var("frame_table");
        core
    }

    pub fn note(&self, name: &str) -> &'a [u8] {
        self.notes.iter().find(|n| n.0 == name).unwrap().2
    }

    pub fn crash(&self, word: usize) -> u64 {
        let n = self.notes.iter().find(|n| n.1 == 0x100_0001).unwrap();
        le(n.2, word * 8, 8)
    }

    pub fn read(&self, ma: u64, n: usize) -> Option<&'a [u8]> {
        if (ma & 0xfff) as usize + n <= 4096
            && let Some(off) = self.pages.get(&(ma >> 12))
        {
            let at = off + (ma & 0xfff) as usize;
            return Some(&self.file[at..at + n]);
        }
        let load = self.loads.iter().find(|l| l.0 <= ma && ma + n as u64 <= l.0 + l.1)?;
        let at = load.2 + (ma - load.0) as usize;
        Some(&self.file[at..at + n])
    }

    pub fn u64(&self, ma: u64) -> u64 {
        le(self.read(ma, 8).unwrap(), 0, 8)
    }

    pub fn walk(&self, root: u64, va: u64) -> Option<u64> {
        let mut table = root;
        for shift in [39, 30, 21, 12] {
            let e = le(self.read(table + (va >> shift & 511) * 8, 8)?, 0, 8);
            if e & 1 == 0 {
                return None;
            }
            if shift == 12 || e & 0x80 != 0 && shift < 39 {
                let low = (1u64 << shift) - 1;
                return Some(e & FRAME & !low | va & low);
            }
            table = e & FRAME;
        }
        None
    }

    pub fn xen64(&self, va: u64) -> u64 {
        self.u64(self.walk(self.root, va).unwrap_or_else(|| panic!("{va:#x} is not mapped")))
    }

    pub fn var(&self, name: &str) -> u64 {
        self.xen64(self.xen[&format!("SYMBOL({name})")])
    }

    /// count_info, type_info, _domain.
    pub fn page_info(&self, pdx: u64) -> Option<(u64, u64, u64)> {
        let key = |k: &str| self.xen[k];
        let size = key("SIZE(page_info)");
        // An entry of 48 bytes may run over a page's edge.
        let word = |off: u64| Some(self.u64(self.walk(self.root, self.frame_table + pdx * size + off)?));
        let (count, owner) = (key("OFFSET(page_info.count_info)"), key("OFFSET(page_info._domain)"));
        let mask = if size == 48 { u64::MAX } else { 0xffff_ffff };
        Some((word(count)?, word(count + 8)?, word(owner)? & mask))
    }
}

/// Finds xen_start_info in the compressed tables, as kernel/kallsyms.c would.
pub fn kallsyms(
    core: &Core,
    value: &dyn Fn(&str, u32) -> Option<u64>,
    kernel: &dyn Fn(u64) -> u64,
    names: u64,
) -> Option<u64> {
    let sym = |n: &str| value(&format!("SYMBOL(kallsyms_{n})"), 16).unwrap();
    let byte = |va: u64| u64::from(core.read(kernel(va), 1).unwrap()[0]);
    let word = |va: u64, n: u64| (0..n).rev().fold(0, |v, i| v << 8 | byte(va + i));
    let base = value("SYMBOL(kallsyms_relative_base)", 16).map(|va| word(va, 8));
    let address = |i: u64, absolute: bool| {
        let at = sym("offsets") + i * 4;
        let offset = word(at, 4) as u32 as i32;
        match base {
            None => at.wrapping_add_signed(offset.into()),
            Some(base) if !absolute => base + u64::from(offset as u32),
            Some(_) if offset >= 0 => offset as u64,
            Some(base) => base.wrapping_sub(1).wrapping_sub(i64::from(offset) as u64),
        }
    };
    let (mut at, mut found, mut stext) = (names, None, None);
    for i in 0..word(sym("num_syms"), 4) {
        let mut len = byte(at);
        at += 1;
        if len & 0x80 != 0 {
            len = len & 0x7f | byte(at) << 7;
            at += 1;
        }
        let mut name = String::new();
        for k in 0..len {
            let mut c = sym("token_table") + word(sym("token_index") + 2 * byte(at + k), 2);
            while byte(c) != 0 {
                name.push(byte(c) as u8 as char);
                c += 1;
            }
        }
        at += len;
        match &name[1..] {
            "xen_start_info" => found = Some(i),
            "_stext" => stext = Some(i),
            _ => {}
        }
    }
    let absolute = address(stext?, true) == value("SYMBOL(_stext)", 16)?;
    Some(address(found?, absolute))
}
