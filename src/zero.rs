//! Whether a page is all zeros.

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
}
