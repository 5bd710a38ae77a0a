//! What the XDUMPCUT note of a native cut tells, so that the cut can be written again in another format: what one format's
//! headers have and another's have not. Lines `KEY=value`:
//!
//! | key | value |
//! |---|---|
//! | `UTS_SYSNAME` … `UTS_DOMAINNAME` | utsname; a backslash is doubled, a newline `\n` |
//! | `PHYS_BASE` | VMCOREINFO's `phys_base` |
//! | `DIRECT_MAP` | address of PFN 0 in the direct map |
//! | `IMAGE` | address of PFN 0 in the image's window, the first PFN there, and one more than the last |
//! | `RUNS` | pages that a reader may ask for, those that the level left out too: `first-last`, with commas |
//! | `RUNS_MORE` | how many more runs there are than that line tells, and one more than their last page |

use crate::plan::level::Level;
use crate::sink::elf::Window;
use crate::sink::notes::{DIGEST_LINE, XDUMPCUT_TYPE};
use crate::source::Vmcore;
use crate::units::{Pfn, VirtAddr};
use crate::xen::p2m::Run;
use std::collections::BTreeMap;

/// Runs that the note tells, about 64 KiB of them: a domain has a few, unless it gave up memory page by page.
const MOST_RUNS: usize = 4096;
/// PFNs that a domain can have: those that the bitmaps of the kdump format may speak of.
const MOST_PFN: u64 = 1 << 34;
const UTS: [&str; 6] = ["UTS_SYSNAME", "UTS_NODENAME", "UTS_RELEASE", "UTS_VERSION", "UTS_MACHINE", "UTS_DOMAINNAME"];

/// Lines for the note. The first of `windows` is the direct map's, the other the image's; `known` are the pages that a reader
/// may ask for.
pub(crate) fn lines(windows: &[Window], uts: &[String; 6], phys_base: i64, known: impl Iterator<Item = Run>) -> String {
    let mut all = String::new();
    let mut line = |key: &str, value: String| {
        all.push_str(key);
        all.push('=');
        all.push_str(&value);
        all.push('\n');
    };
    for (key, value) in UTS.iter().zip(uts) {
        line(key, value.replace('\\', "\\\\").replace('\n', "\\n"));
    }
    line("PHYS_BASE", phys_base.to_string());
    for (key, w) in ["DIRECT_MAP", "IMAGE"].into_iter().zip(windows) {
        let pfns = if key == "IMAGE" { format!(" {} {}", w.first, w.end) } else { String::new() };
        line(key, format!("{}{pfns}", w.base));
    }
    let runs = joined(known.map(|r| (r.pfn.0, r.pfn.0 + r.len)));
    let told = runs.iter().take(MOST_RUNS).map(|(first, end)| format!("{first:x}-{:x}", end - 1));
    line("RUNS", told.collect::<Vec<_>>().join(","));
    if let Some((_, end)) = runs.last().filter(|_| runs.len() > MOST_RUNS) {
        line("RUNS_MORE", format!("{} {end:x}", runs.len() - MOST_RUNS));
    }
    all
}

/// Ranges of numbers in order, neighbours and overlapping ones joined.
pub(super) fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (first, end) in ranges.filter(|r| r.0 < r.1) {
        match all.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => all.push((first, end)),
        }
    }
    all
}

/// What the note of a cut says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// All of its text but the digest.
    pub text: String,
    /// The version of this program that wrote it.
    pub version: String,
    /// Identity of the full dump.
    pub source_id: String,
    /// Version of Xen.
    pub xen: String,
    /// The domain's number; nothing if the full dump did not tell it.
    pub domain: Option<u16>,
    /// What was left out.
    pub level: Level,
    /// How many pages, by class.
    pub excluded: BTreeMap<String, u64>,
    /// Utsname.
    pub uts: [String; 6],
    /// VMCOREINFO's.
    pub phys_base: i64,
    /// Address of PFN 0 in the direct map.
    pub direct_map: VirtAddr,
    /// The image's window.
    pub image: Option<Window>,
    /// Pages that a reader may ask for: first PFN, and one more than the last.
    pub runs: Vec<(u64, u64)>,
    /// Runs that it had no room for.
    pub more_runs: u64,
    /// One more than the last page.
    pub end: u64,
    /// The digest of all pages.
    pub digest: Option<String>,
}

