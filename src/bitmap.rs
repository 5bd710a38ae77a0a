//! A bitmap over frame numbers, in the byte order of the kdump-compressed format: bit `n` is bit `n % 8` of byte `n / 8`.

/// A growable set of frame numbers below a fixed bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// Takes `n` out.
    pub fn clear(&mut self, n: u64) {
        if let Some(word) = self.word(n).and_then(|w| self.words.get_mut(w)) {
            *word &= !(1 << (n % 64));
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

    /// The first number from `from` on that is in the set, if `there`, or is not; `None` if there is none below `end`.
    pub fn find(&self, there: bool, from: u64, end: u64) -> Option<u64> {
        let end = end.min(self.len);
        let mut n = from;
        while n < end {
            let word = self.words.get((n / 64) as usize).copied().unwrap_or(0);
            let hits = (if there { word } else { !word }) >> (n % 64);
            if hits != 0 {
                return Some(n + u64::from(hits.trailing_zeros())).filter(|n| *n < end);
            }
            n = (n / 64 + 1) * 64;
        }
        None
    }

    /// The end of the stretch of numbers from `at` on that are all in the set or all not in it, `end` at most.
    pub fn stretch(&self, at: u64, end: u64) -> u64 {
        match self.find(!self.get(at), at, end) {
            Some(other) => other,
            // Beyond the bound nothing is in the set.
            None if self.get(at) => end.min(self.len),
            None => end,
        }
    }

    /// How many of `count` numbers from `first` on are in the set.
    pub fn count_range(&self, first: u64, count: u64) -> u64 {
        let end = first.saturating_add(count).min(self.len);
        let (mut n, mut sum) = (first, 0);
        while n < end {
            let upto = end.min((n / 64 + 1) * 64);
            let word = self.words.get((n / 64) as usize).copied().unwrap_or(0);
            sum += u64::from((word >> (n % 64) << (64 - (upto - n))).count_ones());
            n = upto;
        }
        sum
    }

    /// Adds what `other` has.
    pub fn union(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Adds what `other` has, counted from `first` on, which is a multiple of 64.
    pub fn union_at(&mut self, first: u64, other: &Self) {
        let words = self.words.get_mut((first / 64) as usize..).unwrap_or_default();
        words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
        if let Some(last) = self.words.last_mut().filter(|_| !self.len.is_multiple_of(64)) {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }

    /// Takes out what is in the other one.
    pub fn subtract(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
    }

    /// Whether `n` is in the set.
    pub fn get(&self, n: u64) -> bool {
        self.word(n).and_then(|w| self.words.get(w)).is_some_and(|w| w >> (n % 64) & 1 == 1)
    }

    /// The bound: all numbers of the set are below it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
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
    fn a_union_ends_at_the_bound() {
        let (mut a, mut b) = (Bitmap::new(70), Bitmap::new(128));
        b.set_range(0, 128);
        a.union_at(64, &b);
        assert_eq!((a.count(), a.get(63), a.get(64)), (6, false, true));
    }

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
            prop_assert_eq!(a.count_range(first, count), a.count());
            prop_assert_eq!(a, b);
        }

        #[test]
        fn searches_go_by_bits(bits in prop::collection::vec(any::<bool>(), 200), from in 0u64..220, len in 0u64..220) {
            let mut b = Bitmap::new(200);
            (0..).zip(&bits).filter(|(_, set)| **set).for_each(|(n, _)| b.set(n));
            let end = from + len;
            for there in [false, true] {
                prop_assert_eq!(b.find(there, from, end), (from..end.min(200)).find(|n| b.get(*n) == there));
            }
            let other = (from..end).find(|n| b.get(*n) != b.get(from)).unwrap_or(end);
            prop_assert_eq!(b.stretch(from, end), other);
            prop_assert_eq!(b.count_range(from, len), (from..end).filter(|n| b.get(*n)).count() as u64);
        }
    }
}
