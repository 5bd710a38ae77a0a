//! Numbers that differ between hypervisors.

/// The MFN at 64 GiB.
pub const GIB_64: u64 = 0x100_0000;
/// The MFN at 1 TiB.
pub const TIB: u64 = 0x1000_0000;

/// Hypervisor layout generations; the numbers each implies are in [`XenLayout::of`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Xen {
    /// 4.5: domain.shared_info at 8, the image 1 MiB above 0xffff82d080000000.
    V4_5,
    /// 4.8: shared_info at 16, four type bits, page state at bits 55-56.
    V4_8,
    /// 4.11: three type bits, the image 2 MiB above the old base; XPTI's words in struct cpu_info, dirty_cpu.
    V4_11,
    V4_12,
    /// 4.13.5: page state at bits 58-59 (XSA-402) with the old base.
    V4_13,
    /// 4.14.6: the new base 0xffff82d040000000, page state at bits 58-59.
    V4_14,
    /// 4.15.2: page state at bits 55-56 with the new base.
    V4_15,
    /// 4.16.2: page state at bits 58-59.
    V4_16,
    V4_17,
    /// 4.18: vcpu_info_area before vcpu.domain; no PDX compression.
    V4_18,
    V4_19,
    /// 4.20: unique_id before vcpu**.
    V4_20,
    /// 4.21: cpu_user_regs of 168 bytes, fred_info behind them; PDX compression by offsets.
    V4_21,
    /// 4.22: need_scrub at bit 57.
    V4_22,
}

impl Xen {
    pub const ALL: [Xen; 14] = {
        use Xen::*;
        [V4_5, V4_8, V4_11, V4_12, V4_13, V4_14, V4_15, V4_16, V4_17, V4_18, V4_19, V4_20, V4_21, V4_22]
    };
}

/// How MFNs become PDX values. The low 20 bits (MAX_ORDER) are never touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pdx {
    /// They are the same, however sparse RAM is: x86 from 4.18 to 4.20, and where nothing is gained.
    None,
    /// Bits 20-23 are squeezed out: up to 4.17, or a build option from 4.21 on.
    Mask,
    /// Each region is moved down to the next multiple of 4 GiB: 4.21 and later.
    Offset,
}

/// Each number can be overridden through [`super::Machine::layout`].
#[derive(Clone, Debug)]
pub struct XenLayout {
    pub major: u64,
    pub minor: u64,
    /// Behind the two, in the crash note.
    pub extra: &'static str,
    pub virt_start: u64,
    pub image_offset: u64,
    /// CONFIG_BIGMEM: struct page_info of 48 bytes.
    pub bigmem: bool,
    pub state_shift: u32,
    /// PGC_need_scrub, of free pages; shares bit 63 with PGC_allocated up to 4.21.
    pub scrub_bit: u32,
    /// Bits of count_info that pages in use may have and that say nothing of owner or state: cacheattr, page_table (now
    /// shadowed_pt), extra.
    pub other_bits: u64,
    pub type_shift: u32,
    pub domain_shared_info: u64,
    pub domain_vcpus: u64,
    pub next_in_list: u64,
    pub vcpu_domain: u64,
    pub vcpu_runstate: u64,
    pub vcpu_user_regs: u64,
    /// vcpu.dirty_cpu (4.11 and later; 0x11c on a real 4.17, 0x138 on a real 4.20): the CPU that holds the registers, or ~0.
    pub vcpu_dirty_cpu: Option<u64>,
    /// cpu_user_regs and current_vcpu, counted down from the top of a CPU's stack.
    pub stack_regs: u64,
    pub stack_current: u64,
    /// fred_info behind the registers.
    pub fred: bool,
}

impl XenLayout {
    pub fn of(xen: Xen) -> Self {
        use Xen::*;
        let since = |v: Xen| Xen::ALL.iter().position(|x| *x == xen) >= Xen::ALL.iter().position(|x| *x == v);
        let mut l = XenLayout {
            major: 4,
            minor: 17,
            extra: ".7-synth",
            virt_start: 0xffff_82d0_4000_0000,
            image_offset: 0x20_0000,
            bigmem: false,
            state_shift: 58,
            scrub_bit: 63,
            other_bits: 1 << 61 | 1 << 57,
            type_shift: 61,
            domain_shared_info: 16,
            domain_vcpus: 8,
            next_in_list: 136,
            vcpu_domain: 16,
            vcpu_runstate: 0xd8,
            vcpu_user_regs: 0x288,
            vcpu_dirty_cpu: Some(0x11c),
            stack_regs: 0x108,
            stack_current: 0x38,
            fred: false,
        };
        (l.minor, l.next_in_list) = match xen {
            V4_5 => (5, 104),
            V4_8 => (8, 112),
            V4_11 => (11, 120),
            V4_12 => (12, 128),
            V4_13 => (13, 136),
            V4_14 => (14, 144),
            V4_15 => (15, 144),
            V4_16 => (16, 136),
            V4_17 => (17, 136),
            V4_18 => (18, 136),
            V4_19 => (19, 136),
            V4_20 => (20, 144),
            V4_21 => (21, 152),
            V4_22 => (22, 152),
        };
        if matches!(xen, V4_5 | V4_8 | V4_11 | V4_12 | V4_15) {
            // page_table 61, cacheattr 58-60; extra 54 from 4.14 on.
            (l.state_shift, l.other_bits, l.extra) = (55, 7 << 58 | 1 << 61, ".2-synth");
            l.other_bits |= u64::from(since(V4_14)) << 54;
        }
        if !since(V4_14) {
            (l.virt_start, l.vcpu_runstate) = (0xffff_82d0_8000_0000, 0xd0);
        }
        if !since(V4_11) {
            (l.image_offset, l.type_shift) = (0x10_0000, 60);
            // cpu_info had no verw_sel, xen_cr3 and shadow_spec_ctrl words before XPTI.
            (l.stack_regs, l.stack_current) = (0xe8, 0x18);
            (l.vcpu_user_regs, l.vcpu_dirty_cpu) = (0x300, None);
        }
        if xen == V4_5 {
            // Before 4.6 the vCPU array stood far behind the head.
            (l.domain_shared_info, l.domain_vcpus) = (8, 0x218);
        }
        if since(V4_18) {
            (l.vcpu_domain, l.vcpu_runstate, l.vcpu_user_regs) = (24, 0xf0, 0x280);
            l.vcpu_dirty_cpu = Some(0x138);
        }
        if since(V4_20) {
            (l.domain_shared_info, l.domain_vcpus) = (24, 16);
        }
        if since(V4_21) {
            (l.stack_regs, l.fred) = (0xf8, true);
        }
        if since(V4_22) {
            // shadowed_pt 56, need_scrub 57, extra 61.
            (l.scrub_bit, l.other_bits) = (57, 1 << 61 | 1 << 56);
        }
        l
    }

    /// Base of the directmap.
    pub fn directmap(&self) -> u64 {
        if self.bigmem { 0xffff_8480_0000_0000 } else { 0xffff_8300_0000_0000 }
    }

    pub fn frame_table(&self) -> u64 {
        if self.bigmem { 0xffff_8300_0000_0000 } else { 0xffff_82e0_0000_0000 }
    }

    /// SIZE(page_info), OFFSET(page_info.count_info), OFFSET(page_info._domain).
    pub fn page_info(&self) -> (u64, u64, u64) {
        if self.bigmem { (48, 16, 32) } else { (32, 8, 24) }
    }
}
