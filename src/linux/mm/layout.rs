//! What `struct page` looks like in a kernel, as its VMCOREINFO tells.
//!
//! Chosen by which keys are there, since vendors port changes back; the release decides only where no key ever did
//! (Linux: kernel/vmcore_info.c, kernel/crash_core.c before 6.9, kernel/kexec.c before 4.13).
//!
//! | since | what | key |
//! |---|---|---|
//! | 2.6.39 | buddy pages by `_mapcount` -128 | `NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)` |
//! | 3.16 | flag of heads | `NUMBER(PG_head_mask)`; bit 14 before, tails bit 15 |
//! | 4.4 | tails by bit 0 of `compound_head`; order and destructor in page\[1\] | `OFFSET(page.compound_head)`, `compound_order`, `compound_dtor` |
//! | 4.18 | page types: one bit of `_mapcount` clear each | the values: buddy -129, offline -257 |
//! | 6.3 to 6.5 | order and destructor in the folio | `OFFSET(folio._folio_order)`, `_folio_dtor` |
//! | 6.6 | order in the low byte of page\[1\].flags; hugetlb flag there too | `NUMBER(PG_hugetlb)` |
//! | 6.9 | hugetlb is a page type | `NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)` |
//! | 6.10 | slab is a page type | `NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)` |
//! | 6.12 | a page type is the top byte of `_mapcount`, 0xf0 and up | the values |
//! | 7.1 | `compound_head` is called `compound_info` | `OFFSET(page.compound_info)` |

use super::Class;
use crate::units::VirtAddr;
use crate::vmcoreinfo::Vmcoreinfo;

/// A struct page is neither smaller nor larger than this.
const SIZES: std::ops::RangeInclusive<u64> = 32..=512;
/// Orders of buddy blocks that any kernel was configured with.
const MOST_ORDERS: u64 = 32;
/// PG_head of kernels that do not tell it (PAGEFLAGS_EXTENDED, up to 3.15).
const OLD_HEAD: u64 = 1 << 14;
/// `_mapcount` of buddy pages before 4.18, where it is not told.
const OLD_BUDDY: u32 = 0xffff_ff80;

/// A value of `_mapcount` that says what a page is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageType {
    /// The whole word.
    Exact(u32),
    /// The top byte; the rest is its owner's (6.12 on).
    Top(u8),
}

impl PageType {
    fn told(value: i64) -> Self {
        let word = value as u32;
        if word & 0x00ff_ffff == 0 && word >> 24 >= 0xf0 { Self::Top((word >> 24) as u8) } else { Self::Exact(word) }
    }

    /// Whether a `_mapcount` says so.
    pub fn is(self, mapcount: u32) -> bool {
        match self {
            Self::Exact(word) => word == mapcount,
            Self::Top(byte) => u32::from(byte) == mapcount >> 24,
        }
    }
}

/// How tails of compound pages are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Bit 0 of the word at this offset.
    Word(usize),
    /// These flags.
    Flag(u64),
    /// Not at all.
    Untold,
}

/// Where the order of a compound page stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In the low byte of page\[1\].flags.
    SecondFlags,
    /// In the byte so far from the start of the head.
    Byte(usize),
    /// Nowhere: compound pages are dropped head only.
    Untold,
}

/// How a hugetlb page is told from other compound pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugetlb {
    /// The head's page type.
    Type(PageType),
    /// A flag of page\[1\].
    SecondFlag(u64),
    /// A byte, so far from the start of the head, that holds this number.
    Byte(usize, u8),
    /// A pointer, so far from the start of the head, to this function.
    Pointer(usize, VirtAddr),
    /// Not at all: its pages are kept, unless they are anonymous.
    Untold,
}

/// How slab pages are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slab {
    /// The page type.
    Type(PageType),
    /// These flags.
    Flag(u64),
    /// Not at all: no page is taken for anonymous memory, since slabs keep a number of their own where `mapping` is.
    Untold,
}

