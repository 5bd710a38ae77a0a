//! `vcpu.dirty_cpu` (Xen 4.11 and later): the CPU that holds a vCPU's registers, or ~0. Found by what it must be.

use super::cpu::Tops;
use super::vcpu::Vcpu;
use crate::bytes::u32_at;

/// Where the field stands in struct vcpu, as far as the dump tells.
#[derive(Debug)]
pub(super) struct DirtyCpu {
    /// Offsets that fit all vCPUs, and at which one of them at least is clean: a processor alone stands in many places.
    offsets: Vec<usize>,
    /// Offsets that fit all vCPUs.
    pub(super) possible: Vec<usize>,
}

impl DirtyCpu {
    /// Looks at all of `vcpus`.
    pub(super) fn calibrate<'v>(vcpus: impl Iterator<Item = &'v Vcpu> + Clone, tops: &Tops) -> Self {
        let fits = |at: usize| {
            let mut clean = false;
            for v in vcpus.clone().filter(|v| !v.bytes.is_empty()) {
                let value = u32_at(&v.bytes, at);
                match tops.iter().find(|(_, t)| t.current == v.va) {
                    Some((cpu, _)) if value == Some(*cpu) => {}
                    None if value == Some(u32::MAX) => clean = true,
                    None if value == Some(v.processor) => {}
                    _ => return None,
                }
            }
            Some((at, clean))
        };
        let all: Vec<(usize, bool)> = (0x80..0x400).step_by(4).filter_map(fits).collect();
        let offsets = all.iter().filter(|(_, clean)| *clean).map(|(at, _)| *at).collect();
        Self { offsets, possible: all.into_iter().map(|(at, _)| at).collect() }
    }

    /// Takes DWARF's word where the dump does not contradict it.
    pub(super) fn or(mut self, told: Option<usize>) -> Self {
        if let Some(at) = told.filter(|at| self.possible.contains(at)) {
            self.offsets = vec![at];
        }
        self
    }

    /// Whether the vCPU's registers are on its CPU's stack; `None` if the offsets that fit do not agree.
    pub(super) fn holds(&self, v: &Vcpu) -> Option<bool> {
        let mut values = self.offsets.iter().map(|at| u32_at(&v.bytes, *at) == Some(v.processor));
        let first = values.next()?;
        values.all(|b| b == first).then_some(first)
    }
}
