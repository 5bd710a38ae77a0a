//! A domain without its host, as [`crate::source::xc_core`] has it: nothing of Xen's is there, so no frame has an owner or
//! a type, and what else the dump of a host shows by shape is told: pages, registers, shared info.

use super::context::Context;
use super::domain::Domain;
use super::frame_table::FrameTable;
use super::hypervisor::Hypervisor;
use super::notes::{CrashInfo, Fnv, Origin, Parts, XenNotes};
use super::p2m::Run;
use super::page_info::StateBits;
use super::paging::AddressSpace;
use super::shared_info::SharedInfo;
use crate::source::xc_core::{CONTEXT_SIZE, DumpCore};
use crate::source::{MachineMemory, Vmcore};
use crate::units::{MAX_FRAME, Mfn, VirtAddr};
use crate::vmcoreinfo::Vmcoreinfo;

/// DOMID_INVALID: the number of a domain whose number nobody tells.
pub const UNKNOWN_ID: u16 = 0x7ff4;

/// A domain's number for people.
pub fn number(id: u16) -> String {
    if id == UNKNOWN_ID { "of unknown number".into() } else { id.to_string() }
}

/// What a file tells of its one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its pages, by PFN.
    pub runs: Vec<Run>,
    /// Whether it is a translated one (HVM, PVH).
    pub translated: bool,
    /// Its vCPUs. The file leaves out those that were never set up, and does not number the others.
    pub vcpus: Vec<Context>,
    /// Entries that make no sense.
    pub odd: u64,
}

/// A hypervisor of which nothing is known but its version, and the domain.
pub(super) fn open<'a>(mem: &'a MachineMemory<'a>, core: &Vmcore, dump: &DumpCore) -> (Hypervisor<'a>, Domain) {
    // No frame has this number, so nothing can be read.
    let space = AddressSpace::new(mem, Mfn(u64::MAX));
    let shared_info = dump.shared_info.as_ref().filter(|_| !dump.translated);
    let shared_info = shared_info.and_then(|s| SharedInfo::parse(s.mfn.unwrap_or(Mfn(MAX_FRAME)), &s.page));
    let mut warnings = Vec::new();
    if dump.gone > 0 {
        // Such as the video memory of a translated domain, and what went away while the file was written.
        warnings.push(format!("{} pages that the domain owned have an empty place in the file", dump.gone));
    }
    let parts = Parts::collect(core);
    // Notes tell of the host only.
    let mut identity = Fnv(parts.identity);
    identity.bytes(dump.contexts.iter().copied());
    let crash = CrashInfo { major: dump.xen.major, minor: dump.xen.minor, ..CrashInfo::default() };
    let notes = XenNotes {
        crash,
        cpus: Vec::new(),
        info: Vmcoreinfo::default(),
        linux: parts.linux,
        list: parts.list,
        identity: identity.0,
        origin: Origin::DumpCore,
    };
    let hypervisor = Hypervisor {
        notes,
        strings: dump.xen.strings.clone(),
        space,
        direct_map: u64::MAX,
        frames: FrameTable::unknown(space),
        state_bits: StateBits::Since402,
        state_votes: 0,
        dom_io: None,
        dom_xen: None,
        layout: None,
        warnings,
    };
    let told = Told {
        runs: dump.pieces.iter().map(|p| Run { pfn: p.pfn, mfn: p.mfn, len: p.len }).collect(),
        translated: dump.translated,
        vcpus: dump.contexts.chunks_exact(CONTEXT_SIZE).filter_map(Context::parse).collect(),
        odd: dump.odd,
    };
    let domain = Domain {
        id: UNKNOWN_ID,
        va: VirtAddr(0),
        owner_code: u64::MAX,
        bytes: Vec::new(),
        shared_info,
        hap: None,
        told: Some(told),
    };
    (hypervisor, domain)
}
