//! VMCOREINFO text: the format that Linux and Xen share.
//!
//! Lines `KEY(name)=value`, or `KEY=value`. `SYMBOL` values are addresses in hex without `0x`; `SIZE`, `OFFSET` and
//! `LENGTH` are decimal; `NUMBER` is signed decimal, or hex with `0x` (Linux 6.9's `NUMBER(VMALLOC_START)`).
//! Unknown keys are kept and ignored. Behaviour is chosen by which keys are present, never by a version.

use crate::error::{Error, Result};
use crate::units::VirtAddr;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Linux's VMCOREINFO_BYTES: no text is longer.
pub const MOST_TEXT: usize = 4096;

/// A parsed VMCOREINFO or VMCOREINFO_XEN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vmcoreinfo {
    text: String,
    values: BTreeMap<String, String>,
}

impl Vmcoreinfo {
    /// Parses note text, NUL padding and all. Lines without `=` are left out.
    pub fn parse(desc: &[u8]) -> Self {
        Self::parse_all(desc.get(..MOST_TEXT).unwrap_or(desc))
    }

    fn parse_all(bytes: &[u8]) -> Self {
        let text = crate::bytes::text(bytes);
        let pairs = text.lines().filter_map(|l| l.split_once('='));
        let values = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Self { text, values }
    }

    /// Reads a file of such text.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Usage`] for a file that is something else.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        // One byte more than there can be tells a file that is something else.
        let read = File::open(path).and_then(|f| f.take(MOST_TEXT as u64 * 4 + 1).read_to_end(&mut bytes));
        read.map_err(|e| Error::read(&name, e))?;
        let info = Self::parse_all(&bytes);
        if bytes.len() > MOST_TEXT * 4 || info.get("OSRELEASE").is_none() {
            let why = "is no VMCOREINFO: lines KEY=VALUE with OSRELEASE among them are needed";
            return Err(Error::Usage(format!("{name} {why}")));
        }
        Ok(info)
    }

    /// This one, with the lines of another whose keys it lacks.
    pub fn or(mut self, other: Option<&Self>) -> Self {
        for (key, value) in other.iter().flat_map(|o| &o.values) {
            if !self.values.contains_key(key) {
                if !self.text.ends_with('\n') {
                    self.text.push('\n');
                }
                self.text.push_str(&format!("{key}={value}\n"));
                self.values.insert(key.clone(), value.clone());
            }
        }
        self
    }

    /// The text as it stood.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value of a whole key, `OSRELEASE` or `SIZE(page)`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// `SYMBOL(name)`.
    pub fn symbol(&self, name: &str) -> Option<VirtAddr> {
        u64::from_str_radix(self.in_parens("SYMBOL", name)?, 16).ok().map(VirtAddr)
    }

    /// `SIZE(name)` in bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.in_parens("SIZE", name)?.parse().ok()
    }

    /// `OFFSET(name)` in bytes.
    pub fn offset(&self, name: &str) -> Option<u64> {
        self.in_parens("OFFSET", name)?.parse().ok()
    }

    /// `LENGTH(name)`: entries of an array.
    pub fn length(&self, name: &str) -> Option<u64> {
        self.in_parens("LENGTH", name)?.parse().ok()
    }

    /// `NUMBER(name)`.
    pub fn number(&self, name: &str) -> Option<i64> {
        let value = self.in_parens("NUMBER", name)?;
        match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(|n| n as i64),
            None => value.parse().ok(),
        }
    }

    fn in_parens(&self, kind: &str, name: &str) -> Option<&str> {
        self.get(&format!("{kind}({name})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value() {
        let v = Vmcoreinfo::parse(
            b"OSRELEASE=6.12\nPAGESIZE=4096\nSYMBOL(_stext)=ffffffff81000000\nSIZE(page)=64\n\
              OFFSET(page.flags)=0\nNUMBER(phys_base)=-16777216\nNUMBER(VMALLOC_START)=0xffffc90000000000\nbroken\0X=1",
        );
        assert_eq!(v.get("OSRELEASE"), Some("6.12"));
        assert_eq!(v.symbol("_stext"), Some(VirtAddr(0xffff_ffff_8100_0000)));
        assert_eq!((v.size("page"), v.offset("page.flags")), (Some(64), Some(0)));
        assert_eq!(v.number("phys_base"), Some(-16_777_216));
        assert_eq!(v.number("VMALLOC_START"), Some(0xffff_c900_0000_0000_u64 as i64));
        assert_eq!((v.get("X"), v.symbol("nothing")), (None, None));
    }
}
