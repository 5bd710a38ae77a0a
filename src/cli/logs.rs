//! Logs that are saved before the cut: small, and worth most if nothing else can be had.

use super::args::Cut;
use super::warn;
use crate::error::{Error, Result};
use crate::log::{self, LogOptions, Whose};
use crate::options::Options;
use crate::pipeline::Progress;
use crate::sink::{Mode, Output};
use crate::source::ReadAt;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Saves those that are asked for, each in its file.
///
/// # Errors
/// The last one's, where one could not be had; the others are tried all the same.
pub(super) fn save(args: &Cut, source: &dyn ReadAt, options: &Options, progress: &dyn Progress) -> Result<()> {
    let wanted = [
        (&args.logs.dump_dmesg, Whose::Domain(options.domain.clone()), "the kernel log"),
        (&args.logs.dump_xen_dmesg, Whose::Xen, "Xen's console ring"),
    ];
    let mut done = Ok(());
    for (path, whose, what) in wanted {
        let Some(path) = path else { continue };
        progress.stage(&format!("saving {what}"), None);
        let options = LogOptions { whose, raw: false, xen_syms: options.xen_syms.clone() };
        if let Err(e) = one(args, source, path, &options) {
            if let Err(before) = done {
                warn(args, &before);
            }
            done = Err(e.of_log(what));
        }
    }
    done
}

fn one(args: &Cut, source: &dyn ReadAt, path: &Path, options: &LogOptions) -> Result<()> {
    let inputs = args.inputs();
    inputs.iter().try_for_each(|input| Output::spare(path, input))?;
    let input = inputs.first().copied().unwrap_or(Path::new(""));
    let out = Output::create_in(Mode::Append, path, args.force, input)?;
    let mut text = BufWriter::new(Appending { out: &out, at: 0 });
    let warnings = source.history().or_trouble(log::write(source, options, &mut text))?;
    text.flush().map_err(|e| Error::write(crate::objects::shown(path), e))?;
    drop(text);
    out.commit()?;
    warnings.iter().for_each(|w| warn(args, w));
    Ok(())
}

/// An output as what can be written to from its start to its end.
struct Appending<'o> {
    out: &'o Output,
    at: u64,
}

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_at(bytes, self.at).map_err(|e| match e {
            Error::Write { source, .. } => source,
            other => io::Error::other(other.to_string()),
        })?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
