#!/usr/bin/env python3
"""How long requests take while a program writes 200 MB of log a second and 50 others crash and are restarted.

    cargo build --release && scripts/bench/busy.py --hxe target/release/hxe [--seconds 1.5]

A daemon of its own on 127.0.0.1; each request on a connection of its own, one and eight at a time. A row for each:
requests a second, the median and p99 in microseconds, and how many were not answered with 200. Needs cc and Python 3.9.
"""

import argparse
import os
import subprocess
import time

from daemon import Daemon

CRASHING = 50
RATE = 200000000
REQUESTS = {
    "all programs": "/api/program?limit=200",
    "one program": "/api/program/flood",
    "metrics": "/api/metrics",
    "100 lines of log": "/api/program/flood/logs?lines=100",
}


def measure(daemon, floor, seconds):
    stamps = os.path.join(daemon.home, "stamps")
    open(stamps, "w").close()
    os.chmod(stamps, 0o666)
    crashing = {"command": "/bin/false", "auto_restart": True, "max_restarts": -1}
    for number in range(CRASHING):
        daemon.ask("POST", "/api/program", crashing | {"name": f"crashing-{number}"})
    # For longer than this takes.
    daemon.ask("POST", "/api/program", {"name": "flood", "command": floor, "args": f"lines {stamps} {RATE * 3600} {RATE}"})
    for number in range(CRASHING):
        daemon.ask("POST", f"/api/program/crashing-{number}/start")
    daemon.ask("POST", "/api/program/flood/start")
    time.sleep(0.5)
    print(f"{'request':<18} {'at a time':>9} {'a second':>9} {'p50 us':>7} {'p99 us':>7} {'bad':>5}")
    for name, path in REQUESTS.items():
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {daemon.token}\r\nConnection: close\r\n\r\n"
        for connections in (1, 8):
            command = [floor, "load", str(daemon.address[1]), str(connections), str(int(seconds * 1000)), "0"]
            text = subprocess.run(command, input=head, stdout=subprocess.PIPE, text=True, check=True).stdout
            answered, bad, p50, p99 = map(int, text.split())
            print(f"{name:<18} {connections:>9} {answered / seconds:>9.0f} {p50:>7} {p99:>7} {bad:>5}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hxe", required=True, help="the binary")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each kind of request (1.5)")
    options = parser.parse_args()
    daemon = Daemon(os.path.abspath(options.hxe))
    try:
        floor = os.path.join(daemon.home, "floor")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floor.c")
        subprocess.run(["cc", "-O2", "-pthread", "-o", floor, source], check=True)
        measure(daemon, floor, options.seconds)
    finally:
        daemon.end()


if __name__ == "__main__":
    main()
