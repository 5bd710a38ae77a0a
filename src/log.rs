//! What a dump has of logs: a domain's kernel log, and Xen's console ring.

use crate::error::{Error, Result};
use crate::linux::log::{Log, Record};
use crate::linux::{Kernel, note, own_list};
use crate::options::Which;
use crate::pick;
use crate::recut;
use crate::source::{self, ReadAt};
use crate::vmcoreinfo::Vmcoreinfo;
use crate::xen::console::{self, Console};
use crate::xen::{Host, XenSyms};
use std::io::Write;

/// Whose log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The kernel's of a domain.
    Domain(Which),
    /// Xen's.
    Xen,
}

/// Which log, and how.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Whose log.
    pub whose: Whose,
    /// Whether each line of a kernel's begins with facility and level, as `dmesg -r` has it: `<6>`.
    pub raw: bool,
    /// The host's `xen-syms`, if the user gave it; Xen's variables are found by their shape otherwise.
    pub xen_syms: Option<XenSyms>,
}

/// Writes the log to `out`, oldest line first, and returns what was doubtful or lost. No byte that is written means
/// anything to a terminal but newline and tab: others stand as `\x1b`.
///
/// # Errors
/// The first structure without which there is no log, or what `out` says.
pub fn write(source: &dyn ReadAt, options: &LogOptions, out: &mut dyn Write) -> Result<Vec<String>> {
    let (core, mem) = source::read(source)?;
    let syms = options.xen_syms.as_ref();
    let mut lines = Lines { out, raw: options.raw, open: false };
    let mut warnings: Vec<String> = mem.history().damage.lines().map(|line| format!("damaged input: {line}")).collect();
    let done = match recut::told(&core)? {
        Some(told) => {
            recut::with_kernel(&told, &core, &mem, options, |kernel, info| kernels_own(kernel, info, &mut lines))
        }
        None => Host::open_with(&mem, &core, syms).and_then(|host| {
            warnings.extend(host.warnings.iter().cloned());
            match &options.whose {
                Whose::Domain(which) => kernels(&host, which, &mut lines),
                Whose::Xen => xens(&host, syms.and_then(console::Symbols::of).as_ref(), &mut lines),
            }
        }),
    };
    let done = done.and_then(|more| {
        warnings.extend(more);
        lines.end()?;
        Ok(warnings)
    });
    done.map_err(|e| e.of_damaged(&mem.history().damage))
}

fn kernels(host: &Host<'_>, which: &Which, lines: &mut Lines<'_>) -> Result<Vec<String>> {
    let domain = pick::pick(host, which, &|| pick::names(host))?;
    let p2m = own_list::read_alone(host, domain)?;
    let kernel = Kernel::find(host, domain, &p2m).ok_or_else(|| {
        Error::missing("the domain's kernel", format!("no page table of domain {} maps one", domain.id))
    })?;
    let notes = kernel.landmarks().notes;
    let found = note::find(&kernel, host.notes.linux.as_ref(), &notes).map_err(|why| {
        let why = if why.is_empty() { "there is none in its memory".into() } else { why.join("; ") };
        Error::missing(
            "the kernel's VMCOREINFO",
            format!("it tells where the log is, and none could be believed: {why}"),
        )
    })?;
    kernels_own(&kernel, &found.info, lines)
}

fn kernels_own(kernel: &Kernel<'_>, info: &Vmcoreinfo, lines: &mut Lines<'_>) -> Result<Vec<String>> {
    let log = Log::find(kernel, info)?;
    let losses = log.read(kernel, &mut |record| lines.record(&record))?;
    Ok(losses.warnings())
}

fn xens(host: &Host<'_>, symbols: Option<&console::Symbols>, lines: &mut Lines<'_>) -> Result<Vec<String>> {
    let console = Console::find(host, symbols)?;
    let missing = console.read(&host.space, &mut |bytes| lines.bytes(bytes))?;
    let mut warnings: Vec<String> = console.doubt.map(String::from).into_iter().collect();
    if missing > 0 {
        warnings.push(format!("Xen's console ring: bytes left out, as the dump lacks their memory: {missing}"));
    }
    Ok(warnings)
}

