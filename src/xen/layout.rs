//! Layouts by shape against those by the DWARF of `xen-syms`.
//!
//! What the dump proves is believed: a `xen-syms` of the same build can still carry DWARF that lies (a patched build, a
//! stripped and re-joined file). Where the dump proves nothing, DWARF fills in (see [`super::vcpu`]).

use super::cpu::{BACK_POINTERS, Stacks};
use super::dirty::DirtyCpu;
use super::domain::find_shared_info;
use super::host::Host;
use super::vcpu::{find_array, saved_at};
use crate::bytes::u64_at;
use crate::vmcoreinfo::Vmcoreinfo;

/// Says where the two disagree.
pub(super) fn compare(host: &Host<'_>, dwarf: &Vmcoreinfo) -> Vec<String> {
    let notes = &host.notes.info;
    let shape = Shape::of(host);
    let mut rows: Vec<(&str, Option<u64>, Vec<u64>)> =
        ["page_info.count_info", "page_info._domain", "domain.domain_id", "domain.next_in_list"]
            .into_iter()
            .map(|name| (name, dwarf.offset(name), notes.offset(name).into_iter().collect()))
            .collect();
    rows.push(("size of page_info", dwarf.size("page_info"), notes.size("page_info").into_iter().collect()));
    let mut shared: Vec<u64> = host.domains.iter().filter_map(|d| shared_info_at(host, d)).collect();
    shared.dedup();
    rows.push(("domain.shared_info", dwarf.offset("domain.shared_info"), shared));
    rows.push(("domain.vcpu", dwarf.offset("domain.vcpu"), shape.array));
    rows.push(("vcpu.domain", dwarf.offset("vcpu.domain"), shape.back));
    rows.push(("vcpu.user_regs", dwarf.offset("vcpu.user_regs"), shape.regs));
    rows.push(("vcpu.dirty_cpu", dwarf.offset("vcpu.dirty_cpu"), shape.dirty));
    // cpu_info ends where the stack does.
    let from_top = |name| Some(dwarf.size("cpu_info")?.wrapping_sub(dwarf.offset(name)?));
    rows.push(("cpu_info.guest_cpu_user_regs", from_top("cpu_info.guest_cpu_user_regs"), shape.stack_regs));
    rows.push(("cpu_info.current_vcpu", from_top("cpu_info.current_vcpu"), shape.stack_current));
    let differ = rows.into_iter().filter_map(|(name, told, proven)| {
        let told = told.filter(|told| !proven.is_empty() && !proven.contains(told))?;
        let proven: Vec<String> = proven.iter().map(|at| format!("{at:#x}")).collect();
        Some(format!("{name}: xen-syms has {told:#x}, the dump shows {}; the dump is believed", proven.join(" or ")))
    });
    differ.collect()
}

fn shared_info_at(host: &Host<'_>, domain: &super::Domain) -> Option<u64> {
    let mfn = domain.shared_info.as_ref()?.mfn;
    let found = (8..64).step_by(8).find(|at| {
        let part = domain.bytes.get(*at..at + 8);
        // One pointer at a time: the first that is the shared info.
        part.and_then(|p| u64_at(p, 0)).is_some_and(|p| {
            let head = [[0; 8], p.to_le_bytes()].concat();
            find_shared_info(host, &head, domain.owner_code).is_some_and(|s| s.mfn == mfn)
        })
    })?;
    Some(found as u64)
}

/// Offsets by shape, as far as the dump shows any; several where several fit.
#[derive(Debug, Default)]
struct Shape {
    /// domain.vcpu.
    array: Vec<u64>,
    /// vcpu.domain.
    back: Vec<u64>,
    /// vcpu.arch.user_regs.
    regs: Vec<u64>,
    /// vcpu.dirty_cpu.
    dirty: Vec<u64>,
    /// The guest's registers on a stack, counted down from its end.
    stack_regs: Vec<u64>,
    /// current_vcpu on a stack, counted down from its end.
    stack_current: Vec<u64>,
}

impl Shape {
    /// Looks at all vCPUs.
    fn of(host: &Host<'_>) -> Self {
        let mut shape = Self::default();
        let mut vcpus = Vec::new();
        for domain in &host.domains {
            let (list, at) = find_array(host, domain);
            shape.array.extend(at.map(|at| at as u64));
            for v in &list {
                let back = BACK_POINTERS.iter().filter(|at| u64_at(&v.bytes, **at) == Some(domain.va.0));
                shape.back.extend(back.map(|at| *at as u64));
            }
            vcpus.extend(list);
        }
        let stacks = Stacks::read(host);
        shape.regs.extend(saved_at(vcpus.iter()).map(|at| at as u64));
        shape.dirty.extend(DirtyCpu::calibrate(vcpus.iter(), &stacks.tops).possible.iter().map(|at| *at as u64));
        shape.stack_regs.extend(stacks.regs_below_end);
        shape.stack_current.extend(stacks.current_below_end);
        for list in [&mut shape.array, &mut shape.back] {
            list.sort_unstable();
            list.dedup();
        }
        shape
    }
}