impl Told {
    /// Reads the note of a cut in the native layout; nothing if the dump is none. The inner error is the key that is not
    /// there, or makes no sense.
    pub fn of(core: &Vmcore) -> Option<Result<Self, &'static str>> {
        let note = core.notes().find(|n| n.name == b"XDUMPCUT" && n.kind == XDUMPCUT_TYPE)?;
        let text = crate::bytes::text(note.desc);
        let native = text.lines().any(|l| l == "LAYOUT=pseudo-physical");
        native.then(|| Self::parse(&text))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut values: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
            values.entry(key).or_insert(value);
        }
        let get = |key: &'static str| values.get(key).copied().ok_or(key);
        let level = get("LEVEL")?.parse().ok().and_then(Level::new).ok_or("LEVEL")?;
        let mut uts: [String; 6] = Default::default();
        for (key, value) in UTS.into_iter().zip(&mut uts) {
            *value = unescape(get(key)?);
        }
        let image = match values.get("IMAGE") {
            Some(value) => Some(window(value).ok_or("IMAGE")?),
            None => None,
        };
        let class = |key: &str| Some(key.strip_prefix("EXCLUDED_")?.to_lowercase().replace('_', "-"));
        let excluded = values.iter().filter_map(|(key, n)| Some((class(key)?, n.parse().ok()?)));
        let runs = runs(get("RUNS")?).ok_or("RUNS")?;
        let last = runs.last().map_or(0, |r| r.1);
        let (more_runs, end) = match values.get("RUNS_MORE") {
            Some(more) => more_of(more).filter(|(_, end)| (last..=MOST_PFN).contains(end)).ok_or("RUNS_MORE")?,
            None => (0, last),
        };
        let kept = text.lines().filter(|l| !l.starts_with(DIGEST_LINE)).flat_map(|l| [l, "\n"]);
        Ok(Self {
            text: kept.collect(),
            version: get("XDUMPCUT")?.into(),
            source_id: get("SOURCE_ID")?.into(),
            xen: get("SOURCE_XEN")?.into(),
            domain: get("DOMAIN")?.parse().ok(),
            level,
            excluded: excluded.collect(),
            uts,
            phys_base: get("PHYS_BASE")?.parse().map_err(|_| "PHYS_BASE")?,
            direct_map: number(get("DIRECT_MAP")?).map(VirtAddr).ok_or("DIRECT_MAP")?,
            image,
            runs,
            more_runs,
            end,
            digest: text.lines().find_map(|l| l.strip_prefix(DIGEST_LINE)).map(String::from),
        })
    }

    /// PFNs of pages that have none of the kernel's: Xen's, which the domain sees.
    pub(super) fn extra(&self) -> Vec<Pfn> {
        let lines = self.text.lines().filter(|l| l.starts_with("XEN_HEAP_PAGE="));
        lines.filter_map(|l| Some(Pfn(number(l.rsplit_once(' ')?.1)?))).collect()
    }

    /// The text with another level.
    pub(super) fn text_at(&self, level: Level) -> String {
        let line =
            |l: &str| if l.starts_with("LEVEL=") { format!("LEVEL={}\n", level.number()) } else { format!("{l}\n") };
        self.text.lines().map(line).collect()
    }

    /// The windows of pages up to `end`.
    pub(super) fn windows(&self, end: Pfn) -> Vec<Window> {
        let direct_map = Window { base: self.direct_map, first: Pfn(0), end };
        std::iter::once(direct_map).chain(self.image).collect()
    }
}

fn unescape(value: &str) -> String {
    let mut chars = value.chars();
    let mut all = String::new();
    while let Some(c) = chars.next() {
        all.push(match c {
            '\\' if chars.next() == Some('n') => '\n',
            c => c,
        });
    }
    all
}

fn number(hex: &str) -> Option<u64> {
    u64::from_str_radix(hex.strip_prefix("0x")?, 16).ok()
}

fn window(value: &str) -> Option<Window> {
    let mut numbers = value.split(' ').map(number);
    let (base, first, end) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (first < end && end <= MOST_PFN).then_some(Window { base: VirtAddr(base), first: Pfn(first), end: Pfn(end) })
}

