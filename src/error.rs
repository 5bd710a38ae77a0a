//! What can go wrong, and whose fault it is.

use crate::damage::Damage;
use crate::units::{MachineAddr, VirtAddr};
use std::io;

/// Shorthand for results of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is; decides the exit status of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input is no dump that can be cut, or is damaged where it must not be. Trying again gives the same.
    BadInput,
    /// The call was wrong: the output exists, an option does not fit.
    Usage,
    /// The machine got in the way: a disk is full, a file cannot be read. Trying again may help.
    Trouble,
}

/// Any failure of this library. The messages name the thing, the value and the way out; the caller adds the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading the input failed.
    #[error("reading {what}: {source}")]
    Read {
        /// What was being read.
        what: String,
        /// The operating system's word on it.
        source: io::Error,
    },
    /// Writing the output failed; nothing is left under its name.
    #[error("writing {what}: {source}")]
    Write {
        /// What was being written.
        what: String,
        /// The operating system's word on it.
        source: io::Error,
    },
    /// The output exists and may not be overwritten.
    #[error("{0} exists; give -f to overwrite it")]
    OutputExists(String),
    /// An option's value does not fit.
    #[error("{0}")]
    Usage(String),
    /// The file is of no format that is known.
    #[error(
        "neither ELF, nor kdump-compressed, nor flattened: it begins with {magic}; a dump as kdump, makedumpfile, QEMU or xl dump-core writes it is needed"
    )]
    NotElf {
        /// The first bytes in hex.
        magic: String,
    },
    /// An ELF file that is no x86_64 core.
    #[error("{what} is {value}; only little-endian ELF64 core files of x86_64 can be cut")]
    WrongElf {
        /// Which header field.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A structure of the container is damaged.
    #[error("damaged {what}: {why}")]
    Damaged {
        /// Which structure.
        what: &'static str,
        /// What is wrong with it, with values.
        why: String,
    },
    /// A core without Xen's notes.
    #[error("not a Xen dump: {0}")]
    NotXen(String),
    /// A Xen dump that lacks a part without which nothing can be cut.
    #[error("{what} is missing from the dump: {why}")]
    Missing {
        /// Which part.
        what: &'static str,
        /// Why it could not be found, and the way out.
        why: String,
    },
    /// A machine address that must be read is not in the dump.
    #[error("{what}: machine address {addr} {why}")]
    Absent {
        /// What was to be read.
        what: String,
        /// Where.
        addr: MachineAddr,
        /// Why it cannot be read.
        why: Absence,
    },
    /// A hypervisor or kernel address that must be read is not mapped.
    #[error("{what}: virtual address {addr} is not mapped ({why})")]
    Unmapped {
        /// What was to be read.
        what: String,
        /// Where.
        addr: VirtAddr,
        /// Where the walk ended.
        why: String,
    },
    /// Another error, in a file that is damaged: most likely its cause.
    #[error("{source} (what is damaged in the file: {damage})")]
    OfDamaged {
        /// All that is known to be wrong with the file, with amounts.
        damage: String,
        /// What could not be done without them.
        source: Box<Error>,
    },
    /// A log that was to be saved.
    #[error("{what}: {source}")]
    Log {
        /// Which.
        what: &'static str,
        /// Why it could not be.
        source: Box<Error>,
    },
    /// One of several input files.
    #[error("{path}: {source}")]
    Part {
        /// Which.
        path: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The user insisted on sound input.
    #[error("the input is damaged, and --strict was given: {0}")]
    Strict(String),
    /// The user insisted on a dump level that cannot be applied in full.
    #[error("{0}")]
    Level(String),
    /// Some of several domains could not be cut.
    #[error("{failed} of {all} domains could not be cut")]
    Partly {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
        /// One of the errors: one that may pass, if there is one.
        last: Box<Error>,
    },
    /// Another process works on the same.
    #[error("{0} is in use by another run; wait for its end, or look for it")]
    Busy(String),
    /// Somebody wanted the work to end before it was done.
    #[error("stopped: {0}")]
    Stopped(String),
    /// The output ends early: there was no room for more of it, or no time.
    #[error("the output is incomplete: {0}")]
    Incomplete(String),
    /// The output, read again, is not what was written.
    #[error("the output is not what was to be written: {0}")]
    Unverified(String),
    /// A folder could not be mounted.
    #[error("mounting {folder}: {source}{help}")]
    Mount {
        /// Where.
        folder: String,
        /// The operating system's word on it.
        source: io::Error,
        /// The way out, if there is one.
        help: &'static str,
    },
    /// The domain is of a kind that this version cannot cut.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            // A file that ends before what its own headers speak of, a stream that lost it, or one that unpacks to nothing.
            Self::Read { source, .. }
                if matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Kind::BadInput
            }
            Self::Read { .. } | Self::Write { .. } | Self::Mount { .. } => Kind::Trouble,
            Self::Incomplete(_) | Self::Stopped(_) | Self::Unverified(_) | Self::Busy(_) => Kind::Trouble,
            Self::OfDamaged { source, .. } | Self::Part { source, .. } | Self::Log { source, .. } => source.kind(),
            Self::Partly { last, .. } => last.kind(),
            Self::OutputExists(_) | Self::Usage(_) => Kind::Usage,
            _ => Kind::BadInput,
        }
    }

    /// Whether it ends the writing where what there is so far is worth having: a disk, a quota or a limit is full, the disk
    /// fails, or the work was stopped.
    pub fn ends_early(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Stopped(_) => true,
            Self::Write { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
                    || source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
            _ => false,
        }
    }

    /// Says what is damaged in the dump, if anything is and that can be the reason.
    pub(crate) fn of_damaged(self, damage: &Damage) -> Self {
        let said = matches!(self, Self::Strict(_) | Self::OfDamaged { .. });
        match self.kind() {
            Kind::BadInput if !damage.is_empty() && !said => {
                Self::OfDamaged { damage: damage.to_string(), source: Box::new(self) }
            }
            _ => self,
        }
    }

    pub(crate) fn of_log(self, what: &'static str) -> Self {
        Self::Log { what, source: Box::new(self) }
    }

    pub(crate) fn of_part(self, path: String) -> Self {
        Self::Part { path, source: Box::new(self) }
    }

    pub(crate) fn damaged(what: &'static str, why: impl Into<String>) -> Self {
        Self::Damaged { what, why: why.into() }
    }

    pub(crate) fn missing(what: &'static str, why: impl Into<String>) -> Self {
        Self::Missing { what, why: why.into() }
    }

    pub(crate) fn read(what: impl Into<String>, source: io::Error) -> Self {
        Self::Read { what: what.into(), source }
    }

    pub(crate) fn write(what: impl Into<String>, source: io::Error) -> Self {
        Self::Write { what: what.into(), source }
    }
}

