//! `check`: whether a crash of this host would give a good dump.

use super::exit::Exit;
use crate::check::{Check, Host, Verdict};
use std::path::PathBuf;

/// What to tell, and of which host.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print only what is not ok; nothing if all is.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// Look at a recorded tree instead of the running system.
    #[arg(long, value_name = "DIR", hide = true)]
    pub root: Option<PathBuf>,
}

/// Looks, and prints; the verdict is the exit status.
pub(super) fn check(args: &CheckArgs) -> Exit {
    let check = Check::of(&args.root.clone().map_or(Host::Live, Host::Recorded));
    let text = if args.json { format!("{}\n", super::json(&check)) } else { check.lines(args.quiet) };
    if let Err(e) = super::print(&text) {
        super::complain(&format!("xdump-cut: check: {e}"));
        return Exit::from(e.kind());
    }
    match check.verdict {
        Verdict::Good => Exit::Success,
        Verdict::Bad => Exit::BadInput,
        Verdict::Unknown => Exit::Trouble,
    }
}
