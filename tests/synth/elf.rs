//! The ELF vmcore: what kexec-tools and the capture kernel make of the machine.

use super::build::World;
use super::domains::Cpu;
use super::truth::Regs;
use super::vmcoreinfo::note;
use super::xen::ImageInfo;

#[derive(Clone, Debug)]
pub struct ElfOptions {
    /// At least so many PT_LOADs: RAM ranges are split.
    pub loads: usize,
    /// PT_LOADs in no order.
    pub unsorted: bool,
    /// Some PT_LOADs say again what others said (QEMU's dump-guest-memory -p).
    pub overlapping: bool,
    /// More than 65,535 program headers: PN_XNUM and a section header. One PT_LOAD a page, the last
    /// pages behind index 65,535.
    pub xnum: bool,
    /// The last so many pages of low RAM (at most 16, all zero) are in p_memsz only.
    pub memsz_only: u64,
    pub notes_align: u64,
    /// p_align of PT_LOADs: 0 as in kdump.
    pub load_align: u64,
    /// MFN ranges that the dump lacks.
    pub holes: Vec<(u64, u64)>,
    /// The file ends here.
    pub truncate: Option<usize>,
    pub class32: bool,
    pub big_endian: bool,
    /// One PT_NOTE for each note instead of one for all.
    pub split_notes: bool,
    pub prstatus: bool,
    /// QEMU's CPU notes behind all of `prstatus`.
    pub qemu: bool,
    pub crash_regs: bool,
    pub crash_info: bool,
    /// 9: no xen_phys_start, as 3.1 and 3.2 wrote it; 10: since 3.3.
    pub crash_words: usize,
    /// The frame list list of the crash note, where it differs from the shared info's.
    pub crash_frame_list_list: Option<u64>,
    pub vmcoreinfo_xen: bool,
    /// Dom0's own VMCOREINFO note in the file, as kexec-tools 2.0.0-2.0.3 wrote it.
    pub vmcoreinfo: bool,
    /// Random bytes instead of notes.
    pub junk_notes: bool,
}

impl Default for ElfOptions {
    fn default() -> Self {
        ElfOptions {
            loads: 0,
            unsorted: false,
            overlapping: false,
            xnum: false,
            memsz_only: 0,
            notes_align: 4,
            load_align: 0,
            holes: Vec::new(),
            truncate: None,
            class32: false,
            big_endian: false,
            split_notes: false,
            prstatus: true,
            qemu: false,
            crash_regs: true,
            crash_info: true,
            crash_words: 10,
            crash_frame_list_list: None,
            vmcoreinfo_xen: true,
            vmcoreinfo: false,
            junk_notes: false,
        }
    }
}

impl ElfOptions {
    /// No Xen note of any kind: QEMU's dump, or not a Xen machine.
    pub fn no_xen_notes(&mut self) {
        (self.crash_regs, self.crash_info, self.vmcoreinfo_xen) = (false, false, false);
    }

    /// As QEMU's dump-guest-memory writes it.
    pub fn by_qemu(&mut self) {
        self.no_xen_notes();
        (self.qemu, self.notes_align) = (true, 0);
    }
}

pub struct Notes(pub Vec<Vec<u8>>);

impl Notes {
    pub fn new(w: &World, cpus: &[Cpu], info: &ImageInfo) -> Notes {
        let o = &w.o.elf;
        let mut notes = Vec::new();
        for (n, cpu) in cpus.iter().enumerate() {
            // elf_prstatus: pr_pid stays 0, pr_reg at 112 has Xen's registers.
            let mut status = vec![0; 336];
            let mut reg = |i: usize, v: u64| status[112 + i * 8..120 + i * 8].copy_from_slice(&v.to_le_bytes());
            let (cs, flags, ss) = (0xe008, 0x202, 0xe010);
            let regs = [(4, cpu.rsp + 0x20), (16, cpu.rip), (17, cs), (18, flags), (19, cpu.rsp), (20, ss)];
            regs.into_iter().filter(|_| cpu.rsp != 0).for_each(|(i, v)| reg(i, v));
            if o.prstatus {
                notes.push(note("CORE", 1, &status));
            }
            if o.crash_regs {
                let words = [0x8005_003b, 0x5608_bf71_a0e8, cpu.cr3, 0x15_0660u64];
                notes.push(note("Xen", 0x100_0002, &words.map(u64::to_le_bytes).concat()));
            }
            if n == 0 && o.crash_info {
                notes.push(note("Xen", 0x100_0001, &crash_info(w, info)));
            }
        }
        if o.qemu {
            notes.extend(cpus.iter().map(|cpu| note("QEMU", 0, &qemu_state(cpu))));
        }
        if o.vmcoreinfo {
            notes.push(note("VMCOREINFO", 0, w.t.vmcoreinfo.as_bytes()));
        }
        if o.vmcoreinfo_xen {
            // A page minus the note's own head, NUL padded.
            let mut text = info.vmcoreinfo.clone().into_bytes();
            text.resize(4068, 0);
            notes.push(note("VMCOREINFO_XEN", 0, &text));
        }
        if o.junk_notes {
            let mut rng = super::mem::Rng::new(w.o.seed ^ 0x1bad);
            notes = vec![(0..64).flat_map(|_| rng.next().to_le_bytes()).collect()];
        }
        Notes(notes)
    }
}

