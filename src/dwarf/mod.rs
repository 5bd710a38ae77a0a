//! DWARF of the files that a user gives: a vmlinux, a xen-syms. Reads what is asked for, and of damaged files what it can.

mod image;
mod types;
mod units;

pub(crate) use image::Image;
pub(crate) use types::{Types, Wanted};
pub(crate) use units::{Sections, Units};
