//! Dump levels against makedumpfile's, on the same dumps: what makedumpfile -x leaves out of dom0 is what the levels do,
//! but for its mistakes, each of which is stated here. `.ci/tools` installs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::dump::Dump;
use support::fixtures::{Fixture, without_note};
use support::kdump::Kdump;
use support::levels::{Format, Leveled, at_level, with_options};
use support::on_each_fixture;
use support::pages::{USER, pages};
use support::tools::{run, scratch, tool};
use support::truth::Truth;

/// Each bit, and all.
const LEVELS: [u8; 6] = [1, 2, 4, 8, 16, 31];

#[test]
fn makedumpfile_leaves_out_the_same() {
    on_each_fixture(|fixture, findings| {
        let (truth, pages) = (Truth::read(fixture), pages(fixture));
        for level in LEVELS {
            let kept = Kdump::open(&at_level(fixture, Format::Kdump, level).path).frames();
            let ours: BTreeSet<u64> = truth.lines.keys().copied().filter(|pfn| !kept.contains(pfn)).collect();
            // it knows dom0's pages by their machine frames, and keeps all that is not dom0's
            let path = filter(fixture, level);
            let kept = Kdump::open(&path).frames();
            let theirs: BTreeSet<u64> =
                truth.lines.iter().filter(|(_, line)| !kept.contains(&line.mfn)).map(|(pfn, _)| *pfn).collect();
            std::fs::remove_file(path).unwrap();

            ours.difference(&theirs).for_each(|pfn| {
                findings.add("left out by us only", format!("-d {level}: {}", pages.say(*pfn)));
            });
            let known = if level & USER == 0 { BTreeSet::new() } else { slabs_taken_for_processes(fixture) };
            let only_theirs: BTreeSet<u64> = theirs.difference(&ours).copied().collect();
            if only_theirs != known {
                only_theirs.symmetric_difference(&known).for_each(|pfn| {
                    findings.add("left out by makedumpfile only", format!("-d {level}: {}", pages.say(*pfn)));
                });
            }
        }
    });
}

/// A file of `makedumpfile -g` lacks what only the running kernel says (page types above all): the dump's own note has that.
/// Where both are lost, what cannot be told is kept, and slabs above all.
#[test]
fn a_file_of_makedumpfiles_will_do() {
    on_each_fixture(|fixture, findings| {
        let info = scratch().join(format!("{}.vmcoreinfo", fixture.name));
        let mut command = Command::new(tool("makedumpfile"));
        command.arg("-g").arg(&info).arg("-x").arg(fixture.vmlinux());
        let ran = run(&mut command, Duration::from_secs(600));
        assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
        let options = ["--vmcoreinfo".as_ref(), info.as_os_str()];
        let given = with_options(&fixture.vmcore, &format!("{}.given", fixture.name), &options);
        let own = at_level(fixture, Format::Kdump, 31);
        let frames = |cut: &Leveled| Kdump::open(&cut.path).frames();
        findings.check(frames(&given) == frames(&own), "other pages", || given.report["output"].to_string());

        let broken = without_note(fixture);
        let alone = with_options(&broken, &format!("{}.alone", fixture.name), &options);
        let (left, allowed) = (frames(&alone), frames(&own));
        let lost = allowed.iter().find(|pfn| !left.contains(pfn));
        findings.check(lost.is_none(), "lost without the note", || pages(fixture).say(*lost.unwrap()));
        let level = &alone.report["level"];
        let said = level["applied"] == 31 || level["reasons"].as_array().is_some_and(|r| !r.is_empty());
        findings.check(said, "level", || level.to_string());
        std::fs::remove_file(broken).unwrap();
    });
}

/// Slabs that makedumpfile -x leaves out at level 8, at least up to 1.7.6: since Linux 6.10 PG_slab is a page type, which
/// it knows from VMCOREINFO alone, and with -x it reads none. So a slab whose list entry, a number there, is odd where
/// other pages have their mapping is anonymous to it. Of a compound one it drops the head only, as the order too is
/// where it does not look with -x.
fn slabs_taken_for_processes(fixture: &Fixture) -> BTreeSet<u64> {
    let pages = pages(fixture);
    if pages.slab_is_type { pages.with(&["slab", "odd_mapping"], &["tail"]) } else { BTreeSet::new() }
}

/// The fixture as makedumpfile filters it.
fn filter(fixture: &Fixture, level: u8) -> std::path::PathBuf {
    let to = scratch().join(format!("{}.makedumpfile.{level}", fixture.name));
    let mut command = Command::new(tool("makedumpfile"));
    command.args(["-c", "-d", &level.to_string(), "-x"]);
    command.args([fixture.vmlinux(), Path::new(&fixture.vmcore), &to]);
    let ran = run(&mut command, Duration::from_secs(600));
    assert!(ran.status.success(), "{command:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr);
    to
}
