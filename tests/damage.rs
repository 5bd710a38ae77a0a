//! Damaged input: every length of the headers, every byte of them flipped, and random bytes of everything that is read
//! later. Whatever comes, it is an error or an answer; never a panic, an endless loop or a huge allocation.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod synth;

use std::path::Path;
use synth::{Kernel, Machine, NotePlace};
use xdump_cut::cut::cut;
use xdump_cut::error::Kind;
use xdump_cut::linux::names::Names;
use xdump_cut::linux::{Kernel as LinuxKernel, marks, note};
use xdump_cut::options::{Format, Options};
use xdump_cut::pipeline::Silent;
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::plan::Plan;
use xdump_cut::plan::layout::Layout;
use xdump_cut::plan::level::Level;
use xdump_cut::plan::selection::{Known, Selection};
use xdump_cut::sink::Output;
use xdump_cut::source::{MachineMemory, Vmcore};
use xdump_cut::xen::notes::XenNotes;
use xdump_cut::xen::vcpu::vcpus;
use xdump_cut::xen::{Host, P2m};
use xdump_cut::{Error, info::Info};

/// Bytes of the headers and notes of a synthetic dump: the first segment's data begins behind them.
fn head_len(bytes: &[u8]) -> usize {
    let at = |i: usize| word(bytes, i);
    let phnum = u16::from_le_bytes([bytes[56], bytes[57]]) as usize;
    let headers = (0..phnum).map(|n| 64 + n * 56);
    let notes = headers.filter(|h| bytes[*h] == 4).map(|h| at(h + 8) + at(h + 32)).max().unwrap();
    notes as usize
}

fn headers(bytes: &Vec<u8>) -> Result<XenNotes, Error> {
    let mut core = Vmcore::parse(bytes)?;
    core.take_segments();
    XenNotes::collect(&core)
}

/// All reading that a cut does before it writes.
fn read_all(bytes: &Vec<u8>) -> Result<u64, Error> {
    let mut core = Vmcore::parse(bytes)?;
    let mem = MachineMemory::new(bytes, core.take_segments());
    let host = Host::open(&mem, &core)?;
    let domain = host.hardware_domain().ok_or_else(|| Error::Unsupported("no domain 0".into()))?;
    let p2m = P2m::read(&host, domain)?;
    vcpus(&host, &[domain]);
    let kernel = LinuxKernel::find(&host, domain, &p2m);
    let landmarks = kernel.as_ref().map(LinuxKernel::landmarks).unwrap_or_default();
    let found = kernel.as_ref().and_then(|k| note::find(k, None, &landmarks.notes).ok());
    let names = kernel.as_ref().map(|k| Names::find(k, found.as_ref(), None)).transpose()?;
    let known = Known { kernel: kernel.as_ref(), found: found.as_ref(), names: names.as_ref(), landmarks: &landmarks };
    let choice = Selection::make(&known, &p2m, Level::MOST, false);
    Plan::in_layout(Layout::Machine { keep_xen: true }, &host, domain, &p2m, choice.clone());
    let mut plan = Plan::new(&host, domain, &p2m, choice);
    if let (Some(kernel), Some(names)) = (&kernel, &names) {
        plan.clear(kernel, marks::find(kernel, found.as_ref(), names, &landmarks).0);
    }
    Ok(plan.pages())
}

#[test]
fn headers_of_every_length() {
    let dump = Machine::new().build();
    let end = head_len(&dump.bytes);
    for n in 0..end {
        let e = headers(&dump.bytes[..n].to_vec()).err();
        if let Some(e) = e {
            assert_eq!(e.kind(), Kind::BadInput, "{n} bytes: {e}");
        }
    }
    assert!(headers(&dump.bytes[..end].to_vec()).is_ok());
}

#[test]
fn headers_with_every_byte_flipped() {
    let mut dump = Machine::new().with_elf(|e| e.loads = 5).build();
    for at in 0..head_len(&dump.bytes) {
        for flip in [0x01, 0x80, 0xff] {
            dump.bytes[at] ^= flip;
            if let Err(e) = headers(&dump.bytes) {
                assert_eq!(e.kind(), Kind::BadInput, "byte {at:#x}: {e}");
            }
            dump.bytes[at] ^= flip;
        }
    }
}

