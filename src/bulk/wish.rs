//! What the cuts of an archive are to be like: the same for all of them, and written down in manifests and work lists.

use crate::error::{Error, Result};
use crate::options::{Format, Options};
use crate::plan::level::Level;
use serde::{Deserialize, Serialize};

/// The options of a cut that decide what is in its output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The domain: its id or its name; nothing for dom0.
    pub domain: Option<String>,
    /// The format, as [`Format`] is shown: `kdump zstd:1`.
    pub format: String,
    /// makedumpfile's dump level.
    pub level: u8,
    /// Whether it is an error if the level cannot be applied in full.
    pub require_level: bool,
    /// Whether damaged input is an error.
    pub strict: bool,
    /// Whether the output has a digest.
    pub digest: bool,
    /// Whether the output is read again. It is the same without.
    pub verify: bool,
}

impl Wish {
    /// The format.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is unknown: the file that names it is of another version.
    pub fn format(&self) -> Result<Format> {
        self.format.parse().map_err(Error::Usage)
    }

    /// The options of a cut.
    ///
    /// # Errors
    /// [`Error::Usage`] for what this version does not know.
    pub fn options(&self) -> Result<Options> {
        let unknown = |what: &str| Error::Usage(format!("{what} is unknown to this version"));
        Ok(Options {
            domain: self.domain.as_deref().map_or(Ok(Default::default()), str::parse).map_err(Error::Usage)?,
            format: self.format()?,
            level: Level::new(self.level).ok_or_else(|| unknown(&format!("level {}", self.level)))?,
            level_given: true,
            require_level: self.require_level,
            strict: self.strict,
            digest: self.digest,
            verify: self.verify,
            full_only: true,
            ..Options::default()
        })
    }

    /// What the names of outputs end in.
    ///
    /// # Errors
    /// As [`Self::format`].
    pub fn suffix(&self) -> Result<&'static str> {
        Ok(self.format()?.suffix())
    }

    /// Whether an output of `other` is what this asks for.
    pub fn is_met_by(&self, other: &Self) -> bool {
        Self { verify: self.verify, ..other.clone() } == *self && (other.verify || !self.verify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::codec::Codec;

    #[test]
    fn every_format_is_known_by_how_it_is_shown() {
        for format in [Format::Elf, Format::ElfZst(7), Format::XcCore, Format::Kdump(Codec::ZLIB), Format::default()] {
            let wish = Wish { format: format.to_string(), ..Wish::default() };
            assert_eq!(wish.format().unwrap(), format);
            assert_eq!(wish.options().unwrap().format, format);
        }
        for bad in ["", "kdump", "kdump rot13", "elf in zlib:1", "elf in zstd:99", "ELF"] {
            let wish = Wish { format: bad.into(), ..Wish::default() };
            assert!(wish.options().is_err(), "{bad}");
        }
        assert!(Wish { format: "elf".into(), level: 32, ..Wish::default() }.options().is_err());
    }

    #[test]
    fn verified_is_more_than_not() {
        let plain = Wish { format: "elf".into(), ..Wish::default() };
        let verified = Wish { verify: true, ..plain.clone() };
        assert!(plain.is_met_by(&verified) && plain.is_met_by(&plain) && verified.is_met_by(&verified));
        assert!(!verified.is_met_by(&plain));
        assert!(!plain.is_met_by(&Wish { level: 1, ..plain.clone() }));
    }
}
