//! A host: the hypervisor and its domains.

use super::alone;
use super::domain::{self, Domain};
use super::hypervisor::Hypervisor;
use super::layout;
use super::syms::XenSyms;
use crate::error::Result;
use crate::source::{MachineMemory, Vmcore};
use std::ops::Deref;

/// The hypervisor, and the domains in order of Xen's list, by ascending id.
#[derive(Debug)]
pub struct Host<'a> {
    hypervisor: Hypervisor<'a>,
    /// The domains.
    pub domains: Vec<Domain>,
    /// What was wrong but could be worked around.
    pub warnings: Vec<String>,
}

impl<'a> Deref for Host<'a> {
    type Target = Hypervisor<'a>;

    fn deref(&self) -> &Hypervisor<'a> {
        &self.hypervisor
    }
}

impl<'a> Host<'a> {
    /// Reads everything that does not depend on one domain.
    ///
    /// # Errors
    /// The first structure without which nothing can be cut.
    pub fn open(mem: &'a MachineMemory<'a>, core: &Vmcore) -> Result<Self> {
        Self::open_with(mem, core, None)
    }

    /// The same with the `xen-syms` of the host.
    ///
    /// # Errors
    /// As [`Self::open`], and [`crate::Error::Usage`] for a `xen-syms` of another build.
    pub fn open_with(mem: &'a MachineMemory<'a>, core: &Vmcore, syms: Option<&XenSyms>) -> Result<Self> {
        if let Some(dump) = core.dump_core() {
            let (hypervisor, domain) = alone::open(mem, core, dump);
            let warnings = hypervisor.warnings.clone();
            return Ok(Self { hypervisor, domains: vec![domain], warnings });
        }
        let hypervisor = Hypervisor::open_with(mem, core, syms)?;
        let (domains, damage) = domain::list(&hypervisor)?;
        let warnings = hypervisor.warnings.iter().cloned().chain(damage).collect();
        let mut host = Self { hypervisor, domains, warnings };
        if let Some(layout) = &host.layout {
            let doubts = layout::compare(&host, layout);
            host.warnings.extend(doubts);
        }
        Ok(host)
    }

    /// The domain, if the dump is of it alone.
    pub fn alone(&self) -> Option<&Domain> {
        self.domains.first().filter(|d| d.told.is_some())
    }

    /// The domain that publishes the crash note's P2M, or else domain 0: the one that managed the hardware.
    pub fn hardware_domain(&self) -> Option<&Domain> {
        let list = self.notes.crash.frame_list_list;
        let by_list = self.domains.iter().find(|d| {
            !matches!(list.0, 0 | u64::MAX) && d.shared_info.as_ref().is_some_and(|s| s.frame_list_list == list)
        });
        by_list.or_else(|| self.domains.iter().find(|d| d.id == 0))
    }
}
