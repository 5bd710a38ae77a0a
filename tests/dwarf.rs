//! VMCOREINFO from DWARF: the same as the kernel's own note on the real dumps, and no panic on damaged files.
#![cfg(feature = "dwarf")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use support::cut::{Shape, cut};
use support::dump::Dump;
use support::fixtures::without_note;
use support::kdump::Kdump;
use support::levels::with_options;
use support::on_each_fixture;
use support::symbols::Symbols;
use support::tools::scratch;
use xdump_cut::Error;
use xdump_cut::linux::dwarf::vmcoreinfo;
use xdump_cut::vmcoreinfo::Vmcoreinfo;

fn lines(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn the_kernels_own_note() {
    on_each_fixture(|fixture, findings| {
        let note = Kdump::open(&cut(fixture, Shape::Kdump)).vmcoreinfo();
        let note = String::from_utf8(note).unwrap();
        let made = vmcoreinfo(fixture.vmlinux()).unwrap();
        let made = lines(made.text());
        for (key, value) in lines(note.trim_end_matches('\0')) {
            let found = made.get(key).copied().unwrap_or("nothing");
            // the kernel writes what is in the variable
            let variable = || format!("{:x}", Symbols::read(fixture.vmlinux()).address("mem_section"));
            let same = if key == "SYMBOL(mem_section)" { found == variable() } else { found == value };
            // what a kernel writes when it dies
            findings.check(same || key == "CRASHTIME", "line", || format!("{key}={value}, made: {found}"));
        }
    });
}

/// A dump whose note is overwritten, cut with the kernel's vmlinux, has what a cut of the sound dump has.
#[test]
fn a_lost_note_is_made_up_for() {
    on_each_fixture(|fixture, findings| {
        let broken = without_note(fixture);
        let cut = |vmcore: &Path, options: &[&std::ffi::OsStr]| {
            let cut = with_options(vmcore, &format!("{}.lost", fixture.name), options);
            let output = Kdump::open(&cut.path);
            (cut.report, output)
        };
        let (sound, expected) = cut(&fixture.vmcore, &[]);
        let (lost, _) = cut(&broken, &[]);
        findings.check(lost["level"]["applied"] == 1, "level without a note", || lost["level"].to_string());
        let options = ["--require-level".as_ref(), "--vmlinux".as_ref(), fixture.vmlinux().as_os_str()];
        let (made, output) = cut(&broken, &options);
        let same = made["output"]["excluded"] == sound["output"]["excluded"];
        findings.check(same, "excluded", || format!("{}, not {}", made["output"], sound["output"]));
        let vmcoreinfo = &made["domain"]["vmcoreinfo"];
        findings.check(vmcoreinfo == "made from the vmlinux", "VMCOREINFO", || vmcoreinfo.to_string());
        findings.check(output.frames() == expected.frames(), "other pages", String::new);
        std::fs::remove_file(broken).unwrap();
    });
}

/// A kernel's file with just the types that a note needs, all of them in one unit.
struct Synthetic {
    version: u16,
    /// Compression of the debugging sections, as SHF_COMPRESSED has it: 1 zlib, 2 zstd.
    packed: Option<u32>,
    info: Vec<u8>,
    strings: Vec<u8>,
    string_offsets: Vec<u8>,
}

const DATA: u64 = 0xffff_ffff_8200_0000;
const ENTRIES: u8 = 9;

/// Numbers of the abbreviations.
const STRUCTURE: u8 = 2;
const MEMBER: u8 = 3;
const UNNAMED_MEMBER: u8 = 4;
const UNNAMED_UNION: u8 = 5;
const BASE: u8 = 6;
const ARRAY: u8 = 7;
const SUBRANGE: u8 = 8;
const ENUM: u8 = 9;
const ENUMERATOR: u8 = 10;
const TYPEDEF: u8 = 11;
const END: u8 = 0;

impl Synthetic {
    fn new(version: u16, packed: Option<u32>) -> Self {
        Self { version, packed, info: Vec::new(), strings: Vec::new(), string_offsets: vec![0; 8] }
    }

    /// Tag, has children, attributes and their forms.
    fn abbreviations(&self) -> Vec<u8> {
        let (name, ref4, data1, data2) = ((0x03, if self.version == 5 { 0x26 } else { 0x08 }), 0x13, 0x0b, 0x05);
        type Abbreviation<'a> = (u8, u8, &'a [(u8, u8)]);
        let all: [Abbreviation<'_>; 11] = [
            (0x11, 1, &[(0x72, 0x17), name]),
            (0x13, 1, &[name, (0x0b, data2)]),
            (0x0d, 0, &[name, (0x49, ref4), (0x38, data1)]),
            (0x0d, 0, &[(0x49, ref4), (0x38, data1)]),
            (0x17, 1, &[(0x0b, data2)]),
            (0x24, 0, &[(0x0b, data1)]),
            (0x01, 1, &[(0x49, ref4)]),
            (0x21, 0, &[(0x2f, data1)]),
            (0x04, 1, &[name]),
            (0x28, 0, &[name, (0x1c, data1)]),
            (0x16, 0, &[name, (0x49, ref4)]),
        ];
        let mut bytes = Vec::new();
        for (code, (tag, children, attributes)) in (1..).zip(all) {
            bytes.extend([code, tag, children]);
            attributes.iter().for_each(|(at, form)| bytes.extend([*at, *form]));
            bytes.extend([0, 0]);
        }
        bytes.push(0);
        bytes
    }

    fn name(&mut self, name: &str) {
        if self.version == 5 {
            self.info.extend(((self.string_offsets.len() as u16 - 8) / 4).to_le_bytes());
            self.string_offsets.extend((self.strings.len() as u32).to_le_bytes());
            self.strings.extend(name.bytes().chain([0]));
        } else {
            self.info.extend(name.bytes().chain([0]));
        }
    }

    /// Begins an entry; gives its offset in the unit.
    fn entry(&mut self, code: u8) -> u32 {
        self.info.push(code);
        self.info.len() as u32 - 1
    }

    fn named(&mut self, code: u8, name: &str) -> u32 {
        let at = self.entry(code);
        self.name(name);
        at
    }

    fn member(&mut self, name: &str, kind: u32, offset: u8) {
        self.named(MEMBER, name);
        self.info.extend(kind.to_le_bytes());
        self.info.push(offset);
    }

    fn unnamed_member(&mut self, kind: u32, offset: u8) {
        self.entry(UNNAMED_MEMBER);
        self.info.extend(kind.to_le_bytes());
        self.info.push(offset);
    }

    fn structure(&mut self, name: &str, size: u16, members: &[(&str, u32, u8)]) -> u32 {
        let at = self.named(STRUCTURE, name);
        self.info.extend(size.to_le_bytes());
        members.iter().for_each(|(name, kind, offset)| self.member(name, *kind, *offset));
        self.entry(END);
        at
    }

    fn array(&mut self, of: u32, last: u8) -> u32 {
        let at = self.entry(ARRAY);
        self.info.extend(of.to_le_bytes());
        self.entry(SUBRANGE);
        self.info.push(last);
        self.entry(END);
        at
    }

    fn enumeration(&mut self, name: &str, values: &[(&str, u8)]) {
        self.named(ENUM, name);
        for (name, value) in values {
            self.named(ENUMERATOR, name);
            self.info.push(*value);
        }
        self.entry(END);
    }

    fn types(&mut self) {
        let header: &[u8] =
            if self.version == 5 { &[0, 0, 0, 0, 5, 0, 1, 8, 0, 0, 0, 0] } else { &[0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8] };
        self.info = header.to_vec();
        self.entry(1);
        self.info.extend(8_u32.to_le_bytes());
        self.name("kernel/vmcore_info.c");
        let long = self.entry(BASE);
        self.info.push(8);
        let list = self.structure("list_head", 16, &[("next", long, 0), ("prev", long, 8)]);
        let inner = self.structure("", 16, &[("lru", list, 0)]);
        let union = self.entry(UNNAMED_UNION);
        self.info.extend(24_u16.to_le_bytes());
        self.unnamed_member(inner, 0);
        self.member("compound_head", long, 0);
        self.entry(END);
        self.named(STRUCTURE, "page");
        self.info.extend(64_u16.to_le_bytes());
        self.member("flags", long, 0);
        self.unnamed_member(union, 8);
        self.member("page_type", long, 48);
        self.entry(END);
        let lists = self.array(list, 4);
        let area = self.structure("free_area", 88, &[("free_list", lists, 0), ("nr_free", long, 80)]);
        let areas = self.array(area, 10);
        self.structure("zone", 1408, &[("free_area", areas, 192)]);
        self.structure("pglist_data", 5184, &[("node_id", long, 200)]);
        self.structure("uts_namespace", 408, &[("name", long, 0)]);
        let section = self.structure("mem_section", 16, &[("section_mem_map", long, 0)]);
        assert_ne!(section, 0);
        let counter = self.structure("", 8, &[("counter", long, 0)]);
        for name in ["nodemask_t", "atomic_long_t"] {
            self.named(TYPEDEF, name);
            self.info.extend(counter.to_le_bytes());
        }
        self.enumeration("pageflags", &[("PG_lru", 5), ("PG_head", 6), ("PG_slab", 200)]);
        self.enumeration("zone_stat_item", &[("NR_FREE_PAGES", 0)]);
        self.enumeration("pagetype", &[("PGTY_buddy", 0xf0), ("PGTY_slab", 0xf5)]);
        self.entry(END);
        let len = self.info.len() as u32 - 4;
        self.info[..4].copy_from_slice(&len.to_le_bytes());
        let len = self.string_offsets.len() as u32 - 4;
        self.string_offsets[..4].copy_from_slice(&len.to_le_bytes());
        self.string_offsets[4] = 5;
    }

    fn pack(&self, bytes: &[u8]) -> (u64, Vec<u8>) {
        let Some(kind) = self.packed else { return (0, bytes.to_vec()) };
        let mut section = [u64::from(kind), bytes.len() as u64, 1].map(u64::to_le_bytes).concat();
        if kind == 1 {
            let mut packer = flate2::write::ZlibEncoder::new(&mut section, flate2::Compression::default());
            packer.write_all(bytes).unwrap();
            packer.finish().unwrap();
        } else {
            section.extend(zstd::bulk::compress(bytes, 1).unwrap());
        }
        (0x800, section)
    }

    fn build(mut self) -> Vec<u8> {
        self.types();
        let mut data = b"Linux version 6.12.1-test (cc) #1\0".to_vec();
        data.resize(64, 0);
        let (mut names, mut symbols) = (vec![0], vec![0; 24]);
        for (name, address, size) in
            [("_stext", DATA - 0x100_0000, 0), ("linux_banner", DATA, 34), ("mem_section", DATA + 0x1000, 8)]
        {
            symbols.extend((names.len() as u32).to_le_bytes());
            symbols.extend([0x10, 0, 1, 0]);
            symbols.extend([address, size].map(u64::to_le_bytes).concat());
            names.extend(name.bytes().chain([0]));
        }
        let mut file = vec![0; 64];
        let (mut headers, mut section_names) = (vec![0; 64], vec![0]);
        let sections: [(&str, u32, u64, &[u8]); 8] = [
            (".data", 1, DATA, &data),
            (".debug_info", 1, 0, &self.info),
            (".debug_abbrev", 1, 0, &self.abbreviations()),
            (".debug_str", 1, 0, &self.strings),
            (".debug_str_offsets", 1, 0, &self.string_offsets),
            (".strtab", 3, 0, &names),
            (".symtab", 2, 0, &symbols),
            (".shstrtab", 3, 0, &[]),
        ];
        for (name, kind, address, bytes) in sections {
            let (mut flags, mut bytes) =
                if name.starts_with(".debug") { self.pack(bytes) } else { (0, bytes.to_vec()) };
            flags |= u64::from(address != 0) << 1;
            headers.extend([section_names.len() as u32, kind].map(u32::to_le_bytes).concat());
            section_names.extend(name.bytes().chain([0]));
            if name == ".shstrtab" {
                bytes.clone_from(&section_names);
            }
            headers.extend([flags, address, file.len() as u64, bytes.len() as u64].map(u64::to_le_bytes).concat());
            headers.extend([6_u64, 1, 24].map(u64::to_le_bytes).concat());
            file.extend(bytes);
        }
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        let at = file.len() as u64;
        file[40..48].copy_from_slice(&at.to_le_bytes());
        file[58..64].copy_from_slice(&[64, 0, ENTRIES, 0, ENTRIES - 1, 0]);
        file.extend(headers);
        file
    }
}

