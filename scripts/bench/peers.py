#!/usr/bin/env python3
"""Measures hxe beside its peers and beside the physical floor, in one run on this machine, the order mixed.

    cargo build --release && scripts/bench/peers.py --install --json FILE target/release/hxe
    scripts/bench/peers.py [--quick] [--only NAME,...] [--measure NAME,...] [--rounds N] [--json FILE] HXE
    scripts/bench/peers.py --from FILE [--markdown]      shows an earlier run again

--install gets runit, s6, supervisor and monit from Debian, circus from PyPI, pm2 from npm; nothing of it is started, and all
but runit and s6 stay below --tools. What cannot be had, and what one of them cannot do, is said below the tables, with the
reason. Medians of the rounds are shown, as Markdown tables, or with --markdown as the table of README; all figures are
written to FILE as JSON. Needs root, Linux, cc, Python 3.9 and a quiet machine, and cargo for one of the floors; ends all that
it starts. A run takes about half an hour, with --quick some ten minutes: behind the first round, no measure begins after
--minutes.

supervisors.py says how each is set up, measures.py what each figure is, tables.py how it is shown; floor.c is compiled into
a temporary directory, hello below --tools.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import measures
import tables
from supervisors import SUPERVISORS, Cannot, Hxe

# Cheap ones first: function, and what the programs do.
MEASURES = {
    "disk": "what is to be installed",
    "memory": "PSS of all of its processes, by number of programs",
    "up": "until 100 programs run, from the start of the supervisor",
    "restart": "from a program's death to its next start",
    "pour": "log of one program that writes as fast as it can",
    "idle": "with ten programs; hxe also with a WebSocket and a follower",
    "api": "requests for the list of ten programs",
    "flash": "bytes written by hxe for a start, a stop, a crash, a definition",
    "trickle": "bytes written for each line of log, at 1 kB/s and 1 MB/s",
    "killed": "SIGKILL of each kind of process",
    "respawned": "SIGKILL of the main process, which is started again",
    "leftovers": "after a stop, of programs that fork away",
    "full": "a full disk",
}
# What does not vary from round to round.
ONCE = ("disk", "killed", "respawned", "leftovers", "full", "flash", "trickle")
# What --quick leaves out, unless --measure names it.
SLOW = ("trickle", "full", "respawned")
FLOORS = ("floor", "> file", "cat > file", "C", "tiny_http")


def jobs(kind, name, options):
    """Arguments of the supervisor for each run that a measure needs. What it cannot do is not tried."""
    if name in ("pour", "full", "trickle") and kind.no_capture:
        raise Cannot(kind.no_capture)
    if name == "api" and kind.no_api:
        raise Cannot(kind.no_api)
    if name == "flash" and kind is not Hxe:
        return []
    pour = {"count": 1, "what": ("lines", str(options.megabytes * 1000000), "0")}
    if name == "pour":
        found = [pour | {"rotation": "off"}]
        if not kind.no_rotation:
            found.append(pour | {"rotation": "default"})
        if not kind.no_times and not kind.keeps_times:
            found.append(pour | {"rotation": "off", "times": True})
        return found
    return {
        "memory": [{"count": count, "restful": True} for count in options.sizes],
        "up": [{"count": 100}],
        "restart": [{"count": 20}],
        "leftovers": [{"what": ("fork",)}],
        "trickle": [{"count": 1, "what": ("lines", "100000000", rate), "rotation": "off"} for rate in ("1000", "1000000")],
        "full": [{"count": 1, "what": ("lines", "8000000", "4000000")}],
    }.get(name, [{}])


class Bench:
    """Figures by measure, name and column, one a round; reasons for what is not there, by measure and column."""

    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.floor = measures.Floor(options, directory)
        self.results = {}
        self.notes = {}

    def keep(self, measure, column, found):
        for name, value in found.items():
            self.results.setdefault(measure, {}).setdefault(name, {}).setdefault(column, []).append(value)

    def note(self, measure, column, reason):
        reasons = self.notes.setdefault(measure, {}).setdefault(column, [])
        if reason not in reasons:
            reasons.append(reason)

    def attempt(self, measure, column, task):
        """Does a task. One that cannot do it costs its cell, not the run."""
        try:
            return task()
        except Cannot as error:
            self.note(measure, column, str(error))
        except (Exception, SystemExit) as error:
            print(f"{column}, {measure}: {traceback.format_exc()}", file=sys.stderr)
            self.note(measure, column, f"{type(error).__name__}: {error}".replace("\n", " ")[:200])
        return None

    def started(self, kind, **arguments):
        """One that runs its programs, in a directory of its own."""
        directory = tempfile.mkdtemp(prefix="peers-", dir=self.options.directory)
        os.chmod(directory, 0o755)
        it = kind(directory, self.options, **arguments)
        try:
            it.start()
            self.await_ready(it)
        except BaseException:
            self.end(it)
            raise
        return it

    def await_ready(self, it):
        if not it.ready():
            said = " ".join((it.dir / "supervisor.log").read_text(errors="replace").splitlines()[-3:])
            raise Cannot(f"{len(it.stamped())} of {it.count} programs started in time, and it said: {said[-200:]}")

    def end(self, it):
        try:
            it.clean()
        except subprocess.SubprocessError as error:
            print(f"{it.name} cannot be ended: {error}", file=sys.stderr)
        shutil.rmtree(it.dir, ignore_errors=True)

    def run(self, kind, name, arguments):
        if name == "full":
            return self.run_full(kind, arguments)
        if name == "disk":
            with tempfile.TemporaryDirectory() as scratch:
                it = kind(scratch, self.options)
                try:
                    return measures.disk(it)
                finally:
                    shutil.rmtree(it.run)
        it = self.started(kind, **arguments)
        try:
            if name == "pour":
                return measures.pour(it, self.options.megabytes * 1000000)
            return getattr(measures, name)(it)
        finally:
            self.end(it)

    def run_full(self, kind, arguments):
        directory = tempfile.mkdtemp(prefix="peers-", dir=self.options.directory)
        os.chmod(directory, 0o755)
        it = kind(directory, self.options, **arguments)
        if not measures.mount_full(it):
            shutil.rmtree(it.run)
            shutil.rmtree(it.dir)
            raise Cannot("no tmpfs can be mounted here")
        try:
            it.start()
            self.await_ready(it)
            return measures.full(it)
        finally:
            subprocess.run(["umount", "-l", str(it.logs)])
            self.end(it)

    def rest(self, kinds):
        """All of them at once, as each is measured by its own counts: a minute for each, one after the other, is too much."""
        its, columns, streams = [], [], []
        try:
            for kind in [*kinds, *(kind for kind in kinds if kind is Hxe)]:
                it = self.attempt("idle", kind.name, lambda: self.started(kind, restful=True))
                if it is None:
                    continue
                if kind is Hxe and "hxe" in columns:
                    columns.append("hxe, with streams")
                    streams += self.attempt("idle", "hxe", lambda: measures.attached(it)) or []
                else:
                    columns.append(kind.name)
                its.append(it)
            for column, found in zip(columns, measures.idle(its, self.options.idle_seconds)):
                if not found:
                    self.note("idle", column.split(",")[0], "a process of it ended meanwhile")
                elif column == "hxe, with streams":
                    if streams:
                        found = {name.replace("idle", "idle with streams"): value for name, value in found.items()}
                        self.keep("idle", "hxe", found)
                else:
                    self.keep("idle", column, found)
        finally:
            for stream in streams:
                stream.close()
            for it in its:
                self.end(it)

    def tasks(self, kinds, number):
        """What is to be done in a round."""
        found = []
        for name in self.options.measure.split(","):
            if number > 0 and name in ONCE:
                continue
            if name in measures.Floor.MEASURES:
                found.append(lambda name=name: self.measure_floor(name))
            if name == "idle":
                found.append(lambda: self.rest(kinds))
                continue
            for kind in kinds:
                for job in self.attempt(name, kind.name, lambda: jobs(kind, name, self.options)) or []:
                    found.append(lambda kind=kind, name=name, job=job: self.measure(kind, name, job))
        return found

    def measure(self, kind, name, job):
        begin = time.monotonic()
        self.keep(name, kind.name, self.attempt(name, kind.name, lambda: self.run(kind, name, job)) or {})
        self.trace(f"{kind.name} {name} {job.get('count', '')}", begin)

    def measure_floor(self, name):
        begin = time.monotonic()
        for column, found in (self.attempt(name, "floor", getattr(self.floor, name)) or {}).items():
            self.keep(name, column, found)
        self.trace(f"floor {name}", begin)

    def trace(self, what, begin):
        if self.options.verbose:
            print(f"{time.monotonic() - begin:5.1f} s {what}", file=sys.stderr)


def attempt(times, *command, **options):
    """Runs a command, several times if need be, as networks are not always there; "" or what it said at last."""
    said = ""
    for number in range(times):
        if number:
            time.sleep(2)
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                  text=True, timeout=300, **options)
            if done.returncode == 0:
                return ""
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
    return f"{os.path.basename(command[0])} said: {said}"[:200]


def install(options):
    """Gets what can be had; reasons by supervisor for what cannot."""
    tools, failed = options.tools, {}
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    if shutil.which("apt-get") is None:
        failed = {name: "there is no apt-get" for name in ("runit", "s6", "supervisord", "monit")}
    else:
        attempt(2, "apt-get", "-q", "update")
        # s6 has its place compiled in, and neither package starts anything: these two are installed.
        for package, binary in (("runit", "/usr/bin/runsvdir"), ("s6", "/usr/bin/s6-svscan")):
            if not os.path.exists(binary):
                failed[package] = attempt(2, "apt-get", "-qy", "--no-install-recommends", "install", package, env=quiet)
        # These would start services, which listen where they like: they are unpacked only.
        for name, wanted in (("supervisor", ("supervisor", "python3-pkg-resources")), ("monit", ("monit",))):
            if not (tools / name).exists():
                failed["supervisord" if name == "supervisor" else name] = unpack(tools / name, wanted)
    if not (tools / "circus/bin/circusd").exists():
        # Debian's Python where it is there: its pages are then not shared with what runs this script. pip is borrowed.
        python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
        failed["circus"] = attempt(1, python, "-m", "venv", "--without-pip", "--clear", str(tools / "circus")) or attempt(
            2, sys.executable, "-m", "pip", "--python", str(tools / "circus/bin/python3"), "install", "-q", "circus"
        )
    if not (tools / "pm2/node_modules/.bin/pm2").exists():
        quietly = ("--no-audit", "--no-fund", "--loglevel=error")
        failed["pm2"] = attempt(2, "npm", "install", *quietly, "--prefix", str(tools / "pm2"), "pm2")
    return {name: reason for name, reason in failed.items() if reason}


def unpack(place, names):
    with tempfile.TemporaryDirectory() as directory:
        # apt-get downloads as a user of its own.
        os.chmod(directory, 0o777)
        for name in names:
            if said := attempt(2, "apt-get", "-q", "download", name, cwd=directory):
                return said
        for package in pathlib.Path(directory).glob("*.deb"):
            if said := attempt(1, "dpkg-deb", "-x", str(package), str(place)):
                shutil.rmtree(place, ignore_errors=True)
                return said
    return ""


def build_floors(options, directory):
    """Compiles what is needed in C, and the server of tiny_http where that can be done; why not, if it cannot."""
    here = pathlib.Path(__file__).resolve().parent
    options.floor = os.path.join(directory, "floor")
    subprocess.run(["cc", "-O2", "-pthread", "-o", options.floor, str(here / "floor.c")], check=True)
    options.hello = ""
    if "api" not in options.measure.split(","):
        return ""
    target = options.tools / "hello"
    manifest = str(here / "hello" / "Cargo.toml")
    said = attempt(1, "cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", str(target))
    options.hello = "" if said else str(target / "release/hello")
    return said


def options_of():
    parser = argparse.ArgumentParser(description="Measures hxe and its peers.")
    parser.add_argument("hxe", type=os.path.abspath, nargs="?")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--tools", type=pathlib.Path, default=pathlib.Path("/var/tmp/hxe-peers"))
    parser.add_argument("--directory", default="/var/tmp", help="where it works: a real disk, or bytes written are 0")
    parser.add_argument("--only", default="", help="supervisors: " + ", ".join(kind.name for kind in SUPERVISORS))
    parser.add_argument("--measure", default="", help="; ".join(f"{k}: {v}" for k, v in MEASURES.items()))
    parser.add_argument("--rounds", type=int, default=0, help="default: 5")
    parser.add_argument("--minutes", type=float, default=0, help="after so many nothing begins, but for the first round; default: 36")
    parser.add_argument("--sizes", default="", help="default: 0,10,100,500")
    parser.add_argument("--idle-seconds", type=int, default=0, help="default: 60")
    parser.add_argument("--quick", action="store_true", help="three rounds, less of everything, 11 minutes at most")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--markdown", action="store_true", help="show the table of README instead of all figures")
    parser.add_argument("--from", type=pathlib.Path, dest="earlier", help="what --json has written: show that, measure nothing")
    parser.add_argument("--verbose", action="store_true", help="say what is being done, and how long it takes")
    options = parser.parse_args()
    if options.earlier:
        return options
    options.measure = options.measure or ",".join(name for name in MEASURES if not options.quick or name not in SLOW)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.minutes = options.minutes or (11 if options.quick else 36)
    options.sizes = [int(size) for size in (options.sizes or ("0,10,100" if options.quick else "0,10,100,500")).split(",")]
    options.idle_seconds = options.idle_seconds or (20 if options.quick else 60)
    options.megabytes = 50 if options.quick else 200
    options.load_ms = 500 if options.quick else 1000
    options.deaths_s = 2 if options.quick else 4
    for name in options.measure.split(","):
        if name not in MEASURES:
            parser.error(f"there is no measure {name}")
    for name in filter(None, options.only.split(",")):
        if name not in [kind.name for kind in SUPERVISORS]:
            parser.error(f"there is no supervisor {name}")
    if os.geteuid() != 0:
        parser.error("needs root")
    if not options.hxe or not os.access(options.hxe, os.X_OK):
        parser.error(f"{options.hxe or 'HXE'} is not there or cannot be executed")
    return options


def machine():
    return f"{os.cpu_count()} {platform.machine()} CPUs, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}"


def measure_all(options):
    """What was found, in the shape of the file that --json writes."""
    options.tools.mkdir(parents=True, exist_ok=True)
    failed = install(options) if options.install else {}
    begin, where = time.monotonic(), machine()
    with tempfile.TemporaryDirectory(prefix="peers-tools-", dir=options.directory) as directory:
        os.chmod(directory, 0o755)
        no_hello = build_floors(options, directory)
        bench = Bench(options, directory)
        wanted = [kind for kind in SUPERVISORS if not options.only or kind.name in options.only.split(",")]
        kinds = []
        for kind in wanted:
            if missing := kind.lacks(options):
                for name in options.measure.split(","):
                    bench.note(name, kind.name, f"it could not be had: {failed.get(kind.name) or 'there is no ' + missing}")
            else:
                kinds.append(kind)
        skipped = 0
        for number in range(options.rounds):
            tasks = bench.tasks(kinds, number)
            random.shuffle(tasks)
            for task in tasks:
                if number > 0 and time.monotonic() - begin > options.minutes * 60:
                    skipped += 1
                else:
                    task()
            if options.json:
                # After each round: what was found is not lost with what comes.
                write(options, bench, wanted, where, begin, number + 1)
    if skipped:
        print(f"{skipped} measures were left out, which --minutes had no room for", file=sys.stderr)
    if no_hello:
        print(f"the floor of tiny_http was left out: {no_hello}", file=sys.stderr)
    return found_by(options, bench, wanted, where, begin, options.rounds)


def found_by(options, bench, wanted, where, begin, rounds):
    order = {name: number for number, name in enumerate(MEASURES)}
    names = [kind.name for kind in wanted]
    command = " ".join([os.path.relpath(sys.argv[0])] + [word.replace(os.getcwd() + "/", "") for word in sys.argv[1:]])
    return {
        "run": {
            "command": command, "date": time.strftime("%Y-%m-%d"), "machine": where, "rounds": rounds,
            "minutes": (time.monotonic() - begin) / 60, "idle_seconds": options.idle_seconds,
            "supervisors": names, "columns": [*FLOORS, *names],
        },
        # In order of names, so that numbers of programs go up.
        "results": {measure: dict(sorted(bench.results[measure].items(), key=lambda item: natural(item[0])))
                    for measure in sorted(bench.results, key=order.get)},
        "notes": bench.notes,
        "remarks": {kind.name: kind.remark for kind in wanted if kind.remark},
    }


def natural(name):
    """`name`, with its first number as a number."""
    words = name.split()
    return [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in words]


def write(options, *what):
    found = found_by(options, *what)
    partial = options.json.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=2) + "\n")
    partial.replace(options.json)


def main():
    options = options_of()
    if options.earlier:
        found = json.loads(options.earlier.read_text())
    else:
        # So that all is ended that was started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
        found = measure_all(options)
    if options.markdown:
        print(tables.readme(found))
    else:
        run = found["run"]
        print(f"{run['machine']}, {run['date']}, {run['rounds']} rounds, {run['minutes']:.1f} minutes\n")
        print(tables.everything(found, MEASURES))


if __name__ == "__main__":
    main()
