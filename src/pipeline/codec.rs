//! Compression of single pages, as kdump-compressed files have it: one complete stream per page, raw if that is no
//! smaller.

#[cfg(feature = "lzo")]
use super::lzo::Lzo;
use crate::error::{Error, Result};
use crate::units::PAGE_SIZE;
use libdeflater::CompressionLvl;
use std::fmt;
use std::str::FromStr;

/// Which codec, and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Pages as they are.
    None,
    /// zlib, which every reader knows.
    Zlib(u32),
    /// LZO1X-1, by the system's liblzo2: needs the feature `lzo`. crash, makedumpfile and libkdumpfile may be built without.
    Lzo,
    /// snappy, one raw block. Readers may be built without; Debian's makedumpfile is.
    Snappy,
    /// zstd: crash 7.3.1 and later, makedumpfile 1.7.0, libkdumpfile 0.5.
    Zstd(i32),
}

impl Default for Codec {
    fn default() -> Self {
        Self::ZSTD
    }
}

impl Codec {
    /// zlib at its default level.
    pub const ZLIB: Self = Self::Zlib(1);
    /// zstd at its default level.
    pub const ZSTD: Self = Self::Zstd(1);
    /// All that this build has, at their default levels.
    #[cfg(not(feature = "lzo"))]
    pub const ALL: &[Self] = &[Self::None, Self::ZLIB, Self::ZSTD, Self::Snappy];
    /// All that this build has, at their default levels.
    #[cfg(feature = "lzo")]
    pub const ALL: &[Self] = &[Self::None, Self::ZLIB, Self::ZSTD, Self::Snappy, Self::Lzo];

    /// The flag of a page descriptor, and of the header's status word (makedumpfile: DUMP_DH_COMPRESSED_*).
    pub fn flag(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Zlib(_) => 0x1,
            Self::Lzo => 0x2,
            Self::Snappy => 0x4,
            Self::Zstd(_) => 0x20,
        }
    }

    /// A compressor to be used for many pages.
    ///
    /// # Errors
    /// If the codec's library refuses its level, or this build has no lzo.
    pub fn compressor(self) -> Result<Compressor> {
        // One byte less than a page, where the codec can be held to that: what does not fit is stored as it is.
        let less = PAGE_SIZE - 1;
        let (state, room) = match self {
            Self::None => (State::None, 0),
            Self::Zlib(level) => {
                let known = i32::try_from(level).ok().and_then(|n| CompressionLvl::new(n).ok());
                let level = known.ok_or_else(|| Error::Usage(format!("zlib has no level {level}")))?;
                (State::Zlib(libdeflater::Compressor::new(level)), less)
            }
            Self::Lzo => lzo()?,
            Self::Snappy => {
                (State::Snappy(Box::new(snap::raw::Encoder::new())), snap::raw::max_compress_len(PAGE_SIZE))
            }
            Self::Zstd(level) => {
                let context = zstd::bulk::Compressor::new(level);
                (State::Zstd(context.map_err(|e| Error::Usage(format!("zstd level {level}: {e}")))?), less)
            }
        };
        Ok(Compressor { state, room: vec![0; room] })
    }
}

#[cfg(feature = "lzo")]
fn lzo() -> Result<(State, usize)> {
    Ok((State::Lzo(Lzo::new()?), Lzo::room(PAGE_SIZE)))
}

#[cfg(not(feature = "lzo"))]
fn lzo() -> Result<(State, usize)> {
    let how = "build it with `cargo build --release --features lzo`, which links the system's liblzo2 (liblzo2-dev)";
    Err(Error::Usage(format!("this xdump-cut has no lzo, as liblzo2 is under the GPL: {how}")))
}

impl FromStr for Codec {
    type Err = String;

