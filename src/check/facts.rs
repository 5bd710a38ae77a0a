//! What is seen of a host.

use super::host::{Host, Ran, Seen};
use super::kdump::{self, Kdump, Kind, Target};
use std::path::Path;

/// Who said how much is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Xen itself, asked by `kexec --print-ckr-size`.
    Range,
    /// Xen's log, `xl dmesg`.
    Log,
    /// Xen's command line, which says what was asked for, not what was had.
    CommandLine,
}

/// Memory that Xen keeps for the crash kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// How much; 0 if none.
    pub bytes: u64,
    /// Who said so.
    pub source: Source,
}

/// The program that loads crash kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kexec {
    /// Where it is.
    pub path: String,
    /// Whether it was built to speak with Xen; nothing if that cannot be told.
    pub knows_xen: Option<bool>,
    /// Whether it was built to ask Xen for a loaded kernel, which older ones were not: they ask dom0's kernel.
    pub knows_status: Option<bool>,
}

/// A kernel's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Config {
    /// Whether an option is built in.
    pub fn has(&self, option: &str) -> bool {
        self.text.lines().any(|l| l.strip_prefix("CONFIG_").and_then(|l| l.strip_prefix(option)) == Some("=y"))
    }
}

/// Free room where dumps go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder that was asked: where dumps go, or the nearest above that is there.
    pub folder: String,
    /// Free bytes.
    pub free: u64,
}

/// Where this program is for the capture kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    /// In this file of the system that the capture kernel starts, or in this initramfs.
    In(String),
    /// Not in this one.
    Missing(String),
}

/// All that is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether nothing is hidden from the user.
    pub root: bool,
    /// `/sys/hypervisor/type`.
    pub hypervisor: Seen<String>,
    /// `/sys/hypervisor/guest_type`: PV, PVH, HVM; Linux has it since 4.13.
    pub guest_type: Seen<String>,
    /// XENFEAT bits.
    pub features: Seen<u64>,
    /// What Xen says that it can do: `xen-3.0-x86_64` and so on.
    pub abis: Seen<String>,
    /// Xen's version: major, minor, and all of it in words.
    pub xen: Seen<(u32, u32, String)>,
    /// Release of dom0's kernel.
    pub release: Seen<String>,
    /// `/sys/kernel/vmcoreinfo`.
    pub vmcoreinfo: Seen<String>,
    /// Configuration of dom0's kernel.
    pub config: Seen<Config>,
    /// The capture kernel's release, if kdump's files name it; else dom0's is taken for it.
    pub capture_release: Option<String>,
    /// Configuration of the capture kernel.
    pub capture_config: Seen<Config>,
    /// Bytes that the capture kernel takes to start, by its own header.
    pub capture_bytes: Seen<u64>,
    /// dom0's command line.
    pub command_line: Seen<String>,
    /// Xen's.
    pub xen_command_line: Seen<String>,
    /// What is reserved.
    pub reserved: Seen<Reserved>,
    /// `kexec`.
    pub kexec: Seen<Kexec>,
    /// Whether Xen has a crash kernel.
    pub loaded: Seen<bool>,
    /// dom0's memory.
    pub dom0_bytes: Seen<u64>,
    /// The machine's memory.
    pub machine_bytes: Seen<u64>,
    /// `kernel.panic`.
    pub panic: Seen<i64>,
    /// `kernel.panic_on_oops`.
    pub panic_on_oops: Seen<u64>,
    /// How kdump is set up.
    pub kdump: Seen<Kdump>,
    /// Free room for dumps.
    pub room: Seen<Place>,
    /// Where this program is for the capture kernel.
    pub tool: Seen<Tool>,
}

/// Enough for a kernel's header.
const HEADER_BYTES: u64 = 0x264;

