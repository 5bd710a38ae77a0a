//! The names of domains. Xen knows domains by number; names are the toolstack's, in dom0: xl writes each domain's
//! configuration into a file (libxl's JSON: `/var/lib/xen/userdata-d.ID.UUID.libxl-json`), which stays in dom0's page cache.
//! It says name and UUID, and the UUID stands in struct domain too (`handle`), so that no stale file misleads.

use crate::source::MachineMemory;
use crate::source::machine::Run as Bytes;
use crate::units::PAGE_SIZE;
use crate::xen::{Domain, P2m};
use memchr::memmem::Finder;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A UUID as struct domain holds it: the digits in order.
pub type Handle = [u8; 16];

/// Pages that one task reads.
const PART: u64 = 1 << 14;
const UUID_KEY: &[u8] = b"\"uuid\": \"";
const NAME_KEY: &[u8] = b"\"name\": \"";
/// The name stands a few lines before the UUID.
const NAME_WITHIN: usize = 512;
/// xl takes no longer ones.
const MOST_NAME: usize = 128;

/// Searches all memory of dom0, whose P2M is given.
pub fn names(mem: &MachineMemory<'_>, dom0: &P2m) -> BTreeMap<Handle, String> {
    let parts = dom0.runs().iter().flat_map(|run| {
        let run = *run;
        (0..run.len).step_by(PART as usize).map(move |skip| (run.mfn.0 + skip, PART.min(run.len - skip)))
    });
    let uuid = Finder::new(UUID_KEY);
    let search = |(mfn, count): (u64, u64)| {
        let mut found = Vec::new();
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < count {
            // A page's worth at a time: a configuration that runs over two pages, which seldom lie together, is not
            // found by its second half.
            let upto = (count - at).min(256) as usize;
            match mem.run(crate::units::Mfn(mfn + at), upto, &mut buffer) {
                Ok((Bytes::Bytes(bytes), n)) => {
                    for page in bytes.chunks(PAGE_SIZE) {
                        found.extend(uuid.find_iter(page).filter_map(|at| entry(page, at)));
                    }
                    at += n as u64;
                }
                Ok((Bytes::Zeros, n)) => at += n as u64,
                Err(_) => at += 1,
            }
        }
        found
    };
    let parts: Vec<(u64, u64)> = parts.collect();
    parts.into_par_iter().flat_map_iter(search).collect()
}

/// Handle and name where a UUID's key stands at `at`.
fn entry(page: &[u8], at: usize) -> Option<(Handle, String)> {
    let handle = parse_uuid(page.get(at + UUID_KEY.len()..)?)?;
    let before = page.get(at.saturating_sub(NAME_WITHIN)..at)?;
    let name = before.get(memchr::memmem::rfind(before, NAME_KEY)? + NAME_KEY.len()..)?;
    let name = name.get(..memchr::memchr(b'"', name).filter(|n| (1..=MOST_NAME).contains(n))?)?;
    let plain = name.iter().all(|b| b.is_ascii_graphic());
    Some((handle, String::from_utf8(name.to_vec()).ok().filter(|_| plain)?))
}

/// `46181980-e683-11f1-9b6e-b9c0be237f9e`.
fn parse_uuid(text: &[u8]) -> Option<Handle> {
    let text = std::str::from_utf8(text.get(..36)?).ok()?;
    let dashes = [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| dashes && digits.len() == 32)?;
    Some(number.to_be_bytes())
}

/// The name of a domain, if one of these is its own.
pub fn name_of<'n>(domain: &Domain, names: &'n BTreeMap<Handle, String>) -> Option<&'n str> {
    let held = names.iter().filter(|(handle, _)| **handle != [0; 16] && domain.holds(*handle));
    held.map(|(_, name)| name.as_str()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration() {
        let mut page = b"{\n    \"c_info\": {\n        \"type\": \"pv\",\n        \"name\": \"web\",\n        \"domid\": 4294967295,\n        \"uuid\": \"46181980-e683-11f1-9b6e-b9c0be237f9e\",\n".to_vec();
        let at = memchr::memmem::find(&page, UUID_KEY).unwrap();
        let (handle, name) = entry(&page, at).unwrap();
        assert_eq!((handle[0], handle[15], name.as_str()), (0x46, 0x9e, "web"));
        for n in 0..page.len() {
            entry(&page[..n], at);
        }
        page[at + 20] = b'x';
        assert_eq!(entry(&page, at), None);
    }
}
