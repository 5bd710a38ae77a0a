//! A pass over the pages before they are written, for formats that must know first: which of them the file will store.

use super::crew::Crew;
use super::digest::{Digest, Leaves};
use super::ordered::ordered;
use super::walk::{CHUNK, Chunk, Piece, Walker};
use super::{Progress, advance};
use crate::bitmap::Bitmap;
use crate::error::{Absence, Result};
use crate::units::{PAGE_SIZE, Pfn};
use crate::zero::{certainly_full, is_zero};
use std::collections::BTreeMap;

/// A bit for each page of a chunk.
type Bits = [u64; (CHUNK / 64) as usize];

fn set(bits: &mut Bits, at: u64, count: u64) {
    for n in at..at + count {
        if let Some(word) = bits.get_mut((n / 64) as usize) {
            *word |= 1 << (n % 64);
        }
    }
}

/// Pages by position in the plan.
#[derive(Debug)]
pub struct Found {
    /// Those that are stored.
    pub data: Bitmap,
    /// Those that cannot be read.
    pub lost: Bitmap,
    /// Why, and how many.
    pub reasons: BTreeMap<Absence, u64>,
    /// The digest of all that can be read, if it is wanted.
    pub digest: Option<String>,
}

/// What a worker finds in a chunk.
#[derive(Default)]
struct Part {
    data: Bits,
    lost: Bits,
    reasons: BTreeMap<Absence, u64>,
    leaves: Leaves,
}

/// Which pages are not zero, and which cannot be read.
pub fn find_data(walker: &Walker<'_>, digest: bool, crew: &Crew, progress: &dyn Progress) -> Result<Found> {
    let plan = walker.plan();
    let drop_zeros = plan.level.drops_zeros();
    progress.stage("finding zero pages", Some(plan.pages()));
    let examine = |chunk: Chunk| {
        let mut part = Part::default();
        let mut at = 0;
        walker.visit(chunk, |pfn, piece| {
            let mut next = pfn;
            let mut page = |page: &[u8]| {
                if digest {
                    part.leaves.push(next, page);
                }
                next = Pfn(next.0 + 1);
                set(&mut part.data, at, u64::from(!(drop_zeros && is_zero(page))));
                at += 1;
            };
            match piece {
                Piece::Plain(bytes) if digest => bytes.chunks_exact(PAGE_SIZE).for_each(page),
                Piece::Plain(bytes) => {
                    for some in bytes.chunks(64 * PAGE_SIZE) {
                        let full = if drop_zeros { certainly_full(some) } else { u64::MAX };
                        for (n, page) in (0..).zip(some.chunks_exact(PAGE_SIZE)) {
                            set(&mut part.data, at, u64::from(full >> n & 1 == 1 || !is_zero(page)));
                            at += 1;
                        }
                    }
                }
                Piece::Altered(bytes) => page(bytes),
                Piece::Zeros(n) => {
                    if digest {
                        part.leaves.push_zeros(pfn, n);
                    }
                    set(&mut part.data, at, if drop_zeros { 0 } else { n });
                    at += n;
                }
                Piece::Lost(why) => {
                    *part.reasons.entry(why).or_default() += 1;
                    set(&mut part.lost, at, 1);
                    at += 1;
                }
            }
            Ok(())
        })?;
        advance(progress, chunk.pages)?;
        Ok(part)
    };
    let (mut data, mut lost, mut reasons) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut all = digest.then(Digest::default);
    ordered(crew, walker.chunks(None), examine, |part: Part| {
        data.extend(part.data);
        lost.extend(part.lost);
        part.reasons.into_iter().for_each(|(why, n)| *reasons.entry(why).or_default() += n);
        all.iter_mut().for_each(|d| d.add(&part.leaves));
        Ok(())
    })?;
    let bitmap = |words| Bitmap::from_words(words, plan.pages());
    Ok(Found { data: bitmap(data), lost: bitmap(lost), reasons, digest: all.map(|d| d.text()) })
}
