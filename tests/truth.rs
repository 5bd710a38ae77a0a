//! The outputs against the truth: every page, every page-table entry, every register, read back with readers of our
//! own from each form of output.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::cut::{Shape, cut, cut_with};
use support::dump::{Dump, Note, PAGE, open, u32_at, u64_at};
use support::elf::{Elf, IMAGE, Load};
use support::fixtures::{Fixture, hex};
use support::kdump::Kdump;
use support::symbols::Symbols;
use support::truth::{FRAME, Truth};
use support::{Findings, on_each_fixture, sha256};

/// Where x86-64's user_regs_struct, as NT_PRSTATUS has it from byte 112, keeps what the truth knows.
const PRSTATUS: [(&str, usize); 18] = [
    ("r15", 0),
    ("r14", 1),
    ("r13", 2),
    ("r12", 3),
    ("rbp", 4),
    ("rbx", 5),
    ("r11", 6),
    ("r10", 7),
    ("r9", 8),
    ("r8", 9),
    ("rax", 10),
    ("rcx", 11),
    ("rdx", 12),
    ("rsi", 13),
    ("rdi", 14),
    ("rip", 16),
    ("rflags", 18),
    ("rsp", 19),
];

/// The order of QEMU's CPU state, from byte 8.
const QEMU: [&str; 18] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rip", "rflags",
];

/// Where the kernel's own code and data begin.
const KERNEL: u64 = 0xffff_8000_0000_0000;

/// Xen says so before it starts the capture kernel.
#[test]
fn the_cpu_that_crashed_is_the_one_that_the_console_names() {
    on_each_fixture(|fixture, findings| {
        let info = std::process::Command::new(env!("CARGO_BIN_EXE_xdump-cut"))
            .args(["info", "--json"])
            .arg(&fixture.vmcore)
            .output()
            .unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        let crashed = info["cpus"].as_array().unwrap().iter().filter(|cpu| cpu["crashed"] == true);
        let found: Vec<String> = crashed.map(|cpu| cpu["id"].to_string()).collect();
        let said = fixture.console.split("Executing kexec image on cpu").nth(1).unwrap();
        let said: String = said.chars().take_while(char::is_ascii_digit).collect();
        findings.check(found == [said.as_str()], "CPU that crashed", || format!("{found:?}, the console says {said}"));
    });
}

#[test]
fn the_truth_is_that_of_the_uncut_dump() {
    on_each_fixture(|fixture, findings| {
        let truth = Truth::read(fixture);
        for (pfn, line) in &truth.lines {
            let page = truth.original(*pfn);
            let zero = page.iter().all(|&byte| byte == 0);
            findings.check(zero == line.zero, "zero or not", || format!("page {pfn:#x}"));
            findings
                .check(zero || sha256::first_16_digits(&page[..]) == line.hash, "hash", || format!("page {pfn:#x}"));
        }
    });
}

#[test]
fn zstd_pages_are_dom0s() {
    pages_are_dom0s(Shape::Kdump);
}

#[test]
fn zlib_pages_are_dom0s() {
    pages_are_dom0s(Shape::Zlib);
}

#[test]
fn uncompressed_pages_are_dom0s() {
    pages_are_dom0s(Shape::Raw);
}

#[test]
fn elf_pages_are_dom0s() {
    pages_are_dom0s(Shape::Elf);
}

