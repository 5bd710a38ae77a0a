//! A synthetic machine as a kdump-compressed file: an independent writer of versions 1 to 6, after makedumpfile's
//! diskdump_mod.h.

use super::mem::PAGE;
use super::truth::Dump;
use std::io::Write;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    None,
    Zlib,
    Lzo,
    Snappy,
    Zstd,
    /// Each page by another.
    Mixed,
}

pub const CODECS: [Codec; 6] = [Codec::None, Codec::Zlib, Codec::Lzo, Codec::Snappy, Codec::Zstd, Codec::Mixed];

#[derive(Clone, Debug)]
pub struct KdumpOptions {
    pub version: u32,
    pub codec: Codec,
    /// A part of a split dump: its PFNs.
    pub split: Option<(u64, u64)>,
    /// MFNs that exist but were left out.
    pub excluded: Vec<u64>,
    /// MFNs whose descriptors are zero, as in a dump that ran out of space.
    pub incomplete: Vec<u64>,
    /// One bitmap instead of two, as diskdump had it.
    pub one_bitmap: bool,
    /// All zero pages share one, as makedumpfile has it.
    pub shared_zero: bool,
}

impl Default for KdumpOptions {
    fn default() -> Self {
        let (excluded, incomplete) = (Vec::new(), Vec::new());
        Self { version: 6, codec: Codec::Zlib, split: None, excluded, incomplete, one_bitmap: false, shared_zero: true }
    }
}

/// Bytes of headers, before the bitmaps.
pub fn head_len(dump: &Dump) -> usize {
    PAGE + (104 + notes(dump).len()).next_multiple_of(PAGE)
}

/// The bytes of the ELF file's PT_NOTEs.
pub fn notes(dump: &Dump) -> Vec<u8> {
    let b = &dump.bytes;
    let word = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap()) as usize;
    let phnum = u16::from_le_bytes([b[56], b[57]]) as usize;
    let headers = (0..phnum).map(|n| word(32) + n * 56).filter(|h| b[*h] == 4);
    headers.flat_map(|h| b[word(h + 8)..word(h + 8) + word(h + 32)].to_vec()).collect()
}

pub fn compress(codec: Codec, page: &[u8; PAGE]) -> (u32, Vec<u8>) {
    let (flag, data) = match codec {
        Codec::None | Codec::Mixed => (0, page.to_vec()),
        Codec::Zlib => {
            let mut z = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            z.write_all(page).unwrap();
            (1, z.finish().unwrap())
        }
        Codec::Lzo => (2, lzokay::compress::compress(page).unwrap()),
        Codec::Snappy => (4, snap::raw::Encoder::new().compress_vec(page).unwrap()),
        Codec::Zstd => (0x20, zstd::bulk::compress(page, 1).unwrap()),
    };
    if data.len() < PAGE { (flag, data) } else { (0, page.to_vec()) }
}

