//! The variables by which crash tells that a kernel ran under Xen, to be cleared in the output.
//!
//! crash takes a kernel for a Xen PV one if `xen_start_info` is not 0 (all versions since 7.3.0), or, where there is a
//! `pv_init_ops` (Linux before 4.20), if its first word is the address of `xen_patch` or `paravirt_patch_default`; it
//! then translates each page-table entry once more. A native cut has PFNs in them already, so both must read 0.

use super::kernel::{Kernel, Landmarks};
use super::symbols::Symbols;
use super::{Found, kallsyms};
use crate::units::VirtAddr;

/// Eight bytes to clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The variable.
    pub name: &'static str,
    /// Where it is in the kernel.
    pub va: VirtAddr,
    /// What it held.
    pub old: u64,
    /// How it was found.
    pub how: &'static str,
}

const START_INFO: &str = "xen_start_info";
const INIT_OPS: &str = "pv_init_ops";

/// Finds the marks; the second list says what is doubtful about them.
pub fn find(
    kernel: &Kernel<'_>,
    found: Option<&Found>,
    given: Option<&Symbols>,
    landmarks: &Landmarks,
) -> (Vec<Mark>, Vec<String>) {
    let mut doubts = Vec::new();
    let own = found.and_then(|f| kallsyms::lookup(kernel, &f.info, &[START_INFO, INIT_OPS]));
    let symbol = |name: &str| {
        let given = given.and_then(|s| s.get(name)).map(|va| (va, "the given symbols"));
        given.or_else(|| {
            let own = own.as_ref()?;
            let how = if own.exported { "kallsyms in the dump" } else { "kallsyms in the dump, by shape" };
            own.found.get(name).map(|va| (*va, how))
        })
    };
    let value = |va: VirtAddr| kernel.space.read_u64("a variable", va).ok();
    let mut marks = Vec::new();
    if let Some((va, how)) = symbol(START_INFO) {
        match value(va) {
            Some(0) => {}
            Some(old) => {
                if landmarks.start_info.is_some_and(|s| s.0 != old) {
                    doubts
                        .push(format!("{START_INFO} at {va} ({how}) holds {old:#x}, which is not the start_info page"));
                }
                marks.push(Mark { name: START_INFO, va, old, how });
            }
            None => doubts.push(format!("{START_INFO} at {va} ({how}) cannot be read")),
        }
    } else if let Some(page) = landmarks.start_info {
        let how = "search of the kernel image";
        marks.extend(landmarks.start_info_refs.iter().map(|&va| Mark { name: START_INFO, va, old: page.0, how }));
        if marks.len() > 1 {
            doubts.push(format!(
                "{} places in the kernel image hold the start_info page's address; all are cleared",
                marks.len()
            ));
        }
    }
    if marks.is_empty() {
        doubts.push(format!("{START_INFO} was not found; crash may take the cut for a Xen guest and not open it (give --system-map or --vmlinux)"));
    }
    if let Some((va, how)) = symbol(INIT_OPS) {
        marks.extend(value(va).filter(|old| *old != 0).map(|old| Mark { name: INIT_OPS, va, old, how }));
    } else if given.is_none() && own.is_none() && found.is_some_and(|f| has_init_ops(&f.uts[2])) {
        doubts.push(format!("{INIT_OPS} of Linux before 4.20 cannot be found without symbols; crash needs it cleared (give --system-map or --vmlinux)"));
    }
    (marks, doubts)
}

/// `pv_init_ops` went with Linux 4.20 (commit 5c83511bdb98). Only used to warn where no symbols can tell.
fn has_init_ops(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (4, 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_have_init_ops() {
        assert!(has_init_ops("3.10.0-1160.el7.x86_64") && has_init_ops("4.19.0-27-amd64"));
        assert!(!has_init_ops("4.20.1") && !has_init_ops("6.12.117"));
    }
}
