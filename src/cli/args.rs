//! What can be typed. `--help` and the man page are made from these comments.

use crate::options::Which;
use crate::pipeline::codec::Codec;
use crate::plan::level::Level;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

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
}

/// How to cut.
#[derive(Clone, Debug, clap::Args)]
pub struct Cut {
    /// The dump: ELF or kdump-compressed, flattened or not, or a file of xl dump-core; within zstd, gzip, xz, lz4 or bzip2 or
    /// not; a file, a block device, or - for standard input.
    #[arg(required = true)]
    pub vmcore: Option<PathBuf>,
    /// The file to write, or with --all-domains the folder. A file is written as OUT.incomplete, synced and renamed.
    #[arg(required = true)]
    pub out: Option<PathBuf>,
    /// With --split: the further parts stand between VMCORE and OUT.
    #[arg(hide = true, requires = "split")]
    pub more: Vec<PathBuf>,
    /// The dump is split: all arguments but the last are its parts, in any order. Pages of parts that are not given are
    /// missing.
    #[arg(long)]
    pub split: bool,
    /// Take damaged input for an error: anything that is cut short, broken or contradictory in it. Otherwise what is readable
    /// is used, and the rest told in the report.
    #[arg(long)]
    pub strict: bool,
    /// The domain to cut out: its id, or the name that dom0's toolstack knows it by (found in dom0's page cache). The default
    /// is dom0.
    #[arg(long, value_name = "ID|NAME")]
    pub domain: Option<Which>,
    /// Cut out every domain: OUT is a folder, which is made if need be, and gets a file for each, named dom0.kdump,
    /// dom3-web.kdump and so on (.elf with -E, .core with --format xc-core). One that cannot be cut does not keep the others from it.
    #[arg(long, conflicts_with = "domain")]
    pub all_domains: bool,
    /// What to leave out, in makedumpfile's bits: 1 zero pages (readers see zeros all the same), 2 page cache, 4 page cache
    /// with private data too, 8 pages of processes, 16 free pages; added up. 0 keeps everything; any other level leaves out
    /// pages with bad memory. No vmlinux is needed. The default is 31; with --format xc-core it is 0, as its readers take what
    /// is left out for an error.
    #[arg(short = 'd', long = "dump-level", value_name = "LEVEL", value_parser = level)]
    pub level: Option<Level>,
    /// The same by names: zero, cache, cache-private, user, free, with commas between. All of them are -d 31.
    #[arg(long, value_name = "NAMES", conflicts_with = "level", value_parser = Level::named)]
    pub exclude: Option<Level>,
    /// Fail if the level cannot be applied in full, because the kernel's VMCOREINFO is missing, or any struct page cannot be
    /// read. Otherwise there is a warning, and what cannot be told is kept.
    #[arg(long)]
    pub require_level: bool,
    /// Format of the output. Without it, a name that ends in .elf asks for ELF (but not with --compress), any other for
    /// kdump.
    #[arg(long, value_enum)]
    pub format: Option<OutputFormat>,
    /// The same as --format elf.
    #[arg(short = 'E', conflicts_with_all = ["format", "compress"])]
    pub elf: bool,
    /// Where pages stand in the output, and what is altered. The xc-core format has a layout of its own.
    #[arg(long, value_enum, default_value = "native")]
    pub layout: OutputLayout,
    /// Keep Xen's own memory too, so that crash opens the output with xen-syms: image, heap, frame table, M2P, page tables;
    /// no free page, and no memory of another domain. Needs --layout machine. Unlike all else its cost follows the machine:
    /// each of its frames is looked up in the frame table, 8 GiB of it per TiB.
    #[arg(long)]
    pub keep_xen: bool,
    /// Compression of kdump pages: zstd (levels -7 to 19, as in zstd:3), zlib (1 to 9) or none. zstd needs crash 7.3.1
    /// or later; every reader knows zlib. The default is zstd:1.
    #[arg(long, value_name = "CODEC", value_parser = |s: &str| s.parse::<Codec>())]
    pub compress: Option<Codec>,
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
    /// Worker threads. The output is the same for any number. The default is one per CPU.
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Read the dump instead of mapping it: slower, but a dump that shrinks or fails while it is read gives an error and
    /// not a SIGBUS.
    #[arg(long)]
    pub no_mmap: bool,
    /// Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp.
    #[arg(long, value_name = "DIR")]
    pub tmp_dir: Option<PathBuf>,
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

/// Formats of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// kdump-compressed, version 6.
    Kdump,
    /// ELF64 vmcore.
    Elf,
    /// What xl dump-core writes of a running domain: every page as it is, with the P2M and what Xen knows of the vCPUs. For
    /// readers of that format; crash opens it as well, but kdump and ELF tell debuggers more.
    XcCore,
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

fn level(s: &str) -> Result<Level, String> {
    s.parse().ok().and_then(Level::new).ok_or_else(|| "a number from 0 to 31".into())
}

/// The pool would take 0 for its own choice, and start any number.
fn threads(s: &str) -> Result<usize, String> {
    s.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "a number from 1 to 1024".into())
}

impl Cut {
    /// The output is the last of all names.
    pub(super) fn settle(mut self) -> Self {
        if let Some(last) = self.more.pop() {
            self.more.splice(0..0, self.out.replace(last));
        }
        self
    }

    /// The files of the input.
    pub(super) fn inputs(&self) -> Vec<&Path> {
        self.vmcore.iter().chain(&self.more).map(PathBuf::as_path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_cut_needs_both_names_and_info_one() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert!(parse("xdump-cut a b").is_ok());
        assert!(parse("xdump-cut a").is_err());
        assert!(parse("xdump-cut info a").is_ok_and(|a| a.command.is_some()));
        assert!(parse("xdump-cut info a b").is_err() && parse("xdump-cut a b c").is_err());
        assert!(parse("xdump-cut info --split a b").is_ok());
        let cut = parse("xdump-cut --split a b c d").unwrap().cut.settle();
        assert_eq!(cut.inputs(), ["a", "b", "c"].map(Path::new));
        assert_eq!(cut.out.as_deref(), Some(Path::new("d")));
        assert!(parse("xdump-cut log a --domain 3 --raw").is_ok_and(|a| a.command.is_some()));
        assert!(parse("xdump-cut log a --domain 3 --xen").is_err());
        assert!(parse("xdump-cut -E --compress zlib a b").is_err());
        assert!(parse("xdump-cut -d 31 a b").is_ok_and(|a| a.cut.level == Some(Level::MOST)));
        assert!(parse("xdump-cut -d 32 a b").is_err());
        assert!(parse("xdump-cut -d 1 --exclude free a b").is_err());
        assert!(parse("xdump-cut --threads 0 a b").is_err());
        assert!(parse("xdump-cut --layout machine --keep-xen a b").is_ok_and(|a| a.cut.keep_xen));
        assert!(parse("xdump-cut --layout mfn a b").is_err());
    }
}
