//! What struct vcpu keeps of a PV vCPU besides its registers: struct pv_vcpu (Xen: asm/domain.h, 4.2 and later), by shape.
//!
//! Nothing tells where it stands, but it has a run of fields that nothing else looks like; words from `ctrlreg` on:
//!
//! | word | field |
//! |---|---|
//! | -20 | `vgc_flags`, 32 bits (since 4.13; other things before) |
//! | -19 | pointer to the traps: 256 of 16 bytes |
//! | -18 | frames of the GDT: 14 MFNs, 0 where there is none |
//! | -4 | address of the LDT; nonsense where it has no entries |
//! | -3 | entries of GDT and LDT, 32 bits each |
//! | -2 | kernel ss, kernel rsp |
//! | 0 | cr0 to cr7; cr0 and cr3 are not kept up to date, cr1 and cr5 to cr7 are 0 |
//! | 8 | addresses for events, for faults in Xen's return, and for system calls; two for 32-bit system calls, and their flags |
//! | 14 | bases of fs, gs in the kernel, gs in processes, as of the last time that it left a CPU |
//! | 20 | number of I/O ports, IOPL as in rflags (up to 4.5: 0 to 3); 32 bits each |

use crate::bytes::{u32_at, u64_at};
use crate::units::{MAX_FRAME, VirtAddr};
use std::ops::Range;

const CR4_PAE: u64 = 1 << 5;
/// All of `VGCF_*` that Xen keeps.
const FLAGS: u32 = 0x3f;
const IOPL: u32 = 3 << 12;
const MOST_GDT: u32 = 14 * 512;
const MOST_LDT: u32 = 8192;

fn is_kernels(va: u64) -> bool {
    va >> 63 == 1 && VirtAddr(va).is_canonical()
}

/// The fields of a struct vcpu.
#[derive(Clone, Copy, Debug)]
pub(super) struct PvState<'v> {
    bytes: &'v [u8],
    /// Where ctrlreg stands.
    at: usize,
}

impl<'v> PvState<'v> {
    /// Finds them. Addresses from `direct_map` on are Xen's own.
    pub(super) fn find(bytes: &'v [u8], direct_map: u64) -> Option<Self> {
        let all = (160..bytes.len().saturating_sub(168)).step_by(8).map(|at| Self { bytes, at });
        all.into_iter().find(|s| s.is_sound(direct_map).unwrap_or(false))
    }

    fn is_sound(self, direct_map: u64) -> Option<bool> {
        let word = |i| self.word(i);
        let unused = [1, 5, 6, 7].into_iter().all(|i| word(i) == Some(0));
        if !unused || word(4)? & CR4_PAE == 0 || (word(0)? | word(4)?) >> 32 != 0 {
            return Some(false);
        }
        let mut kernels = [-1, 8, 9, 10].into_iter();
        let frames = || (-18..-4).all(|i| word(i).is_some_and(|mfn| mfn <= MAX_FRAME));
        let [gdt, ldt] = self.entries()?;
        let kernel_ss = word(-2)?;
        Some(
            kernels.all(|i| word(i).is_some_and(is_kernels))
                && word(-19)? >= direct_map
                && frames()
                && (gdt <= MOST_GDT && ldt <= MOST_LDT)
                && (1..=0xffff).contains(&kernel_ss),
        )
    }

    fn place(self, word: isize) -> Option<usize> {
        self.at.checked_add_signed(word.checked_mul(8)?)
    }

    fn word(self, i: isize) -> Option<u64> {
        u64_at(self.bytes, self.place(i)?)
    }

