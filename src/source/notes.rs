//! ELF notes, walked with every length checked.
//!
//! A note is three `u32` (name size, descriptor size, type), the name, the descriptor, each padded to 4 bytes. Readers
//! disagree about 8: drgn's rule, taken here, is that only segments with `p_align` 8 are padded to 8, since Linux and
//! Xen write 0, 1 or 4 there and pad to 4. Xen's own notes are padded to 4 whatever a header says.

use crate::bytes::u32_at;

/// One note, borrowed from its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Name without the NULs at its end.
    pub name: &'a [u8],
    /// Type; its meaning depends on the name.
    pub kind: u32,
    /// The descriptor.
    pub desc: &'a [u8],
}

/// Walks the notes of one segment. Ends at the first that does not fit; [`Notes::rest`] then is not empty.
#[derive(Clone, Debug)]
pub struct Notes<'a> {
    rest: &'a [u8],
    align: usize,
}

impl<'a> Notes<'a> {
    /// `segment` holds the segment's bytes, `p_align` is its header's. With 8, padding to 4 is taken where only that
    /// walks the segment to its end.
    pub fn new(segment: &'a [u8], p_align: u64) -> Self {
        let padded_to = |align| Self { rest: segment, align };
        let walks = |align| {
            let mut notes = padded_to(align);
            notes.by_ref().count() > 0 && notes.rest.iter().all(|b| *b == 0)
        };
        padded_to(if p_align == 8 && (walks(8) || !walks(4)) { 8 } else { 4 })
    }

    /// What could not be walked.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let name_len = u32_at(self.rest, 0)? as usize;
        let desc_len = u32_at(self.rest, 4)? as usize;
        let kind = u32_at(self.rest, 8)?;
        let padded = |n: usize| n.checked_next_multiple_of(self.align);
        let desc_at = padded(12_usize.checked_add(name_len)?)?;
        let end = desc_at.checked_add(desc_len)?;
        let name = self.rest.get(12..12 + name_len)?;
        let desc = self.rest.get(desc_at..end)?;
        // The last note may come without its padding.
        self.rest = self.rest.get(padded(end)?..).unwrap_or_default();
        let named = name.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
        Some(Note { name: name.get(..named)?, kind, desc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &[u8] = b"\x05\0\0\0\x03\0\0\0\x01\0\0\0CORE\0\0\0\0abc\0\x04\0\0\0\0\0\0\0\x02\0\0\x01Xen\0";

    #[test]
    fn two_notes() {
        let mut notes = Notes::new(TWO, 0);
        assert_eq!(notes.next(), Some(Note { name: b"CORE", kind: 1, desc: b"abc" }));
        assert_eq!(notes.next(), Some(Note { name: b"Xen", kind: 0x100_0002, desc: b"" }));
        assert_eq!(notes.next(), None);
        assert!(notes.rest().is_empty());
    }

    #[test]
    fn cut_at_every_length() {
        for n in 0..TWO.len() {
            let whole = Notes::new(&TWO[..n], 4).count();
            assert_eq!(whole, usize::from(n >= 23), "{n} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200), align in 0u64..9) {
            prop_assert!(Notes::new(&bytes, align).count() <= bytes.len() / 12);
        }
    }
}
