//! What became of an input: a line of a manifest.

use super::tree::Outputs;
use super::{Identity, Name, Wish};
use crate::error::{Error, Kind};
use crate::report::Report;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It did not, yet.
    #[default]
    Started,
    /// For a reason that may pass: a full disk, a signal, a server that is away.
    Trouble,
    /// Its output exists and is not known to be ours, or is all that is left of another dump.
    Refused,
    /// For good: the dump is damaged where it must not be, or of a kind that cannot be cut.
    Failed,
    /// It is no Xen dump, and stays as it is.
    Left,
    /// It was cut.
    Done,
}

impl Status {
    /// What an error makes of an input.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::NotElf { .. } | Error::WrongElf { .. } | Error::NotXen(_) => Self::Left,
            Error::OutputExists(_) => Self::Refused,
            _ => match error.kind() {
                Kind::BadInput | Kind::Usage => Self::Failed,
                Kind::Trouble => Self::Trouble,
            },
        }
    }
}

/// Figures of a cut.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Wrappers and format of the input, from the outside to the inside.
    pub form: String,
    /// Xen's version.
    pub xen: String,
    /// The domain's id.
    pub domain: u16,
    /// Release of its kernel.
    pub release: Option<String>,
    /// Pages that readers see.
    pub pages: u64,
    /// Of these, pages that the file holds.
    pub kept: u64,
    /// Pages of the domain that the level left out, by class.
    pub excluded: BTreeMap<String, u64>,
    /// Pages of the domain that the dump does not have, by reason.
    pub absent: BTreeMap<String, u64>,
    /// The level that could be applied.
    pub level: u8,
    /// The digest of all pages, if it was asked for.
    pub digest: Option<String>,
    /// Pages that were read again and found to be right, if that was asked for.
    pub verified: Option<u64>,
    /// What was doubtful or damaged.
    pub warnings: Vec<String>,
}

impl Figures {
    /// Those of a report.
    pub fn of(report: &Report) -> Self {
        let out = &report.output;
        Self {
            form: report.source.form.clone(),
            xen: report.source.xen.clone(),
            domain: report.domain.id,
            release: report.domain.release.clone(),
            pages: out.pages,
            kept: out.kept,
            excluded: out.excluded.clone(),
            absent: out.absent.clone(),
            level: report.level.applied,
            digest: out.digest.clone(),
            verified: out.verified,
            warnings: report.warnings.clone(),
        }
    }
}

/// Where the input is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Where it was.
    #[default]
    Kept,
    /// In this folder.
    Moved(Name),
    /// Nowhere.
    Deleted,
    /// On its way to this folder, or to nowhere: the run was killed in between.
    Going(Option<Name>),
}

/// What became of an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its file, or those of a split dump, as they were.
    pub files: Vec<Identity>,
    /// How it ended.
    pub status: Status,
    /// Why, if it was not cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The output, below the folder of all outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Name>,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What was asked for.
    pub options: Wish,
    /// What is in the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// Where the input is now.
    #[serde(default)]
    pub source: Source,
    /// Why it is still there, if it was to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_because: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// When it ended, in milliseconds since 1970.
    pub at: u64,
    /// The version that did it.
    pub version: String,
}

impl Record {
    /// One that is about to be worked on.
    pub fn started(files: Vec<Identity>, output: Option<&Path>, options: &Wish) -> Self {
        Self {
            files,
            output: output.map(Name::from),
            options: options.clone(),
            at: now(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Self::default()
        }
    }

    /// The name of the input: its first file.
    pub fn input(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |f| f.path.as_ref())
    }

    /// Bytes of the input.
    pub fn input_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Whether the input itself could not be looked at.
    pub fn is_blind(&self) -> bool {
        self.files.iter().all(|f| f.digest.is_empty() && f.size == 0)
    }

    /// Whether its output is ours to overwrite for this input: it was begun for it, and is not all that is left of another.
    pub fn may_replace(&self, files: &[Identity], output: &Path) -> bool {
        let at_stake = self.status == Status::Done && self.source != Source::Kept && self.files != files;
        self.output.as_ref().is_some_and(|o| o.0 == output) && !at_stake
    }

    /// Whether nothing is left to be done, if the input is what it was.
    pub fn is_settled(&self, options: &Wish, outputs: &Outputs, retry: bool) -> bool {
        let by_this_version = self.version == env!("CARGO_PKG_VERSION");
        match self.status {
            Status::Done => options.is_met_by(&self.options) && self.has_output(outputs),
            Status::Left => by_this_version && !retry,
            Status::Failed => by_this_version && !retry && options.is_met_by(&self.options),
            Status::Started | Status::Trouble | Status::Refused => false,
        }
    }

    /// Whether its output is there, as large as it was.
    pub fn has_output(&self, outputs: &Outputs) -> bool {
        let size = self.output.as_ref().and_then(|name| outputs.size_of(name.as_ref()));
        size.is_some() && size == self.bytes
    }

    /// Which of two records of an input is to be believed: what is done stays so, whatever another machine says of the same
    /// input later.
    pub fn is_better_than(&self, other: &Self) -> bool {
        if self.is_blind() != other.is_blind() {
            return other.is_blind();
        }
        let same = self.files == other.files && self.options == other.options;
        let decided = |r: &Self| (r.status == Status::Done, r.source != Source::Kept);
        match same {
            true => (decided(self), self.at) >= (decided(other), other.at),
            false => self.at >= other.at,
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: u64, status: Status) -> Record {
        let file = Identity { path: Name("/in".into()), size, ..Identity::default() };
        Record { status, ..Record::started(vec![file], Some(Path::new("in.kdump")), &Wish::default()) }
    }

    #[test]
    fn who_saw_nothing_knows_nothing_better() {
        let (done, blind) = (of(9, Status::Done), Record { at: now() + 9000, ..of(0, Status::Trouble) });
        assert!(blind.is_blind() && !done.is_blind());
        assert!(done.is_better_than(&blind) && !blind.is_better_than(&done));
    }

    #[test]
    fn a_cut_whose_dump_is_gone_is_replaced_by_none_but_its_own() {
        let (old, new) = (of(9, Status::Done), of(8, Status::Started));
        let output = Path::new("in.kdump");
        assert!(old.may_replace(&new.files, output) && !old.may_replace(&new.files, Path::new("else")));
        let gone = Record { source: Source::Deleted, ..old };
        assert!(!gone.may_replace(&new.files, output) && gone.may_replace(&gone.files, output));
    }
}
