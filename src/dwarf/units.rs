//! Compilation units and their entries (DIEs), read when they are asked for.

use super::image::Image;
use gimli::constants as dw;
use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, DebugInfoOffset, DebugLineStr, DebugStr, DebugStrOffsets,
    DebugStrOffsetsBase, DebuggingInformationEntry, EndianSlice, LittleEndian, Operation, Section, UnitHeader,
    UnitOffset,
};
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
/// An entry of DWARF.
pub(crate) type Die<'a> = DebuggingInformationEntry<Slice<'a>>;
type Value<'a> = AttributeValue<Slice<'a>>;

/// The sections, unpacked.
#[derive(Debug)]
pub(crate) struct Sections<'a> {
    info: Cow<'a, [u8]>,
    abbrev: Cow<'a, [u8]>,
    str: Cow<'a, [u8]>,
    line_str: Cow<'a, [u8]>,
    str_offsets: Cow<'a, [u8]>,
}

impl<'a> Sections<'a> {
    /// The sections of a file.
    ///
    /// # Errors
    /// Why one cannot be unpacked.
    pub(crate) fn of(image: &Image<'a>) -> Result<Self, String> {
        Ok(Self {
            info: image.debug(".debug_info")?,
            abbrev: image.debug(".debug_abbrev")?,
            str: image.debug(".debug_str")?,
            line_str: image.debug(".debug_line_str")?,
            str_offsets: image.debug(".debug_str_offsets")?,
        })
    }

    /// Whether there is no DWARF at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.info.is_empty() || self.abbrev.is_empty()
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of its unit.
    pub(crate) unit: usize,
    /// From the start of the unit.
    pub(crate) offset: UnitOffset,
}

/// All units of a file.
#[derive(Debug)]
pub(crate) struct Units<'a> {
    headers: Vec<UnitHeader<Slice<'a>>>,
    abbrev: DebugAbbrev<Slice<'a>>,
    str: DebugStr<Slice<'a>>,
    line_str: DebugLineStr<Slice<'a>>,
    str_offsets: DebugStrOffsets<Slice<'a>>,
    /// The unit that was read last, since its entries are asked for many times.
    last: RefCell<Option<(usize, Rc<Opened<'a>>)>>,
}

/// What is needed to read entries of one unit.
#[derive(Debug)]
struct Opened<'a> {
    abbreviations: Abbreviations,
    root: Die<'a>,
    str_offsets_base: DebugStrOffsetsBase<usize>,
}

impl<'a> Units<'a> {
    /// The units up to the first damaged header.
    pub(crate) fn new(sections: &'a Sections<'_>) -> Self {
        let mut headers = Vec::new();
        let mut iter = DebugInfo::new(&sections.info, LittleEndian).units();
        while let Ok(Some(header)) = iter.next() {
            headers.push(header);
        }
        Self {
            headers,
            abbrev: DebugAbbrev::new(&sections.abbrev, LittleEndian),
            str: DebugStr::new(&sections.str, LittleEndian),
            line_str: Section::load::<_, gimli::Error>(|_| Ok(EndianSlice::new(&sections.line_str, LittleEndian)))
                .unwrap_or_default(),
            str_offsets: DebugStrOffsets::from(EndianSlice::new(&sections.str_offsets, LittleEndian)),
            last: RefCell::new(None),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.headers.len()
    }

    /// The source file of a unit.
    pub(crate) fn name(&self, unit: usize) -> Option<&'a [u8]> {
        let opened = self.open(unit)?;
        self.name_of(unit, &opened.root)
    }

    /// Whether a unit has its entries in another file (split DWARF).
    pub(crate) fn is_elsewhere(&self, unit: usize) -> bool {
        let root =
            |o: Rc<Opened<'_>>| [dw::DW_AT_dwo_name, dw::DW_AT_GNU_dwo_name].iter().any(|a| o.root.attr(*a).is_some());
        self.open(unit).is_some_and(root)
    }

