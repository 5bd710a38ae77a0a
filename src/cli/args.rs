//! What can be typed. `--help` and the man page are made from these comments.

mod bulk;
mod form;
mod values;

pub use bulk::{BulkArgs, ProgressForm};
pub use form::{Compression, Form, OutputFormat};

use super::check::CheckArgs;
use crate::error::Error;
use crate::options::Which;
use crate::plan::level::Level;
use clap::{Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use values::{duration, level, memory, size, threads};

/// Cut a domain out of a full Xen system dump, as a dump that crash, drgn and gdb open.
///
/// Reads a full dump as kdump saves it under Xen, makedumpfile compresses it or QEMU makes it of a virtual Xen host (x86_64),
/// ELF or kdump-compressed, flattened, split, and within zstd, gzip, xz, lz4 or bzip2, and writes a dump in which the domain,
/// dom0 if no other is named, looks as if it had run on bare metal: pages at pseudo-physical addresses, a PV domain's page
/// tables rewritten from MFN to PFN, its kernel's own VMCOREINFO and the registers of its vCPUs. Needs neither vmlinux nor
/// xen-syms. Zero, free and other domains' pages stay out.
#[derive(Debug, Parser)]
#[command(name = "xdump-cut", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// Other commands.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The cut.
    #[command(flatten)]
    pub cut: Cut,
}

/// Other commands than cutting.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell what a Xen dump holds.
    ///
    /// Prints Xen's version and build, the notes, physical CPUs and which of them crashed, page classes, and of each domain
    /// its name, kernel release, pages, vCPUs, and P2M: from which source it was read, how much of it Xen confirms, and what
    /// was repaired. With --map, it draws the machine's memory.
    #[command(override_usage = "xdump-cut info [OPTIONS] VMCORE")]
    Info(InfoArgs),
    /// Print dom0's kernel log, another domain's, or Xen's console ring, as dmesg would.
    ///
    /// The kernel's own ring is read, of whichever generation, by what its VMCOREINFO and kallsyms tell; Xen's is found by its
    /// shape. Neither vmlinux nor xen-syms is needed. Oldest lines come first, cleared ones (dmesg -c, xl dmesg -c) too, as
    /// far as they were not overwritten. Bytes that are not printable ASCII stand as \xNN. What is missing or damaged is
    /// left out, and told on standard error.
    Log(LogArgs),
    /// Show a cut, or each domain of a full dump, as an ELF vmcore in a folder, without writing a byte.
    ///
    /// Mounts a read-only file system (FUSE). Of a full dump DIR has a file for each domain, dom0, dom3-web and so on, made
    /// when it is first looked at; of a cut, in any format, it has the file vmcore. So crash opens a compressed ELF file, and
    /// every domain of a dump at once. Mounted until DIR is unmounted (umount DIR; fusermount3 -u DIR), or a signal comes
    /// (Ctrl-C). With -- COMMAND, on a folder of its own until the command has ended: {} in its words stands for the file.
    #[command(
        override_usage = "xdump-cut mount [OPTIONS] DUMP DIR\n       xdump-cut mount [OPTIONS] DUMP -- COMMAND [WORDS with {}]..."
    )]
    Mount(MountArgs),
    /// Cut every dump under some folders, on one machine or on many.
    ///
    /// Looks at every file below SRC, and cuts dom0, or the domain that is named, out of each Xen dump, in any form that can be cut
    /// (by content; split dumps whose parts are in one folder too), several at once within one budget of threads and memory. What
    /// became of each input is a line of JSON in DIR/manifest.jsonl. The same command again goes on where it was killed, skips what
    /// is done and unchanged, and tries again what failed for a reason that may pass. Nothing but whole cuts has a final name.
    ///
    /// For many machines, --plan writes a work list, --work does one entry of it, --collect tells whether all are done: engines
    /// that exist run them (Slurm, Kubernetes, GNU parallel; see xdump-cut-bulk(7)).
    ///
    /// The exit status is 0 if every dump is cut, 1 if some failed for good, 3 if some failed for a reason that may pass, or were
    /// not done yet: the same command again may help; 4 if none could be cut, or there is none; 2 if the call was wrong.
    #[command(
        override_usage = "xdump-cut bulk [OPTIONS] SRC... --out DIR\n       xdump-cut bulk --plan LIST [--entries N] [OPTIONS] SRC... --out DIR\n       xdump-cut bulk --work LIST --index N [OPTIONS]\n       xdump-cut bulk --collect LIST"
    )]
    Bulk(Box<BulkArgs>),
    /// Tell whether a crash of this host, now, would give a good dump.
    ///
    /// To be run in dom0, as root, before any crash: whether this Xen, this kernel and this version of the tool fit together,
    /// what the crash kernel's reservation must be and is, whether a crash kernel is loaded, whether there is room. A line for
    /// each matter: ok, warn, FAIL or unknown, what was seen, and the way out. Nothing is changed. The exit status is 0 if nothing
    /// fails, 1 if a crash now would not give a good dump, 3 if nothing fails but something that decides could not be looked at.
    Check(CheckArgs),
}

