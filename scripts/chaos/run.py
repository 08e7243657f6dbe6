#!/usr/bin/env python3
"""The body of scripts/chaos.sh, which says what it does. Here: what befalls the service, and what is made of it."""

import argparse
import collections
import ctypes
import faulthandler
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback

from changes import Changes, wait_for
from service import PATIENCE, Service, Unanswered, kill

HERE = os.path.dirname(os.path.abspath(__file__))
# Bytes of the disks in memory, where there are any.
DISKS = {"log": "128m", "run": "16m", "state": "16m"}
# Programs that only run: name, lines a burst, seconds between bursts.
STEADY = [("fast-1", 15000, 1.0), ("fast-2", 15000, 1.3), ("slow-1", 1, 0.01), ("slow-2", 3, 0.05)]
# What befalls the service, and how often.
EVENTS = {
    "kill the daemon": 8,
    "kill the daemon again and again": 2,
    "kill the guardian": 3,
    "kill both": 3,
    "kill both, and programs": 2,
    "crash the daemon": 2,
    "kill the daemon of a stopped guardian, and programs": 2,
    "kill a program": 6,
    "upgrade": 3,
    "upgrade, and kill the daemon": 1,
    "quit and start": 2,
    "stop and start": 1,
    "fill a disk": 3,
}


class Noted(list):
    """Problems, each said when it is found."""

    def append(self, problem):
        print(f"! {problem}", flush=True)
        super().append(problem)


