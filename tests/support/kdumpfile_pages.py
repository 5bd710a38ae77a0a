# What libkdumpfile sees in a dump: python3 kdumpfile_pages.py DUMP TEXT PFNS, where TEXT is an address of the kernel's in hex,
# and PFNS a file of numbers in hex, one on each line. Writes the pages, and on standard error a line of facts. A page that it
# cannot read ends it.
import sys

import kdumpfile

dump = kdumpfile.kdumpfile(sys.argv[1])
dump.attr["addrxlat.ostype"] = "linux"
# It takes what an ELF file's p_memsz has beyond p_filesz for left out, where others see zeros.
if dump.attr["file.format"] == "elf":
    dump.attr["file.zero_excluded"] = 1
text = dump.read(kdumpfile.KDUMP_KVADDR, int(sys.argv[2], 16), 16)
facts = ["file.format", "arch.name", "linux.uts.release", "cpu.number"]
print(*(dump.attr[name] for name in facts), bytes(text).hex(), file=sys.stderr)
for line in open(sys.argv[3]):
    sys.stdout.buffer.write(dump.read(kdumpfile.KDUMP_MACHPHYSADDR, int(line, 16) << 12, 4096))
