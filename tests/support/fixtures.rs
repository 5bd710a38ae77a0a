//! The real dumps: found, unpacked once below the target folder, and shared by all test processes.

use super::tools::scratch;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A crash of a real Xen host, with what is known of it.
pub(crate) struct Fixture {
    pub(crate) name: String,
    /// The uncut dump, unpacked.
    pub(crate) vmcore: PathBuf,
    /// truth.json.
    pub(crate) json: serde_json::Value,
    /// What the machine said on its serial console.
    pub(crate) console: String,
    packed: PathBuf,
    vmlinux: OnceLock<Result<PathBuf, String>>,
}

/// Folders of fixtures: ours, and those that the environment names.
fn roots() -> Vec<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = vec![checkout.join("testdata")];
    match std::env::var_os("XDUMP_CUT_FIXTURES") {
        Some(paths) => roots.extend(std::env::split_paths(&paths)),
        None => roots.push(checkout.join("../shared/fixtures")),
    }
    roots
}

/// Every folder of a fixture, same-named ones too.
fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in roots() {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut below: Vec<PathBuf> = entries.filter(|path| path.join("truth.json").exists()).collect();
        below.sort();
        found.extend(below);
    }
    found
}

/// All fixtures; same-named ones count once.
pub(crate) fn all() -> &'static [Fixture] {
    static ALL: OnceLock<Vec<Fixture>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut fixtures = Vec::<Fixture>::new();
        for folder in folders().into_iter().filter(|folder| folder.join("vmcore.zst").exists()) {
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            if fixtures.iter().all(|fixture| fixture.name != name) {
                fixtures.push(Fixture::open(name, folder));
            }
        }
        assert!(
            !fixtures.is_empty(),
            "no fixture (a folder with vmcore.zst and truth.json) below {:?}: testdata/ of a full checkout has one, \
             XDUMP_CUT_FIXTURES names folders of more (see testdata/README.md)",
            roots()
        );
        let names: Vec<&str> = fixtures.iter().map(|fixture| fixture.name.as_str()).collect();
        // past the test runner, which keeps what passed tests print to itself
        let _ = writeln!(std::io::stderr(), "fixtures: {}", names.join(", "));
        fixtures
    })
}

