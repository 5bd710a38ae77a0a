//! kdump's own scripts with xdump-cut in them, and the makedumpfile that stands before the real one. Debian's kdump-config is
//! the real one, of two releases, with a dump as its /proc/vmcore; of kdump-utils and openSUSE's kdump, whose sources a test
//! machine cannot get, the calls that they make are made.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::installed::{LIMIT, dump, folder, in_root, install};
use support::tools::{Ran, run, tool};

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xdump-cut"))
}

/// A shell script, `$1` and so on being `args`. Along PATH stand the wrapper, xdump-cut, and the machine's makedumpfile.
fn script_with(shell: &[&str], script: &str, args: &[&Path], options: &str) -> Ran {
    let bin = Path::new(env!("CARGO_BIN_EXE_xdump-cut")).parent().unwrap();
    let path =
        format!("{}/dist/makedumpfile:{}:/usr/bin:/usr/sbin:/bin:/sbin", env!("CARGO_MANIFEST_DIR"), bin.display());
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-c").arg(script).arg("sh").args(args);
    command.env("PATH", path).env("XDUMP_CUT_OPTIONS", options);
    run(&mut command, LIMIT)
}

/// The wrapper run by each shell in turn, `$m` being it.
fn each_shell(script: &str, args: &[&Path], options: &str, check: impl Fn(&Ran)) {
    for shell in SHELLS {
        let wrapper = format!("{}/dist/makedumpfile/makedumpfile", env!("CARGO_MANIFEST_DIR"));
        let ran = script_with(shell, &format!("m='{} {wrapper}'; {script}", shell.join(" ")), args, options);
        check(&ran);
    }
}

/// What xdump-cut itself makes of the dump, in a file.
fn cut(options: &[&str], vmcore: &Path, out: &Path) -> Vec<u8> {
    let mut command = program();
    command.args(["-q", "-f"]).args(options).arg(vmcore).arg(out);
    let ran = run(&mut command, LIMIT);
    assert!(ran.status.success(), "{options:?}: {}", ran.stderr);
    std::fs::read(out).unwrap()
}