fn pages_are_dom0s(shape: Shape) {
    on_each_fixture(|fixture, findings| {
        let (truth, output) = (Truth::read(fixture), open(&cut(fixture, shape)));
        let frames = output.frames();
        let heap = heap_frames(fixture, &truth, &frames, findings);
        let note = own_note(output.as_ref());
        let cleared = start_info(fixture, &note, findings);
        // tables of processes that were being made or ended, which Xen takes for ordinary pages
        let told = note.iter().filter(|(key, _)| key == "TABLE_UNPINNED");
        let told = told.map(|(_, text)| text.split_once(' ').unwrap());
        let unpinned: BTreeMap<u64, bool> = told.map(|(pfn, level)| (hex(pfn), level == "level=4")).collect();
        let mut tables =
            Tables { truth: &truth, unpinned: &unpinned, heap: &heap, heap_of: BTreeMap::new(), rewritten: 0 };
        for (&pfn, line) in truth.lines.iter().filter(|(pfn, _)| frames.contains(pfn)) {
            let (was, is) = (truth.original(pfn), output.page(pfn).unwrap());
            if let Some(level) = line.level {
                tables.check(level, pfn, &was[..], &is[..], findings);
            } else if pfn == cleared.addr / PAGE as u64 {
                cleared.check(&was[..], &is[..], findings);
            } else if unpinned.contains_key(&pfn) {
                tables.check_unpinned(pfn, &was[..], &is[..], findings);
            } else {
                findings.check(was == is, "not the machine page's bytes", || format!("page {pfn:#x}"));
            }
        }
        // each Xen-heap page is the machine page that the tables mapped
        for (&mfn, &pfn) in &tables.heap_of {
            let same = output.page(pfn) == truth.machine_page(mfn);
            findings.check(same, "not the Xen-heap page's bytes", || format!("page {pfn:#x} of frame {mfn:#x}"));
        }
        // and the note hides nothing of it
        let told = note.iter().find(|(key, _)| key == "ENTRIES_REWRITTEN").map(|(_, value)| value.as_str());
        let rewritten = tables.rewritten.to_string();
        findings.check(told == Some(&rewritten), "ENTRIES_REWRITTEN", || format!("{told:?} for {rewritten}"));
    });
}

/// The frames of the output are dom0's, and above them at most the Xen-heap pages that dom0 owns, which are returned; none
/// takes the place of a foreign frame.
fn heap_frames(fixture: &Fixture, truth: &Truth, frames: &BTreeSet<u64>, findings: &mut Findings) -> BTreeSet<u64> {
    for pfn in truth.lines.keys() {
        findings.check(frames.contains(pfn), "page missing", || format!("page {pfn:#x}"));
    }
    let others = frames.iter().copied().filter(|pfn| !truth.lines.contains_key(pfn));
    let (heap, strange): (BTreeSet<u64>, BTreeSet<u64>) = others.partition(|&pfn| truth.is_vacant(pfn));
    strange.iter().for_each(|pfn| findings.add("page that is not dom0's", format!("page {pfn:#x}")));
    let owned = fixture.json["machine_pages"]["domain 0 (Xen heap)"].as_u64().unwrap_or(0);
    findings.check(heap.len() as u64 <= owned, "more Xen-heap pages than dom0 owns", || format!("{heap:x?}"));
    // shared_info at least is mapped by every PV kernel
    findings.check(!heap.is_empty(), "shared_info missing", String::new);
    heap
}

/// The variable that is cleared so that readers do not take dom0 for a Xen guest.
struct StartInfo {
    /// Pseudo-physical.
    addr: u64,
    old: u64,
}

impl StartInfo {
    fn check(&self, was: &[u8], is: &[u8], findings: &mut Findings) {
        let at = self.addr as usize % PAGE;
        findings.check(u64_at(was, at) == self.old, "old xen_start_info", || format!("told {:#x}", self.old));
        findings.check(u64_at(is, at) == 0, "xen_start_info not cleared", || format!("{:#x}", u64_at(is, at)));
        let others = (0..PAGE).filter(|byte| !(at..at + 8).contains(byte) && was[*byte] != is[*byte]);
        others.for_each(|byte| findings.add("changed beside xen_start_info", format!("byte {byte:#x}")));
    }
}

