#!/usr/bin/env python3
"""Measures hxe beside its peers and beside the physical floor, in one run on this machine, the order mixed.

    cargo build --release && scripts/bench/peers.py --install target/release/hxe
    scripts/bench/peers.py [--quick] [--only NAME,...] [--measure NAME,...] [--rounds N] [--json FILE] HXE

--install gets runit, s6, supervisor and monit from Debian, circus from PyPI, pm2 from npm; nothing of it is started, and all
but runit and s6 stay below --tools. What cannot be had is said and left out. Medians of the rounds are shown, as a
Markdown table, and all figures are written to FILE as JSON. Needs root, Linux, cc, Python 3.9 and a quiet machine; ends all
that it starts. The default run takes some twenty minutes and stops beginning rounds after --minutes; --quick, three.

supervisors.py says how each is set up, measures.py what each figure is, floor.c is compiled into a temporary directory.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

import measures
from supervisors import SUPERVISORS

# Cheap ones first: function, and what the programs do.
MEASURES = {
    "disk": "what is to be installed",
    "memory": "PSS for each of --sizes",
    "up": "until 100 programs run, from the start of the supervisor",
    "restart": "death to restart",
    "pour": "log capture, rotation off and default",
    "idle": "with ten programs, and with a WebSocket and a follower for hxe",
    "api": "requests for the list of ten programs",
    "flash": "bytes written by hxe for a start, a stop, a crash, a definition",
    "trickle": "bytes written for each line of log, at 1 kB/s and 1 MB/s",
    "killed": "SIGKILL of each kind of process",
    "leftovers": "after a stop, of programs that fork away",
    "full": "a full disk",
}
# What does not vary from round to round.
ONCE = ("disk", "killed", "leftovers", "full", "flash", "trickle", "idle")


def jobs(name, options):
    """(arguments of the supervisor) for each run that a measure needs."""
    pour = ("lines", str(options.megabytes * 1000000), "0")
    return {
        "memory": [{"count": count} for count in options.sizes],
        "up": [{"count": 100}],
        "pour": [{"count": 1, "what": pour, "rotation": rotation} for rotation in ("off", "default")],
        "leftovers": [{"what": ("fork",)}],
        "trickle": [{"count": 1, "what": ("lines", "100000000", rate)} for rate in ("1000", "1000000")],
        "full": [{"count": 1, "what": ("lines", "8000000", "4000000")}],
    }.get(name, [{}])


def run(kind, name, arguments, options):
    with tempfile.TemporaryDirectory(prefix="peers-", dir=options.directory) as directory:
        os.chmod(directory, 0o755)
        it = kind(directory, options, **arguments)
        mounted = False
        try:
            if name == "disk":
                return measures.disk(it)
            if name == "full":
                mounted = measures.mount_full(it)
                if not mounted:
                    return {"full disk": "no tmpfs can be mounted here"}
            it.start()
            if not it.ready():
                said = "\n".join((it.dir / "supervisor.log").read_text(errors="replace").splitlines()[-3:])
                ran = it.stamped()
                print(f"{kind.name}, {name} {arguments}: {len(ran)} programs started in time\n{said}", file=sys.stderr)
                return {}
            if name == "pour":
                return measures.pour(it, options.megabytes * 1000000)
            return getattr(measures, name)(it)
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError, SystemExit) as error:
            # One that cannot do it costs its cell, not the run.
            print(f"{kind.name}, {name} {arguments}: {error!r}", file=sys.stderr)
            return {}
        finally:
            it.clean()
            if mounted:
                subprocess.run(["umount", "-l", str(it.logs)])


def attempt(times, *command, **options):
    """Whether a command succeeded; networks are not always there."""
    for number in range(times):
        if number:
            time.sleep(2)
        try:
            if subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=180, **options).returncode == 0:
                return True
        except (OSError, subprocess.TimeoutExpired):
            pass
    return False


def install(options):
    tools = options.tools
    for package, binary in (("runit", "/usr/bin/runsvdir"), ("s6", "/usr/bin/s6-svscan")):
        if not os.path.exists(binary):
            attempt(3, "apt-get", "-qy", "--no-install-recommends", "install", package)
    for name, wanted in (("supervisor", ("supervisor", "python3-pkg-resources")), ("monit", ("monit",))):
        if (tools / name).exists():
            continue
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o777)
            if all(attempt(3, "apt-get", "-q", "download", package, cwd=directory) for package in wanted):
                for package in pathlib.Path(directory).glob("*.deb"):
                    subprocess.run(["dpkg-deb", "-x", package, tools / name], check=True)
    if not (tools / "circus/bin/circusd").exists():
        if attempt(1, sys.executable, "-m", "venv", str(tools / "circus")):
            attempt(2, str(tools / "circus/bin/pip"), "install", "-q", "circus")
    if not (tools / "pm2/node_modules/.bin/pm2").exists():
        attempt(2, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(tools / "pm2"), "pm2")


def middle(values):
    numbers = [value for value in values if isinstance(value, (int, float))]
    if numbers:
        return statistics.median(numbers)
    if isinstance(values[0], list):
        every = [value for value in values for value in value]
        return f"{measures.percentile(every, 0.5):.1f} / {measures.percentile(every, 0.99):.1f}"
    return values[len(values) // 2]


def show(results, columns):
    titles = list(dict.fromkeys(title for title, _ in results))
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for title in titles:
        cells = [middle(results[title, column]) if (title, column) in results else "" for column in columns]
        cells = [f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells]
        print(f"| {title.replace(', each', ', p50 / p99')} | " + " | ".join(cells) + " |")


def options_of():
    parser = argparse.ArgumentParser(description="Measures hxe and its peers.")
    parser.add_argument("hxe", type=os.path.abspath)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--tools", type=pathlib.Path, default=pathlib.Path("/var/tmp/hxe-peers"))
    parser.add_argument("--directory", default="/var/tmp", help="where it works: a real disk, or bytes written are 0")
    parser.add_argument("--only", default="", help="supervisors: " + ", ".join(kind.name for kind in SUPERVISORS))
    parser.add_argument("--measure", default=",".join(MEASURES), help="; ".join(f"{k}: {v}" for k, v in MEASURES.items()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=22, help="no measure begins after so many")
    parser.add_argument("--sizes", default="", help="default: 0,10,100,500")
    parser.add_argument("--idle-seconds", type=int, default=0, help="default: 60")
    parser.add_argument("--quick", action="store_true", help="one round, less of everything")
    parser.add_argument("--json", type=argparse.FileType("w"))
    options = parser.parse_args()
    options.rounds = 1 if options.quick else options.rounds
    options.minutes = min(options.minutes, 2.7) if options.quick else options.minutes
    options.sizes = [int(size) for size in (options.sizes or ("0,10" if options.quick else "0,10,100,500")).split(",")]
    options.idle_seconds = options.idle_seconds or (3 if options.quick else 60)
    options.megabytes = 50 if options.quick else 200
    options.load_ms = 500 if options.quick else 2000
    for name in options.measure.split(","):
        if name not in MEASURES:
            parser.error(f"there is no measure {name}")
    for name in filter(None, options.only.split(",")):
        if name not in [kind.name for kind in SUPERVISORS]:
            parser.error(f"there is no supervisor {name}")
    if os.geteuid() != 0:
        parser.error("needs root")
    if not os.access(options.hxe, os.X_OK):
        parser.error(f"{options.hxe} is not there or cannot be executed")
    return options


def main():
    options = options_of()
    begin = time.monotonic()
    options.tools.mkdir(parents=True, exist_ok=True)
    if options.install:
        install(options)
        begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="peers-tools-", dir=options.directory) as directory:
        os.chmod(directory, 0o755)
        options.floor = os.path.join(directory, "floor")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floor.c")
        subprocess.run(["cc", "-O2", "-pthread", "-o", options.floor, source], check=True)
        kinds = []
        for kind in SUPERVISORS:
            if options.only and kind.name not in options.only.split(","):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                missing = kind(scratch, options).missing()
            if missing:
                print(f"left out {kind.name}: there is no {', '.join(missing)}", file=sys.stderr)
            else:
                kinds.append(kind)
        if not kinds:
            sys.exit("there is nothing to measure")
        results, skipped = {}, 0

        def keep(column, found):
            for title, value in found.items():
                results.setdefault((title, column), []).append(value)

        for number in range(options.rounds):
            work = [(None, "floor", {})]
            for name in options.measure.split(","):
                if number == 0 or name not in ONCE:
                    work += [(kind, name, job) for kind in kinds for job in jobs(name, options)
                             if kind.captures or name not in ("pour", "full", "trickle")
                             if kind.name == "hxe" or name != "flash"]
            random.shuffle(work)
            for kind, name, job in work:
                if time.monotonic() - begin > options.minutes * 60:
                    skipped += 1
                elif kind is None:
                    keep("floor", measures.floors(options, directory))
                else:
                    keep(kind.name, run(kind, name, job, options))
    order = {title: number for number, title in enumerate(sorted({title for title, _ in results}))}
    results = dict(sorted(results.items(), key=lambda item: order[item[0][0]]))
    minutes = (time.monotonic() - begin) / 60
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}, load"
          f" {os.getloadavg()[0]:.1f}, {options.rounds} rounds, {minutes:.1f} minutes\n")
    show(results, ["floor"] + [kind.name for kind in kinds])
    if skipped:
        print(f"\n{skipped} measures were left out, which --minutes had no room for", file=sys.stderr)
    if options.json:
        found = {}
        for (title, column), values in results.items():
            found.setdefault(title, {})[column] = values
        json.dump(found, options.json, indent=2)
        options.json.write("\n")


if __name__ == "__main__":
    main()
