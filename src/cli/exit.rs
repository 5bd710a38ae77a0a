//! Exit statuses.

use crate::error::Kind;

/// What the command ends with. The man page lists the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well; there may be warnings.
    Success = 0,
    /// The input is no dump that can be cut, or is damaged where it must not be. Trying again gives the same.
    BadInput = 1,
    /// The command line is wrong, or the output exists.
    Usage = 2,
    /// A file could not be read or written. Trying again may help.
    Trouble = 3,
    /// Of an archive: none could be cut, or there is none. Trying again gives the same.
    Nothing = 4,
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::BadInput => Self::BadInput,
            Kind::Usage => Self::Usage,
            Kind::Trouble => Self::Trouble,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