/// QEMUCPUState (target/i386/arch_dump.c), version 1 of 440 bytes.
fn qemu_state(cpu: &Cpu) -> Vec<u8> {
    let mut out = [1u32, 440].map(u32::to_le_bytes).concat();
    let xen = Regs { rip: cpu.rip, rsp: cpu.rsp, rflags: 0x202, cs: 0xe008, ss: 0xe010, ..Regs::default() };
    let r = cpu.guest.unwrap_or(xen);
    let words = [
        r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15,
        r.rip, r.rflags,
    ];
    out.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    let selectors = [r.cs, 0, 0, 0, 0, r.ss, 0, 0xe040, 0, 0];
    for (i, selector) in selectors.into_iter().enumerate() {
        out.extend([u32::from(selector), 0xffff_ffff, 0, 0].map(u32::to_le_bytes).concat());
        out.extend(if i == 7 { cpu.tss } else { 0 }.to_le_bytes());
    }
    out.extend([0x8005_003b, 0, 0x5608_bf71_a0e8, cpu.cr3, 0x15_0660, 0u64].map(u64::to_le_bytes).concat());
    assert_eq!(out.len(), 440);
    out
}

fn crash_info(w: &World, info: &ImageInfo) -> Vec<u8> {
    let mut words = vec![w.o.layout.major, w.o.layout.minor];
    words.extend(info.strings);
    words.push(1);
    if w.o.elf.crash_words >= 10 {
        words.push(w.t.xen_phys_start);
    }
    words.push(w.o.elf.crash_frame_list_list.unwrap_or(w.t.frame_list_list));
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Machine byte ranges that the file holds: RAM without the crash area, holes and dropped pages. The
/// first range ends inside a page, as the E820 map of every PC has it.
pub fn saved_ranges(w: &World) -> Vec<(u64, u64)> {
    let mut cuts: Vec<(u64, u64)> = w.o.elf.holes.iter().map(|h| (h.0 << 12, h.1 << 12)).collect();
    cuts.push(w.t.crash_area);
    cuts.extend(w.dropped.iter().map(|m| (m << 12, (m + 1) << 12)));
    cuts.sort_unstable();
    let mut out = Vec::new();
    for &(start, end) in &w.ram {
        let (mut at, end) = (start << 12, if start == 0 { 0x9_fc00 } else { end << 12 });
        for &(from, to) in &cuts {
            if from < end && to > at {
                if from > at {
                    out.push((at, from));
                }
                at = to.min(end);
            }
        }
        if at < end {
            out.push((at, end));
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Header {
    kind: u32,
    offset: u64,
    va: u64,
    pa: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// Cuts ranges until there are enough of them, at page edges.
fn split(ranges: &[(u64, u64)], want: usize) -> Vec<(u64, u64)> {
    let total: u64 = ranges.iter().map(|r| r.1 - r.0).sum();
    let step = (total / want.max(1) as u64).max(4096) & !0xfff;
    let mut out = Vec::new();
    for &(mut start, end) in ranges {
        while want > ranges.len() && end - start > step {
            out.push((start, start + step));
            start += step;
        }
        out.push((start, end));
    }
    out
}

/// File bytes of a header field in the class and byte order asked for.
struct Out<'a> {
    bytes: Vec<u8>,
    o: &'a ElfOptions,
}

impl Out<'_> {
    fn put(&mut self, value: u64, size: usize) {
        let le = value.to_le_bytes();
        if self.o.big_endian {
            self.bytes.extend(le[..size].iter().rev());
        } else {
            self.bytes.extend(&le[..size]);
        }
    }

    /// An address, offset or size.
    fn word(&mut self, value: u64) {
        let size = if self.o.class32 { 4 } else { 8 };
        self.put(value, size);
    }
}

pub fn write(w: &World, notes: &Notes, saved: &[(u64, u64)]) -> Vec<u8> {
    let o = &w.o.elf;
    let (ehdr, phdr, shdr) = if o.class32 { (52u64, 32, 40) } else { (64, 56, 64) };
    let mut parts = split(saved, if o.xnum { usize::MAX } else { o.loads });
    if o.overlapping {
        let more: Vec<(u64, u64)> = parts
            .iter()
            .filter(|p| p.1 - p.0 >= 0x4000)
            .map(|p| (p.0 + 0x1000, p.1 - 0x1000 - (p.1 & 0xfff)))
            .collect();
        parts.extend(more);
    }
    if o.unsorted {
        let mut rng = super::mem::Rng::new(w.o.seed ^ 0x50f7);
        for i in (1..parts.len()).rev() {
            parts.swap(i, rng.below(i as u64 + 1) as usize);
        }
    }
    let notes: Vec<Vec<u8>> = if o.split_notes { notes.0.clone() } else { vec![notes.0.concat()] };
    let count = if o.xnum { 66_000.max(notes.len() + parts.len()) } else { notes.len() + parts.len() };
    let note_at = (ehdr + phdr * count as u64 + if o.xnum { shdr } else { 0 }).next_multiple_of(4096);
    let mut headers = Vec::with_capacity(count);
    let mut at = note_at;
    for n in &notes {
        let size = n.len() as u64;
        headers.push(Header { kind: 4, offset: at, va: 0, pa: 0, filesz: size, memsz: size, align: o.notes_align });
        at += size.next_multiple_of(8);
    }
    at = at.next_multiple_of(4096);
    let low_end = w.top << 12;
    for &(start, end) in &parts {
        let short = if end == low_end { (o.memsz_only << 12).min(end - start) } else { 0 };
        let filesz = end - start - short;
        // kexec-tools' guess of dom0's direct map: no address of Xen's.
        let va = 0xffff_8880_0000_0000 + start;
        headers.push(Header { kind: 1, offset: at, va, pa: start, filesz, memsz: end - start, align: o.load_align });
        at += filesz.next_multiple_of(4096);
    }
    if o.xnum {
        // PT_NULL up to the index behind which the rest stands.
        let rest = headers.split_off(headers.len() - 1000);
        let null = Header { kind: 0, offset: 0, va: 0, pa: 0, filesz: 0, memsz: 0, align: 0 };
        headers.resize(count - 1000, null);
        headers.extend(rest);
    }
    let mut out = Out { bytes: Vec::with_capacity(at as usize), o };
    out.bytes.extend([0x7f, b'E', b'L', b'F', if o.class32 { 1 } else { 2 }, if o.big_endian { 2 } else { 1 }, 1]);
    out.bytes.resize(16, 0);
    // ET_CORE, EM_X86_64, EV_CURRENT.
    out.put(4, 2);
    out.put(62, 2);
    out.put(1, 4);
    out.word(0);
    out.word(ehdr);
    out.word(if o.xnum { ehdr + phdr * count as u64 } else { 0 });
    out.put(0, 4);
    out.put(ehdr, 2);
    out.put(phdr, 2);
    out.put(if o.xnum { 0xffff } else { count as u64 }, 2);
    out.put(if o.xnum { shdr } else { 0 }, 2);
    out.put(u64::from(o.xnum), 2);
    out.put(0, 2);
    for h in &headers {
        // R|W|X for loads, as kexec-tools has it.
        let flags = if h.kind == 1 { 7 } else { 0 };
        out.put(u64::from(h.kind), 4);
        if o.class32 {
            [h.offset, h.va, h.pa, h.filesz, h.memsz].into_iter().for_each(|v| out.put(v, 4));
            out.put(flags, 4);
        } else {
            out.put(flags, 4);
            [h.offset, h.va, h.pa, h.filesz, h.memsz].into_iter().for_each(|v| out.word(v));
        }
        out.word(h.align);
    }
    if o.xnum {
        // Section header 0: sh_info has the number of program headers.
        let start = out.bytes.len();
        out.bytes.resize(start + shdr as usize, 0);
        let info = start + if o.class32 { 28 } else { 44 };
        out.bytes[info..info + 4].copy_from_slice(&(count as u32).to_le_bytes());
    }
    let mut file = vec![0; at as usize];
    file[..out.bytes.len()].copy_from_slice(&out.bytes);
    for (h, n) in headers.iter().filter(|h| h.kind == 4).zip(&notes) {
        file[h.offset as usize..][..n.len()].copy_from_slice(n);
    }
    for h in headers.iter().filter(|h| h.kind == 1) {
        for (mfn, page) in w.mem.pages.range(h.pa >> 12..(h.pa + h.filesz).div_ceil(4096)) {
            let from = (mfn << 12) - h.pa;
            let n = (h.filesz - from).min(4096) as usize;
            file[(h.offset + from) as usize..][..n].copy_from_slice(&page[..n]);
        }
    }
    if let Some(length) = o.truncate {
        file.truncate(length);
    }
    file
}
