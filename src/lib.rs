//! xdump-cut
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod bitmap;
pub mod bytes;
pub mod error;
pub mod source;
pub mod units;
pub mod vmcoreinfo;
pub mod xen;

pub use error::{Error, Result};
