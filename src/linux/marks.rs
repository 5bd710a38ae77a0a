//! The variables by which crash tells that a kernel ran under Xen, to be cleared in the output.
//!
//! crash takes a kernel for a Xen PV one if `xen_start_info` is not 0 (all versions since 7.3.0), or, where there is a
//! `pv_init_ops` (Linux before 4.20), if its first word is the address of `xen_patch` or `paravirt_patch_default`; it
//! then translates each page-table entry once more. A native cut has PFNs in them already, so both must read 0. In a
//! translated domain's kernel they do, as a rule.

use super::Found;
use super::kernel::{Kernel, Landmarks};
use super::names::Names;
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
/// What its first word points to under Xen.
const PATCHERS: [&str; 2] = ["xen_patch", "paravirt_patch_default"];

/// Finds the marks; the second list says what is doubtful about them. Nothing is cleared that does not hold what it must:
/// the address of the start_info page, or of one of the two functions.
pub fn find(
    kernel: &Kernel<'_>,
    found: Option<&Found>,
    names: &Names<'_>,
    landmarks: &Landmarks,
) -> (Vec<Mark>, Vec<String>) {
    // Each place that a source of symbols gives, with what stands there.
    let places = |name: &str| -> Vec<(VirtAddr, u64, &'static str)> {
        let value = |va| kernel.space.read_u64("a variable", va).ok();
        names.places(name).filter_map(|(va, how)| Some((va, value(va)?, how))).collect()
    };
    let mut doubts = Vec::new();
    let mut marks: Vec<Mark> = Vec::new();
    let named = places(START_INFO);
    let cleared_already = named.iter().any(|p| p.1 == 0);
    let good = named.iter().find(|p| kernel.is_start_info(VirtAddr(p.1)));
    if let Some(&(va, old, how)) = good {
        marks.push(Mark { name: START_INFO, va, old, how });
    } else if let Some(page) = landmarks.start_info {
        let how = "search of the kernel image";
        marks.extend(landmarks.start_info_refs.iter().map(|&va| Mark { name: START_INFO, va, old: page.0, how }));
        if marks.len() > 1 {
            let n = marks.len();
            doubts.push(format!("{n} places in the kernel image hold the start_info page's address; all are cleared"));
        }
    } else if !cleared_already && !kernel.is_translated() {
        doubts.push(format!(
            "{START_INFO} was not found; crash may take the cut for a Xen guest and not open it (give --system-map or --vmlinux)"
        ));
    }
    let patchers: Vec<u64> = PATCHERS.iter().flat_map(|name| names.places(name)).map(|p| p.0.0).collect();
    let ops = places(INIT_OPS).into_iter().find(|p| patchers.contains(&p.1));
    if let Some((va, old, how)) = ops {
        marks.push(Mark { name: INIT_OPS, va, old, how });
    } else if !names.has_source() && !kernel.is_translated() && found.is_some_and(|f| has_init_ops(&f.uts[2])) {
        doubts.push(format!(
            "{INIT_OPS} of Linux before 4.20 cannot be found without symbols; crash needs it cleared (give --system-map or --vmlinux)"
        ));
    }
    (marks, doubts)
}

/// `pv_init_ops` went with Linux 4.20 (commit 5c83511bdb98). Only used to warn where no symbols can tell.
fn has_init_ops(release: &str) -> bool {
    crate::linux::release_numbers(release) < (4, 20)
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
