//! Cuts one domain out of a full Xen system dump, as a dump that crash, drgn and gdb open.
//!
//! This page is the manual of the method and of the formats, for anyone who wants to maintain the code. All numbers in
//! files and memory are little-endian; offsets are in bytes, from the start of the structure unless said otherwise.
//!
//! # Why
//!
//! When a Xen host dies, kdump saves the memory of the whole machine, by *machine* addresses. Linux as a PV domain
//! (dom0) lives in a numbering of its own, *pseudo-physical*, but its page tables hold machine frames. Debuggers know
//! little of that, and less with each version. So the cut is written as if the kernel had run on bare metal: pages at
//! pseudo-physical addresses, page tables with pseudo-physical frames, the kernel's own notes.
//!
//! # Numbers
//!
//! An **MFN** counts the machine's pages, a **PFN** those of a domain, a **PDX** is an MFN with unused bits squeezed
//! out; the **P2M** maps PFN to MFN, the **M2P** back. Each is a type of its own in [`units`].
//!
//! # The way of a dump
//!
//! | folder | what it knows |
//! |---|---|
//! | [`source`] | opens a file: storage, wrappers, ELF and kdump-compressed, notes; offers machine memory |
//! | [`xen`] | Xen: its address space, frame table, domains, vCPUs, P2M |
//! | [`linux`] | Linux as a domain: its image, VMCOREINFO, symbols, struct pages |
//! | [`plan`] | which page stays, where, and what is altered in it |
//! | [`pipeline`] | moves pages in parallel, in order, in bounded memory |
//! | [`sink`] | writes a file |
//! | [`recut`] | a cut as input: what its note tells, and its pages as they are |
//! | `mount` | shows cuts as files of a mounted folder, made as they are read (feature `mount`) |
//! | [`mod@map`] | draws the machine's memory by owner |
//! | [`bulk`] | archives: trees of dumps, what became of each, and work lists for many machines |
//! | [`check`] | before any crash: whether this host would give a good dump |
//! | [`objects`] | dumps by URL (feature `objects`): stores, what servers say, uploads |
//! | [`cli`] | the command |
//!
//! Arrows run downwards only; [`cut`](mod@cut) joins them, [`report`] and [`info`] tell, [`log`](mod@log) prints what kernels and
//! Xen said.
//!
//! # The method
//!
//! 1. **Machine memory** ([`source`]). Pages of a kdump file by MFN; PT_LOADs by `p_paddr`, the machine address; `p_vaddr` means nothing
//!    under Xen. What no PT_LOAD covers, or the file lacks, is *absent* and never read as zero.
//! 2. **Notes** ([`xen::notes`]). The crash note says where Xen's image is and where the hardware domain's P2M begins;
//!    VMCOREINFO_XEN gives addresses of the domain list, frame table and page tables, and a few offsets.
//!    A dump without them, as QEMU makes it, shows the same in its memory ([`xen::syms`] helps; method: `xen::find`).
//! 3. **Hypervisor memory** ([`xen::paging`], [`xen::hypervisor`]). The root table is `pgd_l4`, by arithmetic: its address
//!    minus the GiB that it lies in, plus `xen_phys_start`. All else is walked. PDX compression is read off the
//!    direct map's tables ([`xen::pdx`]).
//! 4. **Frame table** ([`xen::frame_table`], [`xen::page_info`]). Owner, state and type of each frame. The state bits
//!    have two places; free pages prove which.
//! 5. **Domains and vCPUs** ([`xen::domain`], [`xen::vcpu`]) by shape, since nothing tells offsets in them; physical CPUs
//!    ([`xen::cpu`]), and which of them crashed.
//! 6. **P2M** ([`xen::p2m`]): what a PV domain publishes, or the tables that a translated domain's hardware walks, each entry
//!    checked against owner and M2P.
//! 7. **Kernel** ([`linux`]): root table, image, start_info, VMCOREINFO, kallsyms.
//! 8. **Struct pages** ([`linux::mm`], [`plan::level`], [`plan::filter`]): what the kernel uses each page for, and which
//!    of them the dump level leaves out. Which of the others a file should have first: [`plan::order`], [`linux::vital`].
//! 9. **Page tables** ([`plan::tables`]): each present entry of each live table gets the frame's PFN, of those too that only
//!    Linux knows as tables ([`linux::pgds`]). A translated domain's tables have PFNs already and stay as they are.
//! 10. **Marks** ([`linux::marks`]): `xen_start_info` is cleared, so that crash does not take it for a Xen kernel. This
//!     and all other alterations are written into the `XDUMPCUT` note.
//! 11. **Output** ([`sink`]): pages, notes, registers per vCPU.
//!
//! A page leaves the output only on positive evidence; what cannot be read is reported as missing.
//!
//! Nothing of this goes by the size of the machine. [`pipeline::crew`] bounds what is in hand, and where memory is short, or
//! the input is `/proc/vmcore`, `source::windows` maps no more of it than is looked at. Signals, a time that is over and full disks end
//! the writing alike: [`Error::ends_early`](error::Error::ends_early).
//!
//! # What is read
//!
//! **ELF64 vmcore** ([`source::elf`]): `ET_CORE`, `EM_X86_64`. `e_phnum` 0xffff means that the number is in `sh_info` of
//! section header 0. **Xen's notes**: tables in [`xen::notes`]. **VMCOREINFO text**: [`vmcoreinfo`].
//!
//! **QEMU's CPU notes**: [`xen::qemu`].
//!
//! **Page-table entry** (x86_64): bit 0 present, bit 7 large (levels 2 and 3), bits 12 to 51 frame. In a PV domain's
//! tables the frame is an MFN if the entry is present; otherwise the bits are Linux's own and hold no MFN.
//!
//! **`struct page_info`** (32 bytes; 48 in BIGMEM builds): `count_info` at 8 (16), `type_info` 8 behind it, `_domain` at
//! 24 (32): the PDX of the owner's struct domain. `count_info`: bit 63 allocated, 62 Xen heap, state at 55-56 or 58-59.
//! `type_info`: type at 60-63 or 61-63 (1 to 4: page table of that level; 7 writable), 59 pinned, 58 validated.
//!
//! **Nested page tables** (NPT and EPT): [`xen::p2m::hap`]. **VMCB**: [`xen::hvm`].
//!
//! **P2M entry**: `~0` hole, bit 63 foreign, bit 62 identity, else an MFN. **Shared info**: [`xen::shared_info`].
//!
//! **`struct page`** (Linux; 64 bytes in most kernels): `flags`, `_mapcount` (the page type from 4.18 on), `mapping` (bit 0:
//! anonymous), `private` (order of a free block), `lru`; where they are, and what marks compound, hugetlb and slab pages,
//! is told by VMCOREINFO and differs by kernel: the table in [`linux::mm::layout`].
//!
//! **Logs**: the kernel's ring in three generations ([`linux::log`]), Xen's console ring ([`xen::console`]).
//!
//! **kdump-compressed**, versions 1 to 6: [`source::kdump`] and [`source::kdump::header`]. A full Xen dump's PFNs are MFNs, and
//! its notes, which say that it is one, are behind the sub-header. Zero pages have a descriptor; a page that has none was
//! left out.
//!
//! **Flattened** (makedumpfile -F): 4096 bytes that begin with `makedumpfile`; then records of offset and size, big-endian
//! `i64`, and data; -1 and -1 end it. A later record overwrites an earlier one.
//!
//! **`xl dump-core`** ([`source::xc_core`]): one domain alone, an ELF64 core of sections. Nothing of Xen's is in it
//! ([`xen::alone`]), so a PV domain's tables are those that root tables lead to: the vCPUs', the one that the kernel told
//! Xen, and those of Linux's list of processes.
//!
//! **Compressed files**, by their first bytes: zstd `28 b5 2f fd`, gzip `1f 8b 08`, xz `fd 37 7a 58 5a 00`, bzip2 `BZh`, lz4
//! `04 22 4d 18`, or `02 21 4c 18` as it once was; `5x 2a 4d 18` begins what zstd and lz4 skip. zstd with a seek table (`b1 ea 92 8f` at the end), or of small frames that tell their sizes, is read in
//! place; the others are unpacked into a sparse temporary file, as far as the headers of what is in them reach.
//!
//! **Objects** (`source::remote`): blocks of 32 KiB around a structure that is read; more and more of a table that is read on; and
//! the pages of each chunk that the writer takes in hand, joined over gaps of 32 KiB at most, before a worker wants them. Each
//! answer must have the ETag of the first. What cannot be had after all tries is an error of the whole cut
//! ([`source::History::came_through`]), never a missing page.
//!
//! # What is written
//!
//! **Notes**: [`sink::notes`]. **ELF64 vmcore**: [`sink::elf`]. **kdump-compressed, version 6** ([`sink::kdump`]), in
//! blocks of 4096 bytes:
//!
//! | block | content |
//! |---|---|
//! | 0 | `disk_dump_header`: "KDUMP   " at 0, version 6 at 8, utsname (6 × 65) at 12, status at 424, block size 428, sub-header blocks 432, bitmap blocks 436, max_mapnr 440, CPUs 460 |
//! | 1 | `kdump_sub_header`: phys_base 0, dump level 8, VMCOREINFO offset 32 and size 40, notes offset 48 and size 56, max_mapnr 96; 104 bytes, then the notes |
//! | then | bitmap 1, pages that exist, and bitmap 2, pages that are in the file; bit n of byte n/8, lowest first |
//! | then | page descriptors, 24 bytes: offset `i64`, size `u32`, flags `u32` (1 zlib, 2 lzo, 4 snappy, 0x20 zstd), `u64` 0 |
//! | then | one page of zeros that all zero pages share, then page data |
//!
//! Page data stand in the order of their ranks ([`plan::order::Rank`]), so that a file that ends early has what readers need
//! first. A word of the status says that the file is incomplete (0x8); it does until the last page is written. Each file of a split
//! dump has `split` 1 at 12, its range of PFNs at 80 and 88, and descriptors of that range only.
//!
//! **ELF in seekable zstd** ([`sink::zst`]), and **flattened** streams of the other two, as above.
//!
//! **`xl dump-core`** ([`sink::xc_core`], layout in [`source::xc_core`]): pages as they were, in a layout of its own, without
//! steps 9 and 10; each vCPU as Xen would tell of it ([`xen::guest_context`]).
//!
//! **Digest** ([`pipeline::digest`]): a checksum of what readers see, the same for all formats.
//!
//! **XDUMPCUT note**: lines `KEY=value` of what was cut and altered, and, in the native layout, of all that one format's
//! headers have and another's have not ([`mod@recut::told`]), so that a cut can be written in another format.
//!
//! # The two layouts
//!
//! All above, `xl dump-core` aside, is the *native* layout. The *machine* layout ([`plan::layout`]) is for people who know crash's and makedumpfile's
//! own ways with Xen: pages stand at their MFN, steps 9 and 10 are left out, and the notes are the source's, where only the
//! crash note's last word is set, to the list by which crash finds the domain's P2M. crash reads that list, the pages that
//! it names and the P2M pages that those name, all of them the domain's own and never left out; it reads nothing of
//! Xen's. With Xen's own memory ([`xen::own`]) the output is a full dump without other domains and free pages, for crash with
//! xen-syms, for makedumpfile, and for another cut. It is the one mode that looks at every frame of the machine.
//!
//! # Whose memory
//!
//! [`xen::class`] alone decides what a frame is; [`xen::census`] counts frames by it, in cells. The report, `info` and the
//! [`map`](mod@map) are made from such counts, so they agree, and each sums up to the machine's frames.
//!
//! # Safety
//!
//! The only `unsafe` code is the mapping of the input, with its contract at [`source::open`], and, in builds with the feature
//! `lzo`, the two calls of the C library liblzo2 in `pipeline::lzo`, which gets pages and room for the worst of them. Nothing
//! from a file is used as a count or an index before it was checked, and no input makes the library panic.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![deny(unsafe_code)]

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("xdump-cut needs a 64-bit little-endian machine");

pub mod bitmap;
pub mod bulk;
pub mod bytes;
mod cache;
pub mod check;
pub mod cli;
pub mod cut;
pub mod damage;
#[cfg(feature = "dwarf")]
mod dwarf;
pub mod error;
pub mod info;
pub mod linux;
pub mod log;
pub mod map;
#[cfg(feature = "mount")]
pub mod mount;
pub mod objects;
pub mod options;
pub mod pick;
pub mod pipeline;
pub mod plan;
pub mod recut;
pub mod report;
pub mod sink;
pub mod source;
pub mod units;
pub mod vmcoreinfo;
pub mod xen;
pub mod zero;

pub use error::{Error, Result};