/// How to cut.
#[derive(Clone, Debug, clap::Args)]
pub struct Cut {
    /// The dump: ELF or kdump-compressed, flattened or not, or a file of xl dump-core; within zstd, gzip, xz, lz4 or bzip2 or
    /// not; a file, a block device, /proc/vmcore, a URL (s3://, gs://, http://, https://), or - for standard input.
    #[arg(required = true)]
    pub vmcore: Option<PathBuf>,
    /// The file to write, or with --all-domains the folder; - is standard output, flattened. A file is written as
    /// OUT.incomplete, synced and renamed; s3:// and gs:// name objects.
    #[arg(required_unless_present_any = ["split", "dry_run", "flatten", "dump_dmesg"])]
    pub out: Option<PathBuf>,
    /// With --split: the further parts stand between VMCORE and OUT.
    #[arg(hide = true, requires = "split")]
    pub more: Vec<PathBuf>,
    /// With a number, 2 to 256: write N files, OUT.1 to OUT.N, each of a share of the pages (kdump format); crash wants all of them
    /// behind the vmlinux, makedumpfile --reassemble joins them. Without: the dump is split, and all arguments but the last
    /// are its parts, in any order. Pages of parts that are not given are missing.
    #[arg(long, value_name = "N", num_args = 0..=1)]
    pub split: Option<Option<PathBuf>>,
    /// Write a flattened stream (makedumpfile -F), for pipes: crash opens a file of it, and makedumpfile -R makes an
    /// ordinary file of it. Chosen by itself where OUT is -; without OUT it goes there.
    #[arg(short = 'F', long)]
    pub flatten: bool,
    /// Let no file grow beyond SIZE bytes (or with K, M, G, T behind it). What does not fit is left out, the file is marked
    /// incomplete, stays under its name with .incomplete, and the exit status is 3. The same happens when the disk is full. Of
    /// a split output all files end with the first that is full.
    #[arg(short = 'L', long, value_name = "SIZE", value_parser = size)]
    pub limit: Option<u64>,
    /// Write nothing, and tell what would be written: pages by class, and the size in each format, at most and estimated from
    /// a sample of the pages. With OUT, also whether there is room for it. OUT may be left out.
    #[arg(long)]
    pub dry_run: bool,
    /// Read the output again when it is written and compare each page with the source, before the output gets its name.
    #[arg(long)]
    pub verify: bool,
    /// Compute a digest of all pages (BLAKE3), which is the same for all formats of one cut: on the last line of the
    /// XDUMPCUT note, and in the report.
    #[arg(long)]
    pub digest: bool,
    /// Take damaged input for an error: anything that is cut short, broken or contradictory in it. Otherwise what is readable
    /// is used, and the rest told in the report.
    #[arg(long)]
    pub strict: bool,
    /// What is cut out, and how it is written.
    #[command(flatten)]
    pub form: Form,
    /// Cut out every domain: OUT is a folder, which is made if need be, and gets a file for each, named dom0.kdump,
    /// dom3-web.kdump and so on (.elf with -E, .elf.zst, .core with --format xc-core). One that cannot be cut does not keep the others from it.
    #[arg(long, conflicts_with = "domain")]
    pub all_domains: bool,
    /// Where pages stand in the output, and what is altered. The xc-core format has a layout of its own.
    #[arg(long, value_enum, default_value = "native")]
    pub layout: OutputLayout,
    /// Keep Xen's own memory too, so that crash opens the output with xen-syms: image, heap, frame table, M2P, page tables;
    /// no free page, and no memory of another domain. Needs --layout machine. Unlike all else its cost follows the machine:
    /// each of its frames is looked up in the frame table, 8 GiB of it per TiB.
    #[arg(long)]
    pub keep_xen: bool,
    /// Overwrite OUT if it exists.
    #[arg(short, long)]
    pub force: bool,
    /// The VMCOREINFO of the domain's kernel, in a file as makedumpfile -g writes it (or a copy of the kernel's note), to be
    /// believed before the one in the dump, which has the word on what it lacks: files of makedumpfile say nothing of page
    /// types. With --all-domains, this and what follows is used for the domains whose kernel it fits.
    #[arg(short = 'i', long, value_name = "FILE")]
    pub vmcoreinfo: Option<PathBuf>,
    /// The domain's kernel with debugging information: symbols where its own kallsyms, and structure layouts where its own
    /// VMCOREINFO, cannot be found in the dump.
    #[arg(short = 'x', long, value_name = "FILE")]
    pub vmlinux: Option<PathBuf>,
    /// The same symbols from a System.map.
    #[arg(long, value_name = "FILE", conflicts_with = "vmlinux")]
    pub system_map: Option<PathBuf>,
    /// The host's xen-syms (Xen's ELF file with .symtab, DWARF if it has any), for a dump without Xen's notes, as QEMU's and
    /// libvirt's dump-guest-memory make them. Such a dump is cut without it too, if Xen can be found in memory.
    #[arg(long, value_name = "FILE")]
    pub xen_syms: Option<PathBuf>,
    /// How the report at the end is printed on standard output.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub report: ReportFormat,
    /// No progress and no report; warnings still go to standard error.
    #[arg(short, long)]
    pub quiet: bool,
    /// Worker threads. The output is the same for any number. The default is one per CPU that may be used, by affinity and by
    /// the cgroup's quota.
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Logs that are saved first.
    #[command(flatten)]
    pub logs: Logs,
    /// What the work may take.
    #[command(flatten)]
    pub limits: Limits,
    /// Read the dump instead of mapping it: slower, but a dump that shrinks or fails while it is read gives an error and
    /// not a SIGBUS.
    #[arg(long)]
    pub no_mmap: bool,
    /// Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp.
    #[arg(long, value_name = "DIR")]
    pub tmp_dir: Option<PathBuf>,
}

