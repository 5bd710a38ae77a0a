//! A bitmap over frame numbers, in the byte order of the kdump-compressed format: bit `n` is bit `n % 8` of byte `n / 8`.

/// A growable set of frame numbers below a fixed bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u64,
}

impl Bitmap {
    /// An empty set for the numbers below `len`. The caller has bounded `len` (8 numbers need one byte).
    pub fn new(len: u64) -> Self {
        let words = vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX)];
        Self { words, len }
    }

    /// The set whose bits are these words, the lowest first.
    pub fn from_words(mut words: Vec<u64>, len: u64) -> Self {
        words.resize(usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX), 0);
        Self { words, len }
    }

    /// Adds `n`; numbers past the bound are ignored.
    pub fn set(&mut self, n: u64) {
        if let Some(word) = self.word(n).and_then(|w| self.words.get_mut(w)) {
            *word |= 1 << (n % 64);
        }
    }

    /// Adds `count` numbers from `first` on.
    pub fn set_range(&mut self, first: u64, count: u64) {
        let end = first.saturating_add(count).min(self.len);
        let mut n = first;
        while n < end {
            let upto = end.min((n / 64 + 1) * 64);
            let ones = if upto - n == 64 { u64::MAX } else { ((1 << (upto - n)) - 1) << (n % 64) };
            if let Some(w) = self.words.get_mut((n / 64) as usize) {
                *w |= ones;
            }
            n = upto;
        }
    }

    /// Adds what `other` has.
    pub fn union(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Whether `n` is in the set.
    pub fn get(&self, n: u64) -> bool {
        self.word(n).and_then(|w| self.words.get(w)).is_some_and(|w| w >> (n % 64) & 1 == 1)
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// The bits as the format stores them.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        let len = usize::try_from(self.len.div_ceil(8)).unwrap_or(usize::MAX);
        self.words.iter().flat_map(|w| w.to_le_bytes()).take(len)
    }

    fn word(&self, n: u64) -> Option<usize> {
        (n < self.len).then(|| usize::try_from(n / 64).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bits_lie_lsb_first() {
        let mut b = Bitmap::new(17);
        for n in [0, 9, 16, 17, 1000] {
            b.set(n);
        }
        assert_eq!(b.bytes().collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(b.count(), 3);
        assert!(b.get(9) && !b.get(8) && !b.get(17));
    }

    proptest! {
        #[test]
        fn a_range_is_its_numbers(first in 0u64..300, count in 0u64..300) {
            let (mut a, mut b) = (Bitmap::new(256), Bitmap::new(256));
            a.set_range(first, count);
            (first..first + count).for_each(|n| b.set(n));
            prop_assert_eq!(a, b);
        }
    }
}
