//! gzip members that follow each other in one file, where the library decodes one alone.

use std::io::{self, BufRead, BufReader, Read};

pub(super) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// gzip members one behind the other, with zeros between and behind them, as tapes and block devices leave them.
pub(super) struct Gzip<R: Read> {
    member: Option<flate2::bufread::GzDecoder<BufReader<R>>>,
}

impl<R: Read> Gzip<R> {
    pub(super) fn new(input: R) -> Self {
        Self { member: Some(flate2::bufread::GzDecoder::new(BufReader::new(input))) }
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while let Some(mut member) = self.member.take() {
            let n = member.read(buf)?;
            if n > 0 {
                self.member = Some(member);
                return Ok(n);
            }
            let mut input = member.into_inner();
            loop {
                let bytes = match input.fill_buf() {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    bytes => bytes?,
                };
                let zeros = bytes.iter().take_while(|b| **b == 0).count();
                match (bytes.len(), bytes.get(zeros)) {
                    (0, _) => return Ok(0),
                    (_, None) => input.consume(zeros),
                    (_, Some(0x1f)) => {
                        input.consume(zeros);
                        break;
                    }
                    (_, Some(_)) => return Err(bad("what follows its end is no gzip")),
                }
            }
            self.member = Some(flate2::bufread::GzDecoder::new(input));
        }
        Ok(0)
    }
}