/// The layout of `struct page`. Offsets are in bytes from its start; flags are masks of `flags`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// SIZE(page).
    pub size: usize,
    /// `flags`, 8 bytes.
    pub flags: usize,
    /// `_mapcount` or `page_type`, 4 bytes.
    pub mapcount: usize,
    /// `mapping`, 8 bytes.
    pub mapping: usize,
    /// `private`, 8 bytes.
    pub private: usize,
    /// `lru`, 16 bytes.
    pub lru: usize,
    /// Flags of heads of compound pages.
    pub head: u64,
    /// Tails of compound pages.
    pub tail: Tail,
    /// Their order.
    pub order: Order,
    /// Hugetlb pages.
    pub hugetlb: Hugetlb,
    /// Slab pages.
    pub slab: Slab,
    /// Free pages of the buddy allocator.
    pub buddy: Option<PageType>,
    /// Orders that a buddy block can have: less than this. No block is larger than a memory section.
    pub orders: u64,
    /// PageOffline.
    pub offline: Option<PageType>,
    /// On a list of the page cache or of anonymous memory.
    pub lru_flag: u64,
    /// With private data, such as buffers.
    pub private_flag: u64,
    /// In the swap cache; the same bit has other meanings. 0 where these cannot be told apart.
    pub swapcache: u64,
    /// What must be set besides `swapcache` for it to mean just that: 0 where the bit has no other meaning.
    pub swapbacked: u64,
    /// With bad memory.
    pub hwpoison: Option<u64>,
    /// Handed to nobody since boot: the image, and what was allocated before there was an allocator.
    pub reserved: Option<u64>,
}

