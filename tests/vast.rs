//! A machine of 1 TiB costs no more than the domain that is cut out of it. It is grown from a real dump (benches/grow).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../benches/grow/mod.rs"]
mod grow;
mod support;

use grow::Wish;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::cut::{Shape, cut, cut_with};
use support::dump;
use support::fixtures::{self, Fixture};
use support::tools::{peak, run, scratch, tool};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const LIMIT: Duration = Duration::from_secs(300);

fn sample() -> &'static Fixture {
    fixtures::all().iter().find(|f| f.name == "xen-4.17-linux-6.12-panic").expect("the panic fixture of testdata")
}

fn plain(machine: u64) -> Wish {
    Wish { machine, dom0: None, domains: 0, domain: 4 * MIB, run: 512 }
}

/// The sample, grown.
fn grown(name: &str, wish: &Wish) -> PathBuf {
    let out = scratch().join(format!("{name}.vmcore"));
    grow::grow(&sample().vmcore, &out, wish).unwrap();
    out
}

/// Cuts it, and says how much memory that took.
fn cut_measured(vmcore: &Path, out: &Path, options: &[&str]) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    let mut child = command.args(["-q", "-f"]).args(options).arg(vmcore).arg(out).spawn().unwrap();
    peak(&mut child)
}

/// Pages and notes are the same, but for the note that tells what was read.
fn assert_same(is: &Path, should: &Path, what: &str) {
    let (is, should) = (dump::open(is), dump::open(should));
    assert_eq!(is.frames(), should.frames(), "{what}");
    let differs = should.frames().into_iter().find(|frame| is.page(*frame) != should.page(*frame));
    assert_eq!(differs, None, "{what}: a page differs");
    let notes = |dump: &dyn dump::Dump| -> Vec<dump::Note> {
        dump.notes().iter().filter(|n| n.name != "XDUMPCUT").cloned().collect()
    };
    assert_eq!(notes(&*is), notes(&*should), "{what}");
}

#[test]
fn a_tebibyte_costs_what_the_domain_costs() {
    let vmcore = grown("1t", &plain(TIB));
    let meta = vmcore.metadata().unwrap();
    assert!(meta.len() > TIB && meta.blocks() * 512 < GIB, "{} {}", meta.len(), meta.blocks());
    let out = vmcore.with_extension("cut");
    let pages = sample().json["dom0"]["pages"].as_u64().unwrap();
    for (level, fixture) in [("1", cut(sample(), Shape::Kdump)), ("31", cut_with(sample(), "d31", &["-d", "31"]))] {
        for how in [&["--memory", "64M"][..], &["--no-mmap"]] {
            let most = cut_measured(&vmcore, &out, &[how, &["-d", level]].concat());
            assert!(most <= 64 * MIB + pages / 4, "-d {level} {how:?}: {} KiB", most / 1024);
            assert_same(&out, &fixture, &format!("-d {level} {how:?}"));
        }
    }
    std::fs::remove_file(out).unwrap();
    std::fs::remove_file(vmcore).unwrap();
}

#[test]
fn a_large_dom0_costs_two_bits_a_page() {
    let dom0 = 512 * MIB;
    let vmcore = grown("512m", &Wish { dom0: Some(dom0), ..plain(TIB) });
    let out = vmcore.with_extension("cut");
    for how in [&["--memory", "64M"][..], &["--no-mmap"]] {
        let most = cut_measured(&vmcore, &out, &[how, &["-d", "1", "--verify"]].concat());
        assert!(most <= 64 * MIB + dom0 / 4096 / 4, "{how:?}: {} KiB", most / 1024);
    }
    let pages = dump::open(&out).frames().len() as u64;
    assert!(pages >= dom0 / 4096, "{pages}");
    std::fs::remove_file(out).unwrap();
    std::fs::remove_file(vmcore).unwrap();
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let (a, b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let len = a.metadata().unwrap().len();
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let differs = |at: u64| {
        let n = (len - at).min(1 << 20) as usize;
        a.read_exact_at(&mut ours[..n], at).unwrap();
        b.read_exact_at(&mut theirs[..n], at).unwrap();
        ours[..n] != theirs[..n]
    };
    len == b.metadata().unwrap().len() && !(0..len).step_by(1 << 20).any(differs)
}

/// makedumpfile finds its way in a grown dump, and leaves dom0 whole; and the next one is the same.
#[test]
fn a_grown_dump_is_a_dump() {
    let wish = Wish { dom0: Some(100 * MIB), domains: 20, run: 1, ..plain(2 * GIB) };
    let (vmcore, again) = (grown("2g", &wish), grown("2g.again", &wish));
    assert!(same_bytes(&vmcore, &again), "not the same twice");
    let [filtered, ours, theirs] = ["filtered", "ours", "theirs"].map(|ext| vmcore.with_extension(ext));
    let ran = run(Command::new(tool("makedumpfile")).args(["-X", "-E", "-d", "1"]).args([&vmcore, &filtered]), LIMIT);
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
    cut_measured(&vmcore, &ours, &["-d", "1"]);
    cut_measured(&filtered, &theirs, &["-d", "1"]);
    assert!(same_bytes(&ours, &theirs), "makedumpfile left out something of dom0");
    // The domains are there, each with its own memory.
    let info =
        |path: &Path| run(Command::new(env!("CARGO_BIN_EXE_xdump-cut")).args(["info", "--json"]).arg(path), LIMIT);
    let told: serde_json::Value = serde_json::from_str(&info(&vmcore).stdout).unwrap();
    let domains = told["domains"].as_array().unwrap();
    assert_eq!(domains.len(), 22);
    cut_measured(&vmcore, &ours, &["-d", "1", "--domain", "21"]);
    assert!(dump::open(&ours).frames().len() as u64 >= 4 * MIB / 4096);
    for path in [vmcore, again, filtered, ours, theirs] {
        std::fs::remove_file(path).unwrap();
    }
}
