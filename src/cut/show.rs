//! What a dump has to show, as ELF vmcores that are nowhere but here: of a cut that cut, of a full dump each of its domains.
//! Each is made when it is asked for, without a look at its pages.

use super::{Cutter, Input, Prepared, with_input};
use crate::error::Result;
use crate::linux::toolstack;
use crate::options::Options;
use crate::pipeline::Progress;
use crate::pipeline::walk::Walker;
use crate::plan::Plan;
use crate::recut::Recut;
use crate::report::Report;
use crate::sink::Facts;
use crate::sink::elf::{Layout, View};
use crate::source::{self, ReadAt};
use crate::xen::Domain;
use crate::xen::alone::UNKNOWN_ID;
use std::sync::OnceLock;

/// The name of the one file where there is one.
const ONE: &str = "vmcore";

/// The name of a domain's file, without what tells the format: `dom3-web`.
pub fn file_name(id: u16, name: Option<&str>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.map(|n| format!("-{n}").chars().map(plain).collect()).unwrap_or_default();
    // The one domain of xl dump-core has no number.
    let number = if id == UNKNOWN_ID { String::new() } else { id.to_string() };
    format!("dom{number}{name}")
}

/// What a dump has to show.
#[derive(Debug)]
pub struct Shown<'a> {
    what: What<'a>,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum What<'a> {
    /// An ELF file, as it is.
    Elf(&'a dyn ReadAt),
    /// A cut in another format.
    Cut(Input<'a>, &'a Recut),
    /// The domains of a host, and what they are called.
    Domains(&'a Cutter<'a>, OnceLock<Vec<String>>),
}

/// Finds out what a dump has to show, and hands it to `work`. Of the options it is the level that counts: no page is left out
/// for being zero, since that would need a look at all of them.
///
/// # Errors
/// The first structure without which nothing can be shown, or those of `work`.
pub fn show<T>(
    source: &dyn ReadAt,
    options: &Options,
    progress: &dyn Progress,
    work: impl FnOnce(&Shown<'_>) -> Result<T>,
) -> Result<T> {
    with_input(source, options, progress, |input| {
        let warnings = input.mem.history().damage.lines().map(|line| format!("damaged input: {line}")).collect();
        let recut = Recut::open(input.core, input.mem, options)?;
        match recut {
            Some(_) if source::is_elf(input.mem.source()) => {
                work(&Shown { what: What::Elf(input.mem.source()), warnings })
            }
            Some(mut recut) => {
                recut.keep_digest();
                work(&Shown { what: What::Cut(*input, &recut), warnings })
            }
            None => {
                input.with_host(true, |cutter| work(&Shown { what: What::Domains(cutter, OnceLock::new()), warnings }))
            }
        }
    })
}

impl Shown<'_> {
    /// How many files there are.
    pub fn files(&self) -> usize {
        match &self.what {
            What::Elf(_) | What::Cut(..) => 1,
            What::Domains(cutter, _) => cutter.host.domains.len(),
        }
    }

    /// Their names. Those of guests are searched for in dom0's memory, once.
    pub fn names(&self) -> Vec<String> {
        match &self.what {
            What::Elf(_) | What::Cut(..) => vec![ONE.into()],
            What::Domains(cutter, names) => names.get_or_init(|| self.all_names(cutter)).clone(),
        }
    }

    fn all_names(&self, cutter: &Cutter<'_>) -> Vec<String> {
        let all = &cutter.host.domains;
        let certain = |n| self.certain_name(n);
        if (0..all.len()).all(|n| certain(n).is_some()) {
            return (0..all.len()).filter_map(certain).collect();
        }
        let names = cutter.names();
        let name =
            |(n, d): (usize, &Domain)| certain(n).unwrap_or_else(|| file_name(d.id, toolstack::name_of(d, &names)));
        all.iter().enumerate().map(name).collect()
    }

    /// The name of a file that has the same one whatever dom0's memory says.
    fn certain_name(&self, n: usize) -> Option<String> {
        match &self.what {
            What::Elf(_) | What::Cut(..) => Some(ONE.into()),
            What::Domains(cutter, _) if cutter.host.alone().is_some() => Some(ONE.into()),
            What::Domains(cutter, _) => {
                let hardware = cutter.host.hardware_domain()?;
                let domain = cutter.host.domains.get(n).filter(|d| d.id == hardware.id)?;
                Some(file_name(domain.id, None))
            }
        }
    }

    /// What a file is called as far as that is known: without a search, a guest has its number only.
    pub fn known_name(&self, n: usize) -> String {
        let searched = match &self.what {
            What::Domains(_, names) => names.get().and_then(|names| names.get(n)).cloned(),
            _ => None,
        };
        let number = || match &self.what {
            What::Domains(cutter, _) => cutter.host.domains.get(n).map(|d| file_name(d.id, None)),
            _ => None,
        };
        searched.or_else(|| self.certain_name(n)).or_else(number).unwrap_or_default()
    }

    /// Whether it is the input's own bytes.
    pub fn is_as_it_is(&self) -> bool {
        matches!(self.what, What::Elf(_))
    }

    /// The file of a name.
    pub fn find(&self, name: &str) -> Option<usize> {
        let certain = (0..self.files()).find(|n| self.certain_name(*n).as_deref() == Some(name));
        certain.or_else(|| self.names().iter().position(|n| n == name))
    }

    /// The file of the domain that the options name, and its name.
    ///
    /// # Errors
    /// As [`crate::pick::pick`].
    pub fn pick(&self) -> Result<(usize, String)> {
        let n = match &self.what {
            What::Elf(_) | What::Cut(..) => 0,
            What::Domains(cutter, _) => {
                let id = cutter.pick()?.id;
                cutter.host.domains.iter().position(|d| d.id == id).unwrap_or(0)
            }
        };
        let name = self.certain_name(n).or_else(|| self.names().into_iter().nth(n));
        Ok((n, name.unwrap_or_default()))
    }

    /// What is wrong with the input as a whole.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Makes a file, and hands it to `work` with what is to be said of it.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn open(&self, n: usize, work: &mut dyn FnMut(&dyn ReadAt, &[String])) -> Result<()> {
        match &self.what {
            What::Elf(file) => work(*file, &[]),
            What::Cut(input, recut) => {
                let walker = Walker::unaltered(input.mem, &recut.plan);
                work(&view(&walker, &recut.plan, &recut.facts), &said(&recut.report));
            }
            What::Domains(cutter, _) => {
                let Some(domain) = cutter.host.domains.get(n) else { return Ok(()) };
                let p2m = cutter.p2m(domain)?;
                let Prepared { plan, facts, report } = cutter.prepare(domain, &p2m)?;
                let walker = Walker::new(cutter.host, &plan);
                work(&view(&walker, &plan, &facts), &said(&report));
            }
        }
        Ok(())
    }
}

/// Every page counts as data: whether it is zero, or can be read, is seen when it is.
fn view<'w, 'a>(walker: &'w Walker<'a>, plan: &Plan<'_>, facts: &Facts) -> View<'w, 'a> {
    View::new(walker, Layout::new(plan, facts, &|_| true, &|_| false))
}

/// Warnings, and what is missing.
fn said(report: &Report) -> Vec<String> {
    let missing =
        report.output.absent.iter().map(|(why, n)| format!("{n} pages of the domain are missing: each {why}"));
    report.warnings.iter().cloned().chain(missing).collect()
}
