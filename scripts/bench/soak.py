#!/usr/bin/env python3
"""The body of scripts/soak.sh, which says what it is for. Here: what is done to the daemon, and what it may use at the end.

The first figures are taken after a warm-up, in which everything has been done some times: what is made once is there. All
figures are taken at rest: no program runs, no stream or connection is open, and the calm second is over after which hxe
gives memory back. So what they show is kept for nothing:

    threads, files   as many as at the begin: at rest all have been given back, whatever was done
    anon kB          memory that is hxe's own and not a file's: within SLACK of the begin. The allocator gives back whole
                     pages only, and which pages hold something that lives depends on chance: SLACK is some three times the
                     spread of runs in which it did not grow. How small a loss a step it would have shown is printed
    rss kB           the same with the pages of the binary, which stay in memory once they have been used: twice SLACK
    run, state, log  what is kept on disk: as many files in run_dir as at the begin, and hxe's own lines on each program, the
                     database within STORED, and log files of the programs that are there, each with what rotation keeps
    children         the daemon is the guardian's only child, and has none: nothing was left behind or not reaped
"""

import argparse
import collections
import http.client
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
import traceback

from daemon import PASSWORD, Daemon, read
from measures import frame

# kB, see above.
SLACK = 160
# kB. The file grows by whole regions, and keeps what it once needed.
STORED = 256
LEGS = 10
WARM_UP = 20
WORKERS = 4
REST = 4
LOGS = 'max_size = "32KiB"\nmax_files = 3\n'
KEYS = {
    # Counted, but nobody is sent away.
    "rate_limit": "1000000",
    "rate_limit_window": '"10s"',
    # So that tokens run out, and those that were logged out are forgotten.
    "token_lifetime": '"20s"',
    "metrics_token": '"0123456789abcdef"',
}
PATHS = (
    "program", "program/quiet", "program/writer/logs?lines=1000", "program/writer/metrics", "metrics", "daemon", "openapi.json",
    "program?status=running&limit=2", "program/victim-0/logs?level=error", "program/victim-0/exits",
)
# Requests that are understood, and refused.
MISTAKES = (
    ("POST", "/api/program", "{"), ("POST", "/api/program", {"name": "x"}), ("GET", "/api/nothing", None),
    ("PATCH", "/api/program", None), ("POST", "/api/program/ghost/start", None),
    ("POST", "/api/program", {"name": "quiet", "command": "/bin/true"}), ("GET", "/api/program/quiet/logs?lines=many", None),
)
# What is none, or no whole one.
NOISE = (
    b"\x16\x03\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET /api/program HTTP/1.1\r\n\r\n", b"GET " + b"x" * 20000,
    b"POST /api/program HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /api/program HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
    b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{",
    b"GET /api/program HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    b"GET /api/program HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
)
VICTIMS = [f"victim-{number}" for number in range(3)]


class Local(http.client.HTTPConnection):
    """A connection to the daemon's socket, which needs no token."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Soak:
    def __init__(self, options):
        self.random = random.Random(options.seed)
        self.daemon = Daemon(options.hxe, KEYS, logs=LOGS)
        self.done = collections.Counter()
        self.problems = []
        self.stop = threading.Event()
        # Programs of which only one step at a time may change something.
        self.locks = collections.defaultdict(threading.Lock)
        for name in VICTIMS:
            self.create(name, "/bin/sh", "-c 'echo here; exec sleep 100000'", restart_delay="10ms")
        # Some 300 KB a second: a rotation each tenth of a second.
        self.create("writer", "/bin/sh", "-c 'while :; do seq 1 5000; sleep 0.05; done'")
        self.create("quiet", "/bin/sleep", "100000")

    def create(self, name, command, args, **more):
        body = {"name": name, "command": command, "args": args, "auto_restart": True, "max_restarts": -1} | more
        assert self.ask("POST", "/api/program", body)[0] == 201

    def local(self):
        return Local(os.path.join(self.daemon.home, "run", "hxe.sock"))

    def ask(self, method, path, body=None, connection=None, token=""):
        """Status and text of an answer; over the socket, unless there is a connection."""
        client = connection or self.local()
        headers = {"Authorization": "Bearer " + token} if token else {}
        client.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers)
        answer = client.getresponse()
        text = answer.read()
        if connection is None:
            client.close()
        if answer.status >= 500:
            self.problems.append(f"{method} {path}: {answer.status} {text!r}")
        return answer.status, text

    def expect(self, wanted, *arguments, **more):
        status, text = self.ask(*arguments, **more)
        if status not in wanted:
            self.problems.append(f"{arguments}: {status} {text[:200]!r}")
        return text

    def log_in(self, connection):
        login = {"username": "admin", "password": PASSWORD}
        return json.loads(self.expect((200,), "POST", "/api/auth/login", login, connection))["token"]

    # The steps. Each leaves all as it found it, but for states of programs.

    def read_all(self):
        client = http.client.HTTPConnection(*self.daemon.address, timeout=30)
        token = self.log_in(client)
        for path in PATHS:
            self.expect((200,), "GET", f"/api/{path}", connection=client, token=token)
        self.expect((200,), "GET", "/metrics", connection=client, token="0123456789abcdef")
        client.close()

    def log_in_and_out(self):
        client = http.client.HTTPConnection(*self.daemon.address, timeout=30)
        token = self.log_in(client)
        other = json.loads(self.expect((200,), "POST", "/api/auth/refresh", connection=client, token=token))["token"]
        self.expect((200, 204), "POST", "/api/auth/logout", connection=client, token=token)
        self.expect((401,), "GET", "/api/program", connection=client, token=token)
        self.expect((200,), "GET", "/api/program", connection=client, token=other)
        client.close()

    def fail_to_log_in(self):
        client = http.client.HTTPConnection(*self.daemon.address, timeout=30)
        for user, password in (("admin", "wrong"), ("nobody", PASSWORD), ("admin", "x" * 5000)):
            login = {"username": user, "password": password}
            self.expect((400, 401, 429), "POST", "/api/auth/login", login, client)
        client.close()

    def ask_badly(self):
        with socket.create_connection(self.daemon.address, 30) as stream:
            try:
                stream.sendall(self.random.choice(NOISE))
                if self.random.random() < 0.5:
                    stream.settimeout(0.2)
                    stream.recv(4096)
            except OSError:
                pass
            if self.random.random() < 0.5:
                reset(stream)
        for method, path, body in MISTAKES:
            self.expect((400, 404, 405, 409), method, path, body)

    def restart(self):
        name = self.random.choice(VICTIMS)
        with self.locks[name]:
            self.expect((200,), "POST", f"/api/program/{name}/restart")

    def stop_and_start(self):
        name = self.random.choice(VICTIMS)
        with self.locks[name]:
            self.expect((200, 400), "POST", f"/api/program/{name}/stop")
            self.expect((200, 400), "POST", f"/api/program/{name}/start")

    def crash(self):
        name = self.random.choice(VICTIMS)
        with self.locks[name]:
            before = json.loads(self.ask("GET", f"/api/program/{name}")[1])
            if before["pid"] is None:
                self.expect((200, 400), "POST", f"/api/program/{name}/start")
                return
            try:
                os.kill(before["pid"], signal.SIGKILL)
            except ProcessLookupError:
                return
            # It waits longer each time that it dies at once, so that a start by hand is what brings it back at last.
            end = time.monotonic() + 0.2
            while time.monotonic() < end and json.loads(self.ask("GET", f"/api/program/{name}")[1])["pid"] in (None, before["pid"]):
                time.sleep(0.02)

    def come_and_go(self):
        """The whole life of a program."""
        name = f"guest-{threading.get_ident()}"
        self.create(name, "/bin/sh", "-c 'seq 1 20000; exit 3'", max_restarts=0, description="x" * 500, environment={"A": "b" * 200})
        at = f"/api/program/{name}"
        self.expect((200,), "POST", f"{at}/start")
        self.expect((200,), "POST", f"{at}/enable")
        self.expect((200,), "PUT", at, {"name": name, "command": "/bin/sleep", "args": "1000"})
        self.expect((200, 400), "POST", f"{at}/stop?force=true")
        self.expect((200, 400), "POST", f"{at}/start")
        self.expect((200,), "GET", f"{at}/logs?lines=10")
        self.expect((200, 204), "DELETE", at)

    def start_in_vain(self):
        name = f"broken-{threading.get_ident()}"
        self.create(name, "/nonexistent/command", "")
        self.expect((400,), "POST", f"/api/program/{name}/start")
        self.expect((200, 204), "DELETE", f"/api/program/{name}")

    def follow(self):
        head = "GET /api/program/%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        paths = ("writer/logs?follow=true&lines=10", "quiet/logs?follow=true", "writer/output?from=end", "victim-1/logs?follow=true&level=error")
        streams = []
        for path in self.random.sample(paths, 2):
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(30)
            stream.connect(os.path.join(self.daemon.home, "run", "hxe.sock"))
            stream.sendall((head % path).encode())
            if b" 200 " not in stream.recv(4096)[:16]:
                self.problems.append(f"{path} was refused")
            streams.append(stream)
        time.sleep(self.random.random() * 0.5)
        for stream in streams:
            if self.random.random() < 0.5:
                reset(stream)
            stream.close()

    def listen(self):
        """A WebSocket, which hears all or some events, and leaves well or badly."""
        client = http.client.HTTPConnection(*self.daemon.address, timeout=30)
        token = self.log_in(client)
        client.close()
        stream = socket.create_connection(self.daemon.address, 30)
        stream.sendall(
            b"GET /api/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        kind = self.random.randrange(6)
        if kind > 0:
            stream.sendall(frame(json.dumps({"type": "auth", "token": token if kind > 1 else "no"})))
        if kind > 2:
            stream.sendall(frame(json.dumps({"type": "subscribe", "events": ["program.*"]})))
            stream.sendall(frame("nonsense"))
        end = time.monotonic() + self.random.random() * 0.5
        try:
            while time.monotonic() < end and kind != 4:
                stream.settimeout(0.1)
                try:
                    if not stream.recv(65536):
                        break
                except TimeoutError:
                    pass
            if kind == 5:
                stream.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
            elif self.random.random() < 0.5:
                reset(stream)
        except OSError:
            pass
        stream.close()

    def reload(self):
        declared = os.path.join(self.daemon.home, "programs.d")
        path = os.path.join(declared, "declared.toml")
        with self.locks["declared"]:
            os.makedirs(declared, exist_ok=True)
            program = '[program]\nname = "declared"\ncommand = "/bin/sleep"\nargs = "1000"\n'
            for text, wanted in ((program + "enabled = true\n", 200), (program + 'umask = "077"\n', 200), ("[program\n", 400)):
                with open(path, "w") as file:
                    file.write(text)
                self.expect((wanted,), "POST", "/api/reload")
            os.unlink(path)
            self.expect((200,), "POST", "/api/reload")

    STEPS = {
        read_all: 4, log_in_and_out: 2, fail_to_log_in: 2, ask_badly: 3, restart: 3, stop_and_start: 2, crash: 3, come_and_go: 3,
        start_in_vain: 1, follow: 3, listen: 3, reload: 1,
    }

    def step(self, what):
        try:
            what(self)
            self.done[what.__name__] += 1
        except Exception:
            self.problems.append(f"{what.__name__}: {traceback.format_exc()}")

    def work(self, end):
        while time.monotonic() < end and len(self.problems) < 10:
            self.step(self.random.choices(list(self.STEPS), self.STEPS.values())[0])

    def leg(self, seconds, first=()):
        """So many seconds of steps, each of `first` at least that often; then what is used at rest."""
        for name in ("writer", "quiet", *VICTIMS):
            self.expect((200,), "POST", f"/api/program/{name}/start")
        for what in first:
            self.step(what)
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self.work, args=(end,)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in ("writer", "quiet", *VICTIMS):
            self.expect((200, 400), "POST", f"/api/program/{name}/stop?force=true")
        listed = json.loads(self.ask("GET", "/api/program?limit=1000")[1])
        left = [one["name"] for one in listed if one["pid"] is not None or one["name"] not in ("writer", "quiet", *VICTIMS)]
        if left:
            self.problems.append(f"still there at rest: {left}")
        time.sleep(REST)
        return self.figures()

    def figures(self):
        daemon, guardian = self.daemon.pid, self.daemon.process.pid
        found = {}
        for name, pid in (("daemon", daemon), ("guardian", guardian)):
            memory = {words[0]: int(words[1]) for words in map(str.split, read(f"/proc/{pid}/smaps_rollup").splitlines()[1:])}
            found[f"{name} anon kB"] = memory["Anonymous:"]
            found[f"{name} rss kB"] = memory["Rss:"]
            found[f"{name} threads"] = len(os.listdir(f"/proc/{pid}/task"))
            found[f"{name} files"] = len(os.listdir(f"/proc/{pid}/fd"))
        found["children"] = sum(len(children(pid)) for pid in (daemon, guardian))
        home = self.daemon.home
        found["run files"], found["run kB"] = size(os.path.join(home, "run"))
        found["state kB"] = size(os.path.join(home, "state"))[1]
        found["log files"], found["log kB"] = size(os.path.join(home, "log"))
        return found


def bounds(begin):
    allowed = dict(begin)
    for name in ("daemon", "guardian"):
        allowed[f"{name} anon kB"] += SLACK
        allowed[f"{name} rss kB"] += 2 * SLACK
    programs = 2 + len(VICTIMS)
    # hxe's own lines: at most two files of 32 KiB, the second of which may not be there yet at the begin.
    allowed["run files"] += programs
    allowed["run kB"] += programs * 64
    allowed["state kB"] += STORED
    # stdout and stderr: a file that grows, three set aside, and an index for each.
    allowed["log files"] = programs * 2 * 4 * 2
    allowed["log kB"] = programs * 2 * 4 * (36 + 8)
    return allowed


def reset(stream):
    """Has the connection end by a reset, as of a client that died."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def children(pid):
    return [child for task in os.listdir(f"/proc/{pid}/task") for child in read(f"/proc/{pid}/task/{task}/children").split()]


def size(directory):
    """Files below a directory, and kB of disk that they take."""
    files = [os.path.join(at, name) for at, _, names in os.walk(directory) for name in names]
    return len(files), sum(os.lstat(file).st_blocks for file in files) // 2


def show(rows, allowed):
    names = list(allowed)
    table = [[""] + [title for title, _ in rows] + ["at most"]]
    for name in names:
        table.append([name] + [str(found[name]) for _, found in rows] + [str(allowed[name])])
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths))))