/// Random flips in everything behind the headers: Xen's image and tables, frame table, domains, P2M, page tables, kernel.
#[test]
fn structures_with_random_bytes_flipped() {
    let machines = [
        Machine::new().mem_map(true),
        Machine::new().xen(synth::Xen::V4_20).pdx_hole(true),
        Machine::new()
            .layout(synth::XenLayout { bigmem: true, ..synth::XenLayout::of(synth::Xen::V4_22) })
            .pdx(synth::Pdx::Offset)
            .high(vec![synth::layout::GIB_64, synth::layout::TIB]),
        Machine::new().kernel(Kernel::V3_12).note_place(NotePlace::StaticArray).mem_map(true).unpinned_mm(true),
    ];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for machine in machines {
        let mut dump = machine.build();
        // Pages with many different words are content; structures are sparse, and a flip in zeros counts too.
        let pages: Vec<usize> = (head_len(&dump.bytes).next_multiple_of(4096)..dump.bytes.len() - 4096)
            .step_by(4096)
            .filter(|p| dump.bytes[*p..p + 4096].iter().any(|b| *b != 0))
            .collect();
        for _ in 0..150 {
            let page = pages[next(pages.len())];
            let flips: Vec<(usize, u8)> = (0..40).map(|_| (page + next(4096), 1 << next(8))).collect();
            flips.iter().for_each(|(at, flip)| dump.bytes[*at] ^= flip);
            if let Err(e) = read_all(&dump.bytes) {
                assert_ne!(e.kind(), Kind::Usage, "{e}");
            }
            flips.iter().for_each(|(at, flip)| dump.bytes[*at] ^= flip);
        }
        read_all(&dump.bytes).unwrap();
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Where a machine address lies in the file.
fn file_offset(bytes: &[u8], address: u64) -> usize {
    let phnum = u16::from_le_bytes([bytes[56], bytes[57]]) as usize;
    let field = |n: usize, at: usize| word(bytes, 64 + n * 56 + at);
    let of = |n: &usize| bytes[64 + n * 56] == 1 && (field(*n, 24)..field(*n, 24) + field(*n, 32)).contains(&address);
    let n = (0..phnum).find(of).unwrap();
    (field(n, 8) + address - field(n, 24)) as usize
}

/// Each word of the structures that lead further, set to what hurts most.
#[test]
fn pointers_to_everywhere() {
    let mut dump = Machine::new().build();
    let t = dump.truth.clone();
    let place = |mfn: u64| file_offset(&dump.bytes, mfn << 12);
    let root = place(t.pgd_l4_mfn);
    let shared = place(t.shared_info_mfn);
    let list = place(t.frame_list_list);
    let head = place((t.domains[0].1 - 0xffff_8300_0000_0000) >> 12);
    assert_eq!(word(&dump.bytes, shared + 0xc18), t.frame_list_list);
    let words = (0..16).map(|i| head + i * 8).chain([0xc10, 0xc18, 0xc28, 0xc30].map(|o| shared + o));
    let words = words.chain((0..8).map(|i| list + i * 8)).chain((255..266).map(|i| root + i * 8));
    for at in words {
        let old: [u8; 8] = dump.bytes[at..at + 8].try_into().unwrap();
        for value in
            [0, 1, u64::MAX, 0xffff_8300_0000_0000, t.pgd_l4_mfn << 12 | 0x67, 1 << 40, 1 << 63, 0x7fff_ffff_ffff_ffff]
        {
            dump.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let _ = Info::read(&dump.bytes);
            for format in [Format::Elf, Format::Kdump(Codec::None)] {
                let null = Path::new("/dev/null");
                let options = Options { format, threads: 1, ..Options::default() };
                let _ = cut(&dump.bytes, &options, Output::create(null, false, Path::new("")).unwrap(), &Silent);
            }
        }
        dump.bytes[at..at + 8].copy_from_slice(&old);
    }
    read_all(&dump.bytes).unwrap();
}