    /// These words, as bytes.
    fn part(self, words: Range<isize>) -> &'v [u8] {
        let range = self.place(words.start).zip(self.place(words.end));
        range.and_then(|(from, to)| self.bytes.get(from..to)).unwrap_or_default()
    }

    fn entries(self) -> Option<[u32; 2]> {
        let at = self.place(-3)?;
        Some([u32_at(self.bytes, at)?, u32_at(self.bytes, at + 4)?])
    }

    /// `vgc_flags`, if it stands here.
    pub(super) fn flags(self) -> u64 {
        let flags = self.place(-20).and_then(|at| u32_at(self.bytes, at));
        flags.filter(|f| f & !FLAGS == 0).map_or(0, u64::from)
    }

    /// Where Xen has the traps.
    pub(super) fn traps(self) -> Option<VirtAddr> {
        self.word(-19).map(VirtAddr)
    }

    /// Address and number of entries of the LDT.
    pub(super) fn ldt(self) -> [u64; 2] {
        match self.entries() {
            Some([_, n]) if n > 0 => [self.word(-4).unwrap_or_default(), n.into()],
            _ => [0; 2],
        }
    }

    /// Frames of the GDT, 14 words.
    pub(super) fn gdt(self) -> &'v [u8] {
        self.part(-18..-4)
    }

    /// Entries of the GDT, kernel ss, kernel rsp.
    pub(super) fn kernel(self) -> [u64; 3] {
        let gdt = self.entries().map_or(0, |[n, _]| n.into());
        [gdt, self.word(-2).unwrap_or_default(), self.word(-1).unwrap_or_default()]
    }

    /// cr0 to cr7.
    pub(super) fn control(self) -> &'v [u8] {
        self.part(0..8)
    }

    /// Addresses for events, faults and system calls.
    pub(super) fn callbacks(self) -> &'v [u8] {
        self.part(8..11)
    }

    /// Bases of fs, gs in the kernel, and gs in processes; nothing if they cannot stand here.
    pub(super) fn bases(self) -> Option<&'v [u8]> {
        let [fs, kernel, process] = [14, 15, 16].map(|i| self.word(i).unwrap_or(1 << 63));
        let sound = [fs, process].iter().all(|va| va >> 47 == 0) && (kernel == 0 || is_kernels(kernel));
        sound.then_some(self.part(14..17))
    }

    /// The I/O privilege level that the kernel was given, as in rflags.
    pub(super) fn iopl(self) -> u64 {
        let iopl = self.place(20).and_then(|at| u32_at(self.bytes, at + 4)).unwrap_or_default();
        match iopl {
            0..=3 => u64::from(iopl) << 12,
            _ if iopl & !IOPL == 0 => iopl.into(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
    const AT: usize = 0x528;

    /// As Xen 4.20 has it of a Linux guest.
    fn vcpu() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        for (word, value) in [
            (-20, 0x3c),
            (-19, DIRECT_MAP + 0x5000),
            (-18, 0x1180b),
            (-4, 0xbad0_bad0_bad0_bad0),
            (-3, 16),
            (-2, 0x1b),
            (-1, 0xffff_ffff_82c0_4000),
            (0, 0x8005_0033),
            (2, 0x58_d5e0),
            (3, 0x1300_3000),
            (4, 0x5_0660),
            (8, 0xffff_ffff_8103_3430),
            (9, 0xffff_ffff_81e0_1a50),
            (10, 0xffff_ffff_8103_3470),
            (11, 0xffff_ffff_8103_3490),
            (13, 1 << 32),
            (15, 0xffff_8880_05a0_0000),
            (20, 0x1000 << 32),
        ] {
            put(&mut bytes, word, value);
        }
        bytes
    }

    fn put(bytes: &mut [u8], word: isize, value: u64) {
        let at = AT.checked_add_signed(word * 8).unwrap();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn the_fields_of_a_guest() {
        let bytes = vcpu();
        let state = PvState::find(&bytes, DIRECT_MAP).unwrap();
        assert_eq!((state.at, state.flags(), state.iopl()), (AT, 0x3c, 0x1000));
        assert_eq!(state.traps(), Some(VirtAddr(DIRECT_MAP + 0x5000)));
        assert_eq!((state.ldt(), state.kernel()), ([0; 2], [16, 0x1b, 0xffff_ffff_82c0_4000]));
        assert_eq!((u64_at(state.gdt(), 0), state.gdt().len()), (Some(0x1180b), 112));
        assert_eq!((u64_at(state.control(), 32), state.control().len()), (Some(0x5_0660), 64));
        assert_eq!(u64_at(state.callbacks(), 16), Some(0xffff_ffff_8103_3470));
        assert_eq!(state.bases().and_then(|b| u64_at(b, 8)), Some(0xffff_8880_05a0_0000));
    }

    #[test]
    fn what_another_version_has_elsewhere_is_left_out() {
        let mut bytes = vcpu();
        // One word more before the bases.
        put(&mut bytes, 15, 0);
        put(&mut bytes, 16, 0xffff_8880_05a0_0000);
        put(&mut bytes, -20, 0xffff_8300_0000_0000);
        put(&mut bytes, 20, 3 << 32);
        let state = PvState::find(&bytes, DIRECT_MAP).unwrap();
        assert_eq!((state.bases(), state.flags(), state.iopl()), (None, 0, 0x3000));
        // The LDT of a process that has one.
        put(&mut bytes, -4, 0xffff_c900_0000_0000);
        put(&mut bytes, -3, 3 << 32 | 16);
        assert_eq!(PvState::find(&bytes, DIRECT_MAP).unwrap().ldt(), [0xffff_c900_0000_0000, 3]);
    }

    #[test]
    fn nothing_else_looks_like_it() {
        for (word, value) in [
            (-19, 0x5000),
            (-18, 1 << 50),
            (-3, 1 << 20),
            (-2, 0),
            (-1, 0),
            (1, 1),
            (4, 0),
            (6, 1),
            (8, 0x1000),
            (10, 0),
        ] {
            let mut bytes = vcpu();
            put(&mut bytes, word, value);
            assert!(PvState::find(&bytes, DIRECT_MAP).is_none(), "word {word}");
        }
        assert!(PvState::find(&[], DIRECT_MAP).is_none());
        assert!(PvState::find(&vcpu()[..AT + 160], DIRECT_MAP).is_none());
    }
}