def main():
    parser = argparse.ArgumentParser(prog="scripts/soak.sh", description="Looks whether a busy daemon grows.")
    parser.add_argument("hxe", nargs="?", default="target/release/hxe", help="the binary (target/release/hxe)")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--hours", type=float, default=0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeats the choices of an earlier run, not their times")
    options = parser.parse_args()
    options.hxe = os.path.abspath(options.hxe)
    if not os.access(options.hxe, os.X_OK):
        parser.error(f"{options.hxe} is not there or cannot be executed")
    seconds = options.hours * 3600 or options.minutes * 60
    print(f"seed {options.seed}", flush=True)
    soak = Soak(options)
    rows, warm = [], 0
    try:
        rows.append(("begin", soak.leg(WARM_UP, list(soak.STEPS) * 5)))
        begin, warm = time.monotonic(), sum(soak.done.values())
        for number in range(1, LEGS + 1):
            rows.append((str(number), soak.leg(max(1, seconds / LEGS - REST))))
            title, found = rows[-1]
            print(f"{title}/{LEGS} {time.monotonic() - begin:.0f} s, {sum(soak.done.values())} steps,"
                  f" daemon {found['daemon anon kB']} kB anonymous", flush=True)
            if soak.problems or soak.daemon.process.poll() is not None:
                break
    except Exception:
        soak.problems.append(traceback.format_exc())
    finally:
        alive = soak.daemon.end()
    if not alive:
        soak.problems.append("the daemon did not live to the end")
    if not rows:
        print("\n".join(soak.problems))
        sys.exit(1)
    allowed = bounds(rows[0][1])
    steps = sum(soak.done.values())
    print("\nsteps: " + ", ".join(f"{name} {count}" for name, count in soak.done.most_common()))
    print(f"a loss of {SLACK * 1024 // max(1, steps - warm)} bytes a step would have been noticed\n")
    show(rows, allowed)
    last = rows[-1][1]
    soak.problems += [f"{name}: {last[name]} at the end, at most {allowed[name]}" for name in allowed if last[name] > allowed[name]]
    for problem in soak.problems:
        print(f"! {problem}")
    sys.exit(bool(soak.problems))


if __name__ == "__main__":
    main()