impl Fixture {
    fn open(name: String, packed: PathBuf) -> Self {
        let read = |file: &str| {
            let path = packed.join(file);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let json = serde_json::from_slice(&read("truth.json")).unwrap();
        let console = String::from_utf8_lossy(&read("console.log")).replace('\r', "");
        let vmcore = unpack(&packed, "vmcore");
        Self { name, vmcore, json, console, packed, vmlinux: OnceLock::new() }
    }

    /// truth.tsv.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let path = self.packed.join("truth.tsv.zst");
        let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        zstd::stream::read::Decoder::new(file).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// What dom0's kernel says of itself: the first such line (the second one is the capture kernel's).
    pub(crate) fn banner(&self) -> &str {
        let from = self.console.find("Linux version ").expect("console.log has no line of the kernel's");
        self.console[from..].lines().next().unwrap()
    }

    /// What dom0 printed of itself shortly before the end.
    pub(crate) fn said(&self) -> Vec<&str> {
        let lines = self.console.lines().skip_while(|line| !line.contains("LAB: truth begin"));
        lines.take_while(|line| !line.contains("LAB: truth end")).collect()
    }

    /// dom0's vCPUs as the truth has them.
    pub(crate) fn vcpus(&self) -> &[serde_json::Value] {
        self.json["vcpus"]["0"].as_array().expect("vcpus of domain 0")
    }

    /// A register of a dom0 vCPU.
    pub(crate) fn register(&self, vcpu: usize, name: &str) -> u64 {
        hex(self.vcpus()[vcpu][name].as_str().unwrap_or_else(|| panic!("no {name} of vCPU {vcpu}")))
    }

    /// The hypervisor's symbols, if the fixture has them.
    pub(crate) fn xen_syms(&self) -> Option<PathBuf> {
        self.packed.join("xen-syms.zst").exists().then(|| unpack(&self.packed, "xen-syms"))
    }

    /// The kernel's own file: the fixture's, or that of another one with the very same kernel.
    pub(crate) fn vmlinux(&self) -> &Path {
        let find = || {
            let mut folders = folders();
            folders.sort_by_key(|folder| *folder != self.packed);
            for folder in folders.iter().filter(|folder| folder.join("vmlinux.zst").exists()) {
                let path = unpack(folder, "vmlinux");
                if contains(&path, self.banner()) {
                    return Ok(path);
                }
            }
            Err(format!("{}: no fixture has the vmlinux.zst of \"{}\"", self.name, self.banner()))
        };
        self.vmlinux.get_or_init(find).as_deref().unwrap_or_else(|e| panic!("{e}"))
    }
}

/// A number as the truth writes it.
pub(crate) fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn contains(path: &Path, text: &str) -> bool {
    let bytes = std::fs::read(path).unwrap();
    let (first, mut rest) = (text.as_bytes()[0], &bytes[..]);
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        if rest[at..].starts_with(text.as_bytes()) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Unpacks FILE.zst of a fixture below the target folder, once for all test processes; again when the packed file is
/// another one than before.
fn unpack(folder: &Path, file: &str) -> PathBuf {
    let packed = folder.join(format!("{file}.zst"));
    let meta = std::fs::metadata(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
    // beside cargo's folder for tests' files, which is target/tmp
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let dir = target.join("fixtures").join(folder.file_name().unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    let (path, stamp_path) = (dir.join(file), dir.join(format!("{file}.from")));
    let stamp = format!("{} bytes of {}", meta.size(), meta.mtime());
    let is_there = || path.exists() && std::fs::read_to_string(&stamp_path).is_ok_and(|s| s == stamp);
    if is_there() {
        return path;
    }
    let lock = File::create(dir.join(format!("{file}.lock"))).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !is_there() {
        let new = dir.join(format!("{file}.{}", scratch().file_name().unwrap().to_string_lossy()));
        unpack_sparse(&packed, &new);
        std::fs::rename(&new, &path).unwrap();
        std::fs::write(&stamp_path, &stamp).unwrap();
    }
    path
}

/// Leaves holes for zeros: dumps have many.
fn unpack_sparse(from: &Path, to: &Path) {
    let mut reader = zstd::stream::read::Decoder::new(File::open(from).unwrap()).unwrap();
    reader.window_log_max(31).unwrap();
    let mut out = File::create(to).unwrap();
    let (mut block, mut len) = (Vec::with_capacity(1 << 16), 0);
    loop {
        block.clear();
        let read = reader.by_ref().take(1 << 16).read_to_end(&mut block);
        if read.unwrap_or_else(|e| panic!("{}: {e}", from.display())) == 0 {
            break;
        }
        if block.iter().any(|&byte| byte != 0) {
            out.seek(SeekFrom::Start(len)).unwrap();
            out.write_all(&block).unwrap();
        }
        len += block.len() as u64;
    }
    out.set_len(len).unwrap();
}

/// A copy of the dump in which every VMCOREINFO note of a kernel's is overwritten.
pub(crate) fn without_note(fixture: &Fixture) -> PathBuf {
    let path = scratch().join(format!("{}.broken", fixture.name));
    let mut bytes = std::fs::read(&fixture.vmcore).unwrap();
    let note = b"VMCOREINFO\0\0OSRELEASE=";
    let starts = (0..bytes.len() - note.len()).step_by(4).filter(|at| bytes[*at..].starts_with(note));
    let places: Vec<usize> = starts.collect();
    assert!(!places.is_empty(), "{}: no note to overwrite", fixture.name);
    places.into_iter().for_each(|at| bytes[at..at + note.len()].fill(b'?'));
    std::fs::write(&path, bytes).unwrap();
    path
}
