//! What `dist/install` puts where, and the files in it that other programs read: units, man pages, scripts.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::installed::{LIMIT, folder, install};
use support::tools::{run, tool};

/// Files below `root` with their modes.
fn files(root: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                found.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), mode));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn install_puts_all_files_below_destdir() {
    let root = folder("install");
    install(&root, "/usr");
    let expected = [
        ("etc/xdump-cut/saved.conf", 0o644),
        ("usr/bin/xdump-cut", 0o755),
        ("usr/lib/systemd/system/xdump-cut-saved.path", 0o644),
        ("usr/lib/systemd/system/xdump-cut-saved.service", 0o644),
        ("usr/libexec/xdump-cut/makedumpfile", 0o755),
        ("usr/libexec/xdump-cut/xdump-cut-saved", 0o755),
        ("usr/share/bash-completion/completions/xdump-cut", 0o644),
        ("usr/share/doc/xdump-cut/LICENSE-APACHE", 0o644),
        ("usr/share/doc/xdump-cut/LICENSE-MIT", 0o644),
        ("usr/share/doc/xdump-cut/README.md", 0o644),
        ("usr/share/doc/xdump-cut/kdump-tools.conf", 0o644),
        ("usr/share/doc/xdump-cut/kdump-utils.conf", 0o644),
        ("usr/share/doc/xdump-cut/kubernetes/collect.yaml", 0o644),
        ("usr/share/doc/xdump-cut/kubernetes/plan.yaml", 0o644),
        ("usr/share/doc/xdump-cut/kubernetes/work.yaml", 0o644),
        ("usr/share/doc/xdump-cut/opensuse-kdump", 0o644),
        ("usr/share/doc/xdump-cut/parallel/xdump-cut-parallel", 0o755),
        ("usr/share/doc/xdump-cut/slurm/collect.sbatch", 0o644),
        ("usr/share/doc/xdump-cut/slurm/submit", 0o755),
        ("usr/share/doc/xdump-cut/slurm/work.sbatch", 0o644),
        ("usr/share/fish/vendor_completions.d/xdump-cut.fish", 0o644),
        ("usr/share/man/man1/xdump-cut.1", 0o644),
        ("usr/share/man/man7/xdump-cut-bulk.7", 0o644),
        ("usr/share/man/man7/xdump-cut-kdump.7", 0o644),
        ("usr/share/zsh/site-functions/_xdump-cut", 0o644),
    ]
    .map(|(name, mode)| (name.to_owned(), mode));
    assert_eq!(files(&root), expected);
}

