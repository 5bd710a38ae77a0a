//! Cuts as files that are nowhere: a folder, mounted by FUSE, of ELF vmcores that are made as they are read.
//!
//! The kernel's requests come in at one place (`folder`), which hands each to the file that it is for. A file has threads
//! of its own (`keeper`), made with the folder, since what they read from lives no longer than the dump is open: one that
//! waits until the file is asked for, and makes it then, and more that read. So a file that takes long to make keeps nobody
//! from the others. What was made is kept, in bounds (`cached`); the kernel keeps pages too, as of any file, as long as
//! nobody else wants the memory. `run` mounts, waits for the end, and unmounts.
//!
//! A read gives all of what was asked for or an error, never less: the kernel would take less for the end of the file, and
//! fill up with zeros. Of a large read that fails it asks again page by page, so that good pages beside a bad one are there.

mod cached;
mod folder;
mod keeper;
mod run;

pub use run::{End, Target, mount};

use crate::error::Error;

/// Bytes that are kept, unless another number is asked for.
pub const CACHE: u64 = 64 << 20;

/// What the one who waits is told.
#[derive(Debug)]
enum Event {
    /// A signal came.
    Signal(i32),
    /// Somebody unmounted the folder.
    Unmounted,
    /// A file was looked at; whether it is there.
    Looked(bool),
    /// A file cannot be made.
    Failed(usize, Error),
}
