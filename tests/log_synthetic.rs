//! Logs of synthetic machines: each ring that Linux has had, and Xen's, filled once and many times over, damaged, and without
//! what tells of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod synth;

use synth::log::{FACILITY, LEVEL, SIZE, XEN_PAGES, time};
use synth::{Dump, Kernel, LogRing, Machine, Xen};
use xdump_cut::Error;
use xdump_cut::log::{LogOptions, Whose, write};
use xdump_cut::options::Which;
use xdump_cut::source::{MachineMemory, Vmcore};
use xdump_cut::units::VirtAddr;
use xdump_cut::xen::Host;
use xdump_cut::xen::console::{Console, Symbols};

const PRIORITY: u8 = FACILITY << 3 | LEVEL;

fn log_of(bytes: &Vec<u8>, whose: Whose, raw: bool) -> Result<(String, Vec<String>), Error> {
    let mut out = Vec::new();
    let warnings = write(bytes, &LogOptions { whose, raw, xen_syms: None }, &mut out)?;
    Ok((String::from_utf8(out).unwrap(), warnings))
}

fn kernels(dump: &Dump, raw: bool) -> Result<(String, Vec<String>), Error> {
    log_of(&dump.bytes, Whose::Domain(Which::Hardware), raw)
}

fn lines(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("line {n} {}", "abcdefghij".repeat(n % 7))).collect()
}

/// As dmesg prints them.
fn printed(lines: &[(usize, String)], raw: bool) -> String {
    let line = |(n, line): &(usize, String)| {
        let prefix = if raw { format!("<{PRIORITY}>") } else { String::new() };
        format!("{prefix}[{:5}.{:06}] {line}\n", time(*n) / 1_000_000_000, time(*n) % 1_000_000_000 / 1000)
    };
    lines.iter().map(line).collect()
}

/// Kernels of all generations, and the ring that none of them has.
fn each_ring() -> impl Iterator<Item = (String, Machine)> {
    let of_kernel = Kernel::ALL.into_iter().map(|k| (format!("{k:?}"), Machine::new().kernel(k)));
    let bytes = Machine::new().kernel(Kernel::V3_10).log_ring(LogRing::Bytes);
    of_kernel.chain([("bytes".to_string(), bytes)])
}

#[test]
fn each_kernels_ring_empty_full_and_many_times_over() {
    for (name, machine) in each_ring() {
        for count in [1, 10, 60, 300, 400] {
            let dump = machine.clone().log(lines(count)).build();
            let kept = &dump.truth.log;
            assert!(
                (count < 60) <= (kept.len() == count) && (count > 200) <= (kept.len() < count),
                "{name}: {} of {count}",
                kept.len()
            );
            for raw in [false, true] {
                let (said, warnings) = kernels(&dump, raw).unwrap_or_else(|e| panic!("{name}: {e}"));
                // The ring of bytes has a part of one more line.
                let said = if kept.len() < count && name == "bytes" { said.split_once('\n').unwrap().1 } else { &said };
                assert_eq!(said, printed(kept, raw), "{name}, {count} lines");
                assert_eq!(warnings, Vec::<String>::new(), "{name}");
            }
        }
    }
}

#[test]
fn every_line_of_a_record_has_its_prefix_and_none_commands_a_terminal() {
    for (name, machine) in each_ring().filter(|r| r.0 != "bytes") {
        let hostile = ["two\nlines", "\x1b]0;title\x07\x1b[2J", "\r\u{85}über"];
        let dump = machine.log(hostile.map(String::from).to_vec()).build();
        let expected =
            [(0, "two"), (0, "lines"), (1, "\\x1b]0;title\\x07\\x1b[2J"), (2, "\\x0d\\xc2\\x85\\xc3\\xbcber")];
        let expected = expected.map(|(n, line)| (n, line.to_string()));
        assert_eq!(kernels(&dump, false).unwrap().0, printed(&expected, false), "{name}");
    }
}

