//! A check as people read it.

use super::{Check, Status, Verdict};
use std::fmt;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Unknown => "unknown",
        })
    }
}

impl Check {
    /// The lines; without those that are ok, if `quiet`.
    pub fn lines(&self, quiet: bool) -> String {
        let mut text = String::new();
        for found in self.findings.iter().filter(|f| !quiet || f.status != Status::Ok) {
            text.push_str(&format!("{:<8}{:<12} {}", found.status, found.what, found.seen));
            if let Some(way_out) = &found.way_out {
                text.push_str(&format!(" -> {way_out}"));
            }
            text.push('\n');
        }
        if !quiet || self.verdict != Verdict::Good {
            text.push_str(&format!("{}\n", self.sum()));
        }
        text
    }

    /// What it all comes to, in a line.
    pub fn sum(&self) -> String {
        let names = |status| self.named(status).join(", ");
        match self.verdict {
            Verdict::Good => "a crash now would give a good dump, as far as can be seen".into(),
            Verdict::Bad => format!("a crash now would not give a good dump: {}", names(Status::Fail)),
            Verdict::Unknown => {
                format!("cannot tell whether a crash now would give a good dump: {}", names(Status::Unknown))
            }
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(false))
    }
}