/// Logs to be saved before the cut.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Logs {
    /// Save the domain's kernel log in FILE before anything else, as `xdump-cut log` prints it. Where that fails there is a
    /// warning, and the cut is made all the same. With two names in all, as in makedumpfile's --dump-dmesg VMCORE FILE, the log
    /// is all that is written.
    #[arg(long, value_name = "FILE")]
    pub dump_dmesg: Option<PathBuf>,
    /// Save Xen's console ring in FILE, likewise.
    #[arg(long, value_name = "FILE")]
    pub dump_xen_dmesg: Option<PathBuf>,
}

/// What the work may take.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Limits {
    /// Take SIZE bytes of memory at most (or with K, M, G, T behind it; 16M is the least): fewer threads, fewer pages in hand,
    /// and the dump mapped in small windows. What is known of each of the domain's pages, two bits and more, has to fit;
    /// there is a warning if it does not. The default is no limit; for /proc/vmcore it is a quarter of MemAvailable.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// Stop writing after so long, counted from the start: seconds, or with s, m or h behind it. What was written by then is left
    /// as with -L. SIGTERM, SIGINT and SIGHUP end a cut in the same way, and a second one at once.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// What to tell of.
#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    /// The dump, in any form that can be cut; - is standard input.
    #[arg(required_unless_present = "map")]
    pub vmcore: Option<PathBuf>,
    /// With --split: the further parts.
    #[arg(hide = true, requires = "split")]
    pub more: Vec<PathBuf>,
    /// The dump is split: all arguments are its parts.
    #[arg(long)]
    pub split: bool,
    /// The host's xen-syms, for a dump without Xen's notes.
    #[arg(long, value_name = "FILE")]
    pub xen_syms: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Draw the machine's memory by owner (dom0, each domain, Xen, free, I/O), and where it is all zeros, with a legend that
    /// sums up to all of it: below the text, or as a picture in FILE.svg. A name that does not end in .svg is the dump's. All
    /// pages are looked at; on a machine of more than 8 GiB a sample of that size, and the figures are estimates.
    #[arg(long, value_name = "FILE.svg", num_args = 0..=1)]
    pub map: Option<Option<PathBuf>>,
    /// Overwrite FILE.svg if it exists.
    #[arg(short, long, requires = "map")]
    pub force: bool,
    /// Read the dump instead of mapping it.
    #[arg(long)]
    pub no_mmap: bool,
    /// Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp.
    #[arg(long, value_name = "DIR")]
    pub tmp_dir: Option<PathBuf>,
}

/// Which log to print.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// The dump, in any form that can be cut; - is standard input.
    pub vmcore: PathBuf,
    /// With --split: the further parts.
    #[arg(hide = true, requires = "split")]
    pub more: Vec<PathBuf>,
    /// The dump is split: all arguments are its parts.
    #[arg(long)]
    pub split: bool,
    /// The domain: its id, or the name that dom0's toolstack knows it by. The default is dom0.
    #[arg(long, value_name = "ID|NAME")]
    pub domain: Option<Which>,
    /// Xen's console ring, as xl dmesg prints it.
    #[arg(long, conflicts_with_all = ["domain", "raw"])]
    pub xen: bool,
    /// Begin each line of a kernel's with facility and level, as dmesg -r does: <6>.
    #[arg(short, long)]
    pub raw: bool,
    /// The host's xen-syms, for a dump without Xen's notes, or one whose console ring cannot be found without.
    #[arg(long, value_name = "FILE")]
    pub xen_syms: Option<PathBuf>,
    /// Read the dump instead of mapping it.
    #[arg(long)]
    pub no_mmap: bool,
    /// Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp.
    #[arg(long, value_name = "DIR")]
    pub tmp_dir: Option<PathBuf>,
}

