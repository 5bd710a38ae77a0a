//! Dump levels against what dom0's kernel says of its own pages (drgn, by the kernel's types): each level leaves out
//! what it should and nothing else, and readers see the same without it. `.ci/tools` installs the readers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::crash::{ask, read_page};
use support::drgn;
use support::dump::{Dump, PAGE, open};
use support::fixtures::{Fixture, hex};
use support::kdump::Kdump;
use support::levels::{Format, at_level};
use support::pages::pages;
use support::truth::Truth;
use support::{Findings, on_each_fixture};

/// Each bit that needs struct pages on its own, and all.
const LEVELS: [u8; 5] = [2, 4, 8, 16, 31];

/// Every level in one format, the highest in both.
fn on_each_output(check: impl Fn(&Fixture, Format, u8, &mut Findings)) {
    on_each_fixture(|fixture, findings| {
        let outputs = LEVELS.map(|level| (Format::Kdump, level)).into_iter().chain([(Format::Elf, 31)]);
        for (format, level) in outputs {
            let mut found = Findings::default();
            check(fixture, format, level, &mut found);
            findings.append(&format!("{format:?} -d {level}: "), found);
        }
    });
}

fn on_both_formats(check: impl Fn(&Fixture, Format, &mut Findings)) {
    on_each_fixture(|fixture, findings| {
        for format in [Format::Kdump, Format::Elf] {
            let mut found = Findings::default();
            check(fixture, format, &mut found);
            findings.append(&format!("{format:?}: "), found);
        }
    });
}

fn output(fixture: &Fixture, format: Format, level: u8) -> Box<dyn Dump> {
    open(&at_level(fixture, format, level).path)
}

/// All that dom0 has, which level 0 keeps.
fn everything(fixture: &Fixture) -> BTreeSet<u64> {
    output(fixture, Format::Kdump, 0).frames()
}

/// What never leaves, whatever its struct page says: page tables by Xen's word, the P2M, start_info, VMCOREINFO.
fn guarded(fixture: &Fixture) -> BTreeSet<u64> {
    let truth = Truth::read(fixture);
    let tables = truth.lines.iter().filter(|(_, line)| line.level.is_some()).map(|(pfn, _)| *pfn);
    let report = &at_level(fixture, Format::Kdump, 0).report;
    let start_info = hex(report["cleared"][0]["old"].as_str().expect("xen_start_info in the report"));
    let direct_map = 0xffff_8880_0000_0000;
    let start_info = (start_info - direct_map) / PAGE as u64;
    tables
        .chain(truth.p2m.iter().copied())
        .chain(pages(fixture).vmcoreinfo.iter().copied())
        .chain([start_info])
        .collect()
}

/// What a level should leave out of this dump, and as what.
fn expected(fixture: &Fixture, level: u8) -> BTreeMap<u64, &'static str> {
    let (all, guarded) = (everything(fixture), guarded(fixture));
    let left_out = pages(fixture).left_out(level);
    left_out.into_iter().filter(|(pfn, _)| all.contains(pfn) && !guarded.contains(pfn)).collect()
}

#[test]
fn the_kernel_agrees_with_itself() {
    on_each_fixture(|fixture, findings| {
        let pages = pages(fixture);
        // a free block is on a list, and what is on a list is a free block
        let (typed, listed) = (pages.with(&["buddy"], &[]), pages.with(&["on_free_list"], &[]));
        for pfn in typed.symmetric_difference(&listed) {
            findings.add("type and free lists differ", pages.say(*pfn));
        }
        findings.check(!typed.is_empty(), "no free blocks", String::new);
        for pfn in Truth::read(fixture).lines.keys().filter(|pfn| !pages.is_known(**pfn)) {
            findings.add("page without a struct page", pages.say(*pfn));
        }
        // or the levels were not tried
        for (level, class) in [(2, "cache"), (4, "cache"), (8, "user"), (16, "free")] {
            findings
                .check(expected(fixture, level).values().any(|c| *c == class), "no page of a class", || class.into());
        }
    });
}

#[test]
fn pages_leave_by_the_kernels_word() {
    on_each_output(|fixture, format, level, findings| {
        let (all, kept, pages) = (everything(fixture), output(fixture, format, level).frames(), pages(fixture));
        let expected: BTreeSet<u64> = expected(fixture, level).into_keys().collect();
        let left_out: BTreeSet<u64> = all.difference(&kept).copied().collect();
        left_out.difference(&expected).for_each(|pfn| findings.add("left out without a reason", pages.say(*pfn)));
        expected.difference(&left_out).for_each(|pfn| findings.add("not left out", pages.say(*pfn)));
        kept.difference(&all).for_each(|pfn| findings.add("not in level 0", pages.say(*pfn)));
        let guarded = guarded(fixture);
        left_out.intersection(&guarded).for_each(|pfn| findings.add("must never leave", pages.say(*pfn)));
    });
}

#[test]
fn kept_pages_are_those_of_level_0() {
    on_each_fixture(|fixture, findings| {
        let whole = output(fixture, Format::Kdump, 0);
        let outputs: Vec<(String, Box<dyn Dump>)> = LEVELS
            .map(|level| (Format::Kdump, level))
            .into_iter()
            .chain([(Format::Elf, 31)])
            .map(|(format, level)| (format!("{format:?} -d {level}"), output(fixture, format, level)))
            .collect();
        for pfn in whole.frames() {
            let page = whole.page(pfn).unwrap();
            for (name, output) in &outputs {
                let same = output.page(pfn).is_none_or(|kept| kept == page);
                findings.check(same, "other bytes than at level 0", || format!("{name}: page {pfn:#x}"));
            }
        }
    });
}

