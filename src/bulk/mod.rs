//! Archives: every dump under some folders, on one machine or on many.
//!
//! [`tree`] lists files, [`identity`] knows them again, [`source::peek`](crate::source::peek()) tells dumps from all else by
//! their first bytes, [`jobs`] cuts several at once with the threads and the memory of one, and [`manifest`] keeps what became of
//! each. [`list`] is for several machines: what is to be done, in entries of about the same cost, each of which some
//! engine (Slurm, Kubernetes, GNU parallel) has done by [`work()`]; [`collect`] says whether all of it was.
//!
//! # Nothing is done twice, nothing is half done
//! A line `started` is on the disk before a dump's output is begun, and the line that says how it ended after that has its name. What
//! a kill leaves is an output that is `NAME.incomplete`, or one that is complete and not told of: both are known by the first line, and
//! made anew. A file that no line tells of is somebody else's, and stays.

pub mod fate;
pub mod identity;
pub mod jobs;
pub mod list;
pub mod manifest;
pub mod name;
pub mod record;
pub mod summary;
pub mod survey;
pub mod tree;
pub mod wish;
pub mod work;

pub use fate::After;
pub use identity::Identity;
pub use list::List;
pub use manifest::Manifest;
pub use name::Name;
pub use record::{Figures, Record, Status};
pub use summary::Summary;
pub use survey::{Surveyed, Task};
pub use wish::Wish;
pub use work::{collect, plan, run, work};

use crate::pipeline::Progress;
use crate::source::OpenOptions;
use std::fmt::Debug;
use std::path::PathBuf;

/// How to do it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the cuts are to be like.
    pub wish: Wish,
    /// Where they go: a folder, or a URL.
    pub out: PathBuf,
    /// The folder of manifests.
    pub manifests: PathBuf,
    /// How inputs are opened.
    pub open: OpenOptions,
    /// Threads for all of them; 0 takes one per CPU that this process may use.
    pub threads: usize,
    /// Bytes of memory for all of them, if there is a limit.
    pub memory: Option<u64>,
    /// Dumps at a time, if not as many as threads and memory are good for.
    pub jobs: Option<usize>,
    /// Whether files that are not known to be ours may be overwritten.
    pub overwrite: bool,
    /// Whether what failed for good is tried again.
    pub retry: bool,
    /// Whether links are followed.
    pub follow: bool,
    /// What becomes of a dump that was cut.
    pub after: After,
}

/// Told how the work gets on, from any thread.
pub trait Watch: Sync + Debug {
    /// So many dumps of so many bytes are to be cut.
    fn begin(&self, dumps: usize, bytes: u64);
    /// The cut of one begins; it is told of through what this returns.
    fn dump(&self, task: &Task) -> Box<dyn Progress + '_>;
    /// What became of one.
    fn ended(&self, record: &Record);
    /// Why the work should end before it is done, if it should.
    fn stop(&self) -> Option<String>;
    /// What nobody asked for and everybody should know.
    fn warn(&self, what: &str);
}