impl Layout {
    /// Reads the layout; `free_huge_page` is the address of that function, for kernels before 4.4.
    ///
    /// # Errors
    /// Which key is missing, or makes no sense.
    pub fn new(info: &Vmcoreinfo, free_huge_page: Option<VirtAddr>) -> Result<Self, String> {
        let size = info.size("page").ok_or("SIZE(page) is not in VMCOREINFO")?;
        if !SIZES.contains(&size) {
            return Err(format!("VMCOREINFO says SIZE(page)={size}"));
        }
        // A field of `bytes` bytes, within a page's own struct or the next one's.
        let within = |name: &str, bytes: u64, structs: u64| match info.offset(name) {
            Some(at) if at.saturating_add(bytes) <= size * structs => Ok(Some(at as usize)),
            Some(at) => Err(format!("VMCOREINFO says OFFSET({name})={at}, beyond the struct")),
            None => Ok(None),
        };
        let field = |name: &str, bytes: u64| {
            within(name, bytes, 1)?.ok_or_else(|| format!("OFFSET({name}) is not in VMCOREINFO"))
        };
        let release = release(info);
        let flags = field("page.flags", 8)?;
        let lru = field("page.lru", 16)?;
        let flag = |name: &str| bit(info, name);
        let needed = |name: &str| flag(name).ok_or_else(|| format!("NUMBER({name}) is not in VMCOREINFO"));
        let kind = |name: &str| info.number(name).map(PageType::told);
        let second = size as usize;

        let word = match within("page.compound_info", 8, 1)? {
            Some(at) => Some(at),
            None => within("page.compound_head", 8, 1)?,
        };
        let swapcache = needed("PG_swapcache")?;
        let private_flag = needed("PG_private")?;
        let head = match info.number("PG_head_mask").map(|n| n as u64) {
            Some(mask) if mask.is_power_of_two() => mask,
            None if release < (4, 4) => OLD_HEAD,
            _ => 0,
        };
        let tail = match word {
            Some(at) => Tail::Word(at),
            // The word is the first of lru; its key came with 4.7.
            None if release >= (4, 4) => Tail::Word(lru),
            // PG_tail stood between PG_head and PG_swapcache.
            None if head != 0 && swapcache == head << 2 => Tail::Flag(head << 1),
            None => Tail::Untold,
        };
        let hugetlb_type = kind("PAGE_HUGETLB_MAPCOUNT_VALUE");
        let hugetlb_flag = flag("PG_hugetlb");
        let folio_order = within("folio._folio_order", 1, 2)?;
        let compound_order = within("page.compound_order", 1, 1)?;
        let order = if hugetlb_type.is_some() || hugetlb_flag.is_some() {
            Order::SecondFlags
        } else if let Some(at) = folio_order {
            Order::Byte(at)
        } else if let Some(at) = compound_order {
            // A byte, or the low one of a larger number before 4.16.
            Order::Byte(second + at)
        } else if release < (4, 4) {
            // lru.prev of page[1].
            Order::Byte(second + lru + 8)
        } else if release >= (6, 6) {
            Order::SecondFlags
        } else {
            Order::Untold
        };
        let destructor = info.number("HUGETLB_PAGE_DTOR").and_then(|n| u8::try_from(n).ok());
        let folio_dtor = within("folio._folio_dtor", 1, 2)?;
        let compound_dtor = within("page.compound_dtor", 1, 1)?.map(|at| second + at);
        let hugetlb = match (hugetlb_type, hugetlb_flag, destructor, folio_dtor.or(compound_dtor)) {
            (Some(kind), ..) => Hugetlb::Type(kind),
            (None, Some(flag), ..) => Hugetlb::SecondFlag(flag),
            (None, None, Some(number), Some(at)) => Hugetlb::Byte(at, number),
            // lru.next of page[1].
            _ if release < (4, 4) => {
                let function = info.symbol("free_huge_page").or(free_huge_page);
                function.map_or(Hugetlb::Untold, |f| Hugetlb::Pointer(second + lru, f))
            }
            _ => Hugetlb::Untold,
        };
        let slab = match (kind("PAGE_SLAB_MAPCOUNT_VALUE"), flag("PG_slab")) {
            (Some(kind), _) => Slab::Type(kind),
            (None, Some(flag)) => Slab::Flag(flag),
            (None, None) => Slab::Untold,
        };
        let (swapcache, swapbacked) = match flag("PG_swapbacked") {
            Some(flag) => (swapcache, flag),
            // A flag of its own, behind PG_private.
            None if swapcache > private_flag => (swapcache, 0),
            // From 4.10 on the bit is also PG_owner_priv_1, which PV sets on pinned page tables; before PG_swapbacked was
            // told it stood six bits above PG_private.
            None if release < (4, 20) && private_flag < 1 << 58 => (swapcache, private_flag << 6),
            None => (0, 0),
        };
        Ok(Self {
            size: second,
            flags,
            mapcount: field("page._mapcount", 4)?,
            mapping: field("page.mapping", 8)?,
            private: field("page.private", 8)?,
            lru,
            head,
            tail,
            order,
            hugetlb,
            slab,
            buddy: kind("PAGE_BUDDY_MAPCOUNT_VALUE")
                .or_else(|| (release < (4, 18)).then_some(PageType::Exact(OLD_BUDDY))),
            orders: info.length("zone.free_area").unwrap_or(11).min(MOST_ORDERS),
            offline: kind("PAGE_OFFLINE_MAPCOUNT_VALUE"),
            lru_flag: needed("PG_lru")?,
            private_flag,
            swapcache,
            swapbacked,
            hwpoison: flag("PG_hwpoison"),
            reserved: None,
        })
    }

    /// Why pages of a class cannot be told in this kernel, if they cannot.
    pub fn gap(&self, class: Class) -> Option<&'static str> {
        match class {
            Class::Free if self.buddy.is_none() => {
                Some("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE) is not in VMCOREINFO, so free pages cannot be told")
            }
            Class::User if self.slab == Slab::Untold => Some(
                "neither NUMBER(PAGE_SLAB_MAPCOUNT_VALUE) nor NUMBER(PG_slab) is in VMCOREINFO, so processes' pages cannot be told from slabs",
            ),
            _ => None,
        }
    }
}

