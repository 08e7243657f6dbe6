#!/usr/bin/env python3
"""A program under test. Takes a lock that no second one of its name can have, writes numbered lines, and says how far it is.

    writer.py DIRECTORY NAME BURST PAUSE       BURST lines at full speed, then PAUSE seconds, for ever
    writer.py DIRECTORY NAME quit CODE AFTER   one line, and the end with CODE after so many seconds

A line is `NAME RUN NUMBER`. After each write(2), which is whole as it is short enough for a pipe, the number of lines goes to
DIRECTORY/NAME.RUN, mapped into memory: so it stays when this process is killed.
"""

import fcntl
import mmap
import os
import struct
import sys
import time

directory, name = sys.argv[1:3]
run = f"{os.getpid()}-{time.monotonic_ns()}"
lock = os.open(os.path.join(directory, f"{name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    with open(os.path.join(directory, "doubled"), "a") as doubled:
        doubled.write(f"{name} {run}\n")

if sys.argv[3] == "quit":
    os.write(1, f"{name} {run} 1\n".encode())
    time.sleep(float(sys.argv[5]))
    os.write(1, f"{name} {run} 2\n".encode())
    os._exit(int(sys.argv[4]))

burst, pause = int(sys.argv[3]), float(sys.argv[4])
progress = os.path.join(directory, f"{name}.{run}")
with open(progress + ".new", "wb") as file:
    file.write(struct.pack("Q", 0))
os.rename(progress + ".new", progress)
with open(progress, "r+b") as file:
    count = mmap.mmap(file.fileno(), 8)

number = 0
while True:
    end = number + burst
    while number < end:
        # Sometimes a line a write, as most programs do it, and sometimes as much as is whole.
        lines = 1 if number % 128 < 64 else min(32, end - number)
        text = "".join(f"{name} {run} {number + i}\n" for i in range(1, lines + 1)).encode()
        assert len(text) <= 4096
        os.write(1, text)
        number += lines
        count[:] = struct.pack("Q", number)
    time.sleep(pause)
