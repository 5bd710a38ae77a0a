//! The hypervisor's own symbols: a `xen-syms` file that the user gives.
//!
//! It is the linked ELF file before it was made into `xen.gz`, so its addresses are those of the dump, if it is of the same
//! build. That is proven by the GNU build ID in Xen's image, or by pieces of its read-only data; nothing is believed before.

use super::paging::AddressSpace;
use crate::bytes::array_at;
use crate::error::{Error, Result};
use crate::source;
use crate::units::VirtAddr;
use crate::vmcoreinfo::Vmcoreinfo;
use goblin::elf::Elf;
use goblin::elf::section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOTE, SHT_PROGBITS};
use goblin::elf::sym::{STT_FILE, st_type};
use std::collections::BTreeMap;
use std::path::Path;

/// What is looked up. `_frame_table` is a static variable, to whose name compilers add a number.
const WANTED: &[&str] = &[
    "_frame_table",
    "conring",
    "conring_size",
    "conringc",
    "conringp",
    "dom_io",
    "dom_xen",
    "domain_list",
    "idle_pg_table",
    "max_page",
    "tainted",
    "xen_changeset",
    "xen_compile_date",
    "xen_compile_time",
    "xen_compiler",
    "xen_extra_version",
    "xen_major_version",
    "xen_minor_version",
];
/// Read-only pieces that are compared where there is no build ID, and their size.
const PIECES: usize = 64;
const PIECE: usize = 32;
/// XEN_VIRT_START is a multiple of this, and the image lies in one.
const GIB: u64 = 1 << 30;

/// What is known of a `xen-syms`.
#[derive(Clone, Debug)]
pub struct XenSyms {
    name: String,
    symbols: BTreeMap<&'static str, VirtAddr>,
    build_id: Option<(VirtAddr, Vec<u8>)>,
    pieces: Vec<(VirtAddr, [u8; PIECE])>,
    layout: Option<Vmcoreinfo>,
}

