//! What moves pages in parallel: chunks of the plan, read, altered and compressed by many threads, handed on in order.

pub mod codec;
pub mod digest;
pub mod estimate;
pub mod find;
#[cfg(feature = "lzo")]
mod lzo;
pub mod ordered;
pub mod walk;

use std::fmt::Debug;

/// Told how the work gets on; called from the thread that drives it, and `advance` from any.
pub trait Progress: Sync + Debug {
    /// A stage begins; `total` is its length in pages, if it has one.
    fn stage(&self, name: &str, total: Option<u64>);
    /// So many more pages of the stage are done.
    fn advance(&self, pages: u64);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}
