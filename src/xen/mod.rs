//! What knows Xen: notes, the hypervisor's address space, frame table, domains, vCPUs, P2M and M2P.
//!
//! Everything is read with what the dump itself tells (crash notes, VMCOREINFO_XEN, page tables) and with shapes that
//! fit in one way only. Version numbers choose nothing where evidence can.

pub mod alone;
pub mod census;
pub mod class;
pub mod console;
pub mod context;
pub mod cpu;
mod dirty;
pub mod domain;
mod find;
pub mod frame_table;
pub mod guest_context;
pub mod hole;
pub mod host;
pub mod hvm;
pub mod hypervisor;
mod layout;
pub mod m2p;
pub mod notes;
pub mod own;
pub mod p2m;
pub mod page_info;
pub mod paging;
pub mod pdx;
mod pv;
pub mod qemu;
pub mod regs;
mod runstate;
pub mod shared_info;
pub mod survey;
pub mod syms;
pub mod vcpu;

pub use domain::Domain;
pub use frame_table::FrameTable;
pub use host::Host;
pub use hypervisor::Hypervisor;
pub use p2m::P2m;
pub use syms::XenSyms;