impl XenSyms {
    /// Reads a `xen-syms`. The file is mapped, under the contract of [`crate::source::open`].
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Usage`] for a file that is no such thing.
    pub fn open(path: &Path) -> Result<Self> {
        let file = source::whole(path)?;
        Self::parse(path.display().to_string(), file.bytes())
    }

    fn parse(name: String, file: &[u8]) -> Result<Self> {
        let elf = Elf::parse(file).map_err(|e| {
            Error::Usage(format!("{name} is no xen-syms (the hypervisor's ELF file with .symtab): {e}"))
        })?;
        let mut symbols = BTreeMap::new();
        for s in elf.syms.iter().filter(|s| s.st_value != 0 && st_type(s.st_info) != STT_FILE) {
            let Some(full) = elf.strtab.get_at(s.st_name) else { continue };
            let bare = full.split('.').next().unwrap_or(full);
            if let Some(wanted) = WANTED.iter().find(|w| **w == bare) {
                symbols.insert(*wanted, VirtAddr(s.st_value));
            }
        }
        if !["domain_list", "idle_pg_table"].iter().all(|n| symbols.contains_key(n)) {
            let why = "has no symbols domain_list and idle_pg_table; the hypervisor's xen-syms with .symtab is needed";
            return Err(Error::Usage(format!("{name} {why}")));
        }
        let mut syms = Self { name, symbols, build_id: None, pieces: Vec::new(), layout: layout(file) };
        for section in elf.section_headers.iter().filter(|s| s.sh_flags & u64::from(SHF_ALLOC) != 0) {
            let bytes = section.file_range().and_then(|r| file.get(r)).unwrap_or_default();
            let named = elf.shdr_strtab.get_at(section.sh_name).unwrap_or_default();
            let (at, code) = (section.sh_addr, section.sh_flags & u64::from(SHF_EXECINSTR) != 0);
            if section.sh_type == SHT_NOTE && named == ".note.gnu.build-id" && (17..=128).contains(&bytes.len()) {
                syms.build_id = Some((VirtAddr(at), bytes.to_vec()));
            } else if section.sh_type == SHT_PROGBITS && named == ".rodata" && !code {
                let step = (bytes.len() / PIECES).max(PIECE);
                let piece = |i: usize| Some((VirtAddr(at.checked_add(i as u64)?), array_at(bytes, i)?));
                syms.pieces = (0..bytes.len()).step_by(step).filter_map(piece).take(PIECES).collect();
            }
        }
        Ok(syms)
    }

    /// The address of a symbol.
    pub fn get(&self, name: &str) -> Option<VirtAddr> {
        self.symbols.get(name).copied()
    }

    /// Layouts of Xen's structures by the file's DWARF, as `SIZE` and `OFFSET` lines: of page_info, domain, vcpu (with
    /// `vcpu.user_regs`, which is in its arch) and cpu_info. `None` if it has no DWARF.
    pub fn layout(&self) -> Option<&Vmcoreinfo> {
        self.layout.as_ref()
    }

    /// XEN_VIRT_START: the GiB that the image lies in.
    pub fn base(&self) -> Option<u64> {
        self.get("idle_pg_table").map(|va| va.0 & !(GIB - 1))
    }

    /// Proves that the file is of the Xen in the dump. `root` is the address of `idle_pg_table`, if the dump tells.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is of another build.
    pub fn check(&self, space: &AddressSpace<'_>, root: Option<VirtAddr>) -> Result<()> {
        let wrong = |why: String| Error::Usage(format!("{} is not of the Xen in the dump: {why}", self.name));
        if let (Some(own), Some(root)) = (self.get("idle_pg_table"), root)
            && own != root
        {
            return Err(wrong(format!("it has idle_pg_table at {own}, the dump at {root}")));
        }
        if let Some((at, id)) = &self.build_id {
            let mut bytes = vec![0; id.len()];
            // Where the dump lacks the page, the pieces below must do.
            if space.read("Xen's build ID", *at, &mut bytes).is_ok() {
                let same = bytes == *id;
                return if same { Ok(()) } else { Err(wrong("the build IDs differ".into())) };
            }
        }
        let (mut same, mut other) = (0_usize, 0_usize);
        for (at, piece) in &self.pieces {
            let mut bytes = [0; PIECE];
            if space.read("Xen's read-only data", *at, &mut bytes).is_ok() {
                if bytes == *piece { same += 1 } else { other += 1 }
            }
        }
        if same + other == 0 {
            return Err(wrong("neither its build ID nor any of its read-only data is in the dump".into()));
        }
        // A few words of .rodata are written at boot.
        if other > same / 4 {
            return Err(wrong(format!("{other} of {} pieces of its read-only data differ", same + other)));
        }
        Ok(())
    }
}

/// Structures, and the members that are asked for with the name that the line gets.
#[cfg(feature = "dwarf")]
const LAYOUTS: &[(&str, &[(&str, &str)])] = &[
    ("page_info", &[("count_info", "count_info"), ("v", "_domain")]),
    (
        "domain",
        &[
            ("domain_id", "domain_id"),
            ("next_in_list", "next_in_list"),
            ("shared_info", "shared_info"),
            ("vcpu", "vcpu"),
        ],
    ),
    ("vcpu", &[("domain", "domain"), ("dirty_cpu", "dirty_cpu")]),
    ("cpu_info", &[("guest_cpu_user_regs", "guest_cpu_user_regs"), ("current_vcpu", "current_vcpu")]),
];

/// Reads the layouts; damaged DWARF tells nothing.
#[cfg(feature = "dwarf")]
fn layout(file: &[u8]) -> Option<Vmcoreinfo> {
    use crate::dwarf::{Image, Sections, Types, Units, Wanted};
    use std::fmt::Write;
    const NEEDED: &[&str] = &["page_info", "domain", "vcpu", "arch_vcpu", "cpu_info"];
    let image = Image::parse(file, |_| false).ok()?;
    let sections = Sections::of(&image).ok()?;
    let wanted = Wanted { needed: NEEDED, ..Wanted::default() };
    let types = Types::read(&Units::new(&sections), wanted).ok()?;
    let mut text = String::new();
    for (of, members) in LAYOUTS {
        writeln!(text, "SIZE({of})={}", types.layout(of)?.size).ok()?;
        for (member, name) in *members {
            if let Some(member) = types.member(of, member) {
                writeln!(text, "OFFSET({of}.{name})={}", member.offset).ok()?;
            }
        }
    }
    // In Xen before 4.2 the registers were deeper still.
    if let (Some(arch), Some(regs)) = (types.member("vcpu", "arch"), types.member("arch_vcpu", "user_regs")) {
        writeln!(text, "OFFSET(vcpu.user_regs)={}", arch.offset.checked_add(regs.offset)?).ok()?;
    }
    Some(Vmcoreinfo::parse(text.as_bytes()))
}

#[cfg(not(feature = "dwarf"))]
fn layout(_: &[u8]) -> Option<Vmcoreinfo> {
    None
}
