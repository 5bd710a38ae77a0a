//! What `info --map` asks for.

use super::args::InfoArgs;
use crate::error::{Error, Result};
use crate::map::terminal::Style;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Where the map goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapTo {
    /// Nowhere.
    None,
    /// With the text.
    Text,
    /// To this file.
    File(PathBuf),
}

/// Columns where nothing tells.
const WIDTH: usize = 80;

/// The dump, and where its map goes. clap cannot know whether `--map NAME` means the picture or is followed by the dump;
/// the name's ending tells.
///
/// # Errors
/// [`Error::Usage`] if there is no dump, or a name that is neither.
pub fn sort_out(args: &InfoArgs) -> Result<(PathBuf, MapTo)> {
    let is_svg = |path: &Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg"));
    match (&args.vmcore, &args.map) {
        (Some(dump), None) => Ok((dump.clone(), MapTo::None)),
        (Some(dump), Some(None)) => Ok((dump.clone(), MapTo::Text)),
        (Some(dump), Some(Some(file))) if is_svg(file) => Ok((dump.clone(), MapTo::File(file.clone()))),
        // `--map DUMP FILE.svg`.
        (Some(file), Some(Some(dump))) if is_svg(file) => Ok((dump.clone(), MapTo::File(file.clone()))),
        (Some(_), Some(Some(file))) => {
            Err(Error::Usage(format!("--map writes a picture to a name that ends in .svg, not to {}", file.display())))
        }
        (None, Some(Some(dump))) if !is_svg(dump) => Ok((dump.clone(), MapTo::Text)),
        (None, Some(Some(file))) => {
            Err(Error::Usage(format!("{} would be the map's picture; name the dump too", file.display())))
        }
        (None, _) => Err(Error::Usage("name the dump".into())),
    }
}

/// How to draw on standard output.
pub(super) fn style() -> Style {
    let out = std::io::stdout();
    let set = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let told = set("COLUMNS").and_then(|c| c.parse().ok()).filter(|c| *c > 0);
    let window = || rustix::termios::tcgetwinsize(&out).ok().map(|w| usize::from(w.ws_col)).filter(|c| *c > 0);
    let plain = set("NO_COLOR").is_some() || set("TERM").is_none_or(|t| t == "dumb");
    Style { width: told.or_else(window).unwrap_or(WIDTH), colour: out.is_terminal() && !plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Args, Command};
    use clap::Parser;

    fn parse(line: &str) -> Option<Result<(PathBuf, MapTo)>> {
        let args = Args::try_parse_from(["xdump-cut", "info"].into_iter().chain(line.split(' '))).ok()?;
        let Some(Command::Info(info)) = args.command else { return None };
        Some(sort_out(&info))
    }

    #[test]
    fn names_are_told_apart_by_their_ending() {
        let file = || MapTo::File("a.svg".into());
        for (line, to) in [
            ("d", MapTo::None),
            ("--map d", MapTo::Text),
            ("d --map", MapTo::Text),
            ("--map --json d", MapTo::Text),
            ("--map a.svg d", file()),
            ("d --map a.svg", file()),
            ("--map=a.svg d", file()),
            ("d --map=a.svg", file()),
            ("--map d a.svg", file()),
        ] {
            assert_eq!(parse(line).unwrap().unwrap(), ("d".into(), to), "{line}");
        }
        assert_eq!(parse("--map a.svg d.svg").unwrap().unwrap(), ("d.svg".into(), file()));
        assert_eq!(parse("d.svg --map").unwrap().unwrap(), ("d.svg".into(), MapTo::Text));
        for line in ["--map", "--map a.svg", "--map a.png d", "--map a d"] {
            assert!(matches!(parse(line), Some(Err(Error::Usage(_)))), "{line}");
        }
        for line in ["", "--json", "a.svg d", "--map a.svg d e"] {
            assert!(parse(line).is_none_or(|r| r.is_err()), "{line}");
        }
    }
}
