#!/usr/bin/env python3
"""Has programs crash in a storm, and shows what that costs and whom it delays.

    cargo build --release && scripts/bench/storms.py --hxe target/release/hxe [--crashing 100] [--beside 0] [--seconds 120]

A daemon of its own on 127.0.0.1 has programs that end at once and are restarted without end, and --beside others that run.
The restarts wait 1 s, 2 s and so on up to 60 s, so that a minute after the start all of them are at the longest wait. One
request a second and one kill in five seconds of a program that runs go on all the time. A row for each part:

    idle      --beside programs run, none crashes
    begin     the first 64 seconds of the storm
    long run  --seconds of it at the longest wait: a multiple of 60 is fair

    cpu       of hxe with its guardian, in percent of one core, and how much of that is more than idle
    p50 p99 max  of the requests, in milliseconds: GET /api/program/NAME, on a connection of its own
    back      the slowest of the restarts of the program that is killed, from kill(2) to its first deed (ms)
    rss threads files  of the process that serves, at the end of the part

Then the list of all programs, and how long TERM takes to stop them all. Needs Python 3.9 and nothing else.
"""

import argparse
import os
import select
import signal
import threading
import time

from daemon import Daemon

# 1 + 2 + 4 + 8 + 16 + 32 seconds of waits, and the runs themselves.
BEGIN = 64


class Victim:
    """A program that says its pid in a FIFO when it starts."""

    def __init__(self, daemon):
        self.daemon = daemon
        path = os.path.join(daemon.home, "said-by-victim")
        os.mkfifo(path)
        os.chmod(path, 0o666)
        self.fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        args = f"-c 'echo $$ > {path}; exec sleep 1000'"
        daemon.ask("POST", "/api/program", {"name": "victim", "command": "/bin/sh", "args": args, "auto_restart": True})
        daemon.ask("POST", "/api/program/victim/start")
        self.pid = self.started()

    def started(self):
        if not select.select([self.fifo], [], [], 30)[0]:
            raise SystemExit("the program that was killed does not come back")
        return int(os.read(self.fifo, 100).split()[-1])

    def comes_back(self):
        """Seconds from its death to its next start."""
        begin = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        self.pid = self.started()
        taken = time.monotonic() - begin
        # A second death in a row would have to wait.
        self.daemon.ask("POST", "/api/program/victim/restart")
        self.pid = self.started()
        return taken


def part(daemon, victim, name, seconds, idle):
    times, backs = [], []
    end = time.monotonic() + seconds

    def ask():
        while (begin := time.monotonic()) < end:
            daemon.ask("GET", "/api/program/victim")
            times.append(time.monotonic() - begin)
            time.sleep(max(0, min(end, begin + 1) - time.monotonic()))

    before, begin = daemon.cpu(), time.monotonic()
    asking = threading.Thread(target=ask)
    asking.start()
    while time.monotonic() + 5 <= end:
        time.sleep(4.9)
        backs.append(victim.comes_back())
    asking.join()
    cpu = 100 * (daemon.cpu() - before) / (time.monotonic() - begin)
    rss, threads, files = daemon.figures()
    times.sort()
    share = lambda part: 1000 * times[min(len(times) - 1, int(part * len(times)))]
    print(
        f"{name:<9} {cpu:>6.2f} {cpu - (cpu if idle is None else idle):>+6.2f} {share(0.5):>7.1f} {share(0.99):>7.1f}"
        f" {1000 * times[-1]:>7.1f} {1000 * max(backs, default=0):>7.1f} {rss:>7} {threads:>7} {files:>6}",
        flush=True,
    )
    return cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hxe", required=True, help="the binary")
    parser.add_argument("--crashing", type=int, default=100, help="programs that end at once (100)")
    parser.add_argument("--beside", type=int, default=0, help="programs that run (0)")
    parser.add_argument("--seconds", type=int, default=120, help="length of the long run (120)")
    parser.add_argument("--idle", type=int, default=30, help="length of the idle part (30)")
    options = parser.parse_args()
    daemon = Daemon(os.path.abspath(options.hxe))
    try:
        measure(daemon, options)
    finally:
        daemon.end()


def measure(daemon, options):
    begin = time.monotonic()
    for number in range(options.beside):
        daemon.ask("POST", "/api/program", {"name": f"beside-{number}", "command": "/bin/sleep", "args": "100000"})
    created = time.monotonic()
    for number in range(options.beside):
        daemon.ask("POST", f"/api/program/beside-{number}/start")
    if options.beside:
        print(f"{options.beside} programs created in {created - begin:.2f} s, started in {time.monotonic() - created:.2f} s")
    for number in range(options.crashing):
        crashing = {"command": "/bin/false", "args": "", "auto_restart": True, "max_restarts": -1}
        daemon.ask("POST", "/api/program", crashing | {"name": f"crashing-{number}"})
    victim = Victim(daemon)
    print(f"{'part':<9} {'cpu %':>6} {'more':>6} {'p50':>7} {'p99':>7} {'max':>7} {'back':>7} {'rss kB':>7} {'threads':>7} {'files':>6}")
    idle = part(daemon, victim, "idle", options.idle, None)
    before, begin = daemon.cpu(), time.monotonic()
    for number in range(options.crashing):
        daemon.ask("POST", f"/api/program/crashing-{number}/start")
    starts = time.monotonic() - begin
    part(daemon, victim, "begin", BEGIN - starts, idle)
    part(daemon, victim, "long run", options.seconds, idle)
    begin = time.monotonic()
    listed = len(daemon.ask("GET", "/api/program?limit=10000"))
    print(f"list of {listed} programs: {1000 * (time.monotonic() - begin):.1f} ms")
    before, begin = daemon.cpu(), time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait(60)
    print(f"stopped by TERM in {time.monotonic() - begin:.2f} s")


if __name__ == "__main__":
    main()
