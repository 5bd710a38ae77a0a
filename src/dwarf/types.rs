//! Layouts of structures and values of enumerators, from DWARF 2 to 5.
//!
//! A kernel has thousands of compilation units and hundreds of MB of DWARF, and what is wanted is in a few of them, which
//! are looked up by name. A file that has other names, or reduced DWARF (Linux's CONFIG_DEBUG_INFO_REDUCED: each structure
//! only in the unit that is named like its header), is read as a whole.

use super::units::{Die, Place, Units};
use gimli::constants as dw;
use std::collections::BTreeMap;

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Structures and enums that every file has, and whose absence means that the search must go on.
    pub(crate) needed: &'static [&'static str],
    /// Those of some files only.
    pub(crate) optional: &'static [&'static str],
    /// Ends of the names of units that have them all together, each by any of its names; the other units are read only if
    /// one of these is missing or does not have what is needed.
    pub(crate) units: &'static [&'static [&'static str]],
}

/// Typedefs, qualifiers and unnamed members that lead to each other in a damaged file end here.
const MOST_STEPS: u32 = 16;
/// No structure has as many members, those of its unnamed ones included.
const MOST_MEMBERS: usize = 4096;

/// A structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes.
    pub(crate) size: u64,
    members: BTreeMap<String, Member>,
}

/// A member of a structure, or of an unnamed one in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Bytes from the start of the outermost structure.
    pub(crate) offset: u64,
    /// Elements of an array.
    pub(crate) count: Option<u64>,
}

/// What was found of what is wanted.
#[derive(Debug, Default)]
pub(crate) struct Types {
    wanted: Wanted,
    layouts: BTreeMap<&'static str, Layout>,
    enums: BTreeMap<&'static str, BTreeMap<String, i64>>,
}

impl Types {
    /// Reads what is wanted.
    ///
    /// # Errors
    /// Which structure is missing.
    pub(crate) fn read(units: &Units<'_>, wanted: Wanted) -> Result<Self, String> {
        let mut types = Self { wanted, ..Self::default() };
        let mut seen = vec![false; wanted.units.len()];
        for index in 0..units.len() {
            let Some(name) = units.name(index) else { continue };
            let of = wanted.units.iter().position(|paths| paths.iter().any(|path| name.ends_with(path.as_bytes())));
            if let Some(seen) = of.and_then(|of| seen.get_mut(of)) {
                *seen = true;
                types.take(units, index);
            }
        }
        if seen.contains(&false) || types.missing().is_some() {
            for index in 0..units.len() {
                if types.has_all() {
                    break;
                }
                types.take(units, index);
            }
        }
        match types.missing() {
            Some(name) => Err(format!("its DWARF does not tell the layout of {name}")),
            None => Ok(types),
        }
    }

    /// A structure, or a type that is one by another name.
    pub(crate) fn layout(&self, name: &str) -> Option<&Layout> {
        self.layouts.get(name)
    }

    /// A member of a structure.
    pub(crate) fn member(&self, name: &str, member: &str) -> Option<Member> {
        self.layout(name)?.members.get(member).copied()
    }

    /// Whether there is such an enum.
    pub(crate) fn has_enum(&self, name: &str) -> bool {
        self.enums.contains_key(name)
    }

    /// The value of an enumerator.
    pub(crate) fn value(&self, of: &str, name: &str) -> Option<i64> {
        self.enums.get(of)?.get(name).copied()
    }

    /// Members of structures and enumerators, without what is not asked of them.
    #[cfg(test)]
    pub(crate) fn with(members: &[(&'static str, &str)], values: &[(&'static str, &str, i64)]) -> Self {
        let mut types = Self::default();
        for (name, member) in members {
            let layout = types.layouts.entry(name).or_default();
            layout.members.insert((*member).to_owned(), Member { offset: 0, count: None });
        }
        for (name, enumerator, value) in values {
            types.enums.entry(name).or_default().insert((*enumerator).to_owned(), *value);
        }
        types
    }

    fn has(&self, name: &str) -> bool {
        self.layouts.contains_key(name) || self.enums.contains_key(name)
    }