/// kallsyms tell where the variables are, and the structures are what they are in all kernels.
#[test]
fn without_keys_kallsyms_tell() {
    const LOCKLESS: [&str; 7] = [
        "SYMBOL(prb)",
        "SIZE(prb_desc)",
        "OFFSET(prb_desc.text_blk_lpos)",
        "OFFSET(prb_desc_ring.head_id)",
        "SIZE(printk_info)",
        "OFFSET(printk_info.text_len)",
        "OFFSET(printk_ringbuffer.text_data_ring)",
    ];
    const RECORDS: [&str; 5] = [
        "SYMBOL(log_buf)",
        "SYMBOL(log_first_idx)",
        "SYMBOL(log_next_idx)",
        "SIZE(printk_log)",
        "OFFSET(printk_log.text_len)",
    ];
    for (kernel, keys, hidden) in [
        (Kernel::V6_12, &LOCKLESS[..], false),
        (Kernel::V7_1, &LOCKLESS, false),
        (Kernel::V5_10, &LOCKLESS, true),
        (Kernel::V4_19, &RECORDS, true),
    ] {
        let machine = Machine::new().kernel(kernel).hidden_kallsyms(hidden).log(lines(100));
        let dump = machine.clone().without_keys(keys.to_vec()).build();
        assert_eq!(kernels(&dump, false).unwrap().0, printed(&dump.truth.log, false), "{kernel:?}");
        // And where there are none either, that is said.
        let dump = machine.without_keys(keys.to_vec()).hidden_kallsyms(false).kallsyms(None).build();
        let error = kernels(&dump, false).unwrap_err();
        assert!(matches!(&error, Error::Missing { what: "the kernel's log", .. }), "{kernel:?}: {error}");
    }
}

/// By the name of a kernel.
fn machine_ring(name: &str) -> &'static str {
    match name {
        "bytes" => "bytes",
        "V3_10" | "V3_12" | "V3_18" | "V4_4" | "V4_19" | "V5_4" => "records",
        _ => "lockless",
    }
}

#[test]
fn missing_pages_cost_their_lines_and_are_counted() {
    for (name, machine) in each_ring() {
        let dump = machine.log(lines(400)).log_absent(true).build();
        let (said, warnings) = kernels(&dump, false).unwrap();
        let whole = printed(&dump.truth.log, false);
        let there = said.lines().filter(|l| whole.lines().any(|w| w == *l)).count();
        // Half of the ring; a line of the ring of bytes that lost its beginning or end is still given.
        let cut = said.lines().count() - there;
        assert!(there >= 10 && (cut == 0 || name == "bytes" && cut <= 3), "{name}: {there}, {cut} cut");
        let missing = dump.truth.log.len() - there;
        let told = |what: &str| {
            let start = format!("kernel log: {what} left out, as the dump lacks their memory: ");
            warnings.iter().find_map(|w| w.strip_prefix(&start)?.parse::<usize>().ok()).unwrap_or(0)
        };
        let told = (told("records"), told("bytes"));
        match machine_ring(&name) {
            "bytes" => assert_eq!(told, (0, 2048)),
            "lockless" => assert_eq!(told, (missing, 0), "{name}"),
            // Nothing tells how many records were in the page; one may begin before it or end behind it.
            _ => assert!(told.0 <= 1 && told.1.abs_diff(2048) < 100 && missing > 20, "{name}: {warnings:?}"),
        }
    }
}

#[test]
fn a_kernel_without_a_log_and_a_domain_without_a_kernel() {
    let dump = Machine::new().build();
    let error = kernels(&dump, false).unwrap_err();
    assert!(matches!(&error, Error::Missing { what: "the kernel's log", .. }), "{error}");
    let guest = log_of(&dump.bytes, Whose::Domain(Which::Id(1)), false);
    assert!(matches!(&guest, Err(Error::Missing { .. })), "{guest:?}");
    let nobody = log_of(&dump.bytes, Whose::Domain(Which::Id(77)), false).unwrap_err();
    assert!(matches!(&nobody, Error::Usage(_)), "{nobody}");
}

/// Where a piece of text stands in the file.
fn find(dump: &Dump, text: &[u8]) -> usize {
    dump.bytes.windows(text.len()).position(|w| w == text).unwrap()
}

/// Whatever byte of a ring's head or its first records is wrong, there is an answer, and it is no longer than the ring.
#[test]
fn any_byte_may_be_wrong() {
    for (name, machine) in each_ring().filter(|r| ["V3_10", "V4_19", "V6_12", "bytes"].contains(&&*r.0)) {
        let dump = machine.log(lines(30)).build();
        let ring = dump.truth.kernel_base;
        let places = match &*name {
            "V6_12" => vec![
                find(&dump, &[6_u64, ring + 0x31000].map(u64::to_le_bytes).concat()),
                find(&dump, &[2_u64 << 62 | ((1 << 62) - 64), 0_u64.wrapping_sub(4096)].map(u64::to_le_bytes).concat()),
            ],
            _ => vec![
                find(&dump, &[ring + 0x33800, 4096].map(u64::to_le_bytes).concat()[..12]),
                find(&dump, b"line 0 ") - 20,
            ],
        };
        let mut bytes = dump.bytes.clone();
        for at in places.into_iter().flat_map(|p| p..p + 64) {
            let right = bytes[at];
            for wrong in [right ^ 1, right ^ 0x80, !right] {
                bytes[at] = wrong;
                if let Ok((said, _)) = log_of(&bytes, Whose::Domain(Which::Hardware), true) {
                    assert!(said.len() <= 16 * SIZE, "{name}: {} bytes", said.len());
                }
            }
            bytes[at] = right;
        }
    }
}