    fn open(&self, unit: usize) -> Option<Rc<Opened<'a>>> {
        if let Some((last, opened)) = &*self.last.borrow()
            && *last == unit
        {
            return Some(Rc::clone(opened));
        }
        let header = self.headers.get(unit)?;
        let abbreviations = header.abbreviations(&self.abbrev).ok()?;
        let root = header.entry(&abbreviations, header.root_offset()).ok()?;
        let str_offsets_base = match root.attr_value(dw::DW_AT_str_offsets_base) {
            Some(AttributeValue::DebugStrOffsetsBase(base)) => base,
            _ => DebugStrOffsetsBase(0),
        };
        let opened = Rc::new(Opened { abbreviations, root, str_offsets_base });
        self.last.replace(Some((unit, Rc::clone(&opened))));
        Some(opened)
    }

    /// The entry at a place.
    pub(crate) fn die(&self, place: Place) -> Option<Die<'a>> {
        self.headers.get(place.unit)?.entry(&self.open(place.unit)?.abbreviations, place.offset).ok()
    }

    /// Calls `each` on the named entries of a unit's top level, as far as it can be read.
    pub(crate) fn top_level(&self, unit: usize, mut each: impl FnMut(&Die<'a>, &'a [u8])) {
        let Some(header) = self.headers.get(unit) else { return };
        self.children(Place { unit, offset: header.root_offset() }, |die| {
            if let Some(name) = self.name_of(unit, die) {
                each(die, name);
            }
        });
    }

    /// Calls `each` on the entries directly below one, as far as they can be read. It always ends: a reference to the
    /// next sibling only counts if it leads forward.
    pub(crate) fn children(&self, of: Place, mut each: impl FnMut(&Die<'a>)) {
        let (Some(header), Some(opened)) = (self.headers.get(of.unit), self.open(of.unit)) else { return };
        let Ok(mut cursor) = header.entries_at_offset(&opened.abbreviations, of.offset) else { return };
        if !matches!(cursor.next_dfs(), Ok(Some(parent)) if parent.has_children()) {
            return;
        }
        let mut next = cursor.next_entry().is_ok_and(|more| more);
        while next && let Some(die) = cursor.current() {
            each(die);
            next = cursor.next_sibling().is_ok_and(|die| die.is_some());
        }
    }

    /// DW_AT_name.
    pub(crate) fn name_of(&self, unit: usize, die: &Die<'a>) -> Option<&'a [u8]> {
        let text = match die.attr_value(dw::DW_AT_name)? {
            AttributeValue::String(text) => text,
            AttributeValue::DebugStrRef(offset) => self.str.get_str(offset).ok()?,
            AttributeValue::DebugLineStrRef(offset) => self.line_str.get_str(offset).ok()?,
            AttributeValue::DebugStrOffsetsIndex(index) => {
                let (header, opened) = (self.headers.get(unit)?, self.open(unit)?);
                let base = opened.str_offsets_base;
                let offset = self.str_offsets.get_str_offset(header.format(), base, index).ok()?;
                self.str.get_str(offset).ok()?
            }
            _ => return None,
        };
        Some(text.slice())
    }

    /// Where a reference leads, in its own unit or in another one.
    pub(crate) fn follow(&self, unit: usize, value: &Value<'a>) -> Option<Place> {
        match *value {
            AttributeValue::UnitRef(offset) => Some(Place { unit, offset }),
            AttributeValue::DebugInfoRef(target) => {
                let start = |h: &UnitHeader<Slice<'a>>| h.debug_info_offset().unwrap_or(DebugInfoOffset(usize::MAX));
                let unit = self.headers.partition_point(|h| start(h) <= target).checked_sub(1)?;
                Some(Place { unit, offset: target.to_unit_offset(self.headers.get(unit)?)? })
            }
            _ => None,
        }
    }

    /// DW_AT_data_member_location in bytes: a number, or in DWARF 2 an expression that adds one.
    pub(crate) fn member_location(&self, unit: usize, value: &Value<'a>) -> Option<u64> {
        let mut expression = match value {
            AttributeValue::Exprloc(expression) => expression.0,
            AttributeValue::Block(block) => *block,
            number => return number.udata_value(),
        };
        match Operation::parse(&mut expression, self.headers.get(unit)?.encoding()).ok()? {
            Operation::PlusConstant { value } => Some(value),
            _ => None,
        }
    }
}
