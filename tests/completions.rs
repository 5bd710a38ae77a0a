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
        // clap_complete 4.6.11 spells a name with a dash in two ways, and so never comes to the options of commands in bash.
        let made = String::from_utf8(made).unwrap().replace("xdump__subcmd__cut", "xdump__cut");
        let path = path(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).is_ok_and(|there| there == made),
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
    let bash = r#"source "$1"
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _xdump__cut "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"; echo "${COMPREPLY[@]}"; }
        try xdump-cut --ver; try xdump-cut inf; try xdump-cut info --xe; try xdump-cut vmcore out --report j"#;
    assert_eq!(asked("bash", bash, "xdump-cut.bash"), "--verify --version\ninfo\n--xen-syms\njson\n");
    let fish = "source $argv[1]; complete -C 'xdump-cut --ver'; complete -C 'xdump-cut inf'; complete -C 'xdump-cut info --xe'";
    let said = Command::new("fish").args(["--no-config", "-c", fish]).arg(path("xdump-cut.fish")).output();
    let said = said.unwrap_or_else(|e| panic!("fish: {e}: run .ci/tools"));
    let text = String::from_utf8(said.stdout).unwrap();
    for word in ["--verify\t", "--version\t", "info\t", "--xen-syms\t"] {
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
