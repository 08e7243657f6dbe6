#!/usr/bin/env python3
"""Measures hxe and its peers on this machine, each with the same ten programs whose output it keeps.

    scripts/bench/peers.py [--install] [--only NAME,...] [--measure NAME,...] [--rounds N] [--json] HXE

HXE is a release binary. A peer that is not there is skipped, with the reason; --install gets runit and s6 by apt-get, and
supervisor's packages into a directory of its own, where nothing is started. Rounds go over the supervisors in mixed order, and medians are shown: as a
Markdown table for the README, or as JSON. Needs root and a quiet machine; ends all that it starts.

A supervisor is a class below `Supervisor`, a measure a function in MEASURES: it gets a running supervisor and returns a
number or a word.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAMS = 10
# Writes one line, then sleeps; the name makes it known in /proc.
PROGRAM = "#!/bin/sh\necho ready\nexec sleep 100000\n"


def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent(pid):
    for line in read(f"/proc/{pid}/status").splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def alive(pid):
    return os.path.exists(f"/proc/{pid}") and "\nState:\tZ" not in read(f"/proc/{pid}/status")


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Supervisor:
    """One that runs PROGRAMS copies of a program below `self.dir`, with their output in files there."""

    name = ""
    binaries = ()

    def __init__(self, directory, options):
        self.dir = pathlib.Path(directory)
        self.options = options
        self.main = None
        script = self.dir / "program"
        script.write_text(PROGRAM)
        script.chmod(0o755)

    def find(self, binary):
        return shutil.which(binary)

    def missing(self):
        return [binary for binary in self.binaries if not self.find(binary)]

    def spawn(self, *command):
        log = open(self.dir / "supervisor.log", "ab")
        self.main = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.dir
        )

    def start(self):
        raise NotImplementedError

    def stop(self):
        """Ends the supervisor and its programs as its manual says."""
        self.main.send_signal(signal.SIGTERM)
        self.main.wait(60)

    def size(self):
        return sum(os.path.getsize(os.path.realpath(self.find(binary))) for binary in self.binaries)

    def programs(self):
        """Pids of the programs: they work in a directory that is this run's."""
        mark = str(self.dir / "work")
        found = []
        for pid in pids():
            try:
                if os.readlink(f"/proc/{pid}/cwd") == mark and read(f"/proc/{pid}/comm").strip() == "sleep":
                    found.append(pid)
            except OSError:
                pass
        return found

    def own(self):
        """Pids of the supervisor: what descends from the process that was started, but for the programs."""
        programs = set(self.programs())
        tree = {pid: parent(pid) for pid in pids()}
        found = {self.main.pid}
        while True:
            more = {pid for pid, of in tree.items() if of in found} - found - programs
            if not more:
                return found
            found |= more

    def ready(self):
        return wait_for(lambda: len(self.programs()) == PROGRAMS)

    def around(self):
        """Pids of all that has to do with this run, by directory or argument: also what lost its supervisor."""
        mark = str(self.dir)
        found = []
        for pid in pids():
            try:
                if os.readlink(f"/proc/{pid}/cwd").startswith(mark) or mark in read(f"/proc/{pid}/cmdline"):
                    found.append(pid)
            except OSError:
                pass
        return found

    def clean(self):
        # Again until nothing is respawned.
        while left := self.around():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if self.main:
                self.main.wait(60)
            time.sleep(0.1)


