# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_xdump_cut_global_optspecs
    string join \n split= F/flatten L/limit= dry-run verify digest strict domain= d/dump-level= exclude= require-level format= E compress= z c l p all-domains layout= keep-xen f/force i/vmcoreinfo= x/vmlinux= system-map= xen-syms= report= q/quiet threads= dump-dmesg= dump-xen-dmesg= memory= timeout= no-mmap tmp-dir= h/help V/version
end

function __fish_xdump_cut_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_xdump_cut_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_xdump_cut_using_subcommand
    set -l cmd (__fish_xdump_cut_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l split -d 'With a number, 2 to 256: write N files, OUT.1 to OUT.N, each of a share of the pages (kdump format); crash wants all of them behind the vmlinux, makedumpfile --reassemble joins them. Without: the dump is split, and all arguments but the last are its parts, in any order. Pages of parts that are not given are missing' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s L -l limit -d 'Let no file grow beyond SIZE bytes (or with K, M, G, T behind it). What does not fit is left out, the file is marked incomplete, stays under its name with .incomplete, and the exit status is 3. The same happens when the disk is full. Of a split output all files end with the first that is full' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l domain -d 'The domain to cut out: its id, or the name that dom0\'s toolstack knows it by (found in dom0\'s page cache). The default is dom0' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s d -l dump-level -d 'What to leave out, in makedumpfile\'s bits: 1 zero pages (readers see zeros all the same), 2 page cache, 4 page cache with private data too, 8 pages of processes, 16 free pages; added up. 0 keeps everything; any other level leaves out pages with bad memory. No vmlinux is needed. The default is 31; of a cut it is the cut\'s own, and nothing but 1 can be added to that; with --format xc-core it is 0, as its readers take what is left out for an error' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l exclude -d 'The same by names: zero, cache, cache-private, user, free, with commas between. All of them are -d 31' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l format -d 'Format of the output. Without it, an OUT that ends in .elf asks for ELF (but not if a compression is asked for), one in .elf.zst for that, any other for kdump' -r -f -a "kdump\t'kdump-compressed, version 6'
elf\t'ELF64 vmcore'
elf.zst\t'ELF64 vmcore in seekable zstd: zstd -d restores the file of the format elf'
xc-core\t'What xl dump-core writes of a running domain: every page as it is, with the P2M and what Xen knows of the vCPUs. For readers of that format; crash opens it as well, but kdump and ELF tell debuggers more'"
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l compress -d 'Compression of kdump pages: zstd (levels -7 to 19, as in zstd:3), zlib (1 to 9), lzo, snappy or none. zstd needs crash 7.3.1 or later; every reader knows zlib; lzo and snappy are fast, and not in each build of each reader. lzo is there if xdump-cut was built with --features lzo. The default is zstd:1. With elf.zst, which is compressed by zstd, the level: zstd:3 there' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l layout -d 'Where pages stand in the output, and what is altered. The xc-core format has a layout of its own' -r -f -a "native\t'As if the domain had run on bare metal: pages by PFN, page tables rewritten, its own notes. For every reader'
machine\t'As makedumpfile -X does it: pages by MFN, nothing altered, Xen\'s notes. For crash\'s and makedumpfile\'s own ways with Xen dumps'"
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s i -l vmcoreinfo -d 'The VMCOREINFO of the domain\'s kernel, in a file as makedumpfile -g writes it (or a copy of the kernel\'s note), to be believed before the one in the dump, which has the word on what it lacks: files of makedumpfile say nothing of page types. With --all-domains, this and what follows is used for the domains whose kernel it fits' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s x -l vmlinux -d 'The domain\'s kernel with debugging information: symbols where its own kallsyms, and structure layouts where its own VMCOREINFO, cannot be found in the dump' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l system-map -d 'The same symbols from a System.map' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l xen-syms -d 'The host\'s xen-syms (Xen\'s ELF file with .symtab, DWARF if it has any), for a dump without Xen\'s notes, as QEMU\'s and libvirt\'s dump-guest-memory make them. Such a dump is cut without it too, if Xen can be found in memory' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l report -d 'How the report at the end is printed on standard output' -r -f -a "text\t'For people'
json\t'For scripts'"
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l threads -d 'Worker threads. The output is the same for any number. The default is one per CPU that may be used, by affinity and by the cgroup\'s quota' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l dump-dmesg -d 'Save the domain\'s kernel log in FILE before anything else, as `xdump-cut log` prints it. Where that fails there is a warning, and the cut is made all the same. With two names in all, as in makedumpfile\'s --dump-dmesg VMCORE FILE, the log is all that is written' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l dump-xen-dmesg -d 'Save Xen\'s console ring in FILE, likewise' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l memory -d 'Take SIZE bytes of memory at most (or with K, M, G, T behind it; 16M is the least): fewer threads, fewer pages in hand, and the dump mapped in small windows. What is known of each of the domain\'s pages, two bits and more, has to fit; there is a warning if it does not. The default is no limit; for /proc/vmcore it is a quarter of MemAvailable' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l timeout -d 'Stop writing after so long, counted from the start: seconds, or with s, m or h behind it. What was written by then is left as with -L. SIGTERM, SIGINT and SIGHUP end a cut in the same way, and a second one at once' -r
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l tmp-dir -d 'Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s F -l flatten -d 'Write a flattened stream (makedumpfile -F), for pipes: crash opens a file of it, and makedumpfile -R makes an ordinary file of it. Chosen by itself where OUT is -; without OUT it goes there'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l dry-run -d 'Write nothing, and tell what would be written: pages by class, and the size in each format, at most and estimated from a sample of the pages. With OUT, also whether there is room for it. OUT may be left out'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l verify -d 'Read the output again when it is written and compare each page with the source, before the output gets its name'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l digest -d 'Compute a digest of all pages (BLAKE3), which is the same for all formats of one cut: on the last line of the XDUMPCUT note, and in the report'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l strict -d 'Take damaged input for an error: anything that is cut short, broken or contradictory in it. Otherwise what is readable is used, and the rest told in the report'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l require-level -d 'Fail if the level cannot be applied in full, because the kernel\'s VMCOREINFO is missing, or any struct page cannot be read. Otherwise there is a warning, and what cannot be told is kept'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s E -d 'The same as --format elf'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s z -d 'The same as --compress zstd, in makedumpfile\'s spelling'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s c -d 'The same as --compress zlib'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s l -d 'The same as --compress lzo'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s p -d 'The same as --compress snappy'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l all-domains -d 'Cut out every domain: OUT is a folder, which is made if need be, and gets a file for each, named dom0.kdump, dom3-web.kdump and so on (.elf with -E, .elf.zst, .core with --format xc-core). One that cannot be cut does not keep the others from it'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l keep-xen -d 'Keep Xen\'s own memory too, so that crash opens the output with xen-syms: image, heap, frame table, M2P, page tables; no free page, and no memory of another domain. Needs --layout machine. Unlike all else its cost follows the machine: each of its frames is looked up in the frame table, 8 GiB of it per TiB'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s f -l force -d 'Overwrite OUT if it exists'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s q -l quiet -d 'No progress and no report; warnings still go to standard error'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -l no-mmap -d 'Read the dump instead of mapping it: slower, but a dump that shrinks or fails while it is read gives an error and not a SIGBUS'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -s V -l version -d 'Print version'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -a "info" -d 'Tell what a Xen dump holds'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -a "log" -d 'Print dom0\'s kernel log, another domain\'s, or Xen\'s console ring, as dmesg would'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -a "mount" -d 'Show a cut, or each domain of a full dump, as an ELF vmcore in a folder, without writing a byte'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -a "bulk" -d 'Cut every dump under some folders, on one machine or on many'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -a "check" -d 'Tell whether a crash of this host, now, would give a good dump'
complete -c xdump-cut -n "__fish_xdump_cut_needs_command" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -l xen-syms -d 'The host\'s xen-syms, for a dump without Xen\'s notes' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -l map -d 'Draw the machine\'s memory by owner (dom0, each domain, Xen, free, I/O), and where it is all zeros, with a legend that sums up to all of it: below the text, or as a picture in FILE.svg. A name that does not end in .svg is the dump\'s. All pages are looked at; on a machine of more than 8 GiB a sample of that size, and the figures are estimates' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -l tmp-dir -d 'Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -l split -d 'The dump is split: all arguments are its parts'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -l json -d 'Print JSON'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -s f -l force -d 'Overwrite FILE.svg if it exists'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -l no-mmap -d 'Read the dump instead of mapping it'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -l domain -d 'The domain: its id, or the name that dom0\'s toolstack knows it by. The default is dom0' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -l xen-syms -d 'The host\'s xen-syms, for a dump without Xen\'s notes, or one whose console ring cannot be found without' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -l tmp-dir -d 'Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -l split -d 'The dump is split: all arguments are its parts'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -l xen -d 'Xen\'s console ring, as xl dmesg prints it'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -s r -l raw -d 'Begin each line of a kernel\'s with facility and level, as dmesg -r does: <6>'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -l no-mmap -d 'Read the dump instead of mapping it'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -l domain -d 'The domain that {} stands for: its id, or the name that dom0\'s toolstack knows it by. The default is dom0' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -s d -l dump-level -d 'What to leave out, as for a cut. The default is 0, for which the fewest of the kernel\'s structures need be read; bit 1 does nothing, as zero pages are only known when they are read' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -l cache -d 'Keep SIZE bytes at most (or with K, M, G, T behind it) of what was unpacked or made, for the next who wants it. The default is 64M' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -l xen-syms -d 'The host\'s xen-syms, for a dump without Xen\'s notes' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -l tmp-dir -d 'Where a dump is unpacked that cannot be read in place: a compressed one, or a pipe. The default is TMPDIR, or /tmp' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -l split -d 'The dump is split: all arguments but DIR are its parts'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -l no-mmap -d 'Read the dump instead of mapping it'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand mount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l out -d 'The folder of the cuts, made if need be. A dump a/vmcore below SRC becomes DIR/a/vmcore.kdump (.elf, .elf.zst, .core); with several SRC, below the last name of each. It may be within SRC' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l manifest -d 'The folder of manifest.jsonl and manifest.d. The default is DIR; one is needed if DIR is a URL' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l plan -d 'Write the work list LIST, of what would be done, and do nothing of it: entries of about the same expected cost, for a Slurm array job, a Kubernetes indexed Job or GNU parallel. Prints how many entries it has' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l entries -d 'How many entries; the default is as many as keep each near the cost of the most expensive dump, 1000 at most' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l work -d 'Do one entry of LIST, as LIST says. What is done already is left; two runs of one entry exclude each other' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l index -d 'Which entry, from 0 on' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l collect -d 'Merge what the entries of LIST wrote into DIR/manifest.jsonl, and tell what is missing' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l domain -d 'The domain to cut out: its id, or the name that dom0\'s toolstack knows it by (found in dom0\'s page cache). The default is dom0' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s d -l dump-level -d 'What to leave out, in makedumpfile\'s bits: 1 zero pages (readers see zeros all the same), 2 page cache, 4 page cache with private data too, 8 pages of processes, 16 free pages; added up. 0 keeps everything; any other level leaves out pages with bad memory. No vmlinux is needed. The default is 31; of a cut it is the cut\'s own, and nothing but 1 can be added to that; with --format xc-core it is 0, as its readers take what is left out for an error' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l exclude -d 'The same by names: zero, cache, cache-private, user, free, with commas between. All of them are -d 31' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l format -d 'Format of the output. Without it, an OUT that ends in .elf asks for ELF (but not if a compression is asked for), one in .elf.zst for that, any other for kdump' -r -f -a "kdump\t'kdump-compressed, version 6'
elf\t'ELF64 vmcore'
elf.zst\t'ELF64 vmcore in seekable zstd: zstd -d restores the file of the format elf'
xc-core\t'What xl dump-core writes of a running domain: every page as it is, with the P2M and what Xen knows of the vCPUs. For readers of that format; crash opens it as well, but kdump and ELF tell debuggers more'"
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l compress -d 'Compression of kdump pages: zstd (levels -7 to 19, as in zstd:3), zlib (1 to 9), lzo, snappy or none. zstd needs crash 7.3.1 or later; every reader knows zlib; lzo and snappy are fast, and not in each build of each reader. lzo is there if xdump-cut was built with --features lzo. The default is zstd:1. With elf.zst, which is compressed by zstd, the level: zstd:3 there' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l move -d 'When a cut is there, move its dump below FOLDER, with the tree mirrored. As with --delete-source, each cut is verified first (--verify), and a dump stays if its cut has any warning, if pages of the domain are missing, or if it has changed' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s j -l jobs -d 'Cut N dumps at a time. The default is one for each thread, fewer if memory is limited; 16 at most' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l threads -d 'Worker threads for all dumps together. Outputs are the same for any number. The default is one per CPU that may be used' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l memory -d 'Take SIZE bytes of memory at most (or with K, M, G, T behind it; 16M is the least): fewer threads, fewer pages in hand, and the dump mapped in small windows. What is known of each of the domain\'s pages, two bits and more, has to fit; there is a warning if it does not. The default is no limit; for /proc/vmcore it is a quarter of MemAvailable' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l timeout -d 'Stop writing after so long, counted from the start: seconds, or with s, m or h behind it. What was written by then is left as with -L. SIGTERM, SIGINT and SIGHUP end a cut in the same way, and a second one at once' -r
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l progress -d 'How progress is told on standard error. The default is bars on a terminal, and lines elsewhere' -r -f -a "bars\t'A bar for each dump that is being cut, and one for all, by bytes'
lines\t'A line when a dump is done'
json\t'A line of JSON when a dump is begun, and when it is done'"
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l report -d 'How the summary is printed on standard output' -r -f -a "text\t'For people'
json\t'For scripts'"
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l tmp-dir -d 'Where dumps are unpacked that cannot be read in place. The default is TMPDIR, or /tmp' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l require-level -d 'Fail if the level cannot be applied in full, because the kernel\'s VMCOREINFO is missing, or any struct page cannot be read. Otherwise there is a warning, and what cannot be told is kept'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s E -d 'The same as --format elf'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s z -d 'The same as --compress zstd, in makedumpfile\'s spelling'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s c -d 'The same as --compress zlib'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s l -d 'The same as --compress lzo'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s p -d 'The same as --compress snappy'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l verify -d 'Read each output again when it is written and compare each page with the source, before the output gets its name'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l digest -d 'Compute a digest of all pages of each cut (BLAKE3): in the cut\'s note, and in the manifest'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l strict -d 'Take damaged input for an error'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s f -l force -d 'Overwrite files that stand in DIR and are not known to be cuts of the same dumps'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l retry -d 'Try what failed for good once more, and what was left as no Xen dump. Otherwise only another version of xdump-cut does, or other options'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l follow -d 'Follow links to files and folders below SRC'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l delete-source -d 'When a cut is there, delete its dump'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s q -l quiet -d 'No progress and no summary; failures and warnings still go to standard error'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -l no-mmap -d 'Read dumps instead of mapping them'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand bulk" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand check" -l root -d 'Look at a recorded tree instead of the running system' -r -F
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand check" -l json -d 'Print JSON'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand check" -s q -l quiet -d 'Print only what is not ok; nothing if all is'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand help; and not __fish_seen_subcommand_from info log mount bulk check help" -f -a "info" -d 'Tell what a Xen dump holds'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand help; and not __fish_seen_subcommand_from info log mount bulk check help" -f -a "log" -d 'Print dom0\'s kernel log, another domain\'s, or Xen\'s console ring, as dmesg would'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand help; and not __fish_seen_subcommand_from info log mount bulk check help" -f -a "mount" -d 'Show a cut, or each domain of a full dump, as an ELF vmcore in a folder, without writing a byte'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand help; and not __fish_seen_subcommand_from info log mount bulk check help" -f -a "bulk" -d 'Cut every dump under some folders, on one machine or on many'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand help; and not __fish_seen_subcommand_from info log mount bulk check help" -f -a "check" -d 'Tell whether a crash of this host, now, would give a good dump'
complete -c xdump-cut -n "__fish_xdump_cut_using_subcommand help; and not __fish_seen_subcommand_from info log mount bulk check help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
