//! Whether a page is all zeros, or one word over and over.

use crate::units::PAGE_SIZE;

/// Stops at the first 256 bytes that are not; the fold over each is what compilers turn into vector code (`cargo bench`,
/// "zero test").
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<256>();
    let fold = |block: &[u8; 256]| {
        let (words, _) = block.as_chunks::<8>();
        words.iter().fold(0, |all, w| all | u64::from_ne_bytes(*w))
    };
    blocks.iter().all(|b| fold(b) == 0) && rest.iter().all(|b| *b == 0)
}

/// Which of the first 64 pages, by a bit for each, are certainly not zero, by their first 64 bytes. No look waits for another
/// one's end, so that memory answers many at a time (`cargo bench`, "zero test").
pub fn certainly_full(pages: &[u8]) -> u64 {
    let full = |page: &[u8]| {
        let (words, _) = page.get(..64).unwrap_or_default().as_chunks::<8>();
        words.iter().fold(0, |all, w| all | u64::from_ne_bytes(*w)) != 0
    };
    let pages = pages.chunks_exact(PAGE_SIZE).take(64);
    (0..).zip(pages).fold(0, |bits, (n, page)| bits | u64::from(full(page)) << n)
}

/// The word of eight bytes that the page is made of, over and over. Most pages are told from such by their first 256 bytes.
pub fn one_word(page: &[u8]) -> Option<u64> {
    let (blocks, rest) = page.as_chunks::<256>();
    let word = u64::from_le_bytes(*page.first_chunk()?);
    let fold = |block: &[u8; 256]| {
        let (words, _) = block.as_chunks::<8>();
        words.iter().fold(0, |all, w| all | (u64::from_le_bytes(*w) ^ word))
    };
    let same = |(i, byte): (usize, &u8)| word.to_le_bytes().get(i % 8) == Some(byte);
    (blocks.iter().all(|b| fold(b) == 0) && rest.iter().enumerate().all(same)).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_counts() {
        let mut page = [0; 4096 + 3];
        assert!(is_zero(&page));
        for i in 0..page.len() {
            page[i] = 1;
            assert!(!is_zero(&page), "byte {i}");
            page[i] = 0;
        }
    }

    #[test]
    fn what_is_certain_is_so_and_the_rest_is_left_open() {
        let mut pages = vec![0; 70 * PAGE_SIZE + 100];
        pages[5 * PAGE_SIZE] = 1;
        pages[63 * PAGE_SIZE + 63] = 1;
        // Too far into its page, and too far behind.
        pages[7 * PAGE_SIZE + 64] = 1;
        pages[64 * PAGE_SIZE] = 1;
        assert_eq!(certainly_full(&pages), 1 << 5 | 1 << 63);
        assert_eq!((certainly_full(&[]), certainly_full(&[1; 100])), (0, 0));
    }

    #[test]
    fn one_word_over_and_over() {
        let word = 0x1122_3344_5566_7788_u64;
        let mut page = word.to_le_bytes().repeat(512);
        assert_eq!(one_word(&page), Some(word));
        for i in 0..page.len() {
            page[i] ^= 1;
            assert_eq!(one_word(&page), None, "byte {i}");
            page[i] ^= 1;
        }
        assert_eq!((one_word(&[0; 4096]), one_word(&[]), one_word(&page[..20])), (Some(0), None, Some(word)));
    }
}
