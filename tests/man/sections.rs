//! What the man page says besides its options.

/// Sections that no option tells of: title, then paragraphs of a term (may be empty) and its text.
pub(crate) const MORE: &[(&str, &[(&str, &str)])] = &[
    (
        "INPUT",
        &[
            (
                "",
                "What a file is, is found by its content, never by its name. Every form of a dump gives the same cut, as far \
                  as it holds the same pages.",
            ),
            (
                "ELF",
                "An ELF64 vmcore as kdump saves it, as QEMU and libvirt write it, or as makedumpfile -E does. Memory beyond \
                  p_filesz reads as zeros, as ELF has it; makedumpfile puts there what it left out, which is zero pages with \
                  -d 1, but other domains' pages with -X. A domain of which nothing is stored is refused.",
            ),
            (
                "kdump-compressed",
                "Versions 1 to 6, with zlib, lzo, snappy, zstd or nothing, by makedumpfile at any level, with -X or not, or by \
                  QEMU. Pages that were left out are missing from the cut; they are never zeros.",
            ),
            (
                "split",
                "With --split, the parts of makedumpfile --split, or ELF files that each hold a part of memory. They may come \
                  in any order and each in its own wrapper.",
            ),
            (
                "flattened",
                "makedumpfile -F. A file is read in place by an index of its records. What was lost with a record is \
                  missing, and no zero. A stream in the kdump format that was cut short is used as far as it goes; of one \
                  with -E nothing can be had, since makedumpfile writes last where memory lies. Choose the kdump format \
                  where a transfer may break off.",
            ),
            (
                "compressed",
                "Any of these within .zst, .gz, .xz, .lz4 or .bz2, also one within another. zstd files with a seek table, or \
                  of several frames of known size, 4 MiB at most, are read in place; all others are unpacked into a sparse \
                  temporary file without a name (--tmp-dir), those of xz -T, pzstd and pbzip2 by all threads.",
            ),
            (
                "a cut",
                "A file that xdump-cut wrote in the native layout, in any of its formats, becomes the file of another format that \
                  the full dump would have become. Its pages and notes stay as they are: without -d its level is kept, and only \
                  zero pages can be left out besides. What needs the full dump (--layout machine, --xen-syms, another \
                  domain) is refused. info tells what a cut is, log prints its kernel's log.",
            ),
            ("a URL", "s3://BUCKET/NAME, gs://BUCKET/NAME, http:// or https://: see OBJECTS."),
            (
                "-",
                "Standard input, in any of these forms. From a pipe it goes into the temporary file, rearranged if it is \
                  flattened; a file is read in place.",
            ),
            (
                "",
                "Damaged input is used as far as it can be read. The report counts what is damaged in the file, and pages \
                  of the domain that are missing, each with the reason. --strict makes any damage an error; what was never \
                  in the dump, or was left out of it by its own level, is no damage.",
            ),
        ],
    ),
    (
        "OUTPUT",
        &[
            (
                "",
                "kdump and ELF hold the pages of the domain by pseudo-physical address, one NT_PRSTATUS and one QEMU CPU note \
                  per vCPU that ever ran, its kernel's VMCOREINFO, and a note named XDUMPCUT. A zero page that was left out reads as zeros \
                  in all. Pages that the dump lacks are missing from the output; they are never zeros.",
            ),
            (
                "",
                "Pages that the dump level left out are \"excluded\" to readers of the kdump format, and in no PT_LOAD of \
                  the ELF format. Page tables, pages of the P2M, the VMCOREINFO and the start_info are never left out.",
            ),
            (
                "",
                "The Xen-heap pages that a PV domain maps (shared info, grant table) stand above its highest page. Pages of \
                  other domains that it has mapped stay out; its tables still name their numbers.",
            ),
            (
                "",
                "The eight bytes of the variable xen_start_info are cleared, and in kernels before 4.20 those of \
                  pv_init_ops.patch, since crash would take the kernel for a Xen guest. The XDUMPCUT note and the \
                  report tell their addresses and old values.",
            ),
        ],
    ),
    (
        "FORMATS",
        &[
            (
                "kdump",
                "kdump-compressed, version 6: each page by itself. What crash, drgn and makedumpfile know best. Zero pages, and \
                  pages that are one word of eight bytes over and over, are stored once.",
            ),
            (
                "kdump, --split N",
                "N files of like size, each with all headers. crash vmlinux OUT.1 OUT.2 ... opens them, makedumpfile \
                  --reassemble joins them, and so does xdump-cut --split OUT.1 OUT.2 ... The pages are read twice.",
            ),
            (
                "elf",
                "An ELF64 vmcore, as QEMU writes it, uncompressed; for gdb too. The pages are read twice. Beside the dump on a \
                 file system that can (XFS, Btrfs), pages that were not altered share their blocks with the dump.",
            ),
            (
                "elf.zst",
                "The same in zstd, in frames of 128 KiB with a seek table: zstd -d gives the ELF file, and programs that know \
                  seekable zstd read it in place. Smaller than the kdump format, since pages are compressed together.",
            ),
            (
                "flattened (-F, or -)",
                "kdump or ELF as makedumpfile -F has it, for pipes: crash and drgn open a file of it, makedumpfile -R makes the \
                  ordinary file. elf.zst needs no such form: to - it goes as it is. The report is on standard error then.",
            ),
            (
                "",
                "If there is no more room, the disk fails, a file has the size that -L allows, --timeout is over, or SIGTERM, \
                  SIGINT or SIGHUP comes, the file ends there. It is marked incomplete as makedumpfile does it (not within elf.zst), keeps the name OUT.incomplete, and the exit status is 3. crash says that it is \
                  incomplete; what it lacks reads as an error, never as zeros. -L holds for each \
                  file of a split dump. A stream only ends, and --strict, which can judge pages no sooner than they were read, \
                  then speaks by the exit status alone. A write that blocks, on a pipe that nobody reads, is not interrupted.",
            ),
            (
                "",
                "The kdump format has the kernel's own pages first: what it has had since boot, its page tables, stacks and \
                  modules; then slabs and others of its own; then the memory map; and last pages that any level could leave \
                  out. So crash opens an incomplete file as soon as it has the kernel's own. ELF has pages in order of PFN.",
            ),
            (
                "",
                "--digest: BLAKE3 over the digests of all pages in order of PFN, each of which is BLAKE3 over the PFN (8 bytes, \
                  little-endian) and the page's 4096 bytes, zero pages included.",
            ),
        ],
    ),
    (
        "XL DUMP-CORE",
        &[
            (
                "",
                "--format xc-core writes what xl dump-core (Xen 4.20) writes of a running domain: an ELF file of sections, \
                  with the domain's pages by PFN as they were (a PV domain's page tables hold machine frames), the MFN of each \
                  in .xen_p2m (.xen_pfn has the PFNs of PVH and HVM domains), the shared info page, and a vcpu_guest_context \
                  of each vCPU that ever was brought up. What the dump level and the P2M tell aside, nothing is \
                  interpreted: no VMCOREINFO or register note is added, no mark cleared.",
            ),
            (
                "",
                "All pages are there unless -d leaves some out, zero pages too, as holes of the file. Readers take a page \
                  that is not there for an error. crash 8.0.6 besides takes the place of an entry in .xen_p2m for its PFN, so \
                  it opens no file of a PV domain in which PFNs are missing, whoever wrote it: dom0, whose PFNs have the \
                  machine's holes, a guest that gave pages back, any PV domain with -d above 1. There is a warning; kdump and ELF have no such need.",
            ),
            (
                "",
                "What differs from xl's file: pages are there that xl leaves out of a PVH or HVM domain's (PFN 0xa0 to 0xbf, \
                  and 0xf0000 to 0xfffff, where grant table and special pages stand), and entries that it leaves \
                  empty are not. Who compiled Xen and where, its capabilities, and vm_assist of each vCPU are not told. Of a vCPU that was on a \
                  CPU, FPU registers and segment bases are not in memory and read as 0. What the XDUMPCUT note tells is in a section \
                  of its own, .note.XDUMPCUT.",
            ),
        ],
    ),
    (
        "LAYOUTS",
        &[
            (
                "native",
                "What OUTPUT tells of: as if the domain had run on bare metal. Every reader opens it, and crash shows each vCPU's \
                  registers, which it does not find in a Xen dump.",
            ),
            (
                "machine",
                "As makedumpfile writes Xen dumps: pages at their machine address, page tables and all other content as \
                  they were, the notes of the full dump in their order. The last word of the crash note is set to the domain's \
                  pfn_to_mfn_frame_list_list; VMCOREINFO and XDUMPCUT are added behind. It holds the domain's pages (the dump \
                  level leaves out the same ones, but never a page of the P2M) and the Xen-heap pages that it maps. \
                  crash opens both formats with its vmlinux and shows what it shows of the full dump. drgn and gdb \
                  know nothing of Xen's page tables and cannot use it. A domain that publishes no frame list (as those \
                  that xl built since Xen 4.7) cannot be opened by crash in this layout; there is a warning.",
            ),
            (
                "machine, --keep-xen",
                "Xen's memory besides: frames that are not free and without an owner, or of the Xen heap, of DOMID_XEN or \
                  of DOMID_IO. No ordinary memory of another domain is among them, but their shared infos and grant \
                  tables, which are Xen's, are. \"crash xen-syms OUT\" shows what it shows of the full dump, \
                  makedumpfile takes the ELF format for a full dump (with -X, and with any -d without a vmlinux, as dom0's VMCOREINFO is there), \
                  and xdump-cut itself can cut it again. The cost follows the machine: each of its frames is looked up in \
                  Xen's frame table.",
            ),
            ("", "makedumpfile opens no Xen dump without Xen's memory, and no Xen dump in the kdump format."),
        ],
    ),
    (
        "DOMAINS",
        &[
            (
                "PV",
                "Its page tables hold machine frames and are rewritten. Its P2M is read from the frame list (the crash \
                  note's for dom0, the shared info's for others) or from the linear list that newer kernels publish; what \
                  these lack or have wrong is taken from the other, from the kernel's own variables (xen_p2m_addr, or \
                  phys_to_machine_mapping of XenLinux), and at last from Xen's M2P. Each entry is held against the M2P and \
                  the frame's owner. Whatever was repaired is said in a warning.",
            ),
            (
                "PVH, HVM",
                "Its page tables hold its own numbers and stay as they are. Its P2M is the nested tables of AMD (NPT) or Intel \
                  (EPT). Registers are Xen's copies, held against the VMCB on AMD; of Intel's VMCS nothing can be read, so \
                  they are those of the last exit.",
            ),
            ("", "Names are found in dom0's page cache, where the toolstack has left each domain's configuration."),
        ],
    ),
    (
        "DUMP LEVEL",
        &[
            (
                "",
                "The level is a sum of makedumpfile's bits, read from the kernel's struct pages through its own page tables \
                  and VMCOREINFO. A page leaves only if its struct page says what it is; one that cannot be read, or makes \
                  no sense, is kept and counted.",
            ),
            ("1, zero", "Pages full of zeros. Readers see zeros."),
            ("2, cache", "Page cache without private data (buffers)."),
            ("4, cache-private", "Page cache with and without private data."),
            ("8, user", "Anonymous memory of processes, KSM and hugetlb pages."),
            (
                "16, free",
                "Free blocks of the buddy allocator, and pages that are offline: ballooned out, or never populated.",
            ),
            (
                "",
                "Pages with bad memory (PG_hwpoison) leave at any level but 0. If VMCOREINFO is missing or does not \
                  validate, level 1 is applied, with a warning; in the JSON report level.applied then differs from \
                  level.asked. --require-level makes that an error.",
            ),
        ],
    ),
    (
        "REPORT",
        &[(
            "",
            "The report counts pages: kept, zero, left out and as what, missing and why, Xen-free, of other domains, of Xen; page tables and \
               entries rewritten; mappings that could not be carried; words that were cleared; warnings. On machines of \
               more than 8 GiB the counts of what is not the domain's are estimated from a sample of the frame table, as a full \
               count would cost what the machine costs.",
        )],
    ),
    (
        "MAP",
        &[
            (
                "",
                "The map goes from machine address 0 to the end of RAM, in squares of equal size. A square shows what has \
                  most of its pages: dom0 (D on a terminal), another domain (A, B, C, E and so on by id; Z are the smallest \
                  where letters run out), pages of the Xen heap that domains share (S), Xen (X), free (:), DOMID_IO's (I), \
                  offline (!), of a domain that is not in the list (?), or without an entry in the frame table (~). A \
                  square with any RAM shows no hole; rows without RAM are folded into one.",
            ),
            (
                "",
                "Each page of RAM is in exactly one entry of the legend, and the entries sum up to all RAM that the dump \
                  describes in whole pages. Pages of zeros are counted within their owner's entry. Where they are more \
                  than half of what a square shows, it is drawn lighter, and with the lower-case letter on a terminal (a \
                  dot for free ones). Pages that the file lacks do not count as zeros.",
            ),
            (
                "",
                "No RAM in the dump is devices' memory (-) if DOMID_IO owns it, withheld (=) if Xen knows the pages but \
                  gave them to nobody, as the memory of kdump's own kernel, else nothing (_).",
            ),
            (
                "",
                "On a terminal there are colours, unless NO_COLOR is set or TERM is dumb; elsewhere none. The width is \
                  that of COLUMNS, else the terminal's, else 80. With --json, \"map\" has the legend, the holes, and runs \
                  of squares that look alike. On machines of more than 8 GiB all is estimated from a sample of about \
                  8 GiB, taken evenly from all of RAM, and the map says so.",
            ),
        ],
    ),
    (
        "MOUNT",
        &[
            (
                "",
                "Nothing is written, and nothing of a domain is read before its file is looked at (a listing with sizes, \
                  as ls -l, looks at all of them). It is made then: its P2M and its page tables are read, its pages only as \
                  the reader asks for them. To list or find the names of guests, dom0's memory is searched, once; dom0 and \
                  vmcore are found without. A file is, byte for byte, what a cut with -E -d 0 writes of a sound dump. That of an ELF cut is \
                  the file itself, unpacked; that of a kdump cut has all pages that the cut has.",
            ),
            (
                "",
                "A page that cannot be read is an input/output error (EIO), never zeros, and is told on standard error, five \
                  times for a file. So is a domain that cannot be cut; the others stay usable. Only the user who mounted may \
                  read. Memory: --cache, besides what a cut needs to know of each domain that was looked at; the kernel caches \
                  what is read as it does with any file.",
            ),
            (
                "",
                "Root mounts by itself; other users need fusermount3 (package fuse3). SIGINT, SIGTERM, SIGHUP and SIGQUIT \
                  unmount DIR, also if a file in it is open, and the status is 0. While a command runs, SIGINT and SIGQUIT \
                  are left to it; SIGTERM and SIGHUP are sent on to it, and after three seconds it is killed.",
            ),
        ],
    ),
    (
        "BULK",
        &[
            (
                "",
                "Every file below SRC is looked at, and known by its content: dumps in any form (INPUT), and split dumps, if their \
                  parts are in one folder. What is no Xen dump, a cut among them, is listed in the manifest and left. An output has \
                  the name of its input with .kdump (.elf, .elf.zst, .core) behind it, in the same place below DIR.",
            ),
            (
                "URLs",
                "SRC may be s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, and so may DIR; its manifest is in --manifest FOLDER then. An object's \
                  digest is its ETag, so that nothing of it is fetched to see that it is done (feature objects).",
            ),
            (
                "DIR/manifest.jsonl",
                "For each input the last line with its name counts: files (path, size, mtime in nanoseconds since 1970, and digest, \
                  BLAKE3 of the first and the last 64 KiB, of each), status, reason, output below DIR and its bytes, options, \
                  figures of the cut with its warnings, where the source is now, seconds, at (milliseconds since 1970), version. \
                  A path that is no UTF-8 is an array of its bytes. Lines are on the disk before a dump's output is begun, and when it has its \
                  name.",
            ),
            (
                "status",
                "done: it is cut. left: it is no Xen dump. failed: it cannot be cut, and trying again gives the same. trouble: what \
                  failed may pass. refused: where the output should go stands a file that is not known to be ours, or the cut of an earlier dump that is gone. started: it was begun, and \
                  the run was killed.",
            ),
            (
                "once more",
                "The same command leaves what is done, if size, mtime and digest of the input, the options and the size of the output \
                  are what they were, and does the rest: what was killed, what is new or has changed, what failed for a reason that \
                  may pass. What failed for good is tried again with --retry, with other options, and by another version. One \
                  run at a time works on a DIR.",
            ),
            (
                "budget",
                "Dumps are cut several at a time, by one set of threads, each of which works for all of them; --memory is shared out \
                  among them. So a tree of small dumps and one large dump both keep all CPUs busy. Dumps that must be unpacked \
                  need room in --tmp-dir, as many at once as are cut. What failed for a reason that may pass is tried once \
                  more when all else is done, alone.",
            ),
            (
                "--move, --delete-source",
                "A dump goes when its cut has its name and was read again and found right, and the manifest says so. It stays, with \
                  the reason in the manifest, if the cut has any warning, if pages of the domain are missing, or if it has changed. \
                  FOLDER may be below SRC. Objects of stores stay. What was cut and verified before goes as well.",
            ),
            (
                "--plan, --work, --collect",
                "A work list has a line of JSON for all of it, and one for each entry, in which dumps are shared out by what they are \
                  expected to cost: their size, and many times that if they must be unpacked. Options, DIR and -f are the list's. \
                  --work does what of its entry is not done, and writes DIR/manifest.d/ID-N.jsonl; bulk, --plan and --collect take \
                  over what is there. See xdump-cut-bulk(7).",
            ),
        ],
    ),
    (
        "CHECK",
        &[
            (
                "",
                "check is run in dom0 as root, after the installation and from time to time. It changes nothing. Each line is \
                  a matter: ok; warn, if a dump will come but there is something to know; FAIL, if a crash now would not give \
                  a good dump; unknown, if it decides and could not be looked at. Behind what was seen stands the way out. The \
                  last line is the verdict. With --json: version, verdict (good, bad, unknown), reservation and \
                  reservation_needed in bytes, and findings, each of what, status, seen and way_out.",
            ),
            (
                "dom0",
                "A PV dom0 of Xen on x86_64. Into Xen below a PVH dom0 kexec cannot load a crash kernel. Where this fails, it stands alone.",
            ),
            ("xen, kernel", "Versions, against those whose dumps are tested. Others are a warning."),
            ("vmcoreinfo, kallsyms", "Whether dom0's kernel has in memory what dump levels and symbols are read from."),
            ("capture", "Whether the capture kernel can save a dump: CONFIG_CRASH_DUMP and CONFIG_PROC_VMCORE."),
            (
                "reservation",
                "What Xen has reserved, by kexec --print-ckr-size, else its log or its command line. It should be 128 MiB for \
                  a capture kernel with its initramfs, 64 MiB for a cut, and two bits for each page of dom0, in whole MiB. \
                  Less is a warning, as a small kernel may do with less; nothing, or less than the kernel takes to start, fails.",
            ),
            (
                "loaded",
                "Whether Xen has a crash kernel, by kexec -p -S: its status is 1 if so. The files of dom0's own kernel, \
                  /sys/kernel/kexec_crash_loaded among them, do not tell. A kexec that was built without Xen cannot load one.",
            ),
            ("panic", "What comes to a panic, which goes to Xen. With kernel.panic_on_oops=0 an oops does not."),
            (
                "kdump, room, tool",
                "kdump-tools' or dracut's set-up, free room where it saves against the size of dom0 and of the machine, and whether the \
                  capture kernel has xdump-cut. The last two are warnings: a level makes a dump smaller, and a dump can be cut later.",
            ),
            (
                "",
                "Without root, Xen cannot be asked: reservation and loaded are unknown. What a disk or a driver does in the \
                  capture kernel, only a crash shows; have one, once, when it does no harm: xl debug-keys C.",
            ),
        ],
    ),
    (
        "OBJECTS",
        &[
            (
                "",
                "Programs that were built with the feature objects take URLs where a dump or an output is named. The server must \
                  give ranges. Only those that are needed are fetched: blocks around Xen's and the kernel's structures, and \
                  the pages that stay. The report tells how much. Dumps in zstd with a seek table are read so too; those in \
                  other wrappers are fetched once as a whole, and unpacked as they come (--tmp-dir). Holes of a sparse file \
                  are not known of objects, and -d 31 fetches least. ELF and elf.zst read the pages twice; what was kept in memory \
                  (256 MiB, or what --memory leaves) is not fetched again.",
            ),
            (
                "",
                "Requests that fail are made again, with pauses, for up to three minutes. If that does not help, or the object \
                  changes while it is read, nothing is written, and the status is 3.",
            ),
            (
                "output",
                "To s3:// and gs:// only, each format, with --split N and --all-domains too. It is written to a private file first \
                  (--tmp-dir), and put into the store in parts when it is complete: the object appears as a whole or not at all, one that \
                  ends early as NAME.incomplete. If the server refuses in the end, the private file stays, and it is said where. \
                  Whether the name is free is looked at before the cut and behind it; only of objects up to 8 MiB the server itself \
                  decides.",
            ),
            (
                "s3://",
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION; AWS_SKIP_SIGNATURE=true for objects that anybody may \
                  read; AWS_ENDPOINT_URL for another server than Amazon's, and AWS_ALLOW_HTTP=true if its address begins with http://. \
                  Without keys, those of the machine or the container are asked for.",
            ),
            ("gs://", "GOOGLE_SERVICE_ACCOUNT, or GOOGLE_APPLICATION_CREDENTIALS: the file of who asks."),
            (
                "http://, https://",
                "Any server; a signed URL will do, and what is behind its ? is shown nowhere. A proxy is taken from HTTPS_PROXY and \
                  HTTP_PROXY.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            (
                "0",
                "Success. With bulk: every dump is cut, now or before. There may be warnings: damage that could be worked around, such as a domain list that loops \
                   behind dom0.",
            ),
            (
                "1",
                "The input is no Xen dump that can be cut, or is damaged where it must not be. Trying again gives the same. With \
                  --all-domains: some domains could not be cut; each is told on standard error, and 2 or 3 says that a \
                  file stood in the way. With bulk: some dumps failed for good. With check: a crash now would not give a good dump.",
            ),
            ("2", "The command line is wrong, or OUT exists."),
            (
                "3",
                "A file could not be read or written: no such file, no permission, a full disk (what was written until then is \
                  kept, see FORMATS), an output that --verify found to be other than what was written, a folder that cannot be \
                  mounted. Trying again may help. With bulk: that is so of some dumps, or the run was ended, or with --collect, some are missing. With check: nothing fails, but something that decides could not be looked at, most often \
                  for want of root.",
            ),
            ("4", "With bulk: no dump could be cut, for good, or there is none."),
            (
                "of a command",
                "mount -- COMMAND ends with the command's own status, with 128 and the signal's number if a signal ended it, with \
                  126 or 127 if it could not be started.",
            ),
        ],
    ),
    (
        "FILES",
        &[(
            "OUT.incomplete",
            "The output while it is written. It is removed if the cut fails, unless it is that there was no more room. One that is left of \
             a run that was killed says that it is incomplete, and is replaced with -f. Only the owner may read it, and OUT.",
        )],
    ),
    (
        "NOTES",
        &[
            (
                "",
                "crash 8.0.6 shows the trace of a task that panicked from panic() on, as it does for any kernel. Kernels \
                  configured with an exception stack of size 0 make its bt stumble on the task of CPU 0 (\"invalid size \
                  request: 0\"), on any dump of them.",
            ),
            (
                "",
                "makedumpfile filters the kdump format further, if it knows the compression. Of the ELF format it takes memory beyond p_filesz as \
                  excluded, not as zeros, and so does libkdumpfile without file.zero_excluded; give them the kdump format.",
            ),
            (
                "",
                "zlib is in every reader. crash, drgn and makedumpfile know zstd, lzo and snappy as far as they were built with \
                  them: Debian's crash 8.0.6 and the drgn 0.3.0 of PyPI with all three, makedumpfile of Debian 12 with lzo, of \
                  Debian 13 with lzo and zstd. One that lacks it may say something else, as makedumpfile does: \"Can't get the \
                  address of system_utsname\".",
            ),
            (
                "",
                "xdump-cut itself reads all of them, but writes lzo only if it was built with --features lzo, since liblzo2 \
                  is under the GPL.",
            ),
            ("", "A mapped dump must keep its size while it is read; see --no-mmap."),
        ],
    ),
    (
        "EXAMPLES",
        &[
            ("xdump-cut vmcore dom0.kdump", "Cut dom0 out, compressed with zstd. Then: crash vmlinux dom0.kdump"),
            ("xdump-cut -d 1 vmcore dom0.kdump", "The same with page cache, processes' memory and free pages."),
            ("xdump-cut -c vmcore dom0.kdump", "With zlib, for readers that do not know zstd."),
            ("xdump-cut -E vmcore.zst dom0.elf", "From a compressed dump to an ELF file, also for gdb."),
            (
                "xdump-cut --layout machine --keep-xen -E vmcore xen.elf",
                "For crash as it was used on full Xen dumps: crash vmlinux xen.elf, or crash xen-syms xen.elf",
            ),
            (
                "xdump-cut --dry-run vmcore dom0.kdump",
                "What would be in it, how large it would be in each format, and whether there is room.",
            ),
            (
                "xdump-cut --verify --digest vmcore dom0.elf.zst",
                "For an archive: ELF in seekable zstd, read again and compared.",
            ),
            (
                "xdump-cut vmcore - | ssh host 'cat > dom0.flat'",
                "To another machine: crash vmlinux dom0.flat, or makedumpfile -R dom0.kdump < dom0.flat",
            ),
            ("xdump-cut --split 3 vmcore dom0", "Into dom0.1, dom0.2 and dom0.3."),
            ("xdump-cut --split part1 part2 part3 dom0.kdump", "From a dump that makedumpfile split."),
            ("ssh host cat /var/crash/vmcore.flat | xdump-cut - dom0.kdump", "From a stream."),
            ("xdump-cut --report json -f vmcore dom0.kdump", "For scripts: the report as JSON on standard output."),
            ("xdump-cut --domain web vmcore web.kdump", "A guest: crash GUESTS-VMLINUX web.kdump"),
            ("xdump-cut --format xc-core --domain web vmcore web.core", "The same guest as xl dump-core writes it."),
            ("xdump-cut --all-domains vmcore folder", "All domains, each into a file of its own."),
            ("xdump-cut mount dom0.elf.zst -- crash vmlinux {}", "crash on a compressed ELF file."),
            ("xdump-cut mount vmcore /mnt", "Every domain at once: crash GUESTS-VMLINUX /mnt/dom3-web"),
            ("xdump-cut info --json vmcore", "What the dump holds."),
            ("xdump-cut info --map vmcore", "What the dump holds, and whose each part of the machine's memory is."),
            ("xdump-cut info --map memory.svg vmcore", "The same with a picture for a browser."),
            ("xdump-cut log --xen vmcore | tail", "What Xen said last."),
            ("xdump-cut check", "In dom0, before any crash: would it give a good dump?"),
            ("xdump-cut bulk /var/crash --out /srv/cuts", "Every dump there, and only new ones when it is run again."),
            ("xdump-cut check -q || alert", "The same for a monitoring script."),
        ],
    ),
    ("SEE ALSO", &[("", "crash(8), drgn(1), gdb(1), makedumpfile(8), xdump-cut-bulk(7), xdump-cut-kdump(7)")]),
];
