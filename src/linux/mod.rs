//! What knows Linux, as a PV domain: its kernel's address space and image, VMCOREINFO, symbols, and the variables by
//! which readers tell that it ran under Xen.

#[cfg(feature = "dwarf")]
pub mod dwarf;
pub mod kallsyms;
pub mod kernel;
pub mod marks;
pub mod note;
pub mod symbols;

pub use kernel::Kernel;
pub use note::Found;