class Chaos:
    def __init__(self, options, home):
        self.options = options
        self.home = home
        self.random = random.Random(options.seed)
        self.service = Service(home, options.hxe)
        for name in ("log", "run", "state", "scratch"):
            os.mkdir(os.path.join(home, name), 0o755)
        self.no_disks = mount_disks(home)
        self.changes = Changes(self.service, random.Random(options.seed + 1), self.definition)
        self.changes.lost = Noted()
        self.service.refused = Noted()
        self.pids = {}
        self.programs_lost = Noted()
        self.programs_doubled = Noted()
        self.problems = Noted()
        self.events = collections.Counter()
        self.slowest_return = 0.0
        self.over = threading.Event()
        self.counted = threading.Event()
        # Not while a guardian is away: what may be lost with it is known only then.
        self.counting = threading.Lock()

    def definition(self, name, writer, burst, pause, description="as made"):
        arguments = [os.path.join(HERE, "writer.py"), self.service.path("scratch"), writer, str(burst), str(pause)]
        definition = {
            "name": name,
            "description": description,
            "command": os.path.realpath(sys.executable),
            "args": " ".join(arguments),
            "environment": {"CHAOS": self.home, "PYTHONDONTWRITEBYTECODE": "1"},
            "auto_restart": True,
            "max_restarts": -1,
            "restart_delay": "10ms",
        }
        if os.geteuid() == 0:
            definition["user"] = "root"
        return definition

    def run(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.service.configure({"port": port})
        self.service.start()
        for name, burst, pause in STEADY:
            self.changes.create(name, burst, pause, enabled=True)
            self.changes.start(name, self.changes.programs[name])
        threads = [threading.Thread(target=self.guarded, args=(task,), daemon=True) for task in (self.change, self.count)]
        for thread in threads:
            thread.start()
        try:
            end = time.monotonic() + self.options.seconds
            self.settle()
            while time.monotonic() < end and not self.over.is_set():
                for _ in range(self.random.randint(1, 8)):
                    self.befall()
                    time.sleep(self.random.choice((0, 0.02, 0.2, 0.8)) * self.random.random())
                self.settle()
        finally:
            self.over.set()
            threads[0].join()
        try:
            self.finish()
        finally:
            self.counted.set()
            threads[1].join()

    def guarded(self, task):
        """A thread's task; its failure is the run's."""
        try:
            task()
        except Exception as error:
            self.problems.append(f"{task.__name__}: {error!r}\n{traceback.format_exc()}")
            self.over.set()

    def change(self):
        while not self.over.is_set():
            with self.changes.lock:
                self.changes.step()
            time.sleep(0.01)

    def count(self):
        while not self.counted.is_set():
            with self.counting:
                for count in list(self.changes.counts.values()):
                    count.look()
            time.sleep(0.1)

    def befall(self):
        event = self.random.choices(list(EVENTS), EVENTS.values())[0]
        if event == "fill a disk" and self.no_disks:
            return
        self.events[event] += 1
        self.do(event)

    def do(self, event):
        service = self.service
        service.doing = event
        if event == "kill the daemon":
            self.slowest_return = max(self.slowest_return, self.patiently(service.kill_daemon))
        elif event == "kill the daemon again and again":
            for _ in range(self.random.randint(2, 6)):
                pid = service.daemon()
                if pid is not None:
                    kill(pid)
                time.sleep(self.random.random() * 0.1)
        elif event == "crash the daemon":
            pid = service.daemon()
            if pid is not None:
                kill(pid, self.random.choice((signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGPIPE)))
        elif event == "kill the daemon of a stopped guardian, and programs":
            pid = service.daemon()
            service.process.send_signal(signal.SIGSTOP)
            if pid is not None:
                kill(pid)
            self.kill_programs()
            service.process.send_signal(signal.SIGCONT)
        elif event in ("kill the guardian", "kill both", "kill both, and programs"):
            with self.counting:
                service.kill_guardian(event != "kill the guardian")
                if event == "kill both, and programs":
                    self.kill_programs()
                time.sleep(self.random.choice((0, 0, 0.05, 0.5)) * self.random.random())
                service.start()
                self.excuse()
        elif event == "kill a program":
            self.kill_programs(1)
        elif event.startswith("upgrade"):
            service.replace_binary()
            service.process.send_signal(signal.SIGUSR2)
            if event != "upgrade":
                time.sleep(self.random.random() * 0.2)
                pid = service.daemon()
                if pid is not None:
                    kill(pid)
        elif event == "quit and start":
            with self.counting:
                code = service.end(signal.SIGQUIT)
                if code != 0:
                    self.problems.append(f"QUIT: exit code {code}")
                service.start()
                self.excuse()
        elif event == "stop and start":
            self.stop_and_start()
        else:
            self.fill()

    def kill_programs(self, number=3):
        living = self.processes()
        names = {program.id: name for name, program in self.changes.programs.copy().items()}
        candidates = sorted(identity for identity in living if identity in names)
        for identity in self.random.sample(candidates, min(number, len(candidates))):
            self.pids.pop(names[identity], None)
            pid = living[identity][0]
            kill(pid)
            # On a busy machine it dies when there is a CPU for that.
            wait_for(lambda: pid in self.living(), lambda lives: not lives)

    def patiently(self, ask):
        while True:
            try:
                return ask()
            except Unanswered:
                # It was accepted by the one that died.
                pass

    def stop_and_start(self):
        # Nobody is to be refused a change, and those that end by themselves are to do so.
        with self.changes.lock:
            self.changes.look_after_quitters(True)
            code = self.service.end(signal.SIGTERM)
            if code != 0:
                self.problems.append(f"TERM: exit code {code}")
            left = self.processes()
            if left:
                self.programs_doubled.append(f"left running by TERM: {left}")
            self.service.start()
            for program in self.changes.programs.values():
                program.up = program.enabled
            self.pids.clear()

    def fill(self):
        name = self.random.choice(list(DISKS))
        path = self.service.path(f"{name}/filler")
        with open(path, "wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        for _ in range(self.random.randint(0, 2)):
            time.sleep(self.random.random())
            self.do(self.random.choice(("kill the daemon", "kill a program", "kill both", "upgrade")))
        time.sleep(self.random.random())
        os.unlink(path)

    def processes(self):
        """The living programs: id -> pids."""
        found = collections.defaultdict(list)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    variables = dict(entry.partition(b"=")[::2] for entry in file.read().split(b"\0"))
            except OSError:
                continue
            if variables.get(b"CHAOS") == self.home.encode():
                found[variables[b"HXE_PROGRAM_ID"].decode()].append(int(pid))
        return found

    def living(self):
        return {pid for pids in self.processes().values() for pid in pids}

    def excuse(self):
        living = self.living()
        for count in list(self.changes.counts.values()):
            count.excuse(living)

    def settle(self):
        """Waits until all is as it should be, and names what is not."""
        with self.changes.lock:
            self.changes.look_after_quitters(False)
            self.changes.compare()
            for name, program in self.changes.programs.items():
                self.settle_one(name, program)
            living = self.living()
            with self.counting:
                for count in list(self.changes.counts.values()):
                    count.close_ended(living, False)

    def settle_one(self, name, program):
        path = f"/api/program/{program.id}"
        if not program.up:
            wait_for(lambda: self.processes().get(program.id, []), lambda pids: not pids)
        # A process is there a moment before it is shown, as it is on record first.
        pids, shown = wait_for(
            lambda: (self.processes().get(program.id, []), self.look(path)),
            lambda both: len(both[0]) == int(program.up) and both[0] == [pid for pid in [both[1]["pid"]] if pid],
        )
        if program.up and (not pids or shown["pid"] is None):
            self.programs_lost.append(f"{name} should run: {pids}, {shown}")
        elif len(pids) > int(program.up):
            self.programs_doubled.append(f"{name} runs as {pids}, {shown}")
        elif program.up and shown["pid"] != pids[0]:
            self.programs_lost.append(f"{name} runs as {pids}, and is shown as {shown['pid']}")
        if name in dict((steady[0], None) for steady in STEADY) and pids:
            before = self.pids.setdefault(name, pids[0])
            if before != pids[0]:
                self.programs_lost.append(f"{name} was process {before} and is {pids[0]}, and nobody killed it")
                self.pids[name] = pids[0]

    def look(self, path):
        status, shown = self.service.read(path)
        if status != 200:
            return {"pid": None, "state": status}
        if shown["state"] == "backoff":
            # After so many kills that may take a while.
            self.changes.ask("POST", path + "/start")
        return shown

    def finish(self):
        self.changes.look_after_quitters(True)
        self.settle()
        for name, program in self.changes.programs.items():
            self.changes.stop(name, program)
        counts = self.changes.counts.values()
        end = time.monotonic() + PATIENCE
        while True:
            with self.counting:
                for count in counts:
                    count.look()
                    count.close_ended((), time.monotonic() > end)
            if time.monotonic() > end or not any(count.is_open() for count in counts):
                break
            time.sleep(0.05)
        code = self.service.end(signal.SIGTERM)
        if code != 0:
            self.problems.append(f"TERM: exit code {code}")

    def clear_up(self):
        if self.service.process is not None and self.service.process.poll() is None:
            self.service.kill_guardian(True)
        for pids in self.processes().values():
            for pid in pids:
                kill(pid)

    def report(self):
        counts = list(self.changes.counts.values())
        doubled = self.service.path("scratch/doubled")
        if os.path.exists(doubled):
            with open(doubled) as file:
                for line in file:
                    self.programs_doubled.append(f"twice at once: {line.strip()}")
        for count in counts:
            for problem in count.problems[:20]:
                print(f"! {problem}")
        print("events:  " + ", ".join(f"{event} {n}" for event, n in sorted(self.events.items())))
        answers = sorted(self.changes.acknowledged.items())
        print("answers: " + ", ".join(f"{status} {n}" for status, n in answers))
        print(f"slowest: back after a kill of the daemon in {self.slowest_return:.2f} s, a read {self.service.slowest:.2f} s")
        print(f"lines:   {sum(count.total for count in counts)} counted")
        lost, twice = sum(count.lost for count in counts), sum(count.doubled for count in counts)
        print(f"programs lost {len(self.programs_lost)}, doubled {len(self.programs_doubled)}; "
              f"lines lost {lost}, doubled {twice}; changes lost {len(self.changes.lost)}; "
              f"other problems {len(self.problems) + len(self.service.refused)}")
        return not (lost + twice + len(self.programs_lost) + len(self.programs_doubled) + len(self.changes.lost)
                    + len(self.problems) + len(self.service.refused))


def mount_disks(home):
    """Small disks in memory, seen by this process and its children only. Gives why not, where that is so."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x20000, 1 << 18 | 1 << 14
    done = libc.unshare(new_namespace) == 0 and libc.mount(b"none", b"/", None, private, None) == 0
    for name, size in DISKS.items():
        path = os.path.join(home, name).encode()
        done = done and libc.mount(b"tmpfs", path, b"tmpfs", 0, f"size={size},mode=755".encode()) == 0
    if done:
        return None
    reason = os.strerror(ctypes.get_errno())
    print(f"skipped: no disk is filled, as none can be mounted ({reason})")
    return reason


def main():
    parser = argparse.ArgumentParser(prog="chaos.sh", description="Kills, starves and upgrades a daemon, and counts.")
    parser.add_argument("--hxe", default=os.path.join(HERE, "../../target/debug/hxe"), help="the binary under test")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--keep", action="store_true", help="leave its directory behind")
    options = parser.parse_args()
    options.hxe = os.path.abspath(options.hxe)
    if not os.access(options.hxe, os.X_OK):
        parser.error(f"there is no binary at {options.hxe}: build it, or name it with --hxe")
    print(f"seed {options.seed}", flush=True)
    # Where it is, should it ever hang.
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = tempfile.mkdtemp(prefix="hxe-chaos-")
    good = False
    chaos = None
    try:
        os.chmod(home, 0o755)
        chaos = Chaos(options, home)
        try:
            chaos.run()
        except AssertionError as error:
            chaos.problems.append(f"{error}\n{traceback.format_exc()}")
        except SystemExit:
            chaos.problems.append("ended from outside")
        chaos.clear_up()
        good = chaos.report()
    finally:
        if chaos is not None:
            chaos.clear_up()
            chaos.over.set()
        if options.keep:
            kept = home + "-kept"
            # Out of the disks in memory, which end with this process.
            shutil.copytree(home, kept, symlinks=True, ignore=lambda path, names: [
                name for name in names if not os.path.isdir(p := os.path.join(path, name)) and not os.path.isfile(p)])
            print(f"kept: {kept}")
        unmount(home)
        shutil.rmtree(home)
    sys.exit(0 if good else 1)


def unmount(home):
    detach = 2
    for name in DISKS:
        ctypes.CDLL(None).umount2(os.path.join(home, name).encode(), detach)


if __name__ == "__main__":
    main()
