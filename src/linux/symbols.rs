//! Symbols from a file that the user gives: System.map or vmlinux.

use crate::error::{Error, Result};
use crate::source;
use crate::units::VirtAddr;
use std::collections::BTreeMap;
use std::path::Path;

/// Names and addresses.
#[derive(Clone, Debug, Default)]
pub struct Symbols(BTreeMap<String, VirtAddr>);

impl Symbols {
    /// Reads lines `address type name`, as System.map and /proc/kallsyms have them.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Usage`] for a file without symbols.
    pub fn system_map(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::read(path.display().to_string(), e))?;
        let all = Self::parse_map(&String::from_utf8_lossy(&bytes));
        all.checked(path, "lines `address type name`")
    }

    fn parse_map(text: &str) -> Self {
        let line = |l: &str| {
            let mut fields = l.split_ascii_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            Some((fields.nth(1)?.to_owned(), VirtAddr(address)))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Reads the symbol table of an uncompressed vmlinux.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Usage`] for a file that is no ELF or has no symbols.
    pub fn vmlinux(path: &Path) -> Result<Self> {
        let file = source::whole(path)?;
        let elf = goblin::elf::Elf::parse(file.bytes())
            .map_err(|e| Error::Usage(format!("{} is no vmlinux (uncompressed ELF): {e}", path.display())))?;
        let named =
            elf.syms.iter().filter_map(|s| Some((elf.strtab.get_at(s.st_name)?.to_owned(), VirtAddr(s.st_value))));
        Self(named.collect()).checked(path, "a .symtab")
    }

    fn checked(self, path: &Path, needed: &str) -> Result<Self> {
        if self.0.contains_key("_stext") {
            return Ok(self);
        }
        Err(Error::Usage(format!("{} has no symbol _stext; {needed} of the domain's kernel is needed", path.display())))
    }

    /// The address of a symbol.
    pub fn get(&self, name: &str) -> Option<VirtAddr> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map() {
        let s = Symbols::parse_map("ffffffff81000000 T _stext\nffffffff82000010 d xen_start_info\nbroken\n");
        assert_eq!(s.get("xen_start_info"), Some(VirtAddr(0xffff_ffff_8200_0010)));
        assert_eq!(s.get("broken"), None);
    }
}