/// Where the XDUMPCUT note says that xen_start_info is, which must be where vmlinux has it.
fn start_info(fixture: &Fixture, note: &[(String, String)], findings: &mut Findings) -> StartInfo {
    let cleared: Vec<&String> = note.iter().filter(|(key, _)| key == "CLEARED").map(|(_, value)| value).collect();
    // kernels before 4.20 have a second mark, pv_init_ops; no fixture's is that old
    assert_eq!(cleared.len(), 1, "{}: CLEARED lines of the XDUMPCUT note: {cleared:?}", fixture.name);
    let words: BTreeMap<&str, &str> = cleared[0].split(' ').filter_map(|word| word.split_once('=')).collect();
    let virt = hex(words["address"]);
    let symbol = Symbols::read(fixture.vmlinux()).address("xen_start_info");
    let told = cleared[0].starts_with("xen_start_info ") && virt == symbol;
    findings.check(told, "not xen_start_info", || format!("{} for {symbol:#x}", cleared[0]));
    // a PV kernel lies as it was linked, without KASLR
    StartInfo { addr: virt - 0xffff_ffff_8000_0000, old: hex(words["old"]) }
}

/// KEY=VALUE lines of the XDUMPCUT note.
fn own_note(output: &dyn Dump) -> Vec<(String, String)> {
    let note = output.notes().iter().find(|note| note.name == "XDUMPCUT").expect("no XDUMPCUT note");
    let text = std::str::from_utf8(&note.desc).unwrap().trim_end_matches('\0');
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_string(), v.to_string()));
    text.lines().map(|line| pair(line).unwrap_or_else(|| panic!("{line} of XDUMPCUT is no KEY=VALUE"))).collect()
}

struct Tables<'a> {
    truth: &'a Truth,
    /// Tables that Xen does not know, and whether they are L4.
    unpinned: &'a BTreeMap<u64, bool>,
    heap: &'a BTreeSet<u64>,
    /// Machine frames that were found mapped as a page of the Xen heap's, and as which.
    heap_of: BTreeMap<u64, u64>,
    /// Entries that hold a number of this dump's instead of the machine's.
    rewritten: usize,
}

impl Tables<'_> {
    fn check(&mut self, level: u8, pfn: u64, was: &[u8], is: &[u8], findings: &mut Findings) {
        for slot in 0..PAGE / 8 {
            let (was, is) = (u64_at(was, slot * 8), u64_at(is, slot * 8));
            if let Err(kind) = self.entry(level, slot, was, is) {
                findings.add(kind, format!("L{level} {pfn:#x} slot {slot}: {was:#x} became {is:#x}"));
            }
        }
    }

    /// Of these only entries of dom0's frames are altered; one that was pinned before has Xen's slots still.
    fn check_unpinned(&mut self, pfn: u64, was: &[u8], is: &[u8], findings: &mut Findings) {
        for slot in 0..PAGE / 8 {
            let (was, is) = (u64_at(was, slot * 8), u64_at(is, slot * 8));
            let own = self.truth.pfn_of.get(&((was & FRAME) >> 12)).filter(|_| was & 1 != 0);
            let of_xen = self.unpinned[&pfn] && (256..=271).contains(&slot);
            self.rewritten += usize::from(own.is_some() && !of_xen);
            let expected = if of_xen { 0 } else { own.map_or(was, |own| was & !FRAME | own << 12) };
            findings
                .check(is == expected, "unpinned table", || format!("{pfn:#x} slot {slot}: {was:#x} became {is:#x}"));
        }
    }

    fn entry(&mut self, level: u8, slot: usize, was: u64, is: u64) -> Result<(), &'static str> {
        let ok = |ok: bool, kind| if ok { Ok(()) } else { Err(kind) };
        if level == 4 && (256..=271).contains(&slot) {
            return ok(is == 0, "Xen's slot not cleared");
        }
        if was & 1 == 0 {
            return ok(is == was, "entry that is not present changed");
        }
        let (from, to) = ((was & FRAME) >> 12, (is & FRAME) >> 12);
        if let Some(own) = self.truth.pfn_of.get(&from) {
            self.rewritten += 1;
            return ok(is == was & !FRAME | own << 12, "entry of a dom0 frame");
        }
        let taken = self.truth.lines.contains_key(&from) || self.heap.contains(&from);
        if is == was & !1 {
            // nothing in this dump stands for another's or Xen's memory, or for a device whose number a page here has
            return ok(taken || self.truth.machine_page(from).is_some(), "entry of a device cleared without need");
        }
        ok((is ^ was) & !FRAME == 0, "flags of an entry changed")?;
        if self.heap.contains(&to) {
            self.rewritten += 1;
            return ok(*self.heap_of.entry(from).or_insert(to) == to, "Xen-heap frame under two numbers");
        }
        if self.truth.foreign.get(&to) == Some(&from) {
            self.rewritten += 1;
            return Ok(());
        }
        // device memory keeps its number, unless a page of this dump would be taken for it
        ok(is == was && !taken, "entry of a frame that is not dom0's")
    }
}