/// Lines for people.
struct Lines<'o> {
    out: &'o mut dyn Write,
    raw: bool,
    /// Whether the last line has no end yet.
    open: bool,
}

impl Lines<'_> {
    /// As `dmesg` has it: a prefix before each line of a record's text.
    fn record(&mut self, record: &Record) -> Result<()> {
        let mut all = Vec::with_capacity(record.text.len() + 32);
        let joins = record.joins && self.open;
        if self.open && !joins {
            all.push(b'\n');
        }
        // The kernel strips the last newline as it stores a record; older ones may have left one.
        let text = record.text.strip_suffix(b"\n").unwrap_or(&record.text);
        for (i, line) in text.split(|b| *b == b'\n').enumerate() {
            if i > 0 {
                all.push(b'\n');
            }
            if i > 0 || !joins {
                if let Some(priority) = record.priority.filter(|_| self.raw) {
                    all.extend(format!("<{priority}>").into_bytes());
                }
                if let Some(time) = record.time {
                    let (seconds, micros) = (time / 1_000_000_000, time % 1_000_000_000 / 1000);
                    all.extend(format!("[{seconds:5}.{micros:06}] ").into_bytes());
                }
            }
            escape(line, &mut all);
        }
        if !record.open {
            all.push(b'\n');
        }
        self.open = record.open;
        self.put(&all)
    }

    /// Text as it stands, newlines and all.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let mut all = Vec::with_capacity(bytes.len() + 32);
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let text = line.strip_suffix(b"\n");
            escape(text.unwrap_or(line), &mut all);
            self.open = text.is_none();
            if text.is_some() {
                all.push(b'\n');
            }
        }
        self.put(&all)
    }

    /// Ends the last line.
    fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.open) { self.put(b"\n") } else { Ok(()) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::write("the log", e))
    }
}

/// What a terminal could take for a command is written out, as the kernel does for /dev/kmsg.
fn escape(text: &[u8], to: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'\t' | b' '..=b'~' => to.push(byte),
            _ => to.extend(format!("\\x{byte:02x}").into_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(raw: bool, records: &[Record]) -> String {
        let mut out = Vec::new();
        let mut lines = Lines { out: &mut out, raw, open: false };
        records.iter().for_each(|r| lines.record(r).unwrap());
        lines.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn record(time: u64, text: &[u8]) -> Record {
        Record { time: Some(time), priority: Some(14), text: text.to_vec(), ..Record::default() }
    }

    #[test]
    fn each_line_has_its_prefix() {
        let records = [record(1_234_567_890, b"one\ntwo"), record(123_456_000_999_999, b""), record(0, b"nl\n")];
        let expected = "[    1.234567] one\n[    1.234567] two\n[123456.000999] \n[    0.000000] nl\n";
        assert_eq!(lines(false, &records), expected);
        assert!(lines(true, &records).lines().all(|l| l.starts_with("<14>[")));
    }

    #[test]
    fn parts_of_a_line_are_joined() {
        let part = |text: &[u8], joins, open| Record { joins, open, ..record(0, text) };
        let records = [part(b"a", false, true), part(b"b", true, true), part(b"c\nd", true, false)];
        assert_eq!(lines(false, &records), "[    0.000000] abc\n[    0.000000] d\n");
        // The rest never came; and a part without its beginning is a line.
        let records = [part(b"a", false, true), part(b"b", false, true)];
        assert_eq!(lines(false, &records), "[    0.000000] a\n[    0.000000] b\n");
        assert_eq!(lines(false, &[part(b"a", true, false)]), "[    0.000000] a\n");
    }

    #[test]
    fn a_terminal_gets_no_commands() {
        let all: Vec<u8> = (0..=255).collect();
        let said = lines(false, &[record(0, &all)]);
        assert!(said.bytes().all(|b| matches!(b, b'\n' | b'\t' | b' '..=b'~')), "{said}");
        assert!(said.contains("\\x1b") && said.contains("\\x0d") && said.contains("\\xff"));
    }
}