impl Facts {
    /// Looks.
    pub fn gather(host: &Host) -> Self {
        let hypervisor = |name: &str| host.text(&format!("/sys/hypervisor/{name}"));
        let release = host.text("/proc/sys/kernel/osrelease");
        let kdump = Kdump::read(host);
        let capture_release = capture_release(host, &kdump);
        let config_of = |release: Option<&String>| release.map_or(Seen::Absent, |r| config(host, r));
        let config = config_of(release.get()).or(|| own_config(host));
        let capture_config = capture_release.as_ref().map_or_else(|| config.clone(), |r| config_of(Some(r)));
        let info = xl(host, "info");
        let xl_value = |key: &str| {
            let line = |text: String| {
                text.lines().find_map(|l| Some(l.strip_prefix(key)?.trim_start().strip_prefix(':')?.trim().to_string()))
            };
            info.clone().read("xl info", line)
        };
        let xen_command_line = xl_value("xen_commandline");
        let kexec = kexec(host);
        Self {
            root: host.is_root(),
            hypervisor: hypervisor("type"),
            guest_type: hypervisor("guest_type"),
            features: hypervisor("properties/features").read("features", |t| u64::from_str_radix(&t, 16).ok()),
            abis: hypervisor("properties/capabilities"),
            xen: xen_version(host),
            vmcoreinfo: host.text("/sys/kernel/vmcoreinfo"),
            capture_config,
            capture_bytes: capture_bytes(host, capture_release.as_ref().or(release.get())),
            capture_release,
            command_line: host.text("/proc/cmdline"),
            reserved: reserved(host, &kexec, &xen_command_line),
            loaded: loaded(host, &kexec),
            dom0_bytes: dom0_bytes(host),
            machine_bytes: xl_value("total_memory")
                .read("total_memory", |t| t.parse::<u64>().ok()?.checked_mul(1 << 20)),
            panic: host.number("/proc/sys/kernel/panic"),
            panic_on_oops: host.number("/proc/sys/kernel/panic_on_oops"),
            room: room(host, &kdump),
            tool: tool(host, &kdump, release.get()),
            release,
            config,
            xen_command_line,
            kexec,
            kdump,
        }
    }
}

fn xen_version(host: &Host) -> Seen<(u32, u32, String)> {
    let part = |name: &str| host.text(&format!("/sys/hypervisor/version/{name}"));
    let extra = part("extra").get().cloned().unwrap_or_default();
    part("major").read("the major version", |major| {
        let minor = part("minor").get()?.clone();
        Some((major.parse().ok()?, minor.parse().ok()?, format!("{major}.{minor}{extra}")))
    })
}

fn config(host: &Host, release: &str) -> Seen<Config> {
    let modules = format!("/lib/modules/{release}/config");
    let mut seen = Seen::Absent;
    for path in [format!("/boot/config-{release}"), modules.clone(), format!("/usr{modules}")] {
        let at = path.clone();
        seen = seen.or(|| host.text(&path).read(&at, |text| Some(Config { path, text })));
    }
    seen
}

/// The running kernel's, if it keeps it.
fn own_config(host: &Host) -> Seen<Config> {
    const PATH: &str = "/proc/config.gz";
    let unpack = |bytes: Vec<u8>| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*bytes), &mut text).ok()?;
        Some(Config { path: PATH.into(), text })
    };
    host.bytes(PATH, 4 << 20).read(PATH, unpack)
}

/// What kdump-tools' link is to.
fn capture_release(host: &Host, kdump: &Seen<Kdump>) -> Option<String> {
    kdump.get().filter(|k| k.kind == Kind::Tools)?;
    let link = host.at("/var/lib/kdump/vmlinuz").read_link().ok()?;
    Some(link.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_string())
}

/// `init_size` of a bzImage: what the kernel needs from its start on until it has its own page tables.
fn capture_bytes(host: &Host, release: Option<&String>) -> Seen<u64> {
    let Some(release) = release else { return Seen::Absent };
    let path = format!("/boot/vmlinuz-{release}");
    host.bytes(&path, HEADER_BYTES).read(&path, |head| {
        let at = |from: usize, n: usize| head.get(from..from.checked_add(n)?);
        let version = u16::from_le_bytes(at(0x206, 2)?.try_into().ok()?);
        let size = u32::from_le_bytes(at(0x260, 4)?.try_into().ok()?);
        (at(0x202, 4)? == b"HdrS" && version >= 0x20a).then_some(size.into())
    })
}

