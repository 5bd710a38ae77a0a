//! What is wrong with a dump: kinds of damage with amounts, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt;

/// Details of one kind that are told; more of the same tell nothing new.
const MOST_DETAILS: usize = 8;

/// All that was found wrong. A kind is named once, however often it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage(BTreeMap<&'static str, Amount>);

/// How much of a kind there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Amount {
    count: u64,
    /// Where, or of what kind more closely.
    details: Vec<String>,
}

impl Damage {
    /// No damage.
    pub const NONE: Self = Self(BTreeMap::new());

    /// Counts `count` of `what`: a plural with its unit, that holds no value, such as `bytes missing at the end`.
    pub fn add(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            let amount = self.0.entry(what).or_default();
            amount.count = amount.count.saturating_add(count);
        }
    }

    /// Counts one of `what`, with a word on it.
    pub fn add_one(&mut self, what: &'static str, detail: impl Into<String>) {
        self.add(what, 1);
        self.detail(what, detail.into());
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (what, amount) in &other.0 {
            self.add(what, amount.count);
            amount.details.iter().for_each(|detail| self.detail(what, detail.clone()));
        }
    }

    fn detail(&mut self, what: &'static str, detail: String) {
        if let Some(amount) = self.0.get_mut(what).filter(|a| a.details.len() < MOST_DETAILS) {
            amount.details.push(detail);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much there is of each kind.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.iter().map(|(what, amount)| ((*what).to_owned(), amount.count)).collect()
    }

    /// How much there is of the first kind whose name has `words` in it.
    pub fn count(&self, words: &str) -> Option<u64> {
        self.0.iter().find(|(what, _)| what.contains(words)).map(|(_, amount)| amount.count)
    }

    /// A line on each kind: `1 gzip streams that break off (unexpected end of file, after 4096 bytes)`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(what, amount)| {
            let details = amount.details.join("; ");
            let details = if details.is_empty() { details } else { format!(" ({details})") };
            format!("{} {what}{details}", amount.count)
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_once() {
        let mut one = Damage::default();
        one.add("nothings", 0);
        assert!(one.is_empty() && one == Damage::NONE);
        one.add_one("files that end", "at 5");
        let mut two = one.clone();
        two.add("bytes missing", 7);
        one.merge(&two);
        (0..20).for_each(|n| one.add_one("files that end", format!("at {n}")));
        assert_eq!(one.counts(), [("bytes missing".into(), 7), ("files that end".into(), 22)].into());
        assert_eq!((one.count("end"), one.count("more")), (Some(22), None));
        assert!(two.to_string() == "7 bytes missing; 1 files that end (at 5)", "{two}");
    }
}
