//! Compression of single pages, as kdump-compressed files have it: one complete stream per page, raw if that is no
//! smaller.

use crate::error::{Error, Result};
use crate::units::PAGE_SIZE;
use flate2::{Compress, Compression, FlushCompress, Status};
use std::fmt;
use std::str::FromStr;

/// Which codec, and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Pages as they are.
    None,
    /// zlib, which every reader knows.
    Zlib(u32),
    /// zstd: crash 7.3.1 and later, makedumpfile 1.7.0, libkdumpfile 0.5.
    Zstd(i32),
}

impl Default for Codec {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl Codec {
    /// One level of each that every build has.
    pub const USUAL: [Self; 3] = [Self::None, Self::Zlib(1), Self::Zstd(1)];

    /// The flag of a page descriptor, and of the header's status word (makedumpfile: DUMP_DH_COMPRESSED_*).
    pub fn flag(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Zlib(_) => 0x1,
            Self::Zstd(_) => 0x20,
        }
    }

    /// A compressor to be used for many pages.
    ///
    /// # Errors
    /// If the codec's library refuses its level.
    pub fn compressor(self) -> Result<Compressor> {
        let state = match self {
            Self::None => State::None,
            Self::Zlib(level) => State::Zlib(Box::new(Compress::new(Compression::new(level), true))),
            Self::Zstd(level) => {
                let context = zstd::bulk::Compressor::new(level);
                State::Zstd(context.map_err(|e| Error::Usage(format!("zstd level {level}: {e}")))?)
            }
        };
        Ok(Compressor { state, room: [0; PAGE_SIZE - 1] })
    }
}

impl FromStr for Codec {
    type Err = String;

    /// `none`, `zlib[:1-9]` or `zstd[:-7 to 19]`.
    fn from_str(s: &str) -> Result<Self, String> {
        let (name, level) = s.split_once(':').map_or((s, None), |(n, l)| (n, Some(l)));
        let level = |default: i32, range: std::ops::RangeInclusive<i32>| match level {
            None => Ok(default),
            Some(l) => l
                .parse()
                .ok()
                .filter(|n| range.contains(n))
                .ok_or_else(|| format!("{name} has levels {} to {}, not {l:?}", range.start(), range.end())),
        };
        match name {
            "none" if s == name => Ok(Self::None),
            "zlib" => Ok(Self::Zlib(level(1, 1..=9)? as u32)),
            "zstd" => Ok(Self::Zstd(level(1, -7..=19)?)),
            _ => Err("one of zstd[:LEVEL], zlib[:LEVEL], none".into()),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Zlib(level) => write!(f, "zlib:{level}"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// A codec's context, reused from page to page: a new one each time costs more than half of the speed.
pub struct Compressor {
    state: State,
    /// One byte less than a page: what does not fit is stored as it is.
    room: [u8; PAGE_SIZE - 1],
}

enum State {
    None,
    Zlib(Box<Compress>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// Appends the page to `out`, compressed if that is smaller, and says whether it is.
    pub fn append(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        let len = match &mut self.state {
            State::None => None,
            State::Zlib(z) => {
                z.reset();
                match z.compress(page, &mut self.room, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => usize::try_from(z.total_out()).ok(),
                    _ => None,
                }
            }
            State::Zstd(z) => z.compress_to_buffer(page, &mut self.room[..]).ok(),
        };
        let compressed = len.and_then(|len| self.room.get(..len));
        out.extend_from_slice(compressed.unwrap_or(page));
        compressed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn names() {
        assert_eq!("zstd".parse(), Ok(Codec::Zstd(1)));
        assert_eq!("zstd:-5".parse(), Ok(Codec::Zstd(-5)));
        assert_eq!("zlib:9".parse(), Ok(Codec::Zlib(9)));
        for bad in ["zlib:0", "zstd:20", "none:1", "lzo", "", "zlib:x"] {
            assert!(bad.parse::<Codec>().is_err(), "{bad}");
        }
        for codec in [Codec::None, Codec::Zlib(3), Codec::Zstd(-1)] {
            assert_eq!(codec.to_string().parse(), Ok(codec));
        }
    }

    #[test]
    fn pages_come_back() {
        let text: Vec<u8> = (0..PAGE_SIZE).map(|i| b"swapper_pg_dir"[i * i % 14]).collect();
        let mut seed = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(PAGE_SIZE)
        .collect();
        for codec in [Codec::None, Codec::Zlib(1), Codec::Zstd(1), Codec::Zstd(-5)] {
            let mut z = codec.compressor().unwrap();
            for (page, small) in [(&text, codec != Codec::None), (&noise, false), (&text, codec != Codec::None)] {
                let mut out = b"before".to_vec();
                assert_eq!(z.append(page, &mut out), small, "{codec}");
                let mut back = out.split_off(6);
                if small {
                    let mut plain = Vec::new();
                    match codec {
                        Codec::Zlib(_) => {
                            flate2::read::ZlibDecoder::new(&back[..]).read_to_end(&mut plain).unwrap();
                        }
                        _ => plain = zstd::bulk::decompress(&back, PAGE_SIZE).unwrap(),
                    }
                    back = plain;
                }
                assert!(back == *page, "{codec}");
            }
        }
    }
}
