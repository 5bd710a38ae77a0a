//! What a cut can be asked for.

use crate::linux::symbols::Symbols;
use crate::pipeline::codec::Codec;

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// kdump-compressed, version 6.
    Kdump(Codec),
    /// ELF64 vmcore.
    Elf,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format of the output.
    pub format: Format,
    /// makedumpfile's dump level: bit 0 drops zero pages.
    pub level: u8,
    /// Symbols of the domain's kernel, if the user gave any.
    pub symbols: Option<Symbols>,
    /// Worker threads; 0 takes one per CPU that this process may use.
    pub threads: usize,
}