fn flat(options: &[&str], vmcore: &Path) -> Vec<u8> {
    let out = program().args(["-q", "-F"]).args(options).arg(vmcore).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn log(options: &[&str], vmcore: &Path) -> Vec<u8> {
    program().arg("log").args(options).arg(vmcore).output().unwrap().stdout
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_wrapper_takes_the_calls_that_kdump_makes() {
    let dir = folder("wrapper");
    let vmcore = &dump().vmcore;
    let zlib = cut(&["-c", "-d", "31"], vmcore, &dir.join("zlib"));
    let stream = flat(&["-c", "-d", "31"], vmcore);
    let elf = flat(&["-E", "-d", "1"], vmcore);
    let [dmesg, xen] = [log(&[], vmcore), log(&["--xen"], vmcore)];
    assert!(dmesg.len() > 10_000 && xen.len() > 1000);
    let out = |name: &str| dir.join(name);
    let calls: [(&str, &[u8]); 8] = [
        ("$m -c --message-level 7 -d 31 \"$1\" \"$2\"", &zlib),
        ("$m -cfd31 --num-threads=2 \"$1\" \"$2\"", &zlib),
        ("$m -F -c -d 31 \"$1\" > \"$2\"", &stream),
        ("$m -c -d 31 -F \"$1\" | cat > \"$2\"", &stream),
        ("$m -F -E --num-threads 2 --message-level 6 -d 1 \"$1\" > \"$2\"", &elf),
        ("$m -X -EFd1 \"$1\" > \"$2\"", &elf),
        ("$m --dump-dmesg \"$1\" \"$2\"", &dmesg),
        ("$m -F --message-level 8 --dump-dmesg \"$1\" > \"$2\"", &dmesg),
    ];
    for (call, made) in calls {
        each_shell(&format!("rm -f \"$2\"; {call}"), &[vmcore, &out("out")], "", |ran| {
            assert!(ran.status.success(), "{call}: {}", ran.stderr);
            assert!(read(&out("out")) == made, "{call}: not what xdump-cut makes: {}", ran.stderr);
        });
        if call.contains("--dump-dmesg \"$1\" \"$2\"") {
            assert!(read(&out("out.xen")) == xen);
        }
    }
    // Neither is overwritten unasked.
    for call in ["$m -c -d 31 \"$1\" \"$2\"", "$m --dump-dmesg \"$1\" \"$2\""] {
        std::fs::write(out("mine"), "mine").unwrap();
        each_shell(call, &[vmcore, &out("mine")], "", |ran| {
            assert!(!ran.status.success() && read(&out("mine")) == b"mine", "{}", ran.stderr);
        });
    }
    // kdump-utils' default is lzo, which not every build of xdump-cut writes.
    each_shell("rm -f \"$2\"; $m -l -d 31 \"$1\" \"$2\"", &[vmcore, &out("out")], "", |ran| {
        assert!(ran.status.success(), "{}", ran.stderr);
        if !cfg!(feature = "lzo") {
            assert!(read(&out("out")) == zlib && ran.stderr.contains("writes no lzo"), "{}", ran.stderr);
        }
    });
}

#[test]
fn what_is_no_xen_dump_is_makedumpfiles() {
    let dir = folder("no-xen");
    // A cut is what a machine without Xen would have left.
    let vmcore = dir.join("vmcore");
    cut(&["-E", "-d", "0"], &dump().vmcore, &vmcore);
    let real = |options: &[&str], name: &str| {
        let mut command = Command::new("/usr/bin/makedumpfile");
        let ran = run(command.args(options).arg(&vmcore).arg(dir.join(name)), LIMIT);
        assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
        read(&dir.join(name))
    };
    // The header holds no time, so the same call gives the same bytes.
    let [whole, dmesg] = [real(&["-c", "-d", "31"], "whole"), real(&["--dump-dmesg"], "dmesg")];
    for (call, made) in [("$m -c -d 31 \"$1\" \"$2\"", &whole), ("$m --dump-dmesg \"$1\" \"$2\"", &dmesg)] {
        each_shell(&format!("rm -f \"$2\"; {call}"), &[&vmcore, &dir.join("out")], "", |ran| {
            assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
            assert!(read(&dir.join("out")) == *made, "{call}");
        });
    }
    // And so is what only it can do.
    each_shell("$m -v", &[], "", |ran| assert!(ran.stdout.starts_with("makedumpfile: version"), "{}", ran.stdout));
    each_shell("$m -F -c -d 31 \"$1\" | $m -R \"$2\"", &[&dump().vmcore, &dir.join("ordinary")], "", |ran| {
        assert!(ran.status.success(), "{}", ran.stderr);
        let made = cut(&["-c"], &dump().vmcore, &dir.join("cut"));
        assert!(read(&dir.join("ordinary"))[..4096] == made[..4096]);
        std::fs::remove_file(dir.join("ordinary")).unwrap();
    });
}

/// Fewer pages than asked for are better than none.
#[test]
fn what_xdump_cut_fails_at_is_makedumpfiles_or_copied() {
    let dir = folder("fallback");
    let [vmcore, out] = [&dump().vmcore, &dir.join("out")];
    let full = |path: &Path| {
        let ran = run(program().arg("info").arg(path), LIMIT);
        assert!(ran.status.success() && ran.stdout.starts_with("Xen 4.17"), "{}{}", ran.stdout, ran.stderr);
    };
    for call in ["$m -c -d 31 \"$1\" \"$2\"", "$m -F -c -d 31 \"$1\" > \"$2\""] {
        each_shell(&format!("rm -f \"$2\"; {call}"), &[vmcore, out], "--no-such-option", |ran| {
            assert!(ran.status.success(), "{}", ran.stderr);
            assert!(ran.stderr.contains("falling back to /usr/bin/makedumpfile"), "{}", ran.stderr);
            full(out);
        });
    }
    // What neither of them can read is copied, where the reader is a pipe that would end in an empty file.
    let damaged = dir.join("vmcore");
    // Xen's page tables are behind what is left.
    std::fs::write(&damaged, &read(vmcore)[..4 << 20]).unwrap();
    each_shell("rm -f \"$2\"; $m -F -c -d 31 \"$1\" > \"$2\"", &[&damaged, out], "", |ran| {
        assert!(ran.status.success() && ran.stderr.contains("as it is"), "{}", ran.stderr);
        assert!(read(out) == read(&damaged));
    });
    std::fs::remove_file(out).unwrap();
    each_shell("$m -c -d 31 \"$1\" \"$2\"", &[&damaged, out], "", |ran| {
        assert!(!ran.status.success() && !out.exists(), "{}", ran.stderr);
    });
    // Where a stream has begun, nothing else can follow in it.
    each_shell("$m -F -c -d 31 \"$1\" > \"$2\"", &[vmcore, out], "-L 2M", |ran| {
        assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains("what was written is incomplete"), "{}", ran.stderr);
        assert!(read(out).len() <= 2 << 20);
    });
    // Where there was no room, there is none for more.
    std::fs::remove_file(out).unwrap();
    each_shell("$m -c -d 31 \"$1\" \"$2\"", &[vmcore, out], "-f -L 2M", |ran| {
        assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
        assert!(!out.exists() && dir.join("out.incomplete").exists(), "{}", ran.stderr);
    });
}

/// A root with xdump-cut and kdump-tools of a Debian release, whose settings are `settings`.
fn kdump_tools(release: &str, settings: &str) -> PathBuf {
    let scripts = tool("makedumpfile").ancestors().nth(2).unwrap().join("kdump-tools").join(release).join("root");
    let config = scripts.join("usr/sbin/kdump-config");
    assert!(config.exists(), "{} is missing: run .ci/tools", config.display());
    let root = folder(release);
    install(&root, "/usr/local");
    std::fs::copy(config, root.join("kdump-config")).unwrap();
    std::fs::create_dir_all(root.join("etc/default")).unwrap();
    let own = std::fs::read_to_string(scripts.join("usr/share/kdump-tools/kdump-tools.conf")).unwrap();
    std::fs::write(root.join("etc/default/kdump-tools"), format!("{own}\n{settings}")).unwrap();
    root
}

/// The lines that the documentation says belong into /etc/default/kdump-tools, as they were installed.
fn our_settings(root: &Path) -> String {
    std::fs::read_to_string(root.join("usr/local/share/doc/xdump-cut/kdump-tools.conf")).unwrap()
}

fn append(root: &Path, text: &str) {
    let path = root.join("etc/default/kdump-tools");
    let there = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{there}\n{text}\n")).unwrap();
}

/// The files of the one dump that was saved: its dmesg, Xen's, and the dump, by what their names begin with.
fn saved(root: &Path) -> impl Fn(&str) -> Option<Vec<u8>> {
    let crash = root.join("var/crash");
    let dirs: Vec<_> = std::fs::read_dir(crash).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    let files: Vec<_> = std::fs::read_dir(&dirs[0]).unwrap().map(|e| e.unwrap()).collect();
    move |begin| {
        let name = |e: &std::fs::DirEntry| e.file_name().into_string().unwrap();
        let file = files.iter().find(|e| match begin.strip_suffix(".xen") {
            Some(begin) => name(e).starts_with(begin) && name(e).ends_with(".xen"),
            None => name(e).starts_with(begin) && !name(e).ends_with(".xen"),
        })?;
        Some(read(&file.path()))
    }
}

#[test]
fn debians_kdump_config_saves_a_cut() {
    let vmcore = &dump().vmcore;
    let cut = flat(&["-z", "-d", "31"], vmcore);
    for release in ["bookworm", "trixie"] {
        // As it comes, makedumpfile fails, nobody is told, and an empty file is kept.
        let root = kdump_tools(release, "");
        let ran = in_root(&root, vmcore, &["/bin/sh", "/kdump-config", "savecore"]);
        assert!(ran.status.success() && ran.stdout.contains("saved vmcore"), "{}{}", ran.stdout, ran.stderr);
        assert_eq!(saved(&root)("dump."), Some(Vec::new()), "{release}");

        let root = kdump_tools(release, "");
        append(&root, &our_settings(&root));
        let ran = in_root(&root, vmcore, &["/bin/sh", "/kdump-config", "savecore"]);
        assert!(ran.status.success(), "{release}: {}{}", ran.stdout, ran.stderr);
        let file = saved(&root);
        assert!(file("dump.").is_some_and(|bytes| bytes == cut), "{release}: {}{}", ran.stdout, ran.stderr);
        assert_eq!(file("dmesg."), Some(log(&[], vmcore)), "{release}");
        assert_eq!(file("dmesg.xen"), Some(log(&["--xen"], vmcore)), "{release}");

        // Compressed once more by kdump-config.
        let root = kdump_tools(release, "");
        append(&root, &our_settings(&root));
        append(&root, "KDUMP_COMPRESSION=gzip\nMAKEDUMP_ARGS=\"-d 31\"");
        let ran = in_root(&root, vmcore, &["/bin/sh", "/kdump-config", "savecore"]);
        assert!(ran.status.success(), "{release}: {}{}", ran.stdout, ran.stderr);
        let zipped = folder("zipped").join("dump.gz");
        std::fs::write(&zipped, saved(&root)("dump.").unwrap()).unwrap();
        let ran = run(program().arg("info").arg(&zipped), LIMIT);
        assert!(ran.stdout.starts_with("A cut of domain 0"), "{release}: {}{}", ran.stdout, ran.stderr);
    }
}

/// ssh and scp stand-ins do on this machine what they would do on the other.
#[test]
fn debians_kdump_config_sends_a_cut_by_ssh() {
    let vmcore = &dump().vmcore;
    for release in ["bookworm", "trixie"] {
        let root = kdump_tools(release, "");
        let ours = our_settings(&root);
        append(&root, &ours);
        append(&root, "PATH=/stand-ins:$PATH\nSSH=user@server\nHOSTTAG=hostname");
        let stand_ins = root.join("stand-ins");
        std::fs::create_dir(&stand_ins).unwrap();
        for (name, text) in [
            (
                "ssh",
                "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -i) shift 2;; *@*) shift; break;; esac; done\nexec sh -c \"$*\"\n",
            ),
            ("scp", "#!/bin/sh\n[ \"$1\" = -i ] && shift 2\nexec cp \"$1\" \"${2#*:}\"\n"),
        ] {
            std::fs::write(stand_ins.join(name), text).unwrap();
            run(Command::new("chmod").arg("+x").arg(stand_ins.join(name)), LIMIT);
        }
        let ran = in_root(&root, vmcore, &["/bin/sh", "/kdump-config", "savecore"]);
        assert!(ran.status.success(), "{release}: {}{}", ran.stdout, ran.stderr);
        let file = saved(&root);
        assert!(
            file("dump.").is_some_and(|bytes| bytes == flat(&["-z"], vmcore)),
            "{release}: {}{}",
            ran.stdout,
            ran.stderr
        );
        assert_eq!(file("dmesg."), Some(log(&[], vmcore)), "{release}");
    }
}

/// The directives of dist/kdump-utils/kdump.conf, as installed.
fn core_collectors() -> Vec<String> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/kdump-utils/kdump.conf")).unwrap();
    let wrapper = format!("{}/dist/makedumpfile/makedumpfile", env!("CARGO_MANIFEST_DIR"));
    let lines = text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix("core_collector "));
    lines.map(|line| line.replace("/usr/libexec/xdump-cut/makedumpfile", &wrapper)).collect()
}

