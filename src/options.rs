//! What a cut can be asked for.

use crate::error::Error;
use crate::linux::symbols::Symbols;
use crate::pipeline::codec::Codec;
use crate::plan::layout::Layout;
use crate::plan::level::Level;
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::XenSyms;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// The level of zstd in ELF files, unless another is asked for (`benches/README.md`).
pub const ELF_ZST_LEVEL: i32 = 3;

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// kdump-compressed, version 6.
    Kdump(Codec),
    /// ELF64 vmcore.
    Elf,
    /// The same in seekable zstd, of this level.
    ElfZst(i32),
    /// What `xl dump-core` writes.
    XcCore,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kdump(codec) => write!(f, "kdump {codec}"),
            Self::Elf => f.write_str("elf"),
            Self::ElfZst(level) => write!(f, "elf in zstd:{level}"),
            Self::XcCore => f.write_str("xc-core"),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    /// As it is shown.
    fn from_str(s: &str) -> Result<Self, String> {
        let zst = |level: &str| match level.parse() {
            Ok(Codec::Zstd(level)) => Some(Self::ElfZst(level)),
            _ => None,
        };
        let format = match s {
            "elf" => Some(Self::Elf),
            "xc-core" => Some(Self::XcCore),
            _ => s.strip_prefix("elf in ").and_then(zst),
        };
        let kdump = || s.strip_prefix("kdump ")?.parse().ok().map(Self::Kdump);
        format.or_else(kdump).ok_or_else(|| format!("{s:?} is a format that is unknown to this version"))
    }
}

impl Format {
    /// What the names of its files end in, with the dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Elf => ".elf",
            Self::ElfZst(_) => ".elf.zst",
            Self::Kdump(_) => ".kdump",
            Self::XcCore => ".core",
        }
    }

    /// The dump level unless another is asked for. Readers of `xl dump-core`'s files take a page that is not there for an
    /// error, and those that want this format want what xl would have written: everything.
    pub fn default_level(self) -> Level {
        if self == Self::XcCore { Level::NOTHING } else { Level::MOST }
    }

    /// Where pages stand, if `asked` is what the user wants.
    ///
    /// # Errors
    /// [`Error::Usage`] if the format has no such layout.
    pub fn layout(self, asked: Layout) -> Result<Layout, Error> {
        match (self, asked) {
            (Self::XcCore, Layout::Machine { .. }) => Err(Error::Usage(
                "the xc-core format has pages by PFN, and says of each at which MFN it was; --layout machine is for kdump and ELF".into(),
            )),
            (Self::XcCore, _) => Ok(Layout::Unaltered),
            (_, Layout::Unaltered) => Err(Error::Usage("pages by PFN without alterations are for the xc-core format".into())),
            _ => Ok(asked),
        }
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::Kdump(Codec::default())
    }
}

/// Which domain to cut out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The one that managed the hardware: dom0.
    #[default]
    Hardware,
    /// The one of this id.
    Id(u16),
    /// The one that dom0's toolstack calls so.
    Name(String),
}

impl FromStr for Which {
    type Err = String;

    /// A number is an id, anything else a name.
    fn from_str(s: &str) -> Result<Self, String> {
        match s.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if s.is_empty() || s.bytes().all(|b| b.is_ascii_digit()) => {
                Err("an id below 32752, or a name".into())
            }
            Err(_) => Ok(Self::Name(s.into())),
        }
    }
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which domain to cut out.
    pub domain: Which,
    /// The format of the output.
    pub format: Format,
    /// Where pages stand in the output, and whether Xen's stay.
    pub layout: Layout,
    /// What to leave out.
    pub level: Level,
    /// Whether somebody asked for that level: a cut that is written again keeps its own otherwise.
    pub level_given: bool,
    /// Whether it is an error if the level cannot be applied in full.
    pub require_level: bool,
    /// Symbols of the domain's kernel, if the user gave any.
    pub symbols: Option<Symbols>,
    /// The kernel's VMCOREINFO, to be believed before any other, if the user gave one.
    pub vmcoreinfo: Option<Vmcoreinfo>,
    /// The kernel's vmlinux with DWARF, from which a VMCOREINFO is made where none is found.
    pub vmlinux: Option<PathBuf>,
    /// The hypervisor's xen-syms, if the user gave it: for a dump without Xen's notes.
    pub xen_syms: Option<XenSyms>,
    /// Whether damaged input is an error.
    pub strict: bool,
    /// Whether a cut, as input, is refused.
    pub full_only: bool,
    /// Whether the notes and the report tell a digest of all pages.
    pub digest: bool,
    /// Whether the output is read again, and compared with the source.
    pub verify: bool,
    /// Worker threads; 0 takes one per CPU that this process may use.
    pub threads: usize,
    /// Instead of threads of its own, those that several cuts share.
    pub pool: Option<Arc<rayon::ThreadPool>>,
    /// Bytes of memory that the work should take at most, if there is a limit.
    pub memory: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            domain: Which::default(),
            format: Format::default(),
            layout: Layout::default(),
            level: Level::MOST,
            level_given: false,
            require_level: false,
            symbols: None,
            vmcoreinfo: None,
            vmlinux: None,
            xen_syms: None,
            strict: false,
            full_only: false,
            digest: false,
            verify: false,
            threads: 0,
            pool: None,
            memory: None,
        }
    }
}
