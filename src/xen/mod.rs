//! What knows Xen: notes, the hypervisor's address space, frame table, domains, vCPUs, P2M and M2P.
//!
//! Everything is read with what the dump itself tells (crash notes, VMCOREINFO_XEN, page tables) and with shapes that
//! fit in one way only. Version numbers choose nothing where evidence can.

pub mod console;
pub mod cpu;
pub mod domain;
pub mod frame_table;
pub mod host;
pub mod hvm;
pub mod hypervisor;
pub mod m2p;
pub mod notes;
pub mod own;
pub mod p2m;
pub mod page_info;
pub mod paging;
pub mod pdx;
pub mod regs;
mod runstate;
pub mod shared_info;
pub mod survey;
pub mod vcpu;

pub use domain::Domain;
pub use frame_table::FrameTable;
pub use host::Host;
pub use hypervisor::Hypervisor;
pub use p2m::P2m;