    fn missing(&self) -> Option<&'static str> {
        self.wanted.needed.iter().copied().find(|name| !self.has(name))
    }

    fn has_all(&self) -> bool {
        self.wanted.needed.iter().chain(self.wanted.optional).all(|name| self.has(name))
    }

    /// Takes what is still wanted from one unit. Damage ends the unit, not the search.
    fn take(&mut self, units: &Units<'_>, index: usize) {
        let mut found = Vec::new();
        units.top_level(index, |die, name| {
            let wanted = self.wanted.needed.iter().chain(self.wanted.optional).copied().find(|w| w.as_bytes() == name);
            if let Some(wanted) = wanted.filter(|w| !self.has(w))
                && die.attr(dw::DW_AT_declaration).is_none()
                && matches!(die.tag(), dw::DW_TAG_structure_type | dw::DW_TAG_typedef | dw::DW_TAG_enumeration_type)
            {
                found.push((wanted, die.tag(), die.offset()));
            }
        });
        for (name, tag, offset) in found {
            let place = Place { unit: index, offset };
            if tag == dw::DW_TAG_enumeration_type {
                let values = enumerators(units, place);
                self.enums.entry(name).or_insert(values);
            } else if let Some(layout) = layout(units, place) {
                self.layouts.entry(name).or_insert(layout);
            }
        }
    }
}

/// The structure at a place, or what the typedef there stands for; `None` for what is no structure.
fn layout(units: &Units<'_>, place: Place) -> Option<Layout> {
    let (place, die) = bare(units, place)?;
    let mut layout = Layout { size: die.attr(dw::DW_AT_byte_size)?.udata_value()?, members: BTreeMap::new() };
    if !is_compound(&die) {
        return None;
    }
    let mut left = MOST_MEMBERS;
    add_members(units, place, 0, 0, &mut left, &mut layout.members);
    Some(layout)
}

fn is_compound(die: &Die<'_>) -> bool {
    matches!(die.tag(), dw::DW_TAG_structure_type | dw::DW_TAG_union_type)
}

fn add_members(
    units: &Units<'_>,
    place: Place,
    base: u64,
    depth: u32,
    left: &mut usize,
    into: &mut BTreeMap<String, Member>,
) {
    let mut unnamed = Vec::new();
    units.children(place, |die| {
        if die.tag() != dw::DW_TAG_member || *left == 0 {
            return;
        }
        *left -= 1;
        // A member of a union has none. Bit fields are not wanted.
        let location = die.attr_value(dw::DW_AT_data_member_location);
        let offset = location.map_or(Some(0), |l| units.member_location(place.unit, &l));
        let Some(offset) = offset.and_then(|o| o.checked_add(base)) else { return };
        let kind = die.attr_value(dw::DW_AT_type).and_then(|t| units.follow(place.unit, &t));
        match units.name_of(place.unit, die) {
            Some(name) if !name.is_empty() => {
                let count = kind.and_then(|k| elements(units, k));
                into.entry(String::from_utf8_lossy(name).into_owned()).or_insert(Member { offset, count });
            }
            _ => unnamed.extend(kind.map(|k| (k, offset))),
        }
    });
    for (kind, offset) in unnamed {
        if depth < MOST_STEPS
            && let Some((place, die)) = bare(units, kind)
            && is_compound(&die)
        {
            add_members(units, place, offset, depth + 1, left, into);
        }
    }
}

/// A type without typedefs and qualifiers.
fn bare<'a>(units: &Units<'a>, mut place: Place) -> Option<(Place, Die<'a>)> {
    for _ in 0..MOST_STEPS {
        let die = units.die(place)?;
        match die.tag() {
            dw::DW_TAG_typedef | dw::DW_TAG_const_type | dw::DW_TAG_volatile_type | dw::DW_TAG_atomic_type => {
                place = units.follow(place.unit, &die.attr_value(dw::DW_AT_type)?)?;
            }
            _ => return Some((place, die)),
        }
    }
    None
}

/// Elements of an array's first dimension.
fn elements(units: &Units<'_>, place: Place) -> Option<u64> {
    let (place, die) = bare(units, place)?;
    if die.tag() != dw::DW_TAG_array_type {
        return None;
    }
    let mut count = None;
    units.children(place, |die| {
        if die.tag() == dw::DW_TAG_subrange_type && count.is_none() {
            let last = die.attr(dw::DW_AT_upper_bound).and_then(|a| a.udata_value()?.checked_add(1));
            count = Some(die.attr(dw::DW_AT_count).and_then(|a| a.udata_value()).or(last));
        }
    });
    count?
}

fn enumerators(units: &Units<'_>, place: Place) -> BTreeMap<String, i64> {
    let mut values = BTreeMap::new();
    units.children(place, |die| {
        // A byte without a sign is what most positive values are; negative ones come as signed LEB128.
        let value = die
            .attr(dw::DW_AT_const_value)
            .and_then(|a| a.udata_value().and_then(|v| i64::try_from(v).ok()).or_else(|| a.sdata_value()));
        if let (dw::DW_TAG_enumerator, Some(name), Some(value)) = (die.tag(), units.name_of(place.unit, die), value)
            && values.len() < MOST_MEMBERS
        {
            values.insert(String::from_utf8_lossy(name).into_owned(), value);
        }
    });
    values
}
