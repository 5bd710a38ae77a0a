//! From facts to findings: no look at the host from here on.

use super::facts::{Facts, Reserved, Source, Tool, crashkernel};
use super::host::Seen;
use super::kdump::{Kind, Target};
use super::{Finding, Status};
use crate::report::size;
use crate::units::PAGE_BYTES;
use std::ops::RangeInclusive;

/// Versions of Xen whose dumps are tested, real or synthetic ones (README).
pub const XENS: RangeInclusive<(u32, u32)> = (4, 5)..=(4, 22);
/// Versions of Linux whose dumps are tested, real or synthetic ones (CHANGELOG).
pub const KERNELS: RangeInclusive<(u32, u32)> = (3, 10)..=(7, 1);

const MIB: u64 = 1 << 20;
/// For a capture kernel and its initramfs: what kdump-tools reserves on bare metal, and what Debian's kernels 6.1 and 6.12 saved
/// dumps of Xen in, with 76 and 83 MiB of it left to programs.
const CAPTURE_BYTES: u64 = 128 * MIB;
/// For a cut in the capture kernel, besides two bits for each page of dom0. Of a dom0 of 4 GiB it took 8 MiB with the default level
/// and one thread, 38 MiB with -d 1 and two.
const CUT_BYTES: u64 = 64 * MIB;

/// XENFEAT_auto_translated_physmap: not a PV domain.
const TRANSLATED: u64 = 1 << 2;
/// XENFEAT_dom0.
const DOM0: u64 = 1 << 11;

/// What should be reserved for the crash kernel of a host whose dom0 has so many bytes, so that it can cut: whole MiB.
pub fn need(dom0_bytes: u64) -> u64 {
    let bits = dom0_bytes.div_ceil(PAGE_BYTES).saturating_mul(2);
    (CAPTURE_BYTES + CUT_BYTES).saturating_add(bits.div_ceil(8)).div_ceil(MIB).saturating_mul(MIB)
}

fn finding(what: &'static str, status: Status, seen: impl Into<String>, way_out: Option<String>) -> Finding {
    Finding { what, status, seen: seen.into(), way_out }
}

fn ok(what: &'static str, seen: impl Into<String>) -> Finding {
    finding(what, Status::Ok, seen, None)
}

fn warn(what: &'static str, seen: impl Into<String>, way_out: impl Into<String>) -> Finding {
    finding(what, Status::Warn, seen, Some(way_out.into()))
}

fn fail(what: &'static str, seen: impl Into<String>, way_out: impl Into<String>) -> Finding {
    finding(what, Status::Fail, seen, Some(way_out.into()))
}

/// All findings. Where there is no dom0 that could crash, the first is the only one: what follows would be about something else.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let dom0 = dom0(facts);
    if dom0.status == Status::Fail {
        return vec![dom0];
    }
    let dump = [reservation(facts), loaded(facts), panic(facts), kdump(facts), room(facts)];
    let fit = [dom0, xen(facts), kernel(facts), vmcoreinfo(facts), kallsyms(facts), capture(facts)];
    fit.into_iter().chain(dump).chain(tool(facts)).collect()
}

impl Facts {
    /// What could not be looked at, and the way out: root, if that is it.
    fn unknown(&self, what: &'static str, seen: &str, why: Option<&str>, way_out: &str) -> Finding {
        let seen = why.map_or(seen.to_string(), |why| format!("{seen}: {why}"));
        let way_out = if self.root { way_out } else { "run it as root" };
        finding(what, Status::Unknown, seen, Some(way_out.into()))
    }

    /// The whole size of Xen's option.
    fn option(&self) -> String {
        let bytes = self.dom0_bytes.get().map_or(CAPTURE_BYTES + CUT_BYTES, |b| need(*b));
        format!("crashkernel={}M", bytes / MIB)
    }
}

fn why<T>(seen: &Seen<T>) -> Option<&str> {
    match seen {
        Seen::Hidden(why) => Some(why),
        _ => None,
    }
}

