//! lz4 frames that follow each other in one file, where the library decodes one alone.

use super::gzip::bad;
use super::is_skippable;
use std::io::{self, BufReader, Cursor, Read};

const LZ4: u32 = 0x184d_2204;
const LZ4_LEGACY: u32 = 0x184c_2102;
/// Plain bytes of a legacy frame's blocks, and the most that one can be packed to (`LZ4_compressBound`).
const LEGACY_BLOCK: usize = 8 << 20;
const LEGACY_PACKED: u32 = (LEGACY_BLOCK + LEGACY_BLOCK / 255 + 16) as u32;

/// A stream that tells whether its end was met, and takes bytes back.
struct Input<R> {
    back: Cursor<Vec<u8>>,
    inner: BufReader<R>,
    ended: bool,
}

impl<R: Read> Input<R> {
    fn new(inner: R) -> Self {
        Self { back: Cursor::new(Vec::new()), inner: BufReader::new(inner), ended: false }
    }

    /// Four bytes; nothing at the end of the stream.
    fn word(&mut self) -> io::Result<Option<u32>> {
        let mut word = [0; 4];
        match super::fill(self, &mut word) {
            (4, _) => Ok(Some(u32::from_le_bytes(word))),
            (_, Some(e)) => Err(e),
            (0, None) => Ok(None),
            (_, None) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.back.read(buf)? {
            0 => self.inner.read(buf)?,
            n => n,
        };
        self.ended |= n == 0 && !buf.is_empty();
        Ok(n)
    }
}

/// What an lz4 stream is at.
enum State<R: Read> {
    /// Before a frame, or a legacy frame's next block.
    Between(Input<R>),
    Modern(Box<lz4_flex::frame::FrameDecoder<Input<R>>>),
    Over,
}

/// lz4 frames one behind the other: modern, legacy and skippable ones.
pub(super) struct Lz4<R: Read> {
    state: State<R>,
    /// Plain bytes of a legacy frame's block.
    block: Cursor<Vec<u8>>,
    in_legacy: bool,
}

impl<R: Read> Lz4<R> {
    pub(super) fn new(input: R) -> Self {
        Self { state: State::Between(Input::new(input)), block: Cursor::new(Vec::new()), in_legacy: false }
    }

    /// Goes on to the next frame or the next legacy block.
    fn next(&mut self, mut input: Input<R>) -> io::Result<State<R>> {
        match input.word()? {
            None => return Ok(State::Over),
            Some(LZ4) => {
                self.in_legacy = false;
                input.back = Cursor::new(LZ4.to_le_bytes().into());
                return Ok(State::Modern(Box::new(lz4_flex::frame::FrameDecoder::new(input))));
            }
            Some(LZ4_LEGACY) => self.in_legacy = true,
            Some(magic) if is_skippable(magic) => {
                self.in_legacy = false;
                let size = u64::from(input.word()?.ok_or(io::ErrorKind::UnexpectedEof)?);
                if io::copy(&mut input.by_ref().take(size), &mut io::sink())? < size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Some(size @ 1..=LEGACY_PACKED) if self.in_legacy => {
                let mut packed = vec![0; size as usize];
                input.read_exact(&mut packed)?;
                let mut plain = std::mem::take(&mut self.block).into_inner();
                plain.resize(LEGACY_BLOCK, 0);
                let n = lz4_flex::block::decompress_into(&packed, &mut plain).map_err(|e| bad(&e.to_string()))?;
                plain.truncate(n);
                self.block = Cursor::new(plain);
            }
            Some(_) => return Err(bad("neither a frame nor its end follows")),
        }
        Ok(State::Between(input))
    }
}

impl<R: Read> Read for Lz4<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let n = self.block.read(buf)?;
            if n > 0 {
                return Ok(n);
            }
            match std::mem::replace(&mut self.state, State::Over) {
                State::Between(input) => self.state = self.next(input)?,
                State::Modern(mut decoder) => {
                    let n = decoder.read(buf)?;
                    if n == 0 {
                        let input = decoder.into_inner();
                        // A decoder that met the end of the stream saw no end of its frame.
                        if input.ended {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        self.state = State::Between(input);
                    } else {
                        self.state = State::Modern(decoder);
                        return Ok(n);
                    }
                }
                State::Over => return Ok(0),
            }
        }
    }
}
