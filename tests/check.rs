//! `check` on recorded hosts: trees of real ones (`testdata/check`), and the same with one thing changed at a time.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use xdump_cut::check::{Check, Host, Status, Verdict, need};

const GOOD: &str = "debian-12-loaded";
/// What kexec said of the reservation.
const SIZE: &str = "commands/kexec_--print-ckr-size";

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/check").join(name)
}

/// Exit status, standard output, standard error.
fn run(root: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdump-cut"));
    let out = command.arg("check").arg("--root").arg(root).args(more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

/// A copy of a recorded host, to be changed.
struct Copied(TempDir);

impl Copied {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(&recorded(name), dir.path());
        // What the lab's hosts do not have: a set-up of kdump, and a disk.
        let copied = Self(dir);
        copied
            .write("etc/default/kdump-tools", "USE_KDUMP=1\nKDUMP_COREDIR=\"/var/crash\"\n")
            .write("commands/room", "100000000000")
            .write("proc/sys/kernel/panic_on_oops", "1\n")
            .program("usr/bin/xdump-cut", "#!/bin/sh\n");
        // 128 MiB, where anything is reserved, would be a warning.
        let size = std::fs::read_to_string(copied.0.path().join(SIZE)).unwrap();
        copied.write(SIZE, &size.replace("134217728", "202375168"));
        copied
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn program(&self, path: &str, text: &str) -> &Self {
        use std::os::unix::fs::PermissionsExt;
        self.write(path, text);
        std::fs::set_permissions(self.0.path().join(path), PermissionsExt::from_mode(0o755)).unwrap();
        self
    }

    fn change(&self, path: &str, from: &str, to: &str) -> &Self {
        let text = std::fs::read_to_string(self.0.path().join(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from:?}");
        self.write(path, &text.replace(from, to))
    }

    fn remove(&self, path: &str) -> &Self {
        let path = self.0.path().join(path);
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        gone.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self
    }

    /// What the check says: exit status, and of each finding that is not ok its name, status and words.
    fn says(&self) -> (i32, Vec<(&'static str, Status, String)>) {
        let check = Check::of(&Host::Recorded(self.0.path().into()));
        let (status, text, err) = run(self.0.path(), &[]);
        assert_eq!((text, err.as_str()), (check.to_string(), ""));
        for f in &check.findings {
            assert_eq!(f.way_out.is_some(), f.status != Status::Ok, "the way out is told where one is needed: {f:?}");
        }
        let odd = check.findings.into_iter().filter(|f| f.status != Status::Ok);
        (status, odd.map(|f| (f.what, f.status, format!("{}; {}", f.seen, f.way_out.unwrap_or_default()))).collect())
    }

    /// Among the findings is this one.
    fn has(&self, what: &str, status: Status, words: &str) {
        let (_, odd) = self.says();
        assert!(odd.iter().any(|o| o.0 == what && o.1 == status && o.2.contains(words)), "{odd:?}");
    }

    /// One finding alone is not ok, and says `words`.
    fn only(&self, exit: i32, what: &str, status: Status, words: &str) {
        let (code, odd) = self.says();
        let [(name, found, said)] = &odd[..] else { panic!("one finding for {what}: {odd:?}") };
        assert_eq!((*name, *found, code), (what, status, exit), "{said}");
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The lab's hosts as they were: what must come out of each.
#[test]
fn recorded_hosts() {
    for (name, exit, fails, words) in [
        (GOOD, 0, &[][..], "a crash kernel is loaded"),
        ("debian-13-loaded", 0, &[], "Xen 4.20"),
        ("debian-12-not-loaded", 1, &["loaded"], "no crash kernel is loaded"),
        ("debian-12-no-reservation", 1, &["reservation", "loaded"], "crashkernel= is not on its command line"),
        ("debian-13-no-reservation", 1, &["reservation", "loaded"], "add crashkernel=193M to Xen's command line"),
        ("debian-12-pvh", 1, &["dom0"], "dom0 is PVH"),
        ("debian-13-pvh", 1, &["dom0"], "dom0 is PVH"),
        ("debian-11-kexec-without-xen", 1, &["loaded"], "/sbin/kexec was built without Xen"),
    ] {
        let root = recorded(name);
        assert!(root.is_dir(), "{} is missing", root.display());
        let (status, text, err) = run(&root, &[]);
        assert_eq!((status, err.as_str()), (exit, ""), "{name}:\n{text}");
        assert_eq!(Check::of(&Host::Recorded(root)).named(Status::Fail), fails, "{name}:\n{text}");
        assert!(text.contains(words), "{name}: no {words:?} in:\n{text}");
    }
}

#[test]
fn a_host_without_a_fault_has_only_ok() {
    for name in [GOOD, "debian-13-loaded"] {
        let host = Copied::of(name);
        assert_eq!(host.says(), (0, vec![]), "{name}");
        assert_eq!(run(host.0.path(), &["--quiet"]), (0, String::new(), String::new()), "{name}");
    }
}

#[test]
fn each_missing_thing_fails_by_itself() {
    let host = || Copied::of(GOOD);
    host().remove("sys/hypervisor").only(1, "dom0", Status::Fail, "does not run under Xen");
    host().write("sys/hypervisor/type", "kvm\n").only(1, "dom0", Status::Fail, "under kvm, not Xen");
    host().write("sys/hypervisor/properties/features", "000220f0\n").only(1, "dom0", Status::Fail, "a guest of Xen");
    host().write("sys/hypervisor/properties/capabilities", "xen-3.0-aarch64\n").only(1, "dom0", Status::Fail, "x86_64");
    // Linux before 4.13 does not say of which type it is.
    let old = host();
    old.remove("sys/hypervisor/guest_type").write("sys/hypervisor/properties/features", "00028df5\n");
    old.only(1, "dom0", Status::Fail, "dom0 is PVH");
    host().write("commands/kexec_-p_-S", "status 0").only(1, "loaded", Status::Fail, "kdump-config load");
    host().write(SIZE, "50331648\nstatus 0").only(
        1,
        "reservation",
        Status::Fail,
        "48.0 MiB reserved, but the kernel alone takes 63.6 MiB",
    );
    host().write(SIZE, "0\nstatus 0").only(
        1,
        "reservation",
        Status::Fail,
        "though its command line has crashkernel=128M",
    );
    let wrong = host();
    wrong.write(SIZE, "0\nstatus 0").change("commands/xl_info", "crashkernel=128M", "");
    wrong.change("proc/cmdline", "panic=1", "panic=1 crashkernel=128M");
    wrong.only(1, "reservation", Status::Fail, "on the command line of dom0's kernel, which Xen does not read");
    host().change("etc/default/kdump-tools", "USE_KDUMP=1", "USE_KDUMP=0").only(
        1,
        "kdump",
        Status::Fail,
        "USE_KDUMP=1",
    );
    let other = host();
    std::fs::create_dir_all(other.0.path().join("var/lib/kdump")).unwrap();
    std::os::unix::fs::symlink("/boot/vmlinuz-6.1.0-0", other.0.path().join("var/lib/kdump/vmlinuz")).unwrap();
    other.write("boot/config-6.1.0-0", "CONFIG_CRASH_DUMP=y\n");
    other.only(
        1,
        "capture",
        Status::Fail,
        "kdump's kernel 6.1.0-0 cannot save a dump: /boot/config-6.1.0-0 lacks CONFIG_PROC_VMCORE",
    );
}

#[test]
fn what_only_deserves_a_word_does_not_fail() {
    let host = || Copied::of(GOOD);
    let warns = |h: &Copied, what, words| h.only(0, what, Status::Warn, words);
    warns(host().write("sys/hypervisor/version/minor", "23\n"), "xen", "Xen 4.23.7 is newer than what is tested");
    warns(host().write("sys/hypervisor/version/minor", "4\n"), "xen", "older");
    let newer = host();
    newer.write("proc/sys/kernel/osrelease", "7.2.0-1-amd64\n");
    for file in ["config", "vmlinuz"] {
        let at = |release| newer.0.path().join(format!("boot/{file}-{release}"));
        let there = std::fs::read_dir(newer.0.path().join("boot")).unwrap();
        let old = there.map(|e| e.unwrap().path()).find(|p| p.to_string_lossy().contains(file)).unwrap();
        std::fs::rename(old, at("7.2.0-1-amd64")).unwrap();
    }
    warns(&newer, "kernel", "Linux 7.2.0-1-amd64 is newer");
    warns(host().remove("sys/kernel/vmcoreinfo"), "vmcoreinfo", "CONFIG_KEXEC");
    warns(host().write(SIZE, "134217728\nstatus 0"), "reservation", "it should be 193.0 MiB");
    warns(host().write("proc/sys/kernel/panic_on_oops", "0\n"), "panic", "an oops does not panic");
    warns(host().write("commands/room", "100000000"), "room", "95.4 MiB free in /var/crash");
    warns(host().remove("commands/room"), "room", "cannot be told");
    warns(host().remove("usr/bin/xdump-cut"), "tool", "has no xdump-cut");
    warns(host().remove("etc/default/kdump-tools"), "kdump", "no set-up that is known here");
    let dracut = host();
    let release = "6.1.0-56-amd64";
    dracut.remove("etc/default/kdump-tools").write("etc/kdump.conf", "path /srv\n");
    warns(&dracut, "tool", "cannot be told");
    dracut.write(&format!("boot/initramfs-{release}kdump.img"), "");
    let listing = format!("commands/lsinitrd_/boot/initramfs-{release}kdump.img");
    dracut.write(&listing, "-rwxr-xr-x 1 root root 9 Nov 1 2026 usr/bin/makedumpfile\nstatus 0");
    warns(&dracut, "tool", "extra_bins");
    dracut.write(&listing, "-rwxr-xr-x 1 root root 9 Nov 1 2026 usr/bin/xdump-cut\nstatus 0");
    assert_eq!(dracut.says(), (0, vec![]));
}

#[test]
fn what_cannot_be_looked_at_is_not_fine() {
    let host = || Copied::of(GOOD);
    let unknown = |h: &Copied, what, words| h.only(3, what, Status::Unknown, words);
    unknown(host().remove("sys/hypervisor/version"), "xen", "/sys/hypervisor/version");
    unknown(host().write("sys/hypervisor/version/minor", "x\n"), "xen", "makes no sense");
    unknown(host().write("commands/kexec_-p_-S", "Failed to open xc\nstatus 255"), "loaded", "Failed to open xc");
    let old = host();
    old.change("sbin/kexec", "xc_kexec_status", "");
    unknown(&old, "loaded", "/sbin/kexec is too old to ask Xen");
    // Without kexec, Xen's log and command line tell of the reservation.
    let without = host();
    without.remove("sbin/kexec");
    let (status, odd) = without.says();
    assert_eq!((status, odd[1].0, odd[1].1), (3, "loaded", Status::Unknown), "{odd:?}");
    assert!(odd[0].2.contains("128.0 MiB reserved (xl dmesg)"), "{odd:?}");
    without.write("commands/xl_dmesg", "status 0");
    assert!(without.says().1[0].2.contains("128.0 MiB reserved (asked for on Xen's command line)"));
    without.write("commands/xl_info", "no Xen\nstatus 1");
    let (status, odd) = without.says();
    assert_eq!(status, 3);
    assert!(
        odd.iter().any(|o| o.0 == "reservation" && o.2.contains("xl info ended with 1 and said: no Xen")),
        "{odd:?}"
    );
}

#[test]
fn a_configuration_is_looked_for_in_the_kernel_too() {
    let host = Copied::of(GOOD);
    let path = "boot/config-6.1.0-56-amd64";
    let text = std::fs::read(host.0.path().join(path)).unwrap();
    let (status, odd) = host.remove(path).says();
    let names: Vec<_> = odd.iter().map(|o| (o.0, o.1)).collect();
    assert_eq!((status, names), (3, vec![("kallsyms", Status::Warn), ("capture", Status::Unknown)]), "{odd:?}");
    let packed = flate2::read::GzEncoder::new(&*text, flate2::Compression::fast());
    let packed: Vec<u8> = std::io::Read::bytes(packed).map(|b| b.unwrap()).collect();
    std::fs::write(host.0.path().join("proc/config.gz"), packed).unwrap();
    assert_eq!(host.says(), (0, vec![]));
    std::fs::write(host.0.path().join("proc/config.gz"), "not packed").unwrap();
    host.has("capture", Status::Unknown, "/proc/config.gz makes no sense");
}

/// Nobody is told that nothing is loaded because he may not ask.
#[test]
fn without_root_what_only_root_may_ask_is_unknown() {
    let host = Copied::of("debian-12-not-loaded");
    host.write("commands/uid", "1000");
    let (status, odd) = host.says();
    let names: Vec<_> = odd.iter().map(|o| (o.0, o.1)).collect();
    assert_eq!((status, names), (3, vec![("reservation", Status::Unknown), ("loaded", Status::Unknown)]));
    assert!(odd.iter().all(|o| o.2.contains("only root may ask Xen") && o.2.ends_with("; run it as root")), "{odd:?}");
}

#[test]
fn json_has_the_same() {
    let host = Copied::of("debian-12-no-reservation");
    let (status, text, _) = run(host.0.path(), &["--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, json["verdict"].as_str()), (1, Some("bad")));
    assert_eq!(json["reservation"], 0);
    assert_eq!(json["reservation_needed"], 193 << 20);
    let failed = json["findings"].as_array().unwrap().iter().filter(|f| f["status"] == "fail");
    let told: Vec<_> = failed.map(|f| (f["what"].as_str().unwrap(), f["way_out"].is_string())).collect();
    assert_eq!(told, [("reservation", true), ("loaded", true)]);
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    // What kexec says in a PVH dom0 is not about Xen.
    let (status, text, _) = run(&recorded("debian-12-pvh"), &["--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &json["reservation"], &json["reservation_needed"]), (1, &Value::Null, &Value::Null));
}

#[test]
fn the_reservation_grows_by_two_bits_a_page() {
    assert_eq!(need(0), 192 << 20);
    assert_eq!(need(1), 193 << 20);
    assert_eq!(need(16 << 30), 193 << 20);
    assert_eq!(need(1 << 40), (192 + 64) << 20);
    assert!(need(u64::MAX) > 1 << 40);
}

/// This machine, whatever it is: never a panic, always a verdict with its status.
#[test]
fn the_running_system_gets_a_verdict() {
    let out = Command::new(env!("CARGO_BIN_EXE_xdump-cut")).args(["check", "--json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    let expected = match json["verdict"].as_str().unwrap() {
        "good" => 0,
        "bad" => 1,
        _ => 3,
    };
    assert_eq!(out.status.code(), Some(expected));
    assert_eq!(Check::of(&Host::Live).verdict == Verdict::Good, expected == 0);
}