/// The mask of a flag whose number is told.
fn bit(info: &Vmcoreinfo, name: &str) -> Option<u64> {
    let number = u32::try_from(info.number(name)?).ok()?;
    1_u64.checked_shl(number)
}

/// Major and minor number of the release.
fn release(info: &Vmcoreinfo) -> (u32, u32) {
    crate::linux::release_numbers(info.get("OSRELEASE").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::mm::page::StructPage;
    use crate::units::Pfn;

    /// Linux 6.12's, as far as it matters here.
    const TEXT: &str = "OSRELEASE=6.12.1\nSIZE(page)=64\nOFFSET(page.flags)=0\nOFFSET(page._refcount)=52\n\
        OFFSET(page.mapping)=24\nOFFSET(page.lru)=8\nOFFSET(page._mapcount)=48\nOFFSET(page.private)=40\n\
        OFFSET(page.compound_head)=8\nLENGTH(zone.free_area)=11\nNUMBER(PG_lru)=5\nNUMBER(PG_private)=14\n\
        NUMBER(PG_swapcache)=10\nNUMBER(PG_swapbacked)=17\nNUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376\n\
        NUMBER(PG_hwpoison)=20\nNUMBER(PG_head_mask)=64\nNUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456\n\
        NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-201326592\nNUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-251658240\n";

    fn layout(text: &str) -> Result<Layout, String> {
        Layout::new(&Vmcoreinfo::parse(text.as_bytes()), None)
    }

    #[test]
    fn types_are_words_or_top_bytes() {
        assert_eq!(PageType::told(-129), PageType::Exact(0xffff_ff7f));
        assert_eq!(PageType::told(-268_435_456), PageType::Top(0xf0));
        assert!(PageType::Top(0xf0).is(0xf012_3456) && !PageType::Top(0xf0).is(0xf1ff_ffff));
        assert_eq!(PageType::told(-1), PageType::Exact(u32::MAX));
    }

    #[test]
    fn a_missing_key_is_named() {
        assert!(layout(TEXT).is_ok());
        for key in ["SIZE(page)", "OFFSET(page.flags)", "OFFSET(page._mapcount)", "OFFSET(page.lru)", "NUMBER(PG_lru)"]
        {
            let text: String = TEXT.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
            assert!(layout(&text).is_err_and(|e| e.contains(key)), "{key}");
        }
        let far = TEXT.replace("OFFSET(page.private)=40", "OFFSET(page.private)=57");
        assert!(layout(&far).is_err_and(|e| e.contains("beyond")));
    }

    /// Whatever a damaged text says, a struct page of it is read within its bounds.
    #[test]
    fn damaged_texts_of_every_kind() {
        let old = TEXT.replace("6.12.1", "3.10.0").replace("OFFSET(page.compound_head)=8\n", "");
        let folio = TEXT.replace("PAGE_HUGETLB_MAPCOUNT_VALUE", "X") + "OFFSET(folio._folio_order)=80\n";
        for text in [TEXT, &old, &folio] {
            let cut = (0..text.len()).map(|n| text[..n].to_owned());
            let flipped = (0..text.len()).flat_map(|n| {
                [0x01, 0x02, 0x08, 0x10].map(|flip| {
                    let mut bytes = text.as_bytes().to_vec();
                    bytes[n] ^= flip;
                    String::from_utf8_lossy(&bytes).into_owned()
                })
            });
            for text in cut.chain(flipped) {
                let Ok(layout) = layout(&text) else { continue };
                for fill in [0, 0x40, 0x81, 0xff] {
                    for len in [0, 63, 64, 127, 128, 1024] {
                        if let Some(page) = StructPage::new(&layout, &vec![fill; len]) {
                            page.verdict(Pfn(1 << 20));
                            page.is_poisoned();
                        }
                    }
                }
            }
        }
    }
}
