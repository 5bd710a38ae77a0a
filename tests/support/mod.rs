//! What the end-to-end tests share: the real dumps and their truth, readers of our own for both output formats, and
//! ways to run xdump-cut, crash, drgn and gdb. Nothing here uses the tool's own library, so that a mistake in it
//! cannot hide itself.
#![allow(dead_code)] // each test crate uses a part

pub(crate) mod core;
pub(crate) mod crash;
pub(crate) mod cut;
pub(crate) mod drgn;
pub(crate) mod dump;
pub(crate) mod elf;
pub(crate) mod fixtures;
pub(crate) mod forms;
pub(crate) mod installed;
pub(crate) mod kdump;
pub(crate) mod levels;
pub(crate) mod pages;
pub(crate) mod sha256;
pub(crate) mod symbols;
pub(crate) mod tools;
pub(crate) mod truth;
pub(crate) mod xc_core;

use fixtures::Fixture;

/// Runs `check` on every fixture and fails with all that it found, so that one run shows the whole picture.
pub(crate) fn on_each_fixture(check: impl Fn(&Fixture, &mut Findings)) {
    let mut all = Vec::new();
    for fixture in fixtures::all() {
        let mut findings = Findings::default();
        check(fixture, &mut findings);
        all.extend(findings.into_lines(&fixture.name));
    }
    assert!(all.is_empty(), "{} findings:\n{}", all.len(), all.join("\n"));
}

/// What a check found wrong; the first few of each kind are told, the rest counted.
#[derive(Default)]
pub(crate) struct Findings(Vec<(String, usize, Vec<String>)>);

impl Findings {
    const TOLD: usize = 5;

    /// Notes `detail` under `kind`.
    pub(crate) fn add(&mut self, kind: &str, detail: impl Into<String>) {
        let at = self.0.iter().position(|k| k.0 == kind).unwrap_or_else(|| {
            self.0.push((kind.to_string(), 0, Vec::new()));
            self.0.len() - 1
        });
        self.0[at].1 += 1;
        if self.0[at].2.len() < Self::TOLD {
            self.0[at].2.push(detail.into());
        }
    }

    /// Notes `detail` under `kind` unless `ok`.
    pub(crate) fn check(&mut self, ok: bool, kind: &str, detail: impl FnOnce() -> String) {
        if !ok {
            self.add(kind, detail());
        }
    }

    /// Takes over what was found in a part, telling which.
    pub(crate) fn append(&mut self, part: &str, other: Self) {
        self.0.extend(other.0.into_iter().map(|(kind, count, told)| (format!("{part}{kind}"), count, told)));
    }

    /// What was found, for people.
    pub(crate) fn into_lines(self, fixture: &str) -> Vec<String> {
        let line = |(kind, count, told): (String, usize, Vec<String>)| {
            format!("{fixture}: {kind} ({count}):\n    {}", told.join("\n    "))
        };
        self.0.into_iter().map(line).collect()
    }
}
