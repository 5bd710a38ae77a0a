//! The map of real machines: each frame counts once, as what the truth says that it is.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;
use support::elf::Elf;
use support::fixtures::Fixture;
use support::tools::{run, scratch};
use support::{Findings, on_each_fixture};

/// `info` of the fixture with these options, as JSON or text.
fn info(fixture: &Fixture, options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    command.arg("info").args(options).arg(&fixture.vmcore).env("COLUMNS", "80");
    let ran = run(&mut command, Duration::from_secs(120));
    assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
    ran.stdout
}

fn json(fixture: &Fixture) -> Value {
    serde_json::from_str(&info(fixture, &["--json", "--map"])).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Name, pages and zero pages of the legend.
fn legend(info: &Value) -> Vec<(String, u64, u64)> {
    let entry = |e: &Value| (e["name"].as_str().unwrap().to_string(), number(&e["pages"]), number(&e["zero"]));
    info["map"]["legend"].as_array().unwrap().iter().map(entry).collect()
}

/// Frames that the dump has in whole, and those that it has in part only.
fn frames(fixture: &Fixture) -> (u64, u64) {
    let (mut whole, mut touched) = (BTreeSet::new(), BTreeSet::new());
    for load in Elf::open(&fixture.vmcore).loads {
        let end = load.paddr + load.memsz;
        whole.extend(load.paddr.div_ceil(4096)..end / 4096);
        touched.extend(load.paddr / 4096..end.div_ceil(4096));
    }
    (whole.len() as u64, (touched.len() - whole.len()) as u64)
}

/// The classes of `info` and the map's are the truth's, and sum up to the machine.
#[test]
fn every_frame_is_in_one_class() {
    on_each_fixture(|fixture, findings| {
        let info = json(fixture);
        let (whole, part) = frames(fixture);
        let pages = &info["pages"];
        let of = |name: &str| number(&pages[name]);
        let ids = |name: &str| -> BTreeMap<String, u64> {
            let ids = pages[name].as_object().unwrap();
            ids.iter().map(|(id, n)| (id.clone(), number(n))).collect()
        };
        let (domains, heap) = (ids("domains"), ids("xen_heap"));
        let named: u64 = ["free", "offline", "xen", "io", "unknown_owner", "no_entry"].into_iter().map(of).sum();
        let sum = named + domains.values().chain(heap.values()).sum::<u64>();
        findings.check(sum == whole && of("frames") == whole, "sum of info", || format!("{sum} for {whole}"));

        let truth = fixture.json["machine_pages"].as_object().unwrap();
        let told = |name: &str| truth.get(name).map_or(0, number);
        // the truth counts frames in part as well, and they are the firmware's
        let xen = of("xen") + of("io") + part;
        findings.check(xen == told("Xen or other"), "Xen's pages", || format!("{xen} for {}", told("Xen or other")));
        findings.check(of("free") == told("free"), "free pages", || of("free").to_string());
        let strange = of("offline") + of("unknown_owner") + of("no_entry");
        findings.check(strange == 0, "pages of nobody", || strange.to_string());
        for (id, n) in &domains {
            let want = told(&format!("domain {id}"));
            findings.check(*n == want, "pages of a domain", || format!("{n} for {want} of {id}"));
        }
        for (id, n) in &heap {
            let want = told(&format!("domain {id} (Xen heap)"));
            findings.check(*n == want, "Xen-heap pages of a domain", || format!("{n} for {want} of {id}"));
        }
        let all = fixture.json["domains"].as_array().unwrap().len();
        findings.check((domains.len(), heap.len()) == (all, all), "a domain without pages", || format!("{domains:?}"));

        let map = legend(&info);
        let total: u64 = map.iter().map(|e| e.1).sum();
        findings.check(total == whole && number(&info["map"]["pages"]) == whole, "sum of the map", || {
            format!("{total} for {whole}")
        });
        for (name, n) in [("free", of("free")), ("Xen", of("xen")), ("I/O and low memory", of("io"))]
            .map(|(name, n)| (name.to_string(), n))
            .into_iter()
            .chain(domains.iter().map(|(id, n)| (if id == "0" { "dom0".into() } else { format!("domain {id}") }, *n)))
        {
            let is = map
                .iter()
                .find(|e| e.0 == name || (name.starts_with("domain") && e.0.starts_with(&format!("{name} "))))
                .map(|e| e.1);
            findings.check(is == Some(n), "the map is not info's", || format!("{is:?} for {n} of {name}"));
        }
        zeros(fixture, &map, findings);
    });
}

/// dom0's zero pages are those of truth.tsv.
fn zeros(fixture: &Fixture, map: &[(String, u64, u64)], findings: &mut Findings) {
    let table = fixture.table();
    let zero = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("zero")).count() as u64;
    let dom0 = map.iter().find(|e| e.0 == "dom0").map(|e| (e.1, e.2));
    let want = (table.lines().count() as u64, zero);
    findings.check(dom0 == Some(want), "dom0's pages and zero pages", || format!("{dom0:?} for {want:?}"));
    findings.check(zero == number(&fixture.json["dom0"]["zero"]), "the truth's own sum", || zero.to_string());
}