/// As kdump.sh of kdump-utils calls what core_collector names: into a file, `| ssh ... dd`, and `| dd of=` a disk, which
/// `kdumpctl start` later restores the dump from with makedumpfile -R.
#[test]
fn kdump_utils_core_collectors_work() {
    let vmcore = &dump().vmcore;
    let [wrapper, plain, piped] = &core_collectors()[..] else { panic!("three forms in kdump.conf") };
    let dir = folder("kdump-utils");
    let made = cut(&["-z"], vmcore, &dir.join("made"));
    let stream = flat(&["-z"], vmcore);
    // kdump.sh adds these where "makedumpfile" is in the name.
    for collector in [&format!("{wrapper} --num-threads=2"), plain] {
        let out = dir.join("vmcore-incomplete");
        let ran = script_with(&["dash"], &format!("{collector} \"$1\" \"$2\" && sync -f \"$2\""), &[vmcore, &out], "");
        assert!(ran.status.success(), "{collector}: {}", ran.stderr);
        assert!(read(&out) == made, "{collector}");
        std::fs::remove_file(out).unwrap();
    }
    for collector in [&format!("{wrapper} -F"), piped] {
        let [flat, disk, back] = ["vmcore.flat", "disk", "vmcore"].map(|name| dir.join(name));
        let ran = script_with(&["dash"], &format!("{collector} \"$1\" | dd bs=512 of=\"$2\""), &[vmcore, &flat], "");
        assert!(ran.status.success() && read(&flat) == stream, "{collector}: {}", ran.stderr);
        // A disk keeps behind the dump what it held before.
        std::fs::write(&disk, vec![0xa5; 32 << 20]).unwrap();
        let onto = format!(
            "{collector} \"$1\" | dd of=\"$2\" bs=512 conv=notrunc && /usr/bin/makedumpfile -R \"$3\" < \"$2\""
        );
        let ran = script_with(&["dash"], &onto, &[vmcore, &disk, &back], "");
        assert!(ran.status.success(), "{collector}: {}{}", ran.stdout, ran.stderr);
        let again = dir.join("again");
        assert!(cut(&["-z"], &back, &again) == made, "{collector}");
        assert!(cut(&["-z"], &disk, &again) == made, "{collector}: from the disk itself");
        std::fs::remove_file(back).unwrap();
    }
}