fn read(bytes: &[u8], path: &Path) -> Result<Vmcoreinfo, Error> {
    // a new file each time: the old one may not be truncated while it is mapped
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).unwrap();
    vmcoreinfo(path)
}

#[test]
fn versions_and_compressions() {
    for (version, packed) in [(4, None), (5, None), (4, Some(1)), (5, Some(2))] {
        let made =
            read(&Synthetic::new(version, packed).build(), &scratch().join(format!("vmlinux-{version}{packed:?}")));
        let made = made.unwrap_or_else(|e| panic!("DWARF {version}, {packed:?}: {e}"));
        assert_eq!(made.get("OSRELEASE"), Some("6.12.1-test"));
        assert_eq!((made.size("page"), made.size("nodemask_t")), (Some(64), Some(8)));
        assert_eq!((made.offset("page.lru"), made.offset("page.compound_head")), (Some(8), Some(8)));
        assert_eq!((made.get("LENGTH(zone.free_area)"), made.get("LENGTH(mem_section)")), (Some("11"), Some("2048")));
        assert_eq!((made.number("PG_slab"), made.number("PG_head_mask")), (Some(200), Some(64)));
        assert_eq!(made.number("PAGE_BUDDY_MAPCOUNT_VALUE"), Some(-268_435_456));
        assert_eq!(made.number("VMALLOC_START"), Some(0xffff_c900_0000_0000_u64 as i64));
    }
}

