//! The man page is made from the command line's own definition; this test compares, and rewrites it with
//! `UPDATE=1 cargo test --test man`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "man/sections.rs"]
mod sections;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use sections::MORE;
use std::path::Path;
use xdump_cut::cli::args::Args;

fn page() -> String {
    let mut command = Args::command();
    command.build();
    // The date would change with each build: the version says enough.
    let man = Man::new(command.clone()).date("").source(format!("xdump-cut {}", env!("CARGO_PKG_VERSION")));
    let mut out = Vec::new();
    man.render_title(&mut out).unwrap();
    man.render_name_section(&mut out).unwrap();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for form in [
        "[OPTIONS] VMCORE OUT",
        "[OPTIONS] --split PART... OUT",
        "info [--json] [--map [FILE.svg]] [--force] [--xen-syms FILE] [--no-mmap] [--tmp-dir DIR] VMCORE",
        "log [--domain ID|NAME | --xen] [--raw] [--xen-syms FILE] [--no-mmap] [--tmp-dir DIR] VMCORE",
        "mount [-d LEVEL] [--cache SIZE] [--xen-syms FILE] [--no-mmap] [--tmp-dir DIR] DUMP DIR",
        "mount [--domain ID|NAME] [OPTIONS] DUMP -- COMMAND [WORDS with {}]...",
        "check [--json | --quiet]",
        "info [OPTIONS] --split PART...",
        "log [OPTIONS] --split PART...",
        "mount [OPTIONS] --split PART... DIR",
    ] {
        roff.text([bold("xdump-cut"), roman(format!(" {form}"))]).control("br", []);
    }
    roff.to_writer(&mut out).unwrap();
    man.render_description_section(&mut out).unwrap();
    man.render_options_section(&mut out).unwrap();
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        let mut roff = Roff::new();
        roff.control(
            "SH",
            [&*format!("{} {}", "xdump-cut", sub.get_name().rsplit('-').next().unwrap()).to_uppercase()],
        );
        roff.text([roman(sub.get_long_about().or(sub.get_about()).unwrap().to_string())]);
        roff.to_writer(&mut out).unwrap();
        let mut options = Vec::new();
        Man::new(sub.clone()).render_options_section(&mut options).unwrap();
        out.extend(String::from_utf8(options).unwrap().replacen(".SH OPTIONS\n", "", 1).into_bytes());
    }
    let mut roff = Roff::new();
    for (title, paragraphs) in MORE {
        roff.control("SH", [*title]);
        for (term, text) in *paragraphs {
            roff.control(if term.is_empty() { "PP" } else { "TP" }, []);
            if !term.is_empty() {
                roff.text([bold(*term)]);
            }
            roff.text([roman(*text)]);
        }
    }
    roff.to_writer(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn man_page_says_what_the_command_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/xdump-cut.1");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "man/xdump-cut.1 is not what the command line says; run UPDATE=1 cargo test --test man");
}

/// The statuses in the page are those of the program.
#[test]
fn exit_statuses_are_listed() {
    use xdump_cut::cli::exit::Exit;
    let listed = MORE.iter().find(|s| s.0 == "EXIT STATUS").unwrap().1.iter().map(|p| p.0);
    let listed: Vec<&str> = listed.filter(|name| name.parse::<u8>().is_ok()).collect();
    let known =
        [Exit::Success, Exit::BadInput, Exit::Usage, Exit::Trouble, Exit::Nothing].map(|e| (e as u8).to_string());
    assert_eq!(listed, known);
}