fn xens(dump: &Dump) -> Result<(String, Vec<String>), Error> {
    log_of(&dump.bytes, Whose::Xen, false)
}

fn xen_lines(count: usize) -> String {
    (0..count).map(|n| format!("(XEN) line {n} {}\n", "abcdefghij".repeat(n % 7))).collect()
}

/// The bytes that a ring of `XEN_PAGES` still has.
fn newest(text: &str) -> &str {
    &text[text.len().saturating_sub(XEN_PAGES as usize * 4096)..]
}

/// The same, as lines: the last may have no end.
#[test]
fn each_xens_ring_new_full_and_many_times_over() {
    for xen in Xen::ALL {
        for (count, cleared) in [(8, false), (100, false), (400, false), (3000, false), (100, true), (3000, true)] {
            let text = xen_lines(count);
            let dump = Machine::new().xen(xen).conring(Some(text.clone())).conring_cleared(cleared).build();
            let (said, warnings) = xens(&dump).unwrap_or_else(|e| panic!("{xen:?}, {count}: {e}"));
            assert!(said == newest(&text), "{xen:?}, {count}, {cleared}: {} bytes", said.len());
            assert_eq!(warnings, Vec::<String>::new(), "{xen:?}");
        }
    }
}

#[test]
fn without_counters_xens_ring_is_read_with_a_warning() {
    for count in [8, 100, 400, 3000] {
        let text = xen_lines(count);
        let dump = Machine::new().conring(Some(text.clone())).conring_uncounted(true).build();
        let (said, warnings) = xens(&dump).unwrap();
        assert!(said == newest(&text), "{count}: {} bytes", said.len());
        assert!(warnings.len() == 1 && warnings[0].contains("counters were not found"), "{warnings:?}");
    }
}

#[test]
fn what_is_not_xens_ring_is_not_printed() {
    let hostile = "(XEN) no\n".repeat(3);
    for text in [None, Some(String::new()), Some("no line of Xen's\n".repeat(50)), Some(hostile)] {
        let dump = Machine::new().conring(text).build();
        let error = xens(&dump).unwrap_err();
        assert!(matches!(&error, Error::Missing { what: "Xen's console ring", .. }), "{error}");
    }
}

#[test]
fn a_missing_page_of_xens_ring_is_counted() {
    let text = xen_lines(200);
    let dump = Machine::new().conring(Some(text.clone())).log_absent(true).build();
    let (said, warnings) = xens(&dump).unwrap();
    assert!(said == format!("{}\n{}", &text[..4096], &text[8192..]), "{} bytes", said.len());
    assert_eq!(warnings, ["Xen's console ring: bytes left out, as the dump lacks their memory: 4096"]);
}

/// Where symbols are known, nothing is searched.
#[test]
fn symbols_lead_to_xens_ring() {
    let text = xen_lines(3000);
    let machine = Machine::new().conring(Some(text.clone()));
    let image = machine.layout.virt_start + machine.layout.image_offset;
    let at = |o: u64| VirtAddr(image + o);
    let good = Symbols { size: at(0x30d60), ring: at(0x30d68), producer: at(0x389d0), consumer: at(0x389d4) };
    let dump = machine.build();
    let read = |symbols: Symbols| {
        let mut core = Vmcore::parse(&dump.bytes).unwrap();
        let mem = MachineMemory::new(&dump.bytes, core.take_segments());
        let host = Host::open(&mem, &core).unwrap();
        let mut out = Vec::new();
        let console = Console::find(&host, Some(&symbols))?;
        console.read(&host.space, &mut |bytes| {
            out.extend(bytes);
            Ok(())
        })?;
        Ok::<_, Error>(String::from_utf8(out).unwrap())
    };
    assert!(read(good).unwrap() == newest(&text));
    assert!(read(Symbols { size: good.ring, ..good }).is_err());
    assert!(read(Symbols { ring: at(1 << 29), ..good }).is_err());
}
