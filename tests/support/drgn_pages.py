# Run by drgn on a cut of ours that lacks nothing, with the kernel's vmlinux: writes what the kernel itself thinks of each
# page to the file that PAGES_OUT names, for the tests to judge. All names, places and numbers come from the kernel's
# types; none from VMCOREINFO, which the program under test goes by.
#
# The file: 16 bytes for each frame from 0: flags (see FLAGS), order, the head's frame. On standard output, as JSON: the
# names of the flags, the frames of the VMCOREINFO, and whether slabs are told by their page type.
import json
import os
import struct

from drgn import FaultError, offsetof, sizeof
from drgn.helpers.linux.mm import compound_order, for_each_valid_page_range, virt_to_pfn
from drgn.helpers.linux.mmzone import for_each_online_pgdat

FLAGS = [
    "present", "buddy", "on_free_list", "lru", "swapcache", "swapbacked", "private", "anon", "ksm", "movable", "slab",
    "hugetlb", "offline", "hwpoison", "head", "tail", "table", "reserved", "pinned", "odd_mapping", "unreadable",
]
BIT = {name: 1 << at for at, name in enumerate(FLAGS)}

page_type = prog.type("struct page")
SIZE = sizeof(page_type)
AT_FLAGS, AT_LRU, AT_COMPOUND, AT_MAPPING, AT_PRIVATE, AT_TYPE = (
    offsetof(page_type, member) for member in ("flags", "lru", "compound_head", "mapping", "private", "_mapcount"))
bits = {e.name: 1 << e.value for e in prog.type("enum pageflags").enumerators}

# The type of a page shares its place with the number of its mappings: until 6.10 in bits that are clear then, named
# only by macros; since 6.12 as the top byte.
try:
    types = {e.name: e.value for e in prog.type("enum pagetype").enumerators}
    if types["PGTY_buddy"] > 0xff:
        raise NotImplementedError("the page types of Linux 6.11")
    type_names = {types[f"PGTY_{name}"]: name for name in ("buddy", "offline", "table", "hugetlb", "slab")}

    def type_of(word):
        return type_names.get(word >> 24)
except LookupError:
    type_names = {0x80: "buddy", 0x100: "offline", 0x200: "table"}

    def type_of(word):
        # several at once would be ambiguous, and never are
        return type_names.get(~word & 0xffff) if word >> 28 == 0xf else None

dtors = {}
if "compound_dtor" in {m.name for union in page_type.members if union.name is None
                       for part in union.type.members if part.name is None for m in part.type.members}:
    dtors = {e.name: e.value for e in prog.type("enum compound_dtor_id").enumerators}


def is_hugetlb(page):
    return bool(dtors) and page[1].compound_dtor.value_() == dtors["HUGETLB_PAGE_DTOR"]


def free_blocks(raw, base):
    """The frames and orders of all blocks on the zones' free lists."""
    found = {}
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            if not zone.spanned_pages:
                continue  # its lists were never set up
            for order, area in enumerate(zone.free_area):
                for head in area.free_list:
                    end = head.address_
                    link = head.next.value_()
                    while link != end:
                        at = link - AT_LRU - base
                        pfn, rest = divmod(at, SIZE)
                        assert not rest and pfn not in found, f"free list with {link:#x}"
                        found[pfn] = order
                        link = struct.unpack_from("<Q", raw, at + AT_LRU)[0]
    return found


def read_pages():
    """All struct pages by frame, the address of that of frame 0, which are there, and which only should be."""
    raw, base = bytearray(), None
    known, lost = set(), set()
    for start, end, mem_map in for_each_valid_page_range(prog):
        base = mem_map.value_()
        raw.extend(bytes(end * SIZE - len(raw)))
        for at in range(start * SIZE, end * SIZE, 4096):
            frames = range(at // SIZE, (at + 4096) // SIZE)
            try:
                raw[at:at + 4096] = prog.read(base + at, 4096)
                known.update(frames)
            except FaultError:
                lost.update(frames)
    return raw, base, known, lost


raw, base, known, lost = read_pages()
mem_map = prog["vmemmap"].read_()
on_lists = free_blocks(raw, base)
records = bytearray()
simple = [(bits[f"PG_{name}"], BIT[name]) for name in
          ("lru", "swapbacked", "private", "reserved", "hwpoison") if f"PG_{name}" in bits]
slab_bit, head_bit = bits.get("PG_slab", 0), bits["PG_head"]
shared_bit = bits["PG_swapcache"]
assert shared_bit == bits["PG_pinned"], "PG_swapcache has a bit of its own"
for pfn in range(len(raw) // SIZE):
    at = pfn * SIZE
    if pfn not in known:
        records += struct.pack("<IIQ", BIT["unreadable"] if pfn in lost else 0, 0, pfn)
        continue
    flags, compound, mapping, private = (
        struct.unpack_from("<Q", raw, at + field)[0] for field in (AT_FLAGS, AT_COMPOUND, AT_MAPPING, AT_PRIVATE))
    word = struct.unpack_from("<I", raw, at + AT_TYPE)[0]
    seen, order, first = BIT["present"], 0, pfn
    for kernels, ours in simple:
        if flags & kernels:
            seen |= ours
    name = type_of(word)
    if name is not None:
        seen |= BIT[name]
    if flags & slab_bit:
        seen |= BIT["slab"]
    if compound & 1:
        seen |= BIT["tail"]
        first, rest = divmod(compound - 1 - base, SIZE)
        assert not rest, f"page {pfn:#x} is a tail of {compound:#x}"
    elif flags & head_bit:
        seen |= BIT["head"]
        page = mem_map + pfn
        order = compound_order(page).value_()
        if is_hugetlb(page):
            seen |= BIT["hugetlb"]
    if not seen & (BIT["tail"] | BIT["slab"]):
        # PageAnon(), PageKsm(), __PageMovable()
        seen |= (0, BIT["anon"], BIT["movable"], BIT["anon"] | BIT["ksm"])[mapping & 3]
    elif seen & BIT["slab"] and mapping & 1:
        seen |= BIT["odd_mapping"]  # what a slab has in this place may be odd
    if flags & shared_bit:
        # a bit of several meanings, of which PageSwapCache() is the one that goes with swapbacked; the others are Xen's
        # (PG_pinned, PG_foreign) and file systems'
        seen |= BIT["swapcache"] if flags & bits["PG_swapbacked"] else BIT["pinned"]
    if seen & BIT["buddy"]:
        order = private
    if pfn in on_lists:
        assert on_lists[pfn] == private, f"page {pfn:#x} is on the free list of order {on_lists[pfn]}"
        seen |= BIT["on_free_list"]
    records += struct.pack("<IIQ", seen, order, first)

with open(os.environ["PAGES_OUT"], "wb") as out:
    out.write(records)
note = prog["vmcoreinfo_note"].value_(), prog["vmcoreinfo_size"].value_() + 24
frames = range(virt_to_pfn(prog, note[0]).value_(), virt_to_pfn(prog, sum(note) - 1).value_() + 1)
print(json.dumps({"flags": FLAGS, "vmcoreinfo": list(frames), "slab_is_type": not slab_bit}))
