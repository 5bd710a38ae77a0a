//! The domain list, by shape.
//!
//! The frame table's entries name owners: each is a struct domain, whose first word has the id, and most have a shared info
//! that the frame table in turn gives to them. At one offset in struct domain stands the link to the domain with the next
//! higher id; it is the offset at which most domains are reached from the first.

use crate::bytes::{u16_at, u64_at};
use crate::error::{Error, Result};
use crate::units::{Mfn, PAGE_BYTES, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::domain::{Domain, FIRST_RESERVED, find_shared_info};
use crate::xen::hypervisor::{DOMID_IO, DOMID_XEN, Hypervisor};
use crate::xen::m2p::M2P;
use std::collections::BTreeMap;

/// Frames per block: a page of the frame table.
const BLOCK: u64 = 128;
/// Blocks that are read at most, evenly spread: 64 MiB of frame table.
const MOST_BLOCKS: u64 = 1 << 14;
/// Different owners that are looked at: no host has more domains.
const MOST_OWNERS: usize = 1 << 15;
/// The link stands in this many bytes of struct domain, behind the shared info.
const HEAD: usize = 0x600;

/// A struct domain that a page's owner field names.
struct Candidate {
    va: VirtAddr,
    id: u16,
    bytes: Vec<u8>,
}

/// Adds the list, the link and Xen's own pseudo-domains to the notes, as far as symbols did not give them.
///
/// # Errors
/// [`Error::Missing`] if no domain is found.
pub(in crate::xen) fn find(xen: &mut Hypervisor<'_>) -> Result<()> {
    let mut owners = owners(xen);
    // All that frames of the M2P belong to DOMID_XEN; a sample may miss it.
    let m2p = xen.space.translate(VirtAddr(M2P)).ok().and_then(|m| xen.frames.get(m.addr.mfn()));
    owners.extend(m2p.filter(|i| i.has_owner(xen.state_bits)).map(|i| (i.owner, 0)));
    let all: Vec<Candidate> = owners.keys().filter_map(|code| candidate(xen, *code)).collect();
    let mut made = xen.notes.info.text().to_owned();
    for (name, id) in [("dom_io", DOMID_IO), ("dom_xen", DOMID_XEN)] {
        if xen.notes.info.symbol(name).is_none()
            && let Some(d) = all.iter().find(|d| d.id == id)
        {
            made.push_str(&format!("NUMBER({name})={:#x}\n", d.va.0));
        }
    }
    let mut listed: BTreeMap<u64, Candidate> =
        all.into_iter().filter(|d| d.id < FIRST_RESERVED && shared(xen, d)).map(|d| (d.va.0, d)).collect();
    let head = match xen.notes.info.symbol("domain_list") {
        Some(_) => VirtAddr(xen.notes.variable(&xen.space, "domain_list")?),
        None => listed.values().min_by_key(|d| d.id).map_or(VirtAddr(0), |d| d.va),
    };
    if let Some(code) = xen.owner_code(head)
        && let Some(d) = candidate(xen, code).filter(|d| d.id < FIRST_RESERVED && d.va == head)
    {
        listed.insert(head.0, d);
    }
    let chains = (8..HEAD).step_by(8).filter_map(|at| Some((at, chain(xen, &listed, head, at)?)));
    let (link, reached) = chains.max_by_key(|(at, n)| (*n, std::cmp::Reverse(*at))).ok_or_else(|| {
        let owners = owners.len();
        let why = format!("none of the {owners} owners in the frame table is a struct domain that a list begins with");
        Error::missing("the domain list", format!("{why}; give the host's xen-syms with --xen-syms"))
    })?;
    if reached < listed.len() {
        let left = listed.len() - reached;
        xen.warnings.push(format!("{left} domains own memory but are not in the list, which was found by its shape"));
    }
    if xen.notes.info.symbol("domain_list").is_none() {
        made.push_str(&format!("NUMBER(domain_list)={:#x}\n", head.0));
    }
    made.push_str(&format!("OFFSET(domain.next_in_list)={link}\n"));
    xen.notes.info = Vmcoreinfo::parse(made.as_bytes());
    Ok(())
}

/// Domains that own memory, by a sample of the frame table, but are not in the list.
pub(in crate::xen) fn lost(xen: &Hypervisor<'_>, listed: &[Domain]) -> Vec<VirtAddr> {
    let strange = owners(xen).into_keys().filter(|code| listed.iter().all(|d| d.owner_code != *code));
    let candidates = strange.filter_map(|code| candidate(xen, code));
    let real = candidates.filter(|d| d.id < FIRST_RESERVED && listed.iter().all(|l| l.id != d.id) && shared(xen, d));
    real.map(|d| d.va).collect()
}

/// What stands in `_domain`, with the number of pages, of a sample of the dump's frames.
fn owners(xen: &Hypervisor<'_>) -> BTreeMap<u64, u64> {
    let ranges = || xen.memory().map().ranges().map(|(start, end)| (start.0 / PAGE_BYTES, end.0 / PAGE_BYTES));
    let blocks: u64 = ranges().map(|(start, end)| end.saturating_sub(start).div_ceil(BLOCK)).sum();
    let step = blocks.div_ceil(MOST_BLOCKS).max(1);
    let mut owners = BTreeMap::new();
    let mut cursor = xen.frames.cursor();
    // Evenly spread over all ranges, as if they were one.
    let mut skip = 0;
    for (start, end) in ranges() {
        let here = end.saturating_sub(start).div_ceil(BLOCK);
        let first = skip;
        skip = if first >= here { first - here } else { (step - (here - first) % step) % step };
        let sample = (0..).map(|i| first.saturating_add(step.saturating_mul(i))).take_while(|b| *b < here);
        for mfn in sample.flat_map(|b| start + b * BLOCK..(start + (b + 1) * BLOCK).min(end)) {
            let info = cursor.look(Mfn(mfn)).info().filter(|i| i.has_owner(xen.state_bits));
            if let Some(info) = info
                && (owners.len() < MOST_OWNERS || owners.contains_key(&info.owner))
            {
                *owners.entry(info.owner).or_insert(0) += 1;
            }
        }
    }
    owners
}

fn candidate(xen: &Hypervisor<'_>, code: u64) -> Option<Candidate> {
    let va = VirtAddr(code.checked_mul(PAGE_BYTES)?.checked_add(xen.direct_map)?);
    let mut bytes = vec![0; HEAD];
    xen.space.read("struct domain", va, &mut bytes).ok()?;
    Some(Candidate { va, id: u16_at(&bytes, 0)?, bytes })
}

fn shared(xen: &Hypervisor<'_>, d: &Candidate) -> bool {
    xen.owner_code(d.va).is_some_and(|code| find_shared_info(xen, &d.bytes, code).is_some())
}

/// How many domains are reached from `head` by links at `at`; `None` if these are no links of a list.
fn chain(xen: &Hypervisor<'_>, known: &BTreeMap<u64, Candidate>, head: VirtAddr, at: usize) -> Option<usize> {
    let (mut va, mut last, mut reached) = (head.0, None, 0);
    // Ids ascend, so this ends.
    while va != 0 {
        let read;
        let d = match known.get(&va) {
            Some(d) => d,
            None => {
                // The sample missed it: it must be as good as the others.
                read = xen.owner_code(VirtAddr(va)).and_then(|code| candidate(xen, code))?;
                if read.va.0 != va || read.id >= FIRST_RESERVED || !shared(xen, &read) {
                    return None;
                }
                &read
            }
        };
        if last.is_some_and(|last| d.id <= last) {
            return None;
        }
        last = Some(d.id);
        reached += 1;
        va = u64_at(&d.bytes, at)?;
    }
    (reached > 0).then_some(reached)
}