/// Files that an output may be split over.
const MOST_PARTS: usize = 256;

/// What to show, and where.
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// The dump, in any form that can be cut, or a cut, in any format.
    #[arg(value_name = "DUMP")]
    pub dump: PathBuf,
    /// The folder to mount on. Without it, -- and a command.
    #[arg(value_name = "DIR", required_unless_present = "run")]
    pub dir: Option<PathBuf>,
    /// With --split: the further parts stand between DUMP and DIR.
    #[arg(hide = true, requires = "split")]
    pub more: Vec<PathBuf>,
    /// The command, whose input, output and exit status are its own. {} in any of its words stands for the file of dom0, of the
    /// domain that --domain names, or of the cut.
    #[arg(last = true, value_name = "COMMAND")]
    pub run: Vec<OsString>,
    /// The dump is split: all arguments but DIR are its parts.
    #[arg(long)]
    pub split: bool,
    /// The domain that {} stands for: its id, or the name that dom0's toolstack knows it by. The default is dom0.
    #[arg(long, value_name = "ID|NAME", requires = "run")]
    pub domain: Option<Which>,
    /// What to leave out, as for a cut. The default is 0, for which the fewest of the kernel's structures need be read; bit 1
    /// does nothing, as zero pages are only known when they are read.
    #[arg(short = 'd', long = "dump-level", value_name = "LEVEL", value_parser = level)]
    pub level: Option<Level>,
    /// Keep SIZE bytes at most (or with K, M, G, T behind it) of what was unpacked or made, for the next who wants it. The
    /// default is 64M.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cache: Option<u64>,
    /// The host's xen-syms, for a dump without Xen's notes.
    #[arg(long, value_name = "FILE")]
    pub xen_syms: Option<PathBuf>,
    /// Read the dump instead of mapping it.
    #[arg(long)]
    pub no_mmap: bool,
    /// Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp.
    #[arg(long, value_name = "DIR")]
    pub tmp_dir: Option<PathBuf>,
}

/// Layouts of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputLayout {
    /// As if the domain had run on bare metal: pages by PFN, page tables rewritten, its own notes. For every reader.
    Native,
    /// As makedumpfile -X does it: pages by MFN, nothing altered, Xen's notes. For crash's and makedumpfile's own ways with
    /// Xen dumps.
    Machine,
}

/// Forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

impl Cut {
    /// Sorts out which name is what: the output is the last of all (of a dry run with --split too), and what stands behind
    /// --split is one of them unless it is a number.
    ///
    /// # Errors
    /// [`Error::Usage`] if one is missing.
    pub(super) fn settle(mut self) -> Result<Self, Error> {
        let named = self.split.clone().flatten().filter(|_| self.parts().is_none());
        if let Some(number) = named.as_ref().filter(|n| !n.exists()).and_then(|n| n.to_str()?.parse::<u64>().ok()) {
            return Err(Error::Usage(format!("--split {number}: a dump can be split over 2 to {MOST_PARTS} files")));
        }
        let parts_in = self.split.is_some() && self.parts().is_none();
        let all = named.into_iter().chain(self.vmcore.take()).chain(self.out.take());
        let mut names: Vec<PathBuf> = all.chain(std::mem::take(&mut self.more)).collect();
        // As makedumpfile -F, which takes no name.
        if self.flatten && !parts_in && names.len() == 1 {
            names.push("-".into());
        }
        // As makedumpfile --dump-dmesg, whose first name is the dump's.
        if names.len() == 1
            && !self.dry_run
            && !parts_in
            && let Some(vmcore) = self.logs.dump_dmesg.take()
        {
            self.logs.dump_dmesg = names.pop();
            self.vmcore = Some(vmcore);
            return Ok(self);
        }
        let wanted = !self.dry_run || parts_in || names.len() > 1;
        self.out = if wanted { names.pop().filter(|_| !names.is_empty()) } else { None };
        if wanted && self.out.is_none() {
            return Err(Error::Usage("the name of the output is missing".into()));
        }
        self.more = names.split_off(1);
        self.vmcore = names.pop();
        Ok(self)
    }

    /// How many files the output is split over, if it is.
    pub(super) fn parts(&self) -> Option<usize> {
        let number = self.split.as_ref()?.as_ref()?.to_str()?;
        number.parse().ok().filter(|n| (2..=MOST_PARTS).contains(n))
    }

    /// The files of the input.
    pub(super) fn inputs(&self) -> Vec<&Path> {
        self.vmcore.iter().chain(&self.more).map(PathBuf::as_path).collect()
    }
}

#[cfg(test)]
mod tests;