pub fn kdump(dump: &Dump, o: &KdumpOptions) -> Vec<u8> {
    let exists = |mfn: u64| dump.saved.iter().any(|(start, end)| *start <= mfn << 12 && (mfn + 1) << 12 <= *end);
    let mapnr = dump.saved.iter().map(|r| r.1).max().unwrap() >> 12;
    let all: Vec<u64> = (0..mapnr).filter(|m| exists(*m)).collect();
    let stored: Vec<u64> = all.iter().copied().filter(|m| !o.excluded.contains(m)).collect();
    let notes = if o.version >= 4 { notes(dump) } else { Vec::new() };
    let text = if o.version == 3 { dump.truth.vmcoreinfo.as_bytes() } else { &[] };
    let sub_blocks = (104 + notes.len() + text.len()).div_ceil(PAGE);
    let bitmap = (mapnr as usize).div_ceil(8).next_multiple_of(PAGE);
    let bitmaps = if o.one_bitmap { 1 } else { 2 };

    let mut out = b"KDUMP   ".to_vec();
    let put = |out: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        out.resize(out.len().max(at + bytes.len()), 0);
        out[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut out, 8, &o.version.to_le_bytes());
    put(&mut out, 12 + 4 * 65, b"x86_64");
    let status = match o.codec {
        Codec::None => 0,
        Codec::Zlib => 1,
        Codec::Lzo => 2,
        Codec::Snappy => 4,
        Codec::Zstd => 0x20,
        Codec::Mixed => 0x27,
    } | if o.incomplete.is_empty() { 0 } else { 8 };
    let words = [status, PAGE as u32, sub_blocks as u32, (bitmaps * bitmap / PAGE) as u32, mapnr as u32];
    words.iter().enumerate().for_each(|(n, w)| put(&mut out, 424 + n * 4, &w.to_le_bytes()));
    put(&mut out, 460, &2_u32.to_le_bytes());
    let (first, end) = o.split.unwrap_or((0, 0));
    // What a version does not have is no zero, but whatever stood there.
    put(&mut out, PAGE, &[0xee; 104]);
    let sub = |out: &mut Vec<u8>, at: usize, value: u64| put(out, PAGE + at, &value.to_le_bytes());
    sub(&mut out, 0, 0);
    put(&mut out, PAGE + 8, &u32::from(!o.excluded.is_empty()).to_le_bytes());
    if o.version >= 2 {
        put(&mut out, PAGE + 12, &u32::from(o.split.is_some()).to_le_bytes());
        sub(&mut out, 16, first);
        sub(&mut out, 24, end);
    }
    if o.version >= 3 {
        sub(&mut out, 32, if text.is_empty() { 0 } else { (PAGE + 104) as u64 });
        sub(&mut out, 40, text.len() as u64);
    }
    if o.version >= 4 {
        sub(&mut out, 48, (PAGE + 104) as u64);
        sub(&mut out, 56, notes.len() as u64);
    }
    if o.version >= 5 {
        sub(&mut out, 64, 0);
        sub(&mut out, 72, 0);
    }
    if o.version >= 6 {
        [(80, first), (88, end), (96, mapnr)].iter().for_each(|(at, v)| sub(&mut out, *at, *v));
    }
    put(&mut out, PAGE + 104, &[&notes[..], text].concat());
    let at = (1 + sub_blocks) * PAGE;
    put(&mut out, at, &vec![0; bitmap * bitmaps]);
    for (n, set) in [&all, &stored].into_iter().enumerate().skip(usize::from(o.one_bitmap)) {
        let base = at + if o.one_bitmap { 0 } else { n * bitmap };
        set.iter().for_each(|m| out[base + *m as usize / 8] |= 1 << (m % 8));
    }
    let mine: Vec<u64> = match o.split {
        Some((first, end)) => stored.into_iter().filter(|m| (first..end).contains(m)).collect(),
        None => stored,
    };
    let descriptors = at + bitmaps * bitmap;
    let zero_at = (descriptors + mine.len() * 24) as u64;
    let mut data = vec![0; PAGE];
    for (n, mfn) in mine.iter().enumerate() {
        let page = dump.page(*mfn);
        let codec = match o.codec {
            Codec::Mixed => CODECS[n % 5],
            one => one,
        };
        let (place, size, flags) = if o.incomplete.contains(mfn) {
            (0, 0, 0)
        } else if o.shared_zero && page.iter().all(|b| *b == 0) {
            (zero_at, PAGE, 0)
        } else {
            let (flags, packed) = compress(codec, page);
            data.extend(&packed);
            (zero_at + (data.len() - packed.len()) as u64, packed.len(), flags)
        };
        put(&mut out, descriptors + n * 24, &place.to_le_bytes());
        put(&mut out, descriptors + n * 24 + 8, &(size as u32).to_le_bytes());
        put(&mut out, descriptors + n * 24 + 12, &flags.to_le_bytes());
        put(&mut out, descriptors + n * 24 + 16, &[0; 8]);
    }
    out.extend(data);
    out
}
