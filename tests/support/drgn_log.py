# Run by drgn on an output of ours: prints the kernel's log as `dmesg -r` would.
import sys

from drgn.helpers.linux.printk import get_printk_records

for record in get_printk_records(prog):
    prefix = b"<%d>[%5d.%06d] " % (
        record.facility << 3 | record.level,
        record.timestamp // 1000000000,
        record.timestamp % 1000000000 // 1000,
    )
    for line in record.text.split(b"\n"):
        sys.stdout.buffer.write(prefix + line + b"\n")
