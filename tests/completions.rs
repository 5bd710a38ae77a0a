//! Completions for shells are made from the command line's own definition; this test compares, tries them in the shells, and
//! rewrites them with `UPDATE=1 cargo test --test completions`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use clap::CommandFactory;
use clap_complete::Shell;
use std::path::{Path, PathBuf};
use std::process::Command;
use xdump_cut::cli::args::Args;

const FILES: [(Shell, &str); 3] =
    [(Shell::Bash, "xdump-cut.bash"), (Shell::Zsh, "_xdump-cut"), (Shell::Fish, "xdump-cut.fish")];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/completions").join(name)
}

#[test]
fn the_completions_tell_what_the_command_line_is() {
    for (shell, name) in FILES {
        let mut made = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "xdump-cut", &mut made);
        let path = path(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        assert!(
            std::fs::read(&path).is_ok_and(|there| there == made),
            "{} is not up to date: UPDATE=1 cargo test --test completions",
            path.display()
        );
    }
}

fn asked(shell: &str, script: &str, name: &str) -> String {
    let out = Command::new(shell).arg("-c").arg(script).arg(shell).arg(path(name)).output();
    let out = out.unwrap_or_else(|e| panic!("{shell}: {e}: run .ci/tools"));
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{shell}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

#[test]
fn shells_complete_options_and_commands() {
    let bash = "source \"$1\"; COMP_WORDS=(xdump-cut --ver); COMP_CWORD=1; _xdump-cut xdump-cut --ver xdump-cut; \
                echo \"${COMPREPLY[@]}\"; COMP_WORDS=(xdump-cut inf); _xdump-cut xdump-cut inf xdump-cut; echo \"${COMPREPLY[@]}\"";
    assert_eq!(asked("bash", bash, "xdump-cut.bash"), "--verify --version\ninfo\n");
    let fish = "source $argv[1]; complete -C 'xdump-cut --ver'; complete -C 'xdump-cut inf'";
    let said = Command::new("fish").args(["--no-config", "-c", fish]).arg(path("xdump-cut.fish")).output();
    let said = said.unwrap_or_else(|e| panic!("fish: {e}: run .ci/tools"));
    let text = String::from_utf8(said.stdout).unwrap();
    for word in ["--verify\t", "--version\t", "info\t"] {
        assert!(
            text.lines().any(|line| line.starts_with(word)),
            "{word}: {text}{}",
            String::from_utf8_lossy(&said.stderr)
        );
    }
    // zsh completes in a terminal only: that it takes the file for a completion of xdump-cut is what can be asked here.
    let zsh = "fpath=(${1:h} $fpath); autoload -Uz compinit; compinit -u -D; echo $_comps[xdump-cut]; autoload +X _xdump-cut && echo loaded";
    assert_eq!(asked("zsh", zsh, "_xdump-cut"), "_xdump-cut\nloaded\n");
}