    /// `none`, `zlib[:1-9]`, `lzo`, `snappy` or `zstd[:-7..19]`.
    fn from_str(s: &str) -> Result<Self, String> {
        let (name, level) = s.split_once(':').map_or((s, None), |(n, l)| (n, Some(l)));
        let codec = match name {
            "none" => Self::None,
            "zlib" => Self::ZLIB,
            "lzo" => Self::Lzo,
            "snappy" => Self::Snappy,
            "zstd" => Self::ZSTD,
            _ => return Err("one of zstd[:-7..19], zlib[:1-9], lzo, snappy, none".into()),
        };
        let Some(text) = level else { return Ok(codec) };
        let level = |range: std::ops::RangeInclusive<i32>| {
            let level = text.parse().ok().filter(|n| range.contains(n));
            level.ok_or_else(|| format!("{name} has levels {} to {}, not {text:?}", range.start(), range.end()))
        };
        match codec {
            Self::Zlib(_) => Ok(Self::Zlib(level(1..=9)? as u32)),
            Self::Zstd(_) => Ok(Self::Zstd(level(-7..=19)?)),
            Self::None | Self::Lzo | Self::Snappy => Err(format!("{name} has no levels")),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Zlib(level) => write!(f, "zlib:{level}"),
            Self::Lzo => f.write_str("lzo"),
            Self::Snappy => f.write_str("snappy"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// A codec's context, reused from page to page: a new one each time costs more than half of the speed.
pub struct Compressor {
    state: State,
    room: Vec<u8>,
}

enum State {
    None,
    Zlib(libdeflater::Compressor),
    #[cfg(feature = "lzo")]
    Lzo(Lzo),
    Snappy(Box<snap::raw::Encoder>),
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
            State::Zlib(z) => z.zlib_compress(page, &mut self.room).ok(),
            #[cfg(feature = "lzo")]
            State::Lzo(z) => z.compress(page, &mut self.room),
            State::Snappy(z) => z.compress(page, &mut self.room).ok(),
            State::Zstd(z) => z.compress_to_buffer(page, &mut self.room[..]).ok(),
        };
        let compressed = len.filter(|len| *len < page.len()).and_then(|len| self.room.get(..len));
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
        for bad in ["zlib:0", "zstd:20", "zstd:-8", "none:1", "lzo:1", "snappy:", "lz4", "", "zlib:x"] {
            assert!(bad.parse::<Codec>().is_err(), "{bad}");
        }
        for codec in [Codec::None, Codec::Zlib(3), Codec::Lzo, Codec::Snappy, Codec::Zstd(-1)] {
            assert_eq!(codec.to_string().parse(), Ok(codec));
        }
    }

    fn plain(codec: Codec, packed: &[u8]) -> Vec<u8> {
        match codec {
            Codec::None => packed.to_vec(),
            Codec::Zlib(_) => {
                let mut plain = Vec::new();
                flate2::read::ZlibDecoder::new(packed).read_to_end(&mut plain).unwrap();
                plain
            }
            Codec::Lzo => {
                let mut plain = vec![0; PAGE_SIZE];
                let len = lzokay::decompress::decompress(packed, &mut plain).unwrap();
                plain.truncate(len);
                plain
            }
            Codec::Snappy => snap::raw::Decoder::new().decompress_vec(packed).unwrap(),
            Codec::Zstd(_) => zstd::bulk::decompress(packed, PAGE_SIZE).unwrap(),
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
        let mut codecs = vec![Codec::None, Codec::Zlib(1), Codec::Snappy, Codec::Zstd(1), Codec::Zstd(-5)];
        codecs.extend(cfg!(feature = "lzo").then_some(Codec::Lzo));
        for codec in codecs {
            let mut z = codec.compressor().unwrap();
            let mut first = None;
            for (page, small) in [(&text, codec != Codec::None), (&noise, false), (&text, codec != Codec::None)] {
                let mut out = b"before".to_vec();
                assert_eq!(z.append(page, &mut out), small, "{codec}");
                let back = out.split_off(6);
                assert!(if small { plain(codec, &back) } else { back.clone() } == *page, "{codec}");
                // What came before leaves no trace: the output must not depend on which thread has which page.
                assert!(page != &text || *first.get_or_insert(back.clone()) == back, "{codec}");
            }
        }
    }

    #[test]
    #[cfg(not(feature = "lzo"))]
    fn without_lzo_it_is_told_how_to_get_it() {
        let said = Codec::Lzo.compressor().unwrap_err();
        assert!(matches!(&said, Error::Usage(why) if why.contains("--features lzo")), "{said}");
    }
}