class Hxe(Supervisor):
    name = "hxe"

    def find(self, binary):
        return self.options.hxe

    binaries = ("hxe",)

    def start(self):
        config = self.dir / "hxe.toml"
        config.write_text(
            '[api]\nlisten = "127.0.0.1:0"\nrate_limit = 0\n[storage]\n'
            + "".join(f'{key}_dir = "{self.dir}/{key}"\n' for key in ("state", "run", "log"))
        )
        self.spawn(self.options.hxe, "daemon", "--config", str(config))
        log = self.dir / "supervisor.log"
        mark = "listening on http://"
        assert wait_for(lambda: mark in read(log)), read(log)
        url = "http://" + read(log).split(mark)[1].split()[0]
        token = self.ask(url + "/api/auth/login", {"username": "admin", "password": "password"})["token"]
        for number in range(PROGRAMS):
            definition = {
                "name": f"p{number}",
                "command": str(self.dir / "program"),
                "directory": str(self.dir / "work"),
                "auto_restart": True,
            }
            program = self.ask(url + "/api/program", definition, token)["id"]
            self.ask(f"{url}/api/program/{program}/start", {}, token)

    def ask(self, url, body, token=""):
        import urllib.request

        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.load(opener.open(request, timeout=30))


class Supervisord(Supervisor):
    name = "supervisord"
    binaries = ("supervisord",)

    def find(self, binary):
        own = self.options.tools / "supervisor/usr/bin" / binary
        return str(own) if own.exists() else shutil.which(binary)

    def modules(self):
        own = self.options.tools / "supervisor/usr/lib/python3/dist-packages"
        return own if own.exists() else pathlib.Path("/usr/lib/python3/dist-packages")

    def start(self):
        config = self.dir / "supervisord.conf"
        config.write_text(
            f"[supervisord]\nnodaemon=true\nuser=root\nlogfile={self.dir}/s.log\npidfile={self.dir}/s.pid\n"
            f"[program:p]\ncommand={self.dir}/program\ndirectory={self.dir}/work\nnumprocs={PROGRAMS}\n"
            f"process_name=%(process_num)d\nstdout_logfile={self.dir}/out%(process_num)d.log\n"
        )
        modules = f"PYTHONPATH={self.modules()}"
        self.spawn("/usr/bin/env", modules, "/usr/bin/python3", self.find("supervisord"), "-c", str(config))

    def size(self):
        # The interpreter is not counted, which most machines have for other reasons.
        files = [path for path in (self.modules() / "supervisor").glob("**/*") if path.is_file()]
        return sum(path.stat().st_size for path in files if path.suffix != ".pyc" and "tests" not in path.parts)


class Scan(Supervisor):
    """A directory with a directory a program, and another below it for its logger."""

    logger = ""

    def start(self):
        scan = self.dir / "scan"
        for number in range(PROGRAMS):
            service = scan / f"p{number}"
            (service / "log" / "main").mkdir(parents=True)
            self.script(service / "run", f"cd {self.dir}/work && exec {self.dir}/program")
            self.script(service / "log" / "run", f"exec {self.logger}")
        self.spawn(self.find(self.binaries[0]), str(scan))

    def script(self, path, text):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


class Runit(Scan):
    name = "runit"
    binaries = ("runsvdir", "runsv", "sv", "svlogd")
    logger = "svlogd ./main"

    def stop(self):
        self.main.send_signal(signal.SIGHUP)
        self.main.wait(60)


class S6(Scan):
    name = "s6"
    binaries = ("s6-svscan", "s6-supervise", "s6-svc", "s6-svstat", "s6-log")
    logger = "s6-log ./main"


def size_kib(supervisor):
    return round(supervisor.size() / 1024)


def pss_kib(supervisor):
    """Memory of the supervisor, shared pages divided among those who share them."""
    total = 0
    for pid in supervisor.own():
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def processes(supervisor):
    return len(supervisor.own())


def switches(supervisor):
    total = 0
    for pid in supervisor.own():
        for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
            total += sum(int(line.split()[1]) for line in read(status).splitlines() if "ctxt_switches" in line)
    return total


def idle_switches(supervisor):
    """Context switches of the supervisor in ten seconds in which nothing happens."""
    time.sleep(2)
    before = switches(supervisor)
    time.sleep(10)
    return switches(supervisor) - before


def restart_ms(supervisor):
    """From the death of a program to its next process."""
    time.sleep(1.5)
    before = set(supervisor.programs())
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    begin = time.monotonic()
    wait_for(lambda: set(supervisor.programs()) - before)
    return round((time.monotonic() - begin) * 1000)


