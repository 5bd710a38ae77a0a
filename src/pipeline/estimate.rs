//! How large an output would be: a sample of its pages, compressed in every way.

use super::codec::Codec;
use super::crew::Crew;
use super::walk::{Chunk, Piece, Walker, chunks};
use crate::error::{Error, Result};
use crate::units::{PAGE_BYTES, PAGE_SIZE};
use crate::zero::{is_zero, one_word};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// Pages in a row that are looked at: what lies together is alike, so many short spans tell more than few long ones.
const SPAN: u64 = 16;
/// Most spans: one of each chunk, up to 64 MiB.
const MOST_SPANS: u64 = 1024;
/// Spans that are compressed together for ELF in zstd: more than a frame has, since spans from here and there have less in
/// common than what lies together.
const TOGETHER: usize = 4;
/// With fewer chunks, all of each is looked at.
const FEW: u64 = 16;
/// Bytes of a descriptor of the kdump format and of two bits in its bitmaps, rounded up.
const BESIDE_A_PAGE: u64 = 25;
/// Bytes of headers beside the notes, generously.
const HEADERS: u64 = 64 << 10;
/// Bytes of program headers of a page that stands alone, in the direct map and in the image.
const ALONE: u64 = 112;

/// What a cut would be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Pages of the output, zero ones included; this is counted.
    pub pages: u64,
    /// How many of them were looked at.
    pub sampled: u64,
    /// Of all pages, zero ones that need no room; from the sample.
    pub zero: u64,
    /// Bytes that no format exceeds: all pages as they are.
    pub at_most: u64,
    /// Bytes by format, from the sample: `kdump zstd:1`, `elf`, `elf in zstd:3`.
    pub bytes: BTreeMap<String, u64>,
}

/// A span's pages and bytes by way of packing.
#[derive(Clone, Debug, Default)]
struct Sums {
    pages: u64,
    zero: u64,
    bytes: Vec<u64>,
}

/// Looks at a sample. `codecs` are those of the kdump format, `levels` those of ELF in zstd, `notes` the bytes of the notes.
///
/// # Errors
/// If a codec's library refuses its level.
pub fn estimate(walker: &Walker<'_>, codecs: &[Codec], levels: &[i32], notes: u64, crew: &Crew) -> Result<Estimate> {
    let plan = walker.plan();
    let total = plan.pages().div_ceil(super::walk::CHUNK);
    let wanted = total.min(MOST_SPANS);
    // Evenly spread: the n-th is in chunk n * total / wanted, and each a span further into it.
    let mut next = 0;
    let spans: Vec<Chunk> = chunks(plan)
        .enumerate()
        .filter_map(|(i, chunk)| {
            let hit = i as u64 == next * total / wanted;
            let skip = next * SPAN % super::walk::CHUNK;
            next += u64::from(hit);
            hit.then(|| if total > FEW { chunk.part(skip.min(chunk.pages.saturating_sub(SPAN)), SPAN) } else { chunk })
        })
        .collect();
    let sums = crew.install(|| {
        let each = |spans: &[Chunk]| look(walker, spans, codecs, levels);
        spans.par_chunks(TOGETHER).map(each).try_reduce(Sums::default, |a, b| Ok(a.plus(&b)))
    })?;
    let pages = plan.pages();
    let scale =
        |n: u64| if sums.pages == 0 { 0 } else { (u128::from(n) * u128::from(pages) / u128::from(sums.pages)) as u64 };
    let headers = HEADERS + notes;
    let beside = headers + pages * BESIDE_A_PAGE + plan.end().0 / 4;
    let names = codecs.iter().map(|c| (format!("kdump {c}"), beside));
    let names =
        names.chain([("elf".into(), headers)]).chain(levels.iter().map(|l| (format!("elf in zstd:{l}"), headers)));
    let bytes = names.zip(&sums.bytes).map(|((name, beside), n)| (name, beside + scale(*n))).collect();
    Ok(Estimate {
        pages,
        sampled: sums.pages,
        zero: scale(sums.zero),
        at_most: beside + pages * (PAGE_BYTES + ALONE),
        bytes,
    })
}

impl Sums {
    fn plus(mut self, other: &Self) -> Self {
        self.bytes.resize(self.bytes.len().max(other.bytes.len()), 0);
        self.bytes.iter_mut().zip(&other.bytes).for_each(|(a, b)| *a += b);
        Self { pages: self.pages + other.pages, zero: self.zero + other.zero, ..self }
    }
}

fn look(walker: &Walker<'_>, spans: &[Chunk], codecs: &[Codec], levels: &[i32]) -> Result<Sums> {
    let drop_zeros = walker.plan().level.drops_zeros();
    let (mut sums, mut content) = (Sums::default(), Vec::new());
    let mut take = |_, piece: Piece<'_>| {
        let mut page = |page: &[u8]| {
            sums.pages += 1;
            if drop_zeros && is_zero(page) {
                sums.zero += 1;
            } else {
                content.extend_from_slice(page);
            }
        };
        match piece {
            Piece::Plain(bytes) => bytes.chunks_exact(PAGE_SIZE).for_each(page),
            Piece::Altered(bytes) => page(bytes),
            Piece::Zeros(n) => (0..n).for_each(|_| page(&[0; PAGE_SIZE])),
            // Not in the output either, and as many of the others will not be.
            Piece::Lost(_) => sums.pages += 1,
        }
        Ok(())
    };
    spans.iter().try_for_each(|span| walker.visit(*span, &mut take))?;
    let mut packed = Vec::new();
    for codec in codecs {
        let mut compressor = codec.compressor()?;
        packed.clear();
        content.chunks_exact(PAGE_SIZE).filter(|p| one_word(p).is_none()).for_each(|page| {
            compressor.append(page, &mut packed);
        });
        sums.bytes.push(packed.len() as u64);
    }
    // In the machine layout an ELF file has zero pages as holes.
    let solid = walker.plan().layout.is_machine();
    sums.bytes.push(if solid { sums.pages * PAGE_BYTES } else { content.len() as u64 });
    for level in levels {
        let whole = zstd::bulk::compress(&content, *level);
        sums.bytes.push(whole.map_err(|e| Error::Usage(format!("zstd level {level}: {e}")))?.len() as u64);
    }
    Ok(sums)
}
