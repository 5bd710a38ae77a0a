//! Whether a crash of this host now would give a good dump: `xdump-cut check`.
//!
//! Looking and judging are apart. [`Host`] is where is looked, the running system or a recorded tree; [`Facts`] are what was
//! seen, each as [`Seen`], so that "not there" and "could not look" never mix; [`Check::judge`] makes findings of facts and
//! touches nothing.
//!
//! | what | from |
//! |---|---|
//! | dom0, its kind | `/sys/hypervisor/type`, `guest_type`, and `properties/features`: bit 11 is dom0, bit 2 a translated domain |
//! | versions | `/sys/hypervisor/version`, `/proc/sys/kernel/osrelease` |
//! | reservation | `kexec --print-ckr-size`, else the line `Kdump:` of `xl dmesg`, else `crashkernel=` of `xl info` |
//! | crash kernel loaded | `kexec -p -S`: status 1 if it is, 0 if not |
//!
//! `/sys/kernel/kexec_crash_loaded`, `kexec_crash_size` and `/proc/iomem` say nothing of it: those of a PV dom0 have 0, 0 and no
//! "Crash kernel" while Xen has a crash kernel loaded (`testdata/check`). Xen is asked through `kexec` and `xl`, which have to be
//! there to load a crash kernel at all; the hypercall itself would take `unsafe` code and buffers that stay in memory.

mod facts;
mod host;
mod judge;
mod kdump;
mod text;

pub use facts::{Config, Facts, Kexec, Place, Reserved, Source, Tool};
pub use host::{Host, Ran, Seen};
pub use judge::{KERNELS, XENS, need};
pub use kdump::{Kdump, Kind, Target};

use serde::Serialize;

/// How a matter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// A dump will come, but there is something to know.
    Warn,
    /// A crash now would not give a good dump.
    Fail,
    /// It decides, and could not be looked at.
    Unknown,
}

/// One matter that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, which stays the same: `dom0`, `xen`, `kernel`, `vmcoreinfo`, `kallsyms`, `capture`, `reservation`, `loaded`,
    /// `panic`, `kdump`, `room`, `tool`.
    pub what: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was seen, with values.
    pub seen: String,
    /// The way out, if one is needed.
    pub way_out: Option<String>,
}

/// What all findings come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A crash now would give a good dump, as far as can be seen.
    Good,
    /// It would not.
    Bad,
    /// Nothing speaks against it, but not all that decides could be looked at.
    Unknown,
}

/// The whole check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Of this program.
    pub version: &'static str,
    /// What the findings come to.
    pub verdict: Verdict,
    /// Bytes to reserve for the crash kernel; nothing if this is no dom0 that could crash, or its size is not known.
    pub reservation_needed: Option<u64>,
    /// Bytes that Xen has reserved, if that is known.
    pub reservation: Option<u64>,
    /// The findings, in the order in which they stand in each other's way.
    pub findings: Vec<Finding>,
}

impl Check {
    /// Looks at the host and judges.
    pub fn of(host: &Host) -> Self {
        Self::judge(&Facts::gather(host))
    }

    /// What is seen, judged.
    pub fn judge(facts: &Facts) -> Self {
        let findings = judge::findings(facts);
        let is_dom0 = findings.first().is_some_and(|f| f.status == Status::Ok);
        let any = |status| findings.iter().any(|f| f.status == status);
        let verdict = match () {
            () if any(Status::Fail) => Verdict::Bad,
            () if any(Status::Unknown) => Verdict::Unknown,
            () => Verdict::Good,
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            verdict,
            reservation_needed: facts.dom0_bytes.get().filter(|_| is_dom0).map(|b| need(*b)),
            // What kexec says elsewhere is not about Xen.
            reservation: facts.reserved.get().filter(|_| is_dom0).map(|r| r.bytes),
            findings,
        }
    }

    /// The names of the findings of this status.
    pub fn named(&self, status: Status) -> Vec<&'static str> {
        self.findings.iter().filter(|f| f.status == status).map(|f| f.what).collect()
    }
}
