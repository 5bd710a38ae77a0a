//! The P2M that a PV kernel keeps for itself, by its variables: the way that needs nothing of Xen's but a root table.
//!
//! | variable | kernel |
//! |---|---|
//! | `xen_p2m_addr`, `xen_p2m_size` | Linux 3.19 and later (commit 054954eb051f): the array, and its entries |
//! | `phys_to_machine_mapping`, `max_pfn` | XenLinux, 2.6.16 to SUSE's 4.4: the same |
//!
//! Mainline before 3.19 has no such array, but a tree of pointers (`p2m_top`) to the very leaves that it publishes. It is
//! not read: where the published one is lost, the M2P stands in.

use super::kernel::Kernel;
use super::names::Names;
use super::note;
use super::symbols::Symbols;
use crate::error::Result;
use crate::units::VirtAddr;
use crate::xen::p2m::inverted::Inverted;
use crate::xen::p2m::{Help, OwnList};
use crate::xen::{Domain, Host, P2m};
use std::sync::OnceLock;

/// The variables, pointer and number of entries.
const VARIABLES: [(&str, &str); 2] = [("xen_p2m_addr", "xen_p2m_size"), ("phys_to_machine_mapping", "max_pfn")];

/// Reads the P2M of `domain`, with the kernel's own list where what it published is not all. `given` are symbols of its
/// kernel.
///
/// # Errors
/// As [`P2m::read`].
pub fn read(host: &Host<'_>, domain: &Domain, given: Option<&Symbols>, help: &Help<'_>) -> Result<P2m> {
    let p2m = P2m::read_with(host, domain, help)?;
    if !p2m.wants_own() {
        return Ok(p2m);
    }
    let own = Kernel::find(host, domain, &p2m).and_then(|kernel| {
        let found = note::find(&kernel, host.notes.linux.as_ref(), &kernel.landmarks().notes).ok();
        // Those of another kernel are told of when the kernel itself is looked for.
        let names = |given| Names::find(&kernel, found.as_ref(), given);
        find(&kernel, &names(given).or_else(|_| names(None)).ok()?)
    });
    own.map_or(Ok(p2m), |own| P2m::read_with(host, domain, &Help { own: Some(own), ..*help }))
}

/// The same where nothing is known beforehand.
///
/// # Errors
/// As [`P2m::read`].
pub fn read_alone(host: &Host<'_>, domain: &Domain) -> Result<P2m> {
    let made = OnceLock::new();
    let inverted = || made.get_or_init(|| Inverted::read(host, domain));
    read(host, domain, None, &Help { own: None, owned: None, inverted: &inverted })
}

/// Finds it; `None` if no name or no variable tells. What it leads to is checked by [`crate::xen::P2m`] as all else.
fn find(kernel: &Kernel<'_>, names: &Names<'_>) -> Option<OwnList> {
    let variable = |name: &str| kernel.space.read_u64(name, names.get(name)?).ok();
    let root = kernel.space.root();
    let list = |(base, end): (&'static str, &str)| {
        let list = OwnList { root, base: VirtAddr(variable(base)?), end: variable(end)?, name: base };
        (list.base.0 >> 63 == 1 && list.end > 0).then_some(list)
    };
    VARIABLES.into_iter().find_map(list)
}