/// What is printed is as wide as asked, needs no colour, and has the same numbers.
#[test]
fn the_terminal_shows_the_same() {
    on_each_fixture(|fixture, findings| {
        let text = info(fixture, &["--map", "--"]);
        let drawn = &text[text.find("memory of the machine\n").expect("no map")..];
        findings.check(!text.contains('\x1b'), "colours without a terminal", String::new);
        let long = drawn.lines().find(|line| line.chars().count() > 80);
        findings.check(long.is_none(), "line longer than the terminal", || format!("{long:?}"));
        findings.check(drawn.lines().count() < 56, "too long", || drawn.lines().count().to_string());
        for (name, pages, zero) in legend(&json(fixture)) {
            let row = drawn.lines().find(|line| line.get(7..).is_some_and(|l| l.starts_with(&format!("{name}  "))));
            let numbers: Vec<&str> = row.unwrap_or("").split_whitespace().collect();
            let has = |n: u64| numbers.contains(&n.to_string().as_str());
            findings.check(has(pages) && has(zero), "row of the legend", || format!("{name}: {row:?}"));
        }
    });
}

/// Every `text`, then every rectangle's title, as an XML parser of the world's reads the picture.
const READ: &str = "
import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
ns = '{http://www.w3.org/2000/svg}'
assert root.tag == ns + 'svg', root.tag
print(root.find(ns + 'desc').text)
for e in root.iter(ns + 'text'): print('text', e.text)
for e in root.iter(ns + 'rect'):
    t = e.find(ns + 'title')
    if t is not None: print('rect', e.get('y'), t.text)
";

#[test]
fn the_picture_shows_the_same() {
    on_each_fixture(|fixture, findings| {
        let paths = [1, 2].map(|n| scratch().join(format!("{}.{n}.svg", fixture.name)));
        let [a, b] = paths.each_ref().map(|path| path.to_str().unwrap());
        // both spellings, and an older file only with -f
        info(fixture, &["--map", a]);
        info(fixture, &[&format!("--map={b}"), "--no-mmap"]);
        info(fixture, &["-f", "--map", b]);
        let [one, two] = paths.each_ref().map(|path| std::fs::read(path).unwrap());
        findings.check(one == two, "not the same picture twice", String::new);
        findings.check(one.len() < 1 << 20, "a large picture", || one.len().to_string());
        let read = run(Command::new("python3").args(["-c", READ, a]), Duration::from_secs(60));
        assert!(read.status.success(), "{}: {}", fixture.name, read.stderr);
        let texts: Vec<&str> = read.stdout.lines().filter_map(|line| line.strip_prefix("text ")).collect();
        let info = json(fixture);
        let legend = legend(&info);
        for (name, pages, zero) in &legend {
            let at = texts.iter().position(|t| t == name).unwrap_or_else(|| panic!("no {name} in {texts:?}"));
            let row = &texts[at + 1..at + 6];
            let same = row[0] == pages.to_string() && row[3] == zero.to_string();
            findings.check(same, "row of the legend", || format!("{name}: {row:?}"));
        }
        let whole = number(&info["map"]["pages"]).to_string();
        findings.check(texts.windows(2).any(|t| t == ["all RAM", &whole]), "no sum", String::new);
        // what the squares say of themselves is all there is
        let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let titles = read.stdout.lines().filter(|line| line.starts_with("rect "));
        for part in titles.filter_map(|t| t.split_once(": pages of ")).flat_map(|t| t.1.split(", ")) {
            let (part, zero) = match part.split_once(" (") {
                Some((part, zero)) => (part, zero.strip_suffix(" zeros)").unwrap().parse().unwrap()),
                None => (part, 0),
            };
            let (name, n) = part.rsplit_once(' ').unwrap();
            let sum = sums.entry(name).or_default();
            *sum = (sum.0 + n.parse::<u64>().unwrap(), sum.1 + zero);
        }
        let want: BTreeMap<&str, (u64, u64)> = legend.iter().map(|(name, n, z)| (name.as_str(), (*n, *z))).collect();
        findings.check(sums == want, "sum of the squares", || format!("{sums:?} for {want:?}"));
    });
}