fn dom0(facts: &Facts) -> Finding {
    let what = "dom0";
    match &facts.hypervisor {
        Seen::Is(name) if name == "xen" => {}
        Seen::Is(name) => {
            return fail(what, format!("this kernel runs under {name}, not Xen"), "run it in dom0 of a Xen host");
        }
        Seen::Absent => {
            let way_out =
                "boot the host under Xen; a kernel that runs under Xen all the same needs CONFIG_SYS_HYPERVISOR";
            return fail(what, "this kernel does not run under Xen: there is no /sys/hypervisor/type", way_out);
        }
        Seen::Hidden(why) => return facts.unknown(what, "whether this is Xen", Some(why), "mend that"),
    }
    let Some(features) = facts.features.get() else {
        let seen = "whether this is dom0: no /sys/hypervisor/properties/features";
        return facts.unknown(what, seen, why(&facts.features), "use a kernel with CONFIG_XEN_SYS_HYPERVISOR");
    };
    if features & DOM0 == 0 {
        return fail(what, "this is a guest of Xen, not dom0", "run it in dom0: the host's dump has this guest too");
    }
    if facts.abis.get().is_some_and(|abis| !abis.contains("x86_64")) {
        let abis = facts.abis.get().map_or("", |a| a.as_str());
        return fail(what, format!("Xen is not of x86_64: {abis}"), "none: elsewhere Xen has no kdump");
    }
    let kind = facts.guest_type.get().map_or("", |k| k.as_str());
    if features & TRANSLATED != 0 || !matches!(kind, "" | "PV") {
        let way_out = "boot dom0 as PV: take dom0=pvh off Xen's command line and reboot";
        return fail(what, "dom0 is PVH: kexec cannot load a crash kernel into Xen from such a dom0", way_out);
    }
    ok(what, "a PV dom0 of Xen on x86_64")
}

/// Whether a version is among those that were tested.
fn version(what: &'static str, name: &str, at: (u32, u32), tested: &RangeInclusive<(u32, u32)>) -> Finding {
    let ((a, b), (c, d)) = (tested.start(), tested.end());
    let range = format!("{a}.{b} to {c}.{d}");
    if tested.contains(&at) {
        return ok(what, format!("{name}; dumps of {range} are tested"));
    }
    let than = if at > *tested.end() { "newer" } else { "older" };
    let seen = format!("{name} is {than} than what is tested, {range}");
    warn(what, seen, "crash a test host, and look at its dump with xdump-cut info")
}

fn xen(facts: &Facts) -> Finding {
    match &facts.xen {
        Seen::Is((major, minor, words)) => version("xen", &format!("Xen {words}"), (*major, *minor), &XENS),
        seen => facts.unknown("xen", "Xen's version", why(seen), "look at /sys/hypervisor/version"),
    }
}

