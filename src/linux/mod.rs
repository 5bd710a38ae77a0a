//! What knows Linux, as a domain of either kind: its kernel's address space and image, VMCOREINFO, symbols, struct pages, and the
//! variables by which readers tell that it ran under Xen.

#[cfg(feature = "dwarf")]
pub mod dwarf;
pub mod kallsyms;
pub mod kernel;
pub mod log;
pub mod marks;
pub mod mm;
pub mod names;
pub mod note;
pub mod own_list;
pub mod pgds;
pub mod symbols;
pub mod toolstack;
pub mod vital;

pub use kernel::Kernel;
pub use note::Found;

/// Major and minor number of a release; 0 for what is no number.
pub(crate) fn release_numbers(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
