"""What the programs wrote, read from their log files while these are written and rotated, and counted."""

import glob
import os
import struct


class Tail:
    """The lines of one program, in order, over all rotations."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "stdout.log")
        self.file = None
        self.rest = b""
        self.overtaken = False

    def read(self):
        """The whole lines that are new."""
        lines = []
        while True:
            if self.file is None:
                self.file = self.open_next(None)
                if self.file is None:
                    return lines
            while data := self.file.read(1 << 20):
                *whole, self.rest = (self.rest + data).split(b"\n")
                lines += whole
            later = self.open_next(os.fstat(self.file.fileno()).st_ino)
            if later is None:
                return lines
            # It was rotated away: what came before that is read first.
            if data := self.file.read():
                *whole, self.rest = (self.rest + data).split(b"\n")
                lines += whole
            self.file.close()
            self.file = later

    def open_next(self, inode):
        """The file behind the one with this inode; the oldest one if there is none, None if that is the last."""
        for _ in range(100):
            names = [f"{self.path}.{number}" for number in range(20, 0, -1)] + [self.path]
            files = []
            for name in names:
                try:
                    files.append((name, os.stat(name).st_ino))
                except FileNotFoundError:
                    pass
            inodes = [known for _, known in files]
            if inode is None:
                wanted = files[:1]
            elif inode in inodes:
                wanted = files[inodes.index(inode) + 1 :][:1]
            else:
                self.overtaken = True
                wanted = files[:1]
            if not wanted:
                return None
            try:
                file = open(wanted[0][0], "rb")
            except FileNotFoundError:
                continue
            # Rotated in between: look again.
            if os.fstat(file.fileno()).st_ino == wanted[0][1]:
                return file
            file.close()
        return None


class Count:
    """Checks the lines of one writer: each run's are numbered from 1 on, without a gap and each once."""

    def __init__(self, name, directory, scratch):
        self.name = name
        self.tail = Tail(directory)
        self.scratch = scratch
        self.reached = {}
        # Runs that had ended when a guardian did: what was in their pipes then had nobody to hold it.
        self.excused = set()
        self.lost = 0
        self.doubled = 0
        self.total = 0
        self.problems = []

    def look(self):
        name = self.name.encode() + b" "
        for line in self.tail.read():
            if self.excused and (next_run := line.rfind(name)) > 0:
                # The rest of the line before was lost with a pipe, see there.
                line = line[next_run:]
            words = line.split(b" ")
            if len(words) != 3 or words[0] != self.name.encode() or not words[2].isdigit():
                self.lost += 1
                self.problems.append(f"{self.name}: a torn line {line[:100]!r}")
                continue
            run, number = words[1].decode(), int(words[2])
            before = self.reached.get(run, 0)
            self.total += 1
            if number <= before:
                self.doubled += 1
                self.problems.append(f"{self.name}: run {run}: {number} after {before}")
                continue
            if number > before + 1:
                self.lost += number - before - 1
                self.problems.append(f"{self.name}: run {run}: {number} after {before}")
            self.reached[run] = number
        if self.tail.overtaken:
            self.problems.append(f"{self.name}: rotation was faster than the reader")
            self.lost += 1
            self.tail.overtaken = False

    def close_ended(self, living, is_last):
        """Compares what the runs that have ended had written with what came of it: what has not come yet may still do so,
        unless this is the last time. `living`: pids of runs that go on."""
        for path, run in self.runs():
            if int(run.partition("-")[0]) in living:
                continue
            with open(path, "rb") as file:
                (written,) = struct.unpack("Q", file.read(8))
            came = self.reached.get(run, 0)
            if came < written and run not in self.excused:
                if not is_last:
                    continue
                self.lost += written - came
                self.problems.append(f"{self.name}: run {run} wrote {written} lines, of which {came} came")
            os.unlink(path)

    def excuse(self, living):
        """A guardian has ended: of the runs that had ended by then, the last lines may be lost."""
        self.excused |= {run for _, run in self.runs() if int(run.partition("-")[0]) not in living}

    def is_open(self):
        """Whether something that a run wrote has not come yet."""
        return bool(self.runs())

    def runs(self):
        prefix = os.path.join(self.scratch, self.name + ".")
        runs = [(path, path[len(prefix) :]) for path in glob.glob(prefix + "*-*")]
        return [(path, run) for path, run in runs if not run.endswith(".new")]
