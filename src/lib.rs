//! xdump-cut
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod bitmap;
pub mod bytes;
pub mod cli;
pub mod cut;
pub mod error;
pub mod info;
pub mod linux;
pub mod pipeline;
pub mod plan;
pub mod report;
pub mod sink;
pub mod source;
pub mod units;
pub mod vmcoreinfo;
pub mod xen;

pub use error::{Error, Result};
