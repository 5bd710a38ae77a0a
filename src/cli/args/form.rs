//! What is cut out, and how it is written.

use super::values::level;
use crate::options::Which;
use crate::pipeline::codec::Codec;
use crate::plan::level::Level;
use clap::ValueEnum;

/// What is cut out, and how it is written.
#[derive(Clone, Debug, clap::Args)]
pub struct Form {
    /// The domain to cut out: its id, or the name that dom0's toolstack knows it by (found in dom0's page cache). The default
    /// is dom0.
    #[arg(long, value_name = "ID|NAME")]
    pub domain: Option<Which>,
    /// What to leave out, in makedumpfile's bits: 1 zero pages (readers see zeros all the same), 2 page cache, 4 page cache
    /// with private data too, 8 pages of processes, 16 free pages; added up. 0 keeps everything; any other level leaves out
    /// pages with bad memory. No vmlinux is needed. The default is 31; of a cut it is the cut's own, and nothing but 1 can be
    /// added to that; with --format xc-core it is 0, as its readers take what is left out for an error.
    #[arg(short = 'd', long = "dump-level", value_name = "LEVEL", value_parser = level)]
    pub level: Option<Level>,
    /// The same by names: zero, cache, cache-private, user, free, with commas between. All of them are -d 31.
    #[arg(long, value_name = "NAMES", conflicts_with = "level", value_parser = Level::named)]
    pub exclude: Option<Level>,
    /// Fail if the level cannot be applied in full, because the kernel's VMCOREINFO is missing, or any struct page cannot be
    /// read. Otherwise there is a warning, and what cannot be told is kept.
    #[arg(long)]
    pub require_level: bool,
    /// Format of the output. Without it, an OUT that ends in .elf asks for ELF (but not if a compression is asked for), one
    /// in .elf.zst for that, any other for kdump.
    #[arg(long, value_enum)]
    pub format: Option<OutputFormat>,
    /// The same as --format elf.
    #[arg(short = 'E', conflicts_with_all = ["format", "compression"])]
    pub elf: bool,
    /// How pages are compressed.
    #[command(flatten)]
    pub compression: Compression,
}

/// How pages are compressed; at most one of these.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "compression", multiple = false)]
pub struct Compression {
    /// Compression of kdump pages: zstd (levels -7 to 19, as in zstd:3), zlib (1 to 9), lzo, snappy or none. zstd needs crash
    /// 7.3.1 or later; every reader knows zlib; lzo and snappy are fast, and not in each build of each reader. lzo is there
    /// if xdump-cut was built with --features lzo. The default is zstd:1. With elf.zst, which is compressed by zstd, the level:
    /// zstd:3 there.
    #[arg(long, value_name = "CODEC", value_parser = |s: &str| s.parse::<Codec>())]
    pub compress: Option<Codec>,
    /// The same as --compress zstd, in makedumpfile's spelling.
    #[arg(short = 'z')]
    pub zstd: bool,
    /// The same as --compress zlib.
    #[arg(short = 'c')]
    pub zlib: bool,
    /// The same as --compress lzo.
    #[arg(short = 'l')]
    pub lzo: bool,
    /// The same as --compress snappy.
    #[arg(short = 'p')]
    pub snappy: bool,
}

/// Formats of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// kdump-compressed, version 6.
    Kdump,
    /// ELF64 vmcore.
    Elf,
    /// ELF64 vmcore in seekable zstd: zstd -d restores the file of the format elf.
    #[value(name = "elf.zst")]
    ElfZst,
    /// What xl dump-core writes of a running domain: every page as it is, with the P2M and what Xen knows of the vCPUs. For
    /// readers of that format; crash opens it as well, but kdump and ELF tell debuggers more.
    XcCore,
}

impl Compression {
    /// The codec that was asked for, if any.
    pub(in crate::cli) fn codec(&self) -> Option<Codec> {
        let short =
            [(self.zstd, Codec::ZSTD), (self.zlib, Codec::ZLIB), (self.lzo, Codec::Lzo), (self.snappy, Codec::Snappy)];
        self.compress.or_else(|| short.into_iter().find_map(|(given, codec)| given.then_some(codec)))
    }
}