/// As openSUSE's kdump-save does it: bash evaluates KDUMP_PRESCRIPT, then calls makedumpfile into a FIFO that
/// another program reads.
#[test]
fn opensuses_settings_lead_to_a_cut() {
    let vmcore = &dump().vmcore;
    let root = folder("opensuse");
    install(&root, "/usr/local");
    let settings = root.join("usr/local/share/doc/xdump-cut/opensuse-kdump");
    let script = r#"
        . "$1"
        for program in $KDUMP_REQUIRED_PROGRAMS; do
            case $program in /*) [ -x "$4$program" ] ;; *) command -v "$program" ;; esac || exit 9
        done >&2
        KDUMP_PRESCRIPT=${KDUMP_PRESCRIPT//\/usr\/local/$4\/usr\/local}
        PATH=$4/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
        eval "$KDUMP_PRESCRIPT"
        case $KDUMP_DUMPFORMAT in zstd) format=-z ;; ELF) format=-E ;; compressed) format=-c ;; esac
        mkfifo "$3/fifo"
        save() { cat "$3/fifo" > "$3/$1"; }
        makedumpfile -F --message-level 8 --dump-dmesg "$2" > "$3/fifo" &
        cat "$3/fifo" > "$3/dmesg"; wait $! || exit 1
        eval "makedumpfile -F $format --num-threads 2 --message-level 6 -d $KDUMP_DUMPLEVEL $MAKEDUMPFILE_OPTIONS $2 > $3/fifo" &
        cat "$3/fifo" > "$3/vmcore"; wait $!"#;
    let out = folder("opensuse-out");
    let ran = run(Command::new("bash").arg("-c").arg(script).arg("bash").args([&settings, vmcore, &out, &root]), LIMIT);
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(read(&out.join("dmesg")), log(&[], vmcore));
    assert!(read(&out.join("vmcore")) == flat(&["-z"], vmcore), "{}", ran.stderr);
}
