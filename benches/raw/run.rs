//! One core's speed with a codec, page by page, on pages of a cut, and nothing else:
//! `cargo run --release --example raw -- CUT CODEC` (benches/README.md).
#![allow(missing_docs, clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};
use xdump_cut::error::{Error, Result};
use xdump_cut::pipeline::codec::Codec;
use xdump_cut::source::machine::Run;
use xdump_cut::source::{OpenOptions, open, read};
use xdump_cut::units::{Mfn, PAGE_BYTES, PAGE_SIZE};
use xdump_cut::zero::one_word;

/// Pages that lie together, of which one in so many parts is taken, until there are enough.
const PART: usize = 256;
const ONE_IN: usize = 8;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [cut, codec] = args.as_slice() else { return Err(Error::Usage("usage: raw CUT CODEC".into())) };
    let codec: Codec = codec.parse().map_err(Error::Usage)?;
    let source = open(Path::new(cut), &OpenOptions::default())?;
    let (_, mem) = read(&*source)?;
    let mut compressor = codec.compressor()?;
    let (mut buffer, mut out) = (Vec::new(), Vec::new());
    let (mut pages, mut packed, mut part) = (0_usize, 0, 0);
    let mut spent = Duration::ZERO;
    for (start, end) in mem.map().ranges() {
        let (mut mfn, end) = (start.0 / PAGE_BYTES, end.0 / PAGE_BYTES);
        while mfn < end {
            let wanted = PART.min((end - mfn) as usize);
            let Ok((run, n)) = mem.run(Mfn(mfn), wanted, &mut buffer) else {
                mfn += 1;
                continue;
            };
            mfn += n as u64;
            part += 1;
            let Run::Bytes(bytes) = run else { continue };
            if part % ONE_IN != 0 {
                continue;
            }
            // In the processor's cache, as a pipeline has it that reads before it compresses.
            let taken: Vec<u8> =
                bytes.chunks_exact(PAGE_SIZE).filter(|p| one_word(p).is_none()).flatten().copied().collect();
            out.clear();
            out.reserve(taken.len());
            let begin = Instant::now();
            for page in taken.chunks_exact(PAGE_SIZE) {
                compressor.append(page, &mut out);
            }
            spent += begin.elapsed();
            pages += taken.len() / PAGE_SIZE;
            packed += out.len();
        }
    }
    let bytes = (pages * PAGE_SIZE) as f64;
    println!("{:.1} MB/s ratio {:.3} pages {pages}", bytes / spent.as_secs_f64() / 1e6, bytes / packed as f64);
    Ok(())
}
