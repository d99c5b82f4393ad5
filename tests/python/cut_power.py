"""Cuts the power of mounted ext4 file systems: whatever did not reach the disk is lost.

cut_power.py MOUNT...: opens the mount points, prints "ready", and waits for a line. Then it shuts the file systems down
without writing their journals (EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH) and prints "cut". Until it ends, the
mount points are busy."""

import fcntl
import os
import struct
import sys

SHUTDOWN = 0x8004587D
WITHOUT_JOURNAL = struct.pack("I", 2)

mounts = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
print("ready", flush=True)
if sys.stdin.readline():
    for mount in mounts:
        fcntl.ioctl(mount, SHUTDOWN, WITHOUT_JOURNAL)
    print("cut", flush=True)
