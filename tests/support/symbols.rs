//! The symbols of a vmlinux, or of xen-syms.

use goblin::elf::Elf;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Addresses and names of the kernel image (per-CPU offsets and absolute symbols left out).
pub(crate) struct Symbols {
    by_address: BTreeMap<u64, Vec<String>>,
    by_name: HashMap<String, u64>,
}

impl Symbols {
    pub(crate) fn read(vmlinux: &Path) -> Self {
        let bytes = std::fs::read(vmlinux).unwrap_or_else(|e| panic!("{}: {e}", vmlinux.display()));
        let elf = Elf::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", vmlinux.display()));
        let (mut by_address, mut by_name) = (BTreeMap::<u64, Vec<String>>::new(), HashMap::new());
        for symbol in elf.syms.iter().filter(|s| s.st_value >= 0xffff_8000_0000_0000) {
            let Some(name) = elf.strtab.get_at(symbol.st_name).filter(|name| !name.is_empty()) else { continue };
            by_address.entry(symbol.st_value).or_default().push(name.to_string());
            by_name.insert(name.to_string(), symbol.st_value);
        }
        Self { by_address, by_name }
    }

    /// The names at the last symbol not above `address`, and the offset from there.
    pub(crate) fn at(&self, address: u64) -> (Vec<String>, u64) {
        match self.by_address.range(..=address).next_back() {
            Some((start, names)) => (names.clone(), address - start),
            None => (Vec::new(), address),
        }
    }

    /// Does a symbol stand at exactly this address?
    pub(crate) fn starts_at(&self, address: u64) -> bool {
        self.by_address.contains_key(&address)
    }

    pub(crate) fn address(&self, name: &str) -> u64 {
        *self.by_name.get(name).unwrap_or_else(|| panic!("vmlinux has no symbol {name}"))
    }
}