#[test]
fn files_without_what_is_needed() {
    let path = scratch().join("vmlinux-without");
    let whole = Synthetic::new(4, None).build();
    let rename = |from: &str, to: &str| {
        let at = whole.windows(from.len()).rposition(|w| w == from.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        read(&bytes, &path).unwrap_err().to_string()
    };
    assert!(rename(".debug_info", ".other_info").contains("has no DWARF"));
    assert!(rename("pglist_data", "other_thing").contains("pglist_data"));
    assert!(rename("_stext", "_other").contains("_stext"));
    assert!(read(b"MZ", &path).unwrap_err().to_string().contains("vmlinuz"));
    assert!(read(b"", &path).is_err() && vmcoreinfo(Path::new("/nonexistent")).is_err());
}

#[test]
fn damaged_files() {
    for (version, packed) in [(4, None), (5, None), (5, Some(2))] {
        let path = scratch().join(format!("vmlinux-damaged-{version}{packed:?}"));
        let mut bytes = Synthetic::new(version, packed).build();
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], &path).is_err(), "{len} bytes");
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                bytes[at] ^= flip;
                if let Err(e) = read(&bytes, &path) {
                    assert!(matches!(e, Error::Usage(_)), "byte {at:#x}: {e}");
                }
                bytes[at] ^= flip;
            }
        }
        assert!(read(&bytes, &path).is_ok());
    }
}