/// systemd takes the units, and finds what they start. It is not run.
#[test]
fn systemd_takes_the_units() {
    let root = folder("units");
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/install"));
    command
        .env("PREFIX", root.join("usr"))
        .env("SYSCONFDIR", root.join("etc"))
        .env_remove("DESTDIR")
        .env_remove("UNITDIR");
    let ran = run(command.env("PROGRAM", env!("CARGO_BIN_EXE_xdump-cut")), LIMIT);
    assert!(ran.status.success(), "{}", ran.stderr);
    let units = ["service", "path"].map(|end| root.join(format!("usr/lib/systemd/system/xdump-cut-saved.{end}")));
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output();
    let verify = verify.unwrap_or_else(|e| panic!("systemd-analyze: {e}: run .ci/tools"));
    // It looks at the machine's own units as well.
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("xdump-cut")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn install_fills_in_the_folders_and_keeps_settings() {
    let root = folder("install");
    install(&root, "/opt/xdump-cut");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let service = read("opt/xdump-cut/lib/systemd/system/xdump-cut-saved.service");
    assert!(service.contains("ExecStart=/opt/xdump-cut/libexec/xdump-cut/xdump-cut-saved"), "{service}");
    let doc = |name: &str| read(&format!("opt/xdump-cut/share/doc/xdump-cut/{name}"));
    assert!(doc("kdump-tools.conf").contains("PATH=/opt/xdump-cut/libexec/xdump-cut:/bin"));
    assert!(doc("kdump-utils.conf").contains("extra_bins /opt/xdump-cut/bin/xdump-cut"));
    assert!(doc("opensuse-kdump").contains("KDUMP_PRESCRIPT='PATH=/opt/xdump-cut/libexec/xdump-cut:$PATH'"));
    std::fs::write(root.join("etc/xdump-cut/saved.conf"), "KEEP=no\n").unwrap();
    install(&root, "/opt/xdump-cut");
    assert_eq!(read("etc/xdump-cut/saved.conf"), "KEEP=no\n");

    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/install"));
    let ran = run(command.env("DESTDIR", &root).env("PROGRAM", root.join("nothing")), LIMIT);
    assert!(ran.status.code() == Some(1) && ran.stderr.contains("is missing: cargo build"), "{}", ran.stderr);
}

/// The Debian package, made of what was built for this test, has the same files, at Debian's places.
#[test]
fn the_debian_package_has_what_install_has() {
    let [root, package] = [folder("install"), folder("deb")];
    install(&root, "/usr");
    let deb = package.join("xdump-cut.deb");
    let built = Path::new(env!("CARGO_BIN_EXE_xdump-cut")).parent().unwrap();
    let profile = if built.ends_with("release") { "release" } else { "dev" };
    let mut make = Command::new(tool("cargo-deb"));
    make.args(["--no-build", "--strip", "--profile", profile, "--manifest-path"]);
    make.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).arg("--output").arg(&deb);
    let ran = run(make.env("CARGO_TARGET_DIR", built.parent().unwrap()), LIMIT);
    assert!(ran.status.success(), "{}", ran.stderr);
    let fields = run(Command::new("dpkg-deb").arg("-f").arg(&deb), LIMIT).stdout;
    assert!(fields.contains("Package: xdump-cut\n") && fields.contains("Depends: libc6"), "{fields}");

    let unpacked = package.join("root");
    let ran = run(Command::new("dpkg-deb").arg("-x").args([&deb, &unpacked]), LIMIT);
    assert!(ran.status.success(), "{}", ran.stderr);
    let there = files(&unpacked).into_iter().map(|(name, mode)| {
        let name = name.replace("zsh/vendor-completions", "zsh/site-functions");
        (name.strip_suffix(".gz").map(str::to_owned).unwrap_or(name), mode)
    });
    let there: Vec<_> = there.filter(|(name, _)| !name.ends_with("/copyright")).collect();
    // Debian has licences in the copyright file.
    let installed: Vec<_> = files(&root).into_iter().filter(|(name, _)| !name.contains("LICENSE")).collect();
    assert_eq!(there, installed);
    let ran = run(Command::new(unpacked.join("usr/bin/xdump-cut")).arg("--version"), LIMIT);
    assert_eq!(ran.stdout, format!("xdump-cut {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn man_pages_are_well_formed() {
    // What clap_mangen writes has paragraph macros too many, which are warnings.
    for (page, least) in
        [("man/xdump-cut.1", "error"), ("man/xdump-cut-kdump.7", "warning"), ("man/xdump-cut-bulk.7", "warning")]
    {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", least]).arg(&page).output();
        let lint = lint.unwrap_or_else(|e| panic!("mandoc: {e}: run .ci/tools"));
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    }
}

/// Capture kernels' small systems have no more than a POSIX shell.
#[test]
fn scripts_are_for_any_shell() {
    let dist = ["install", "makedumpfile/makedumpfile", "systemd/xdump-cut-saved"];
    let engines = ["slurm/submit", "slurm/work.sbatch", "slurm/collect.sbatch", "parallel/xdump-cut-parallel"];
    for name in dist.iter().chain(&engines).chain(&["../tests/engines/cluster"]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("#!/bin/sh\n"));
        let check = Command::new("shellcheck").args(["-s", "sh"]).arg(&path).output();
        let check = check.unwrap_or_else(|e| panic!("shellcheck: {e}: run .ci/tools"));
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }
}
