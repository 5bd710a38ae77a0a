//! What moves pages in parallel: chunks of the plan, read, altered and compressed by many threads, handed on in order.

pub mod codec;
pub mod crew;
pub mod digest;
pub mod estimate;
pub mod find;
#[cfg(feature = "lzo")]
mod lzo;
pub mod ordered;
pub mod walk;

use crate::error::{Error, Result};
use std::fmt::Debug;

/// Told how the work gets on; called from the thread that drives it, and `advance` from any.
pub trait Progress: Sync + Debug {
    /// A stage begins; `total` is its length in pages, if it has one.
    fn stage(&self, name: &str, total: Option<u64>);
    /// So many more pages of the stage are done.
    fn advance(&self, pages: u64);
    /// Why the work should end before it is done, if it should; asked again and again.
    fn stop(&self) -> Option<String> {
        None
    }
}

/// Tells of pages that are done, and ends the work if it should end.
///
/// # Errors
/// [`Error::Stopped`].
pub fn advance(progress: &dyn Progress, pages: u64) -> Result<()> {
    progress.advance(pages);
    match progress.stop() {
        Some(why) => Err(Error::Stopped(why)),
        None => Ok(()),
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}