def leftovers(supervisor):
    """Programs that are there after the supervisor was stopped as its manual says."""
    supervisor.stop()
    time.sleep(1)
    return len(supervisor.programs())


def after_sigkill(supervisor):
    """What comes of programs when the process that init knows is killed."""
    before = supervisor.programs()
    os.kill(supervisor.main.pid, signal.SIGKILL)
    supervisor.main.wait(60)
    time.sleep(2)
    return f"{sum(alive(pid) for pid in before)} of {len(before)} run on"


# A measure, what the table calls it, and whether the supervisor is of no use afterwards.
MEASURES = {
    "size": (size_kib, "size on disk (KiB)"),
    "processes": (processes, "processes"),
    "pss": (pss_kib, "memory, PSS (KiB)"),
    "idle": (idle_switches, "context switches in 10 idle seconds"),
    "restart": (restart_ms, "death to restart (ms)"),
    "leftovers": (leftovers, "programs left after a stop"),
    "sigkill": (after_sigkill, "after SIGKILL of it"),
}
SUPERVISORS = [Hxe, Supervisord, Runit, S6]


def run(kind, measure, options):
    with tempfile.TemporaryDirectory(prefix="peers-") as directory:
        os.chmod(directory, 0o755)
        os.mkdir(os.path.join(directory, "work"))
        supervisor = kind(directory, options)
        try:
            supervisor.start()
            if not supervisor.ready():
                raise RuntimeError(f"{kind.name} did not start its programs:\n{read(supervisor.dir / 'supervisor.log')}")
            return measure(supervisor)
        finally:
            supervisor.clean()


def install(options):
    for package in ("runit", "s6"):
        subprocess.run(["apt-get", "-qy", "--no-install-recommends", "install", package], stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        subprocess.run(["apt-get", "-q", "download", "supervisor", "python3-pkg-resources"], cwd=directory)
        for package in pathlib.Path(directory).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, options.tools / "supervisor"])


def main():
    parser = argparse.ArgumentParser(description="Measures hxe and its peers.")
    parser.add_argument("hxe", type=os.path.abspath)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--tools", type=pathlib.Path, default=pathlib.Path("/var/tmp/hxe-peers"))
    parser.add_argument("--only", default="", help="supervisors: " + ", ".join(kind.name for kind in SUPERVISORS))
    parser.add_argument("--measure", default=",".join(MEASURES), help="of " + ", ".join(MEASURES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.tools.mkdir(parents=True, exist_ok=True)
    if options.install:
        install(options)
    measures = options.measure.split(",")
    for name in measures:
        if name not in MEASURES:
            parser.error(f"there is no measure {name}")
    kinds = []
    for kind in SUPERVISORS:
        if options.only and kind.name not in options.only.split(","):
            continue
        with tempfile.TemporaryDirectory() as directory:
            missing = kind(directory, options).missing()
        if missing:
            print(f"skipped {kind.name}: there is no {', '.join(missing)}", file=sys.stderr)
        else:
            kinds.append(kind)
    if not kinds:
        sys.exit("there is nothing to measure")
    results = {}
    for _ in range(options.rounds):
        work = [(kind, name) for kind in kinds for name in measures]
        random.shuffle(work)
        for kind, name in work:
            results.setdefault((name, kind.name), []).append(run(kind, MEASURES[name][0], options))

    def middle(values):
        return statistics.median_low(values) if isinstance(values[0], int) else statistics.mode(values)

    if options.json:
        found = {name: {kind.name: results[name, kind.name] for kind in kinds} for name in measures}
        print(json.dumps(found, indent=2))
        return
    print("| | " + " | ".join(kind.name for kind in kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for name in measures:
        cells = [str(middle(results[name, kind.name])) for kind in kinds]
        print(f"| {MEASURES[name][1]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