#[test]
fn the_first_bitmap_has_what_the_second_lacks() {
    on_each_fixture(|fixture, findings| {
        let all = everything(fixture);
        for level in LEVELS {
            // the reader itself refuses pages that are in the second only
            let existing = Kdump::open(&at_level(fixture, Format::Kdump, level).path).existing();
            let wrong: Vec<&u64> = existing.symmetric_difference(&all).take(5).collect();
            findings.check(wrong.is_empty(), "first bitmap is not level 0's", || format!("-d {level}: {wrong:x?}"));
        }
    });
}

#[test]
fn the_report_counts_what_left() {
    on_each_output(|fixture, format, level, findings| {
        let report = &at_level(fixture, format, level).report["output"];
        let mut expect = BTreeMap::<String, u64>::new();
        let left_out = expected(fixture, level);
        left_out.values().for_each(|class| *expect.entry(class.to_string()).or_default() += 1);
        let told = report["excluded"].as_object().expect("output.excluded");
        let told: BTreeMap<String, u64> = told.iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap())).collect();
        let told: BTreeMap<String, u64> = told.into_iter().filter(|(_, pages)| *pages > 0).collect();
        findings.check(told == expect, "pages by class", || format!("{told:?} for {expect:?}"));
        // a page that is zero and something else leaves as that
        let output = output(fixture, format, level);
        let is_zero = |pfn: &u64| output.page(*pfn).unwrap().iter().all(|&byte| byte == 0);
        let zero = if level & 1 == 0 { 0 } else { output.frames().iter().filter(|pfn| is_zero(pfn)).count() as u64 };
        findings.check(report["zero"] == zero, "zero", || format!("{} for {zero}", report["zero"]));
        let kept = everything(fixture).len() as u64 - left_out.len() as u64 - zero;
        findings.check(report["kept"] == kept, "kept", || format!("{} for {kept}", report["kept"]));
    });
}

/// Commands whose answers come from the kernel's own memory, none from what the highest level leaves out.
const COMMANDS: [&str; 11] =
    ["sys", "ps", "ps -G", "bt -a", "foreach bt", "log", "kmem -i", "kmem -s", "mod", "files", "vm"];

#[test]
fn crash_answers_the_same_without() {
    on_both_formats(|fixture, format, findings| {
        let [whole, cut] = [(Format::Kdump, 0), (format, 31)]
            .map(|(format, level)| ask(fixture.vmlinux(), &at_level(fixture, format, level).path, &COMMANDS));
        for command in COMMANDS {
            // the name of the file, and whether it lacks pages
            let lines = |answer: &str| -> Vec<String> {
                answer.lines().filter(|line| !line.contains("DUMPFILE: ")).map(str::to_string).collect()
            };
            let (before, now) = (lines(whole.answer(command)), lines(cut.answer(command)));
            findings.check(!now.is_empty(), "no answer", || command.to_string());
            let other = before.iter().zip(&now).find(|(before, now)| before != now);
            findings.check(before == now, "another answer", || {
                format!("{command}: {} lines for {}, the first: {other:?}", now.len(), before.len())
            });
        }
    });
}

#[test]
fn crash_knows_what_is_left_out() {
    on_both_formats(|fixture, format, findings| {
        let left_out = expected(fixture, 31);
        let mut samples = Vec::new();
        for class in ["free", "cache", "user"] {
            let all: Vec<u64> = left_out.iter().filter(|(_, c)| **c == class).map(|(pfn, _)| *pfn).collect();
            samples.extend([all[0], all[all.len() / 2], all[all.len() - 1]]);
        }
        let reads: Vec<String> = samples.iter().map(|pfn| read_page(*pfn)).collect();
        let commands: Vec<&str> = reads.iter().map(String::as_str).collect();
        let session = ask(fixture.vmlinux(), &at_level(fixture, format, 31).path, &commands);
        // an ELF core does not tell a page that was left out from one that never was
        let says = match format {
            Format::Kdump => "rd: page excluded: physical address: ",
            Format::Elf => "rd: read error: physical address: ",
        };
        for (pfn, read) in samples.iter().zip(&reads) {
            let answer = session.answer(read);
            let told = answer.starts_with(&format!("{says}{:x} ", pfn * PAGE as u64)) && answer.lines().count() == 1;
            findings.check(told, "no such answer", || format!("{}: {answer:.200}", pages(fixture).say(*pfn)));
        }
    });
}

#[test]
fn drgn_sees_the_same_without() {
    on_both_formats(|fixture, format, findings| {
        let [whole, cut] = [(Format::Kdump, 0), (format, 31)]
            .map(|(format, level)| drgn::ask(fixture, &at_level(fixture, format, level).path));
        findings.check(whole.release == cut.release, "release", || cut.release.clone());
        let parts = [("tasks", &whole.tasks, &cut.tasks), ("idle", &whole.idle, &cut.idle)];
        for (name, before, now) in parts.into_iter().chain([("on_cpu", &whole.on_cpu, &cut.on_cpu)]) {
            findings.check(before.len() == now.len(), name, || format!("{} for {}", now.len(), before.len()));
            for (before, now) in before.iter().zip(now).map(|(b, n)| (format!("{b:?}"), format!("{n:?}"))) {
                findings.check(before == now, name, || format!("{now} for {before}"));
            }
        }
        // a program's file is cache, its stack a process's own
        let user = |facts: &drgn::Facts| [facts.init_magic.clone(), facts.init_stack.clone()];
        findings.check(user(&whole)[0] == "7f454c46", "user memory at level 0", || format!("{:?}", user(&whole)));
        findings.check(user(&cut) == ["FaultError"; 2], "user memory", || format!("{:?}", user(&cut)));
    });
}