fn kexec(host: &Host) -> Seen<Kexec> {
    let Some(path) = host.program("kexec") else { return Seen::Absent };
    let names = host.bytes(&path, 16 << 20);
    let knows = |name: &[u8]| {
        let bytes = names.get()?;
        let has = |what: &[u8]| memchr::memmem::find(bytes, what).is_some();
        // A starter may be a script, and a static program need not keep names.
        let tells = bytes.starts_with(b"\x7fELF") && has(b"ld-linux");
        if has(name) { Some(true) } else { tells.then_some(false) }
    };
    let (knows_xen, knows_status) = (knows(b"xc_kexec_load"), knows(b"xc_kexec_status"));
    Seen::Is(Kexec { path, knows_xen, knows_status })
}

/// Asks Xen through `kexec`, if that can.
fn ask(host: &Host, kexec: &Seen<Kexec>, args: &[&str]) -> Seen<Ran> {
    match kexec {
        Seen::Is(k) if k.knows_xen == Some(false) => Seen::Absent,
        Seen::Is(_) => host.run("kexec", args),
        _ => Seen::Absent,
    }
}

fn failed<T>(command: &str, ran: &Ran) -> Seen<T> {
    let said = ran.err.lines().chain(ran.out.lines()).next().unwrap_or("nothing");
    Seen::Hidden(format!("{command} ended with {} and said: {said}", ran.status))
}

fn loaded(host: &Host, kexec: &Seen<Kexec>) -> Seen<bool> {
    if let Some(Kexec { path, knows_xen: Some(true), knows_status: Some(false) }) = kexec.get() {
        return Seen::Hidden(format!("{path} is too old to ask Xen"));
    }
    match ask(host, kexec, &["-p", "-S"]) {
        Seen::Is(Ran { status: 1, .. }) => Seen::Is(true),
        Seen::Is(Ran { status: 0, .. }) => Seen::Is(false),
        Seen::Is(ran) => failed("kexec -p -S", &ran),
        Seen::Absent => Seen::Absent,
        Seen::Hidden(why) => Seen::Hidden(why),
    }
}

/// What `xl` prints.
fn xl(host: &Host, word: &str) -> Seen<String> {
    match host.run("xl", &[word]) {
        Seen::Is(ran) if ran.status == 0 => Seen::Is(ran.out),
        Seen::Is(ran) => failed(&format!("xl {word}"), &ran),
        Seen::Absent => Seen::Absent,
        Seen::Hidden(why) => Seen::Hidden(why),
    }
}

fn reserved(host: &Host, kexec: &Seen<Kexec>, command_line: &Seen<String>) -> Seen<Reserved> {
    let range = match ask(host, kexec, &["--print-ckr-size"]) {
        Seen::Is(ran) => match ran.out.trim().parse() {
            Ok(bytes) if ran.status == 0 => Seen::Is(Reserved { bytes, source: Source::Range }),
            _ => failed("kexec --print-ckr-size", &ran),
        },
        Seen::Absent => Seen::Absent,
        Seen::Hidden(why) => Seen::Hidden(why),
    };
    let by_log = || xl(host, "dmesg").get().and_then(|text| log_says(text)).map_or(Seen::Absent, Seen::Is);
    // Whoever asked for nothing has nothing.
    let by_words = || match command_line.clone() {
        Seen::Is(line) => match crashkernel(&line) {
            None => Seen::Is(Reserved { bytes: 0, source: Source::CommandLine }),
            Some(value) => match plain_size(value) {
                Some(bytes) => Seen::Is(Reserved { bytes, source: Source::CommandLine }),
                None => Seen::Hidden(format!("what Xen made of crashkernel={value} is not told")),
            },
        },
        Seen::Absent => Seen::Absent,
        Seen::Hidden(why) => Seen::Hidden(why),
    };
    range.or(by_log).or(by_words)
}

/// `(XEN) Kdump: 128MB (131072kB) at 0x19dea000`. The line is an early one and may have been overwritten.
fn log_says(log: &str) -> Option<Reserved> {
    let line = log.lines().find_map(|l| l.split_once("Kdump: "))?.1;
    let kib: u64 = line.split_once('(')?.1.split_once("kB)")?.0.parse().ok()?;
    Some(Reserved { bytes: kib.checked_mul(1024)?, source: Source::Log })
}

