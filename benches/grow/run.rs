//! Grows a real dump: `cargo run --release --example grow -- FIXTURE OUT --machine 1T --dom0 512M` (benches/README.md).
#![allow(missing_docs, clippy::indexing_slicing)]

#[path = "mod.rs"]
mod grow;

use clap::Parser;
use std::path::PathBuf;

/// Makes a dump of a larger machine from a real one.
#[derive(Debug, Parser)]
struct Args {
    /// A dump of a machine with a PV dom0, or its .zst.
    fixture: PathBuf,
    /// What is made; a file with holes.
    out: PathBuf,
    /// RAM of the machine, as in 1T.
    #[arg(long, value_parser = bytes)]
    machine: u64,
    /// Memory of dom0; the fixture's if not given.
    #[arg(long, value_parser = bytes)]
    dom0: Option<u64>,
    /// Further domains.
    #[arg(long, default_value_t = 0)]
    domains: u16,
    /// Memory of each of them.
    #[arg(long, value_parser = bytes, default_value = "16M")]
    domain: u64,
    /// How much of dom0's new memory lies together on the machine.
    #[arg(long, value_parser = bytes, default_value = "2M")]
    run: u64,
}

fn bytes(text: &str) -> Result<u64, String> {
    let shift = match text.chars().last() {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => 0,
    };
    let number = text.trim_end_matches(['K', 'M', 'G', 'T']).parse::<u64>().map_err(|e| e.to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too much".into())
}

fn main() -> grow::Result<()> {
    let args = Args::parse();
    let wish = grow::Wish {
        machine: args.machine,
        dom0: args.dom0,
        domains: args.domains,
        domain: args.domain,
        run: args.run / 4096,
    };
    grow::grow(&args.fixture, &args.out, &wish)
}
