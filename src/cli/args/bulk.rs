//! `bulk`.

use super::form::Form;
use super::values::{number, threads};
use super::{Limits, ReportFormat};
use clap::ValueEnum;
use std::path::PathBuf;

/// Which dumps, and where their cuts go.
#[derive(Clone, Debug, clap::Args)]
pub struct BulkArgs {
    /// Folders, or files. Of a folder every file below it is looked at, and what is no Xen dump is left alone.
    #[arg(value_name = "SRC", required_unless_present_any = ["work", "collect"], conflicts_with_all = ["work", "collect"])]
    pub sources: Vec<PathBuf>,
    /// The folder of the cuts, made if need be. A dump a/vmcore below SRC becomes DIR/a/vmcore.kdump (.elf, .elf.zst, .core); with
    /// several SRC, below the last name of each. It may be within SRC.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["work", "collect"], conflicts_with_all = ["work", "collect"])]
    pub out: Option<PathBuf>,
    /// The folder of manifest.jsonl and manifest.d. The default is DIR; one is needed if DIR is a URL.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["work", "collect"])]
    pub manifest: Option<PathBuf>,
    /// Write the work list LIST, of what would be done, and do nothing of it: entries of about the same expected cost, for a
    /// Slurm array job, a Kubernetes indexed Job or GNU parallel. Prints how many entries it has.
    #[arg(long, value_name = "LIST")]
    pub plan: Option<PathBuf>,
    /// How many entries; the default is as many as keep each near the cost of the most expensive dump, 1000 at most.
    #[arg(long, value_name = "N", requires = "plan", value_parser = number)]
    pub entries: Option<usize>,
    /// Do one entry of LIST, as LIST says. What is done already is left; two runs of one entry exclude each other.
    #[arg(long, value_name = "LIST", requires = "index", conflicts_with = "plan")]
    pub work: Option<PathBuf>,
    /// Which entry, from 0 on.
    #[arg(long, value_name = "N", requires = "work")]
    pub index: Option<usize>,
    /// Merge what the entries of LIST wrote into DIR/manifest.jsonl, and tell what is missing.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["plan", "work"])]
    pub collect: Option<PathBuf>,
    /// What is cut out, and how it is written.
    #[command(flatten)]
    pub form: Form,
    /// Read each output again when it is written and compare each page with the source, before the output gets its name.
    #[arg(long)]
    pub verify: bool,
    /// Compute a digest of all pages of each cut (BLAKE3): in the cut's note, and in the manifest.
    #[arg(long)]
    pub digest: bool,
    /// Take damaged input for an error.
    #[arg(long)]
    pub strict: bool,
    /// Overwrite files that stand in DIR and are not known to be cuts of the same dumps.
    #[arg(short, long)]
    pub force: bool,
    /// Try what failed for good once more, and what was left as no Xen dump. Otherwise only another version of xdump-cut does, or
    /// other options.
    #[arg(long)]
    pub retry: bool,
    /// Follow links to files and folders below SRC.
    #[arg(long)]
    pub follow: bool,
    /// When a cut is there, move its dump below FOLDER, with the tree mirrored. As with --delete-source, each cut is verified
    /// first (--verify), and a dump stays if its cut has any warning, if pages of the domain are missing, or if it has changed.
    #[arg(long = "move", value_name = "FOLDER", conflicts_with_all = ["delete_source", "plan", "collect"])]
    pub move_to: Option<PathBuf>,
    /// When a cut is there, delete its dump.
    #[arg(long, conflicts_with_all = ["plan", "collect"])]
    pub delete_source: bool,
    /// Cut N dumps at a time. The default is one for each thread, fewer if memory is limited; 16 at most.
    #[arg(short, long, value_name = "N", value_parser = threads)]
    pub jobs: Option<usize>,
    /// Worker threads for all dumps together. Outputs are the same for any number. The default is one per CPU that may be used.
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// What the work may take, all of it together.
    #[command(flatten)]
    pub limits: Limits,
    /// How progress is told on standard error. The default is bars on a terminal, and lines elsewhere.
    #[arg(long, value_enum, value_name = "FORM")]
    pub progress: Option<ProgressForm>,
    /// How the summary is printed on standard output.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub report: ReportFormat,
    /// No progress and no summary; failures and warnings still go to standard error.
    #[arg(short, long)]
    pub quiet: bool,
    /// Read dumps instead of mapping them.
    #[arg(long)]
    pub no_mmap: bool,
    /// Where dumps are unpacked that cannot be read in place. The default is TMPDIR, or /tmp.
    #[arg(long, value_name = "DIR")]
    pub tmp_dir: Option<PathBuf>,
}

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressForm {
    /// A bar for each dump that is being cut, and one for all, by bytes.
    Bars,
    /// A line when a dump is done.
    Lines,
    /// A line of JSON when a dump is begun, and when it is done.
    Json,
}
