#!/usr/bin/env python3
"""Has 10, 100 and 1,000 programs created, started, listed and stopped, and shows what one more costs.

    cargo build --release && scripts/bench/growth.py [--sizes 10,100,1000] HXE

A daemon of its own on 127.0.0.1 for each number, which is asked on one connection that is kept. A row for each number:

    create, start, stop, delete   median and p99 of a request for one program, in milliseconds
    list       median of GET /api/program with all of them, in milliseconds, and the least in microseconds a program
    get        median of GET /api/program/{id}, in milliseconds
    pss        of daemon and guardian with all of them running, their logs captured (KiB), and how much a program more than
               with no program at all
    threads files   of the daemon then
    again      seconds from the daemon's start until all run that are enabled, and how many ms that is a program
    end        seconds that TERM takes to stop all of them

Exits with 1 if what a program costs grows with their number: more than twice as much with the last number as with the one
before, in one of start, stop, list, pss, again or end. Needs Python 3.9 and nothing else, as root or not.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import time

from daemon import Daemon
from measures import percentile, pss

# Of what is compared; below, a difference is the machine's: ms, us or KiB.
LEAST = {"start": 1.0, "stop": 1.0, "list": 2.0, "pss": 8.0, "again": 2.0, "end": 2.0}


class Client:
    """One connection that is kept."""

    def __init__(self, daemon):
        self.connection = http.client.HTTPConnection(*daemon.address, timeout=120)
        self.headers = {"Authorization": "Bearer " + daemon.token}

    def ask(self, method, path, body=None):
        """Milliseconds until the answer is there, and the answer."""
        begin = time.monotonic()
        self.connection.request(method, path, json.dumps(body) if body else None, self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        took = (time.monotonic() - begin) * 1000
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text!r}")
        return took, json.loads(text or "null")


def spread(times):
    return f"{statistics.median(times):.2f}/{percentile(times, 0.99):.1f}"


def measure(binary, count):
    """The cells of a row by title, and what a program costs by name."""
    daemon = Daemon(binary)
    own = (daemon.pid, daemon.process.pid)
    time.sleep(2)
    empty = pss(own)
    client = Client(daemon)
    paths = [f"/api/program/p{number}" for number in range(count)]
    body = {"command": "/bin/sleep", "args": "100000", "auto_restart": True, "enabled": True}
    create = [client.ask("POST", "/api/program", body | {"name": f"p{number}"})[0] for number in range(count)]
    start = [client.ask("POST", path + "/start")[0] for path in paths]
    listed = []
    for _ in range(50):
        took, programs = client.ask("GET", f"/api/program?limit={count}")
        listed.append(took)
        running = sum(program["status"] == "running" for program in programs)
        if running != count:
            raise SystemExit(f"{running} of {count} programs run")
    get = [client.ask("GET", paths[number % count])[0] for number in range(200)]
    client.connection.close()
    # The calm second, after which it gives memory back.
    time.sleep(2)
    used = pss(own)
    _, threads, files = daemon.figures()
    client = Client(daemon)
    stop = [client.ask("POST", path + "/stop")[0] for path in paths]
    again, end = restarted(daemon, count)
    client = Client(daemon)
    delete = [client.ask("DELETE", path)[0] for path in paths]
    client.connection.close()
    daemon.end()
    each = {
        # The least of many: what a busy machine adds to a long answer is not what programs cost.
        "start": statistics.median(start), "stop": statistics.median(stop), "list": min(listed) * 1000 / count,
        "pss": (used - empty) / count, "again": again * 1000 / count, "end": end * 1000 / count,
    }
    return {
        "programs": str(count), "create": spread(create), "start": spread(start), "stop": spread(stop), "delete": spread(delete),
        "list": f"{statistics.median(listed):.2f}", "us each": f"{each['list']:.1f}", "get": f"{statistics.median(get):.2f}",
        "pss": str(used), "KiB each": f"{each['pss']:.1f}", "threads": str(threads), "files": str(files),
        "again": f"{again:.2f}", "ms each": f"{each['again']:.2f}", "end": f"{end:.2f}",
    }, each


def restarted(daemon, count):
    """Seconds until a daemon that starts anew has all its programs running, and until TERM has ended all of them."""
    daemon.stop()
    begin = time.monotonic()
    daemon.start()
    client = Client(daemon)
    while len(client.ask("GET", f"/api/program?limit={count}&status=running")[1]) < count:
        if time.monotonic() - begin > 300:
            raise SystemExit("not all programs came up again")
        time.sleep(0.01)
    again = time.monotonic() - begin
    client.connection.close()
    begin = time.monotonic()
    daemon.stop()
    end = time.monotonic() - begin
    # For what comes: none of them is up.
    daemon.start()
    return again, end


def main():
    parser = argparse.ArgumentParser(description="Shows what a further program costs.")
    parser.add_argument("hxe", type=os.path.abspath)
    parser.add_argument("--sizes", default="10,100,1000")
    options = parser.parse_args()
    rows, costs = [], []
    for count in map(int, options.sizes.split(",")):
        row, each = measure(options.hxe, count)
        rows.append(row)
        costs.append(each)
    table = [list(rows[0])] + [list(row.values()) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    for cells in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths)))
    grown = []
    if len(costs) > 1:
        for name, least in LEAST.items():
            before, after = costs[-2][name], costs[-1][name]
            if after > 2 * max(before, least):
                grown.append(f"{name} costs {after:.2f} a program, with fewer {before:.2f}")
    for problem in grown:
        print(f"! {problem}")
    sys.exit(bool(grown))


if __name__ == "__main__":
    main()