fn kernel(facts: &Facts) -> Finding {
    let read = |release: &String| {
        let mut parts = release.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match facts.release.get().and_then(|r| Some((r, read(r)?))) {
        Some((release, at)) => version("kernel", &format!("Linux {release}"), at, &KERNELS),
        None => {
            facts.unknown("kernel", "the kernel's version", why(&facts.release), "look at /proc/sys/kernel/osrelease")
        }
    }
}

fn vmcoreinfo(facts: &Facts) -> Finding {
    let what = "vmcoreinfo";
    match &facts.vmcoreinfo {
        Seen::Is(_) => ok(what, "dom0's kernel keeps its VMCOREINFO in memory"),
        Seen::Absent => warn(
            what,
            "dom0's kernel has no VMCOREINFO: of its pages only zero ones could be left out",
            "use a kernel with CONFIG_KEXEC, or keep its vmlinux and cut with -x",
        ),
        Seen::Hidden(why) => facts.unknown(what, "VMCOREINFO", Some(why), "mend that"),
    }
}

fn kallsyms(facts: &Facts) -> Finding {
    let what = "kallsyms";
    let way_out =
        "keep the kernel's vmlinux or System.map, and cut with -x or --system-map where the tool asks for symbols";
    match &facts.config {
        Seen::Is(config) if config.has("KALLSYMS") && config.has("KALLSYMS_ALL") => {
            ok(what, format!("dom0's kernel has its symbols in memory ({})", config.path))
        }
        Seen::Is(config) => {
            warn(what, format!("{} lacks CONFIG_KALLSYMS_ALL: not all symbols are in memory", config.path), way_out)
        }
        seen => {
            let why = why(seen).map_or(String::new(), |w| format!(" ({w})"));
            warn(
                what,
                format!("no configuration of the kernel is at hand{why}: its symbols may not be in memory"),
                way_out,
            )
        }
    }
}

fn capture(facts: &Facts) -> Finding {
    let what = "capture";
    let named = facts.capture_release.as_deref();
    let whose = named.map_or("a kernel as this one".to_string(), |r| format!("kdump's kernel {r}"));
    let Some(config) = facts.capture_config.get() else {
        let seen = format!("whether {whose} can save a dump: no configuration of it is at hand");
        let way_out = "put the kernel's configuration where distributions have it, /boot/config-RELEASE";
        return facts.unknown(what, &seen, why(&facts.capture_config), way_out);
    };
    let missing: Vec<&str> = ["CRASH_DUMP", "PROC_VMCORE"].into_iter().filter(|o| !config.has(o)).collect();
    if missing.is_empty() {
        return ok(what, format!("{whose} can save a dump ({})", config.path));
    }
    let seen = format!("{whose} cannot save a dump: {} lacks CONFIG_{}", config.path, missing.join(" and CONFIG_"));
    let way_out = "load a kernel that has them with kexec -p";
    // Another may have been loaded.
    if named.is_some() { fail(what, seen, way_out) } else { warn(what, seen, way_out) }
}

fn reservation(facts: &Facts) -> Finding {
    let what = "reservation";
    let option = facts.option();
    let add =
        format!("add {option} to Xen's command line (GRUB_CMDLINE_XEN in /etc/default/grub; update-grub) and reboot");
    let Some(Reserved { bytes, source }) = facts.reserved.get().copied() else {
        let way_out = "install xl (xen-utils) and kexec-tools, built with Xen; see xl dmesg for a line Kdump:";
        return facts.unknown(what, "what Xen has reserved for a crash kernel", why(&facts.reserved), way_out);
    };
    let asked = facts.xen_command_line.get().and_then(|l| crashkernel(l));
    if bytes == 0 {
        return match asked {
            Some(value) => fail(
                what,
                format!("Xen reserved nothing, though its command line has crashkernel={value}"),
                format!("xl dmesg says why; try {option}"),
            ),
            None if facts.command_line.get().is_some_and(|l| crashkernel(l).is_some()) => fail(
                what,
                "Xen has reserved nothing: crashkernel= is on the command line of dom0's kernel, which Xen does not read",
                add,
            ),
            None => fail(
                what,
                "Xen has reserved no memory for a crash kernel: crashkernel= is not on its command line",
                add,
            ),
        };
    }
    let by = match source {
        Source::Range => "",
        Source::Log => " (xl dmesg)",
        Source::CommandLine => " (asked for on Xen's command line)",
    };
    let has = format!("{} reserved{by}", size(bytes));
    let least = facts.capture_bytes.get().copied().unwrap_or(0);
    if bytes < least {
        return fail(what, format!("{has}, but the kernel alone takes {} to start", size(least)), add);
    }
    let Some(dom0) = facts.dom0_bytes.get() else {
        return facts.unknown(what, &format!("{has}; dom0's size"), why(&facts.dom0_bytes), "look at /proc/meminfo");
    };
    let needed = need(*dom0);
    let of = format!("{} for a capture kernel and a cut of a dom0 of {}", size(needed), size(*dom0));
    if bytes < needed {
        return warn(
            what,
            format!("{has}; it should be {of}"),
            format!("set {option} on Xen's command line and reboot"),
        );
    }
    ok(what, format!("{has}; needed are {of}"))
}

fn loaded(facts: &Facts) -> Finding {
    let what = "loaded";
    let tools = facts.kdump.get().is_some_and(|k| k.kind == Kind::Tools);
    // What its check_kdump_support() looks at.
    let wants = tools && facts.command_line.get().is_some_and(|l| crashkernel(l).is_none());
    let load = match () {
        () if wants => "kdump-config load; it wants a crashkernel= on the command line of dom0's kernel as well",
        () if tools => "kdump-config load, and see what it says",
        () => "kexec -p KERNEL --initrd=INITRAMFS --append=..., at each boot; kdump-tools or kdump.service do it",
    };
    match (&facts.loaded, &facts.kexec) {
        (Seen::Is(true), _) => ok(what, "a crash kernel is loaded"),
        (Seen::Is(false), _) => fail(what, "no crash kernel is loaded: Xen would reboot, or halt", load),
        (_, Seen::Is(kexec)) if kexec.knows_xen == Some(false) => fail(
            what,
            format!("{} was built without Xen: it can load no crash kernel into Xen", kexec.path),
            "install a kexec-tools that was built with Xen's libxenctrl",
        ),
        (_, Seen::Absent) => facts.unknown(
            what,
            "whether a crash kernel is loaded: there is no kexec to ask Xen with",
            None,
            "install kexec-tools, built with Xen",
        ),
        (seen, _) => {
            let way_out = "install a kexec-tools whose kexec -p -S asks Xen, and ends with 1 or 0";
            facts.unknown(what, "whether a crash kernel is loaded", why(seen), way_out)
        }
    }
}

/// Linux tells Xen of a panic whatever `kernel.panic` is: seen with 0, 1 and 20, which waits 20 s before.
fn panic(facts: &Facts) -> Finding {
    let what = "panic";
    let (Some(panic), Some(oops)) = (facts.panic.get(), facts.panic_on_oops.get()) else {
        let why = why(&facts.panic).or(why(&facts.panic_on_oops));
        return facts.unknown(what, "what dom0's kernel does when it panics", why, "look at /proc/sys/kernel/panic");
    };
    let delay = if *panic > 0 { format!(" after {panic} s (kernel.panic)") } else { String::new() };
    let told = format!("a panic of dom0's kernel goes to Xen{delay}");
    if *oops == 0 {
        return warn(
            what,
            format!("{told}; an oops does not panic, and makes no dump (kernel.panic_on_oops=0)"),
            "sysctl kernel.panic_on_oops=1, if dom0 should rather crash than run on with that",
        );
    }
    ok(what, format!("{told}; an oops panics"))
}

fn room(facts: &Facts) -> Finding {
    let what = "room";
    if let Some(Target::Elsewhere(place)) = facts.kdump.get().map(|k| &k.target) {
        return ok(what, format!("dumps go elsewhere, which is not looked at: {place}"));
    }
    let by = facts.kdump.get().map_or("where kdump saves by default".to_string(), |k| format!("by {}", k.file));
    let (Some(place), Some(dom0)) = (facts.room.get(), facts.dom0_bytes.get()) else {
        let why = why(&facts.room).or(why(&facts.dom0_bytes)).unwrap_or("nothing tells");
        return warn(
            what,
            format!("the room for dumps cannot be told: {why}"),
            "see to it that there is as much as dom0 has",
        );
    };
    let free = format!("{} free in {} ({by})", size(place.free), place.folder);
    if place.free < *dom0 {
        let seen = format!("{free}; a cut of dom0 can take up to {}, a full dump what the machine has", size(*dom0));
        return warn(what, seen, "make room, or let dumps go elsewhere");
    }
    let full = match facts.machine_bytes.get() {
        Some(machine) if place.free < *machine => {
            format!("; a full dump of the machine, {}, would not fit", size(*machine))
        }
        Some(machine) => format!(", and for a full dump of the machine, {}", size(*machine)),
        None => String::new(),
    };
    ok(what, format!("{free}: enough for any cut of dom0, {}{full}", size(*dom0)))
}

/// Debian's scripts do nothing if `USE_KDUMP` is 0 or not set, in the capture kernel neither.
fn kdump(facts: &Facts) -> Finding {
    let what = "kdump";
    match &facts.kdump {
        Seen::Is(kdump) if kdump.off => fail(
            what,
            format!("{} has USE_KDUMP=0: nothing would be loaded or saved", kdump.file),
            "set USE_KDUMP=1 there, or remove kdump-tools if something else does its work",
        ),
        Seen::Is(kdump) => ok(what, format!("set up in {}", kdump.file)),
        Seen::Hidden(why) => facts.unknown(what, "how kdump is set up", Some(why), "mend that"),
        Seen::Absent => warn(
            what,
            "no set-up that is known here: neither /etc/default/kdump-tools nor /etc/kdump.conf",
            "see to it that what the crash kernel starts saves /proc/vmcore, or cuts it",
        ),
    }
}

/// Whether a cut could be made by the capture kernel; if not, the full dump can be cut later.
fn tool(facts: &Facts) -> Option<Finding> {
    let what = "tool";
    let kdump = facts.kdump.get()?;
    let later = "or cut the full dump afterwards, on any machine";
    Some(match &facts.tool {
        Seen::Is(Tool::In(place)) => ok(what, format!("the capture kernel has xdump-cut, in {place}")),
        Seen::Is(Tool::Missing(place)) => {
            let how = match kdump.kind {
                Kind::Tools => "install xdump-cut in /usr/local/bin or /usr/bin",
                Kind::Dracut => "name it in extra_bins of /etc/kdump.conf and run kdumpctl rebuild",
            };
            warn(what, format!("the capture kernel has no xdump-cut: it is not in {place}"), format!("{how}, {later}"))
        }
        seen => {
            let why = why(seen).unwrap_or("no initramfs of it, or no lsinitrd, is there");
            let seen = format!("whether the capture kernel has xdump-cut cannot be told: {why}");
            warn(what, seen, format!("look into its initramfs, {later}"))
        }
    })
}
