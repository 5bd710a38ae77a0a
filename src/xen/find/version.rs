//! Xen's version, read from the code that returns it (Xen: common/version.c).
//!
//! `xen_major_version`, `xen_minor_version`, `xen_extra_version` and `xen_changeset` are functions of one instruction each,
//! one behind the other, 16 bytes apart: two that load a number and two that load the address of a string. No other four
//! are so. Before them stand those for the compiler and the compile date and time.

use crate::bytes::{text, u32_at};
use crate::units::{PAGE_BYTES, PAGE_SIZE, VirtAddr};
use crate::xen::paging::AddressSpace;
use crate::xen::syms::XenSyms;

/// Xen's code lies in so many bytes behind XEN_VIRT_START.
const CODE: u64 = 8 << 20;
/// Functions are aligned to this.
const STEP: usize = 16;
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// What was found; zeros for what was not.
#[derive(Debug, Default)]
pub(super) struct Version {
    pub(super) major: u64,
    pub(super) minor: u64,
    /// Machine addresses of extra version, changeset, compiler, compile date and time.
    pub(super) strings: [u64; 5],
}

/// Reads the version.
pub(super) fn find(space: &AddressSpace<'_>, base: u64, syms: Option<&XenSyms>) -> Option<Version> {
    if let Some(syms) = syms
        && let (Some(major), Some(minor)) = (syms.get("xen_major_version"), syms.get("xen_minor_version"))
    {
        let names = ["xen_extra_version", "xen_changeset", "xen_compiler", "xen_compile_date", "xen_compile_time"];
        let string = |name| string(&code(space, syms.get(name)?.0)?, syms.get(name)?.0);
        return Some(Version {
            major: number(&code(space, major.0)?)?,
            minor: number(&code(space, minor.0)?)?,
            strings: names.map(|n| machine(space, string(n))),
        });
    }
    let mut page = vec![0; PAGE_SIZE + 4 * STEP];
    (0..CODE).step_by(PAGE_SIZE).find_map(|into| {
        let va = base.checked_add(into)?;
        // The four may run over the page's end.
        let known = [page.len(), PAGE_SIZE].into_iter().find(|n| {
            page.fill(0);
            page.get_mut(..*n).is_some_and(|part| space.read("Xen's code", VirtAddr(va), part).is_ok())
        });
        known?;
        (0..PAGE_SIZE).step_by(STEP).find_map(|at| four(space, page.get(at..)?, va + at as u64))
    })
}

/// The four functions from `va` on, if these are they.
fn four(space: &AddressSpace<'_>, code_here: &[u8], va: u64) -> Option<Version> {
    let major = number(code_here).filter(|n| (3..=9).contains(n))?;
    let minor = number(code_here.get(STEP..)?).filter(|n| *n < 100)?;
    let step = STEP as u64;
    let extra = string(code_here.get(2 * STEP..)?, va + 2 * step)?;
    let changeset = string(code_here.get(3 * STEP..)?, va + 3 * step)?;
    let mut head = [0; 64];
    space.read("a string", VirtAddr(extra), &mut head).ok()?;
    let printable = text(&head).chars().all(|c| c.is_ascii_graphic());
    // The compiler right before, the date and the time first of all.
    let before = |n: u64| va.checked_sub(n * step).and_then(|va| string(&code(space, va)?, va));
    (printable && head.contains(&0)).then(|| Version {
        major,
        minor,
        strings: [Some(extra), Some(changeset), before(1), before(7), before(6)].map(|va| machine(space, va)),
    })
}

fn code(space: &AddressSpace<'_>, va: u64) -> Option<[u8; STEP]> {
    let mut bytes = [0; STEP];
    space.read("Xen's code", VirtAddr(va), &mut bytes).ok()?;
    Some(bytes)
}

fn machine(space: &AddressSpace<'_>, va: Option<u64>) -> u64 {
    va.and_then(|va| space.translate(VirtAddr(va)).ok()).map_or(0, |m| m.addr.0)
}

/// `mov $n, %eax` and a return.
fn number(code: &[u8]) -> Option<u64> {
    let code = code.strip_prefix(&ENDBR64).unwrap_or(code);
    (code.first() == Some(&0xb8) && returns(code.get(5..)?)).then_some(u64::from(u32_at(code, 1)?))
}

/// `lea n(%rip), %rax` and a return: the address.
fn string(code: &[u8], va: u64) -> Option<u64> {
    let (code, va) = match code.strip_prefix(&ENDBR64) {
        Some(rest) => (rest, va + ENDBR64.len() as u64),
        None => (code, va),
    };
    let near = u32_at(code, 3)? as i32;
    (code.starts_with(&[0x48, 0x8d, 0x05]) && returns(code.get(7..)?))
        .then(|| va.wrapping_add(7).wrapping_add_signed(i64::from(near)))
}

/// `ret`, `rep ret`, or a jump to the return thunk.
fn returns(code: &[u8]) -> bool {
    code.starts_with(&[0xc3]) || code.starts_with(&[0xf3, 0xc3]) || code.starts_with(&[0xe9])
}

const _: () = assert!(PAGE_BYTES as usize == PAGE_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_both_kinds() {
        assert_eq!(number(b"\xb8\x04\0\0\0\xc3"), Some(4));
        assert_eq!(number(b"\xf3\x0f\x1e\xfa\xb8\x11\0\0\0\xe9\0\0\0\0"), Some(17));
        assert_eq!(number(b"\xb8\x04\0\0\0\x90"), None);
        assert_eq!(string(b"\x48\x8d\x05\x10\0\0\0\xc3", 0x1000), Some(0x1017));
        assert_eq!(string(b"\xf3\x0f\x1e\xfa\x48\x8d\x05\xf0\xff\xff\xff\xf3\xc3", 0x1000), Some(0xffb));
        assert_eq!(string(b"\x48\x8b\x05\x10\0\0\0\xc3", 0x1000), None);
        for n in 0..8 {
            assert!(number(&b"\xb8\x04\0\0\0\xc3"[..n.min(5)]).is_none());
            assert!(string(&b"\x48\x8d\x05\x10\0\0\0\xc3"[..n.min(7)], u64::MAX).is_none());
        }
    }
}