/// Why a piece of machine memory cannot be had. It is never taken for zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Absence {
    /// No PT_LOAD or bitmap covers it: the crash kernel's own area, a device, or not RAM.
    NotInDump,
    /// It is covered but the file ends before it.
    CutOff,
    /// Whoever wrote the dump left it out.
    Excluded,
    /// The dump's writer ran out of space before it.
    Incomplete,
    /// It is in a part of a split dump that was not given.
    NotInSet,
    /// Its descriptor, or its compressed bytes, make no sense.
    Damaged,
    /// The operating system could not read it.
    IoError,
}

impl std::fmt::Display for Absence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotInDump => "is in no memory that the dump describes",
            Self::CutOff => "lies past the end of the file: the dump is cut short",
            Self::Excluded => "was excluded by the dump's own level",
            Self::Incomplete => "was not written: the dump is incomplete",
            Self::NotInSet => "is in a part of the split dump that was not given",
            Self::Damaged => "is damaged in the dump",
            Self::IoError => "could not be read",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_writing_early() {
        let failed = |number| Error::write("a file", io::Error::from_raw_os_error(number));
        // EIO, EFBIG, ENOSPC, EDQUOT; and EPERM, EPIPE.
        assert!([5, 27, 28, 122].map(failed).iter().all(Error::ends_early));
        assert!(![1, 32].map(failed).iter().any(Error::ends_early));
        assert!(Error::Stopped("by SIGTERM".into()).ends_early());
        assert!(!Error::read("a file", io::Error::from_raw_os_error(5)).ends_early());
    }
}