/// The value of `crashkernel=`, the last of them.
pub(super) fn crashkernel(line: &str) -> Option<&str> {
    line.split_whitespace().filter_map(|word| word.strip_prefix("crashkernel=")).next_back()
}

/// `128M` or `128M@16M`; nothing of `1G-4G:128M` and the like, which depends on the machine.
fn plain_size(value: &str) -> Option<u64> {
    let size = value.split(['@', '<']).next()?;
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match size.get(digits.len()..)? {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn dom0_bytes(host: &Host) -> Seen<u64> {
    let balloon = host.number::<u64>("/sys/devices/system/xen_memory/xen_memory0/info/current_kb");
    let kib = balloon.or(|| {
        host.text("/proc/meminfo").read("MemTotal of /proc/meminfo", |text| {
            text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        })
    });
    kib.read("dom0's size", |kib| kib.checked_mul(1024))
}

fn room(host: &Host, kdump: &Seen<Kdump>) -> Seen<Place> {
    let folder = match kdump.get().map(|k| &k.target) {
        Some(Target::Folder(folder)) => folder.as_str(),
        Some(Target::Elsewhere(_)) => return Seen::Absent,
        None => kdump::FOLDER,
    };
    host.room(folder).read(folder, |(folder, free)| Some(Place { folder, free }))
}

fn tool(host: &Host, kdump: &Seen<Kdump>, release: Option<&String>) -> Seen<Tool> {
    let installed = || host.program("xdump-cut");
    match kdump.get().map(|k| k.kind) {
        // The capture kernel starts the host's own system.
        Some(Kind::Tools) => {
            Seen::Is(installed().map_or_else(|| Tool::Missing("the host's own system".into()), Tool::In))
        }
        Some(Kind::Dracut) => {
            let images = |r: &String| ["/boot", "/var/lib/kdump"].map(|d| format!("{d}/initramfs-{r}kdump.img"));
            let Some(image) = release.and_then(|r| images(r).into_iter().find(|i| host.exists(i))) else {
                return Seen::Absent;
            };
            match host.run("lsinitrd", &[&image]) {
                Seen::Is(ran) if ran.status == 0 => {
                    let here = |l: &str| Path::new(l.split_whitespace().last().unwrap_or("")).ends_with("xdump-cut");
                    Seen::Is(if ran.out.lines().any(here) { Tool::In(image) } else { Tool::Missing(image) })
                }
                Seen::Is(ran) => failed(&format!("lsinitrd {image}"), &ran),
                Seen::Absent => Seen::Absent,
                Seen::Hidden(why) => Seen::Hidden(why),
            }
        }
        None => Seen::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_read_from_each_source() {
        let log =
            "(XEN) Bootloader: GRUB\n(XEN) Kdump: 128MB (131072kB) at 0x19dea000\n(XEN) System RAM: 639MB (654844kB)\n";
        assert_eq!(log_says(log), Some(Reserved { bytes: 128 << 20, source: Source::Log }));
        assert_eq!(log_says("(XEN) System RAM: 639MB (654844kB)"), None);
        assert_eq!(crashkernel("noreboot crashkernel=64M crashkernel=192M@32M x"), Some("192M@32M"));
        assert_eq!(crashkernel("crashkernel_x=1 nocrashkernel=2"), None);
        for (value, bytes) in [
            ("128M", Some(128 << 20)),
            ("1g", Some(1 << 30)),
            ("192M@32M", Some(192 << 20)),
            ("256M<4G", Some(256 << 20)),
            ("131072k", Some(128 << 20)),
            ("384M-:128M", None),
            ("0-2G:256M,2G-:512M", None),
            ("auto", None),
        ] {
            assert_eq!(plain_size(value), bytes, "{value}");
        }
    }

    #[test]
    fn options_of_a_configuration_are_told_from_longer_names() {
        let config = Config { path: String::new(), text: "CONFIG_KALLSYMS=y\n# CONFIG_KEXEC is not set\n".into() };
        assert!(config.has("KALLSYMS") && !config.has("KALLSYMS_ALL") && !config.has("KEXEC") && !config.has("KALL"));
    }
}