/// In order, and below what a domain can have.
fn runs(value: &str) -> Option<Vec<(u64, u64)>> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for run in value.split(',').filter(|r| !r.is_empty()) {
        let (first, last) = run.split_once('-')?;
        let parse = |hex| u64::from_str_radix(hex, 16).ok().filter(|n| *n < MOST_PFN);
        let (first, end) = (parse(first)?, parse(last)? + 1);
        if first >= end || all.last().is_some_and(|before| first <= before.1) {
            return None;
        }
        all.push((first, end));
    }
    Some(all)
}

fn more_of(value: &str) -> Option<(u64, u64)> {
    let (count, end) = value.split_once(' ')?;
    Some((count.parse().ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(runs: &[Run]) -> String {
        let uts = ["Linux", "a\\nb\nc\\", "6.12", "#1 SMP x=y", "x86_64", ""].map(String::from);
        let windows = [
            Window { base: VirtAddr(0xffff_8880_0000_0000), first: Pfn(0), end: Pfn(99) },
            Window { base: VirtAddr(0xffff_ffff_8000_0000), first: Pfn(0x1000), end: Pfn(0x2000) },
        ];
        let head = "XDUMPCUT=0.1.0\nLAYOUT=pseudo-physical\nSOURCE_ID=12\nSOURCE_XEN=4.17.7\nDOMAIN=3\nLEVEL=31\nEXCLUDED_CACHE_PRIVATE=7\n";
        format!("{head}{}", lines(&windows, &uts, -4096, runs.iter().copied()))
    }

    fn run(pfn: u64, len: u64) -> Run {
        Run { pfn: Pfn(pfn), mfn: crate::units::Mfn(5 * pfn), len }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = text(&[run(0, 16), run(16, 4), run(0x100, 1)]);
        let told = Told::parse(&format!("{text}{DIGEST_LINE}abc\n")).unwrap();
        assert_eq!(told.runs, [(0, 20), (0x100, 0x101)]);
        assert_eq!((told.text.as_str(), told.digest.as_deref()), (text.as_str(), Some("abc")));
        assert_eq!((told.domain, told.level, told.phys_base), (Some(3), Level::MOST, -4096));
        assert_eq!((told.uts[1].as_str(), told.uts[3].as_str()), ("a\\nb\nc\\", "#1 SMP x=y"));
        assert_eq!(told.excluded.get("cache-private"), Some(&7));
        let image = told.image.unwrap();
        assert_eq!((image.base.0, image.first.0, image.end.0), (0xffff_ffff_8000_0000, 0x1000, 0x2000));
        assert!(told.text_at(Level::ZEROS).contains("\nLEVEL=1\n"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let good = text(&[run(0, 16)]);
        for (from, to, key) in [
            ("LEVEL=31", "LEVEL=32", "LEVEL"),
            ("RUNS=0-f", "RUNS=0-f,8-9", "RUNS"),
            ("RUNS=0-f", "RUNS=9-8", "RUNS"),
            ("RUNS=0-f", "RUNS=0-ffffffffffffffff", "RUNS"),
            ("RUNS=", "RUN=", "RUNS"),
            ("IMAGE=0x", "IMAGE=x", "IMAGE"),
            ("DIRECT_MAP=", "MAP=", "DIRECT_MAP"),
        ] {
            assert!(good.contains(from), "{from}");
            assert_eq!(Told::parse(&good.replace(from, to)), Err(key));
        }
    }

    #[test]
    fn runs_are_bounded_and_the_rest_is_counted() {
        let many: Vec<Run> = (0..MOST_RUNS as u64 + 9).map(|n| run(2 * n, 1)).collect();
        let text = text(&many);
        let told = Told::parse(&text).unwrap();
        assert_eq!((told.runs.len(), told.more_runs, told.end), (MOST_RUNS, 9, 2 * (MOST_RUNS as u64 + 8) + 1));
        assert!(text.len() < 1 << 16, "{}", text.len());
    }

    proptest! {
        #[test]
        fn any_text_ends(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Told::parse(&crate::bytes::text(&bytes));
            let good = text(&[run(3, 16)]);
            let _ = Told::parse(&format!("RUNS={}\n{good}", crate::bytes::text(&bytes)));
        }
    }
}