#[test]
fn kdump_notes_are_the_vcpus() {
    on_each_fixture(|fixture, findings| {
        let output = Kdump::open(&cut(fixture, Shape::Kdump));
        notes_are_the_vcpus(fixture, &output, findings);
        let header = &output.header;
        let machine = &header[12 + 4 * 65..][..7];
        findings.check(machine == b"x86_64\0", "machine in the header", || format!("{machine:?}"));
        let cpus = u32_at(header, 460) as usize;
        findings.check(cpus == fixture.vcpus().len(), "nr_cpus in the header", || cpus.to_string());
        // where makedumpfile and libkdumpfile look for it
        findings.check(output.vmcoreinfo().starts_with(b"OSRELEASE="), "offset of VMCOREINFO", String::new);
    });
}

#[test]
fn elf_notes_are_the_vcpus() {
    on_each_fixture(|fixture, findings| {
        let output = Elf::open(&cut(fixture, Shape::Elf));
        notes_are_the_vcpus(fixture, &output, findings);
        findings.check((output.kind, output.machine) == (4, 62), "not an x86-64 core", String::new);
        let mut end = 0;
        for load in &output.loads {
            findings.check(load.paddr >= end, "PT_LOADs overlap", || format!("{load:x?}"));
            end = load.paddr + load.memsz;
            // crash takes any other alignment for a netdump, and dies on a QEMU note there
            findings.check(load.align == 0, "p_align is not 0", || format!("{load:x?}"));
            findings.check(load.filesz <= load.memsz, "p_filesz above p_memsz", || format!("{load:x?}"));
            findings.check(load.offset + load.filesz <= output.file_len, "PT_LOAD beyond the file", || {
                format!("{load:x?}")
            });
            let direct_map = load.vaddr - load.paddr;
            findings
                .check(direct_map == 0xffff_8880_0000_0000, "p_vaddr not in the direct map", || format!("{load:x?}"));
        }
        findings.check(!output.image.is_empty(), "no PT_LOAD of the kernel's image", String::new);
        for load in &output.image {
            // the same bytes of the file as the direct map's
            let whole = |all: &&Load| (all.paddr..all.paddr + all.memsz).contains(&load.paddr);
            let all = output.loads.iter().find(whole).unwrap_or_else(|| panic!("{load:x?} is in no other PT_LOAD"));
            let into = load.paddr - all.paddr;
            let same = load.offset == all.offset + into.min(all.filesz)
                && load.filesz == all.filesz.saturating_sub(into).min(load.memsz)
                && into + load.memsz <= all.memsz;
            findings.check(same, "PT_LOAD of the image has other data", || format!("{load:x?} in {all:x?}"));
            findings.check(load.vaddr == IMAGE + load.paddr, "PT_LOAD of the image elsewhere", || format!("{load:x?}"));
        }
    });
}

