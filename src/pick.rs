//! Which of a host's domains is meant.

use crate::error::{Error, Result};
use crate::linux::own_list;
use crate::linux::toolstack::{self, Handle};
use crate::options::Which;
use crate::xen::{Domain, Host};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// The domain that `which` names; `names` is only asked if a name is needed.
///
/// # Errors
/// [`Error::Missing`] without a hardware domain, [`Error::Usage`] for any other that is not there; both list what is.
pub fn pick<'h>(host: &'h Host<'_>, which: &Which, names: &dyn Fn() -> BTreeMap<Handle, String>) -> Result<&'h Domain> {
    let domains = &host.domains;
    let made = OnceCell::new();
    let names = || made.get_or_init(names);
    let found = match which {
        Which::Hardware => host.alone().or_else(|| host.hardware_domain()),
        _ if host.alone().is_some() => {
            let why = "the dump is of one domain alone, whose number and name it does not tell; do without --domain";
            return Err(Error::Usage(why.into()));
        }
        Which::Id(id) => domains.iter().find(|d| d.id == *id),
        Which::Name(name) => {
            let names = names();
            let called = domains.iter().filter(|d| toolstack::name_of(d, names) == Some(name));
            let called: Vec<&Domain> = called.collect();
            if let [first, second, ..] = called.as_slice() {
                let why = format!("{} and {}; say which by its number", first.id, second.id);
                return Err(Error::Usage(format!("more than one domain is called {name}: {why}")));
            }
            // Xen's own name for it.
            called.into_iter().next().or_else(|| host.hardware_domain().filter(|_| name == "Domain-0"))
        }
    };
    found.ok_or_else(|| {
        let names = names();
        let list = domains.iter().map(|d| match toolstack::name_of(d, names) {
            Some(name) => format!("{} ({name})", d.id),
            None => d.id.to_string(),
        });
        let list = list.collect::<Vec<_>>().join(", ");
        // Where the list of domains is damaged, that may be the reason.
        let list = host.warnings.iter().fold(list, |list, w| format!("{list} ({w})"));
        match which {
            Which::Hardware => Error::missing("domain 0", format!("the domain list has {list} only")),
            Which::Id(id) => Error::Usage(format!("there is no domain {id}; the dump has {list}")),
            Which::Name(name) => Error::Usage(format!("no domain is known to be called {name}; the dump has {list}")),
        }
    })
}

/// The names that the toolstack of the hardware domain gave to domains.
pub fn names(host: &Host<'_>) -> BTreeMap<Handle, String> {
    let read = |dom0| Some(toolstack::names(host.memory(), &own_list::read_alone(host, dom0).ok()?));
    host.hardware_domain().and_then(read).unwrap_or_default()
}
