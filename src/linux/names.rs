//! Where the kernel's own variables and functions are: by the symbols that the user gave, and by the kallsyms in its
//! memory.

use super::kernel::Kernel;
use super::symbols::Symbols;
use super::{Found, kallsyms};
use crate::error::{Error, Result};
use crate::units::VirtAddr;

/// All that a cut looks up, so that kallsyms are walked once for it.
pub const WANTED: [&str; 12] = [
    "xen_start_info",
    "pv_init_ops",
    "xen_patch",
    "paravirt_patch_default",
    "pgd_list",
    "free_huge_page",
    "xen_p2m_addr",
    "xen_p2m_size",
    "phys_to_machine_mapping",
    "max_pfn",
    "p2m_missing_pte",
    "p2m_identity_pte",
];

/// Names and addresses of one kernel.
#[derive(Debug)]
pub struct Names<'a> {
    given: Option<&'a Symbols>,
    /// What to add to the given addresses: the kernel may have moved itself at boot (KASLR).
    offset: u64,
    own: Option<kallsyms::Symbols>,
}

impl<'a> Names<'a> {
    /// Looks all of them up.
    ///
    /// # Errors
    /// [`Error::Usage`] if the given symbols are another kernel's.
    pub fn find(kernel: &Kernel<'_>, found: Option<&Found>, given: Option<&'a Symbols>) -> Result<Self> {
        // _stext alone would not tell: it is at the same place in most kernels.
        let pairs = ["init_uts_ns", "swapper_pg_dir", "_stext"].map(|name| {
            let here = found.and_then(|f| f.info.symbol(name));
            given.and_then(|g| g.get(name)).zip(here).map(|(given, here)| (name, given, here))
        });
        let pairs: Vec<_> = pairs.into_iter().flatten().collect();
        let moved = found.and_then(|f| u64::from_str_radix(f.info.get("KERNELOFFSET")?, 16).ok()).unwrap_or(0);
        let fits = |offset: u64| pairs.iter().all(|(_, given, here)| given.0.wrapping_add(offset) == here.0);
        // A System.map has addresses as linked, /proc/kallsyms as they were.
        let Some(offset) = [0, moved].into_iter().find(|o| fits(*o)) else {
            let differs = pairs.iter().find(|p| p.1.0.wrapping_add(moved) != p.2.0);
            let places =
                differs.map(|(name, given, here)| format!("{name} is at {given} in them and at {here} in the dump"));
            let why = "the given symbols are of another kernel";
            return Err(Error::Usage(format!("{why}: {}", places.unwrap_or_default())));
        };
        Ok(Self { given, offset, own: found.and_then(|f| kallsyms::lookup(kernel, &f.info, &WANTED)) })
    }

    /// Whether there is any source of names.
    pub fn has_source(&self) -> bool {
        self.given.is_some() || self.own.is_some()
    }

    /// The addresses that the sources give, and which they are; the user's word comes first.
    pub fn places(&self, name: &str) -> impl Iterator<Item = (VirtAddr, &'static str)> {
        let exported = self.own.as_ref().is_some_and(|o| o.exported);
        let how = if exported { "kallsyms in the dump" } else { "kallsyms in the dump, by shape" };
        let given = self.given.and_then(|g| g.get(name));
        let given = given.map(|va| (VirtAddr(va.0.wrapping_add(self.offset)), "the given symbols"));
        let own = self.own.as_ref().and_then(|o| o.found.get(name)).map(|va| (*va, how));
        given.into_iter().chain(own)
    }

    /// The first of them.
    pub fn get(&self, name: &str) -> Option<VirtAddr> {
        self.places(name).next().map(|p| p.0)
    }
}
