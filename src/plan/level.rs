//! Dump levels: what to leave out, in makedumpfile's bits.

use crate::linux::mm::Class;
use std::fmt;

/// A set of classes of pages to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(u8);

/// Names and bits.
const NAMES: [(&str, u8); 5] = [
    ("zero", Level::ZERO),
    ("cache", Level::CACHE),
    ("cache-private", Level::PRIVATE),
    ("user", Level::USER),
    ("free", Level::FREE),
];

impl Level {
    const ZERO: u8 = 1;
    const CACHE: u8 = 2;
    const PRIVATE: u8 = 4;
    const USER: u8 = 8;
    const FREE: u8 = 16;

    /// Nothing is left out.
    pub const NOTHING: Self = Self(0);
    /// Zero pages are left out.
    pub const ZEROS: Self = Self(Self::ZERO);
    /// Everything that can be is left out.
    pub const MOST: Self = Self(31);

    /// The level of this number, from 0 to 31.
    pub fn new(number: u8) -> Option<Self> {
        (number <= Self::MOST.0).then_some(Self(number))
    }

    /// The level of a list of names: `zero`, `cache`, `cache-private`, `user`, `free`.
    ///
    /// # Errors
    /// The name that is none, and those that are.
    pub fn named(list: &str) -> Result<Self, String> {
        let bit = |name: &str| {
            let known = || NAMES.map(|n| n.0).join(", ");
            let found = NAMES.iter().find(|n| n.0 == name);
            found.map(|n| n.1).ok_or_else(|| format!("{name:?} is none of {}", known()))
        };
        list.split(',').map(str::trim).try_fold(0, |all, name| Ok(all | bit(name)?)).map(Self)
    }

    /// The number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether zero pages leave.
    pub fn drops_zeros(self) -> bool {
        self.0 & Self::ZERO != 0
    }

    /// Whether pages of every class leave.
    pub fn drops_all(self) -> bool {
        self.with(Self::ZEROS) == Self::MOST
    }

    /// Whether pages of a class leave. Bad memory does at any level but 0: nobody can want to read it.
    pub fn drops(self, class: Class) -> bool {
        self.0 & Self::bits(class) != 0
    }

    /// The bits of which each drops a class.
    fn bits(class: Class) -> u8 {
        match class {
            Class::Free | Class::Offline => Self::FREE,
            Class::Cache => Self::CACHE | Self::PRIVATE,
            Class::CachePrivate => Self::PRIVATE,
            Class::User => Self::USER,
            Class::HwPoison => Self::MOST.0,
        }
    }

    /// Whether it takes struct pages to tell which pages leave, bad memory aside.
    pub fn needs_memory_map(self) -> bool {
        self.0 & !Self::ZERO != 0
    }

    /// The level that drops what either does.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The level that drops no page of a class.
    pub fn without(self, class: Class) -> Self {
        Self(self.0 & !Self::bits(class))
    }

    /// The level without all that struct pages tell.
    pub fn zeros_only(self) -> Self {
        Self(self.0 & Self::ZERO)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = NAMES.iter().filter(|n| self.0 & n.1 != 0).map(|n| n.0).collect();
        write!(f, "{} ({})", self.0, if names.is_empty() { "nothing".into() } else { names.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        assert_eq!(Level::named("zero,cache,cache-private,user,free"), Ok(Level::MOST));
        assert_eq!(Level::named("free"), Ok(Level(16)));
        assert!(Level::named("free,all").is_err_and(|e| e.contains("\"all\"") && e.contains("cache-private")));
        assert!(Level::named("").is_err());
        assert_eq!(Level::new(32), None);
        assert_eq!(Level(17).to_string(), "17 (zero, free)");
    }

    #[test]
    fn bits_are_makedumpfiles() {
        let dropped = |n: u8| Class::ALL.into_iter().filter(|c| Level(n).drops(*c)).collect::<Vec<_>>();
        assert_eq!(dropped(0), []);
        assert_eq!(dropped(1), [Class::HwPoison]);
        assert_eq!(dropped(2), [Class::Cache, Class::HwPoison]);
        assert_eq!(dropped(4), [Class::Cache, Class::CachePrivate, Class::HwPoison]);
        assert_eq!(dropped(8), [Class::User, Class::HwPoison]);
        assert_eq!(dropped(16), [Class::Free, Class::Offline, Class::HwPoison]);
        assert_eq!(dropped(31), Class::ALL);
    }
}