fn notes_are_the_vcpus(fixture: &Fixture, output: &dyn Dump, findings: &mut Findings) {
    let named = |name: &str, kind: u32| -> Vec<&Note> {
        output.notes().iter().filter(|note| note.name == name && note.kind == kind).collect()
    };
    // gdb and crash take any note of type 1 for registers, whatever its name
    let alike = output.notes().iter().find(|note| note.kind == 1 && note.name != "CORE");
    findings.check(alike.is_none(), "a note that looks like NT_PRSTATUS", || format!("{alike:?}"));
    let xen = output.notes().iter().any(|note| note.name == "Xen");
    findings.check(!xen, "a note named Xen: crash would translate once more", String::new);
    let vmcoreinfo = named("VMCOREINFO", 0);
    let told = vmcoreinfo.len() == 1 && vmcoreinfo[0].desc.starts_with(b"OSRELEASE=");
    findings.check(told, "not one VMCOREINFO note that starts with OSRELEASE=", String::new);
    own_note(output);

    let (prstatus, qemu, vcpus) = (named("CORE", 1), named("QEMU", 0), fixture.vcpus().len());
    for (what, notes) in [("NT_PRSTATUS", &prstatus), ("QEMU", &qemu)] {
        findings.check(notes.len() == vcpus, "notes for each vCPU", || format!("{} of {what}", notes.len()));
    }
    for (vcpu, note) in prstatus.iter().enumerate().take(vcpus) {
        let desc = &note.desc;
        // drgn looks for CPU number + 1, as QEMU counts
        findings.check(u32_at(desc, 32) == vcpu as u32 + 1, "pr_pid", || format!("vCPU {vcpu}"));
        for (name, at) in PRSTATUS {
            let (is, told) = (u64_at(desc, 112 + at * 8), fixture.register(vcpu, name));
            findings
                .check(is == told, "register in NT_PRSTATUS", || format!("vCPU {vcpu} {name}: {is:#x} for {told:#x}"));
        }
        if fixture.register(vcpu, "rip") >= KERNEL {
            let (cs, ss) = (u64_at(desc, 112 + 17 * 8), u64_at(desc, 112 + 20 * 8));
            findings.check((cs, ss) == (0x10, 0x18), "cs and ss", || format!("vCPU {vcpu}: {cs:#x} {ss:#x}"));
        }
    }
    let truth = Truth::read(fixture);
    for (vcpu, note) in qemu.iter().enumerate().take(vcpus) {
        let desc = &note.desc;
        let head = (desc.len(), u32_at(desc, 0), u32_at(desc, 4));
        findings.check(head == (440, 1, 440), "size and version of QEMU's note", || format!("vCPU {vcpu}: {head:?}"));
        for (at, name) in QEMU.into_iter().enumerate() {
            let (is, told) = (u64_at(desc, 8 + at * 8), fixture.register(vcpu, name));
            findings
                .check(is == told, "register in QEMU's note", || format!("vCPU {vcpu} {name}: {is:#x} for {told:#x}"));
        }
        // libkdumpfile, and so drgn, walks the tables from here
        let cr3 = u64_at(desc, 392 + 3 * 8);
        let root = truth.lines.get(&(cr3 >> 12)).and_then(|line| line.level);
        findings.check(root == Some(4), "cr3 in QEMU's note is no root table", || format!("vCPU {vcpu}: {cr3:#x}"));
    }
}

#[test]
fn threads_and_mmap_change_no_byte() {
    on_each_fixture(|fixture, findings| {
        for (form, level) in ["--format=kdump", "--format=elf"].into_iter().flat_map(|f| [(f, "-d1"), (f, "-d31")]) {
            let make = |options: &[&str]| {
                let path = cut_with(fixture, "threads", &[&[form, level, "-f"], options].concat());
                std::fs::read(path).unwrap()
            };
            let want = make(&[]);
            for options in [&["--threads", "1"][..], &["--threads", "2"], &["--threads", "7"], &["--no-mmap"]] {
                let same = make(options) == want;
                findings.check(same, "other bytes than the default's", || format!("{form} {level} {options:?}"));
            }
        }
    });
}
