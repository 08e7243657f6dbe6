#!/usr/bin/env python3
"""Attacks a daemon of its own, one way after the other, and shows what good clients notice of it.

    cargo build --release && scripts/bench/hostile.py --hxe target/release/hxe [--seconds 4] [--key KEY=VALUE] [--only NAME,...]

Each attack gets a fresh daemon on 127.0.0.1 with the defaults, but without a rate limit, which would spare it most of the
attack. Attackers and good clients are processes of their own. A row of the table:

    rss      resident memory of the daemon: before, and how much more at most (kB)
    threads  at most
    files    open descriptors at most
    good     requests of two good clients: one opens a connection for each, one keeps its connection and opens it again when
             it was closed; a request counts from the connect to the last byte of the answer, retries included
    p50 p99 max  of these, in milliseconds
    lost     connections that were closed under a good request, which was then sent again; not those that had been idle
    bad      good requests that were not answered 200 within a second, or at all
    restart  the slowest of the restarts of a program that are asked for meanwhile (ms)
    answers  what the attackers were answered: status, how often; `eof` and `reset` are connections closed without

Needs Python 3.9 and nothing else, and some 6,000 open files (ulimit -n).
"""

import argparse
import collections
import http.client
import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import struct
import sys
import threading
import time

from daemon import PASSWORD, Daemon

# Of PASSWORD, with cost 10.
HASH = "$2b$10$r0y7i9vKD53Vw0F300BZK..IRbExjOoBVcBfIrgrAgrurOkMZ61SG"
HEAD = b"GET /api/program HTTP/1.1\r\nHost: localhost\r\n"


def start(binary, keys, files):
    """A daemon with a program that runs and one with a long log."""
    daemon = Daemon(binary, keys, files)
    daemon.ask("POST", "/api/program", {"name": "sleeper", "command": "/bin/sleep", "args": "1000"})
    daemon.ask("POST", "/api/program/sleeper/start")
    script = "-c 'i=0; while [ $i -lt 10000 ]; do echo line $i of a log that is long; i=$((i+1)); done; sleep 1000'"
    daemon.ask("POST", "/api/program", {"name": "writer", "command": "/bin/sh", "args": script})
    daemon.ask("POST", "/api/program/writer/start")
    while len(daemon.ask("GET", "/api/program/writer/logs?lines=10000")["logs"]) < 10000:
        time.sleep(0.05)
    return daemon


class Target:
    """What an attacker knows, and how it counts what it was answered."""

    def __init__(self, address, token, seconds):
        self.address = address
        self.token = token
        self.end = time.monotonic() + seconds
        self.answers = collections.Counter()
        self.held = collections.deque()

    def goes_on(self):
        return time.monotonic() < self.end

    def connect(self):
        """A connection, or None where there is no room even for that."""
        stream = socket.socket()
        stream.settimeout(2)
        try:
            stream.connect(self.address)
        except OSError:
            stream.close()
            self.answers["connect failed"] += 1
            return None
        return stream

    def send(self, stream, data):
        try:
            stream.sendall(data)
            return True
        except OSError:
            return False

    def count(self, stream, wait):
        """Counts the first answer that is there within `wait` seconds, and closes."""
        try:
            stream.settimeout(wait)
            data = stream.recv(4096)
            self.answers[data[9:12].decode("ascii", "replace") if data else "eof"] += 1
        except TimeoutError:
            self.answers["none yet"] += 1
        except OSError:
            self.answers["reset"] += 1
        stream.close()

    def authorization(self):
        return f"Authorization: Bearer {self.token}\r\n".encode()

    def hold(self, count, data, drip=b""):
        """Holds `count` connections that have sent `data`, gets new ones for those that are closed, and drips."""
        held = collections.deque()
        while self.goes_on():
            while len(held) < count and self.goes_on():
                stream = self.connect()
                if stream is None:
                    time.sleep(0.01)
                    continue
                self.send(stream, data)
                stream.setblocking(False)
                held.append(stream)
            for _ in range(min(len(held), 50)):
                stream = held.popleft()
                try:
                    answer = stream.recv(4096)
                    self.answers[answer[9:12].decode("ascii", "replace") if answer else "eof"] += 1
                    stream.close()
                    continue
                except BlockingIOError:
                    pass
                except OSError:
                    self.answers["reset"] += 1
                    stream.close()
                    continue
                if drip:
                    try:
                        stream.send(drip)
                    except OSError:
                        pass
                held.append(stream)
            time.sleep(0.002)
        for stream in held:
            stream.close()

    def again_and_again(self, data):
        """Sends `data` on one connection after the other, and reads the answer."""
        while self.goes_on():
            stream = self.connect()
            if stream is not None:
                self.send(stream, data() if callable(data) else data)
                self.count(stream, 2)


def post(path, length, body=b"", headers=b""):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    return head.encode() + headers + b"\r\n" + body


def endless_header(target):
    while target.goes_on():
        stream = target.connect()
        if stream is not None:
            target.send(stream, HEAD + b"X: ")
            while target.goes_on() and target.send(stream, b"x" * 65536):
                pass
            target.count(stream, 1)


def glued_and_read(target):
    request = HEAD + target.authorization() + b"\r\n"
    while target.goes_on():
        stream = target.connect()
        if stream is None:
            continue
        reader = threading.Thread(target=lambda: target.send(stream, request * 1000))
        reader.start()
        try:
            # An answer may be cut in two here, so that a few go uncounted.
            while data := stream.recv(65536):
                target.answers["200"] += data.count(b"HTTP/1.1 200")
                stream.settimeout(0.5)
        except OSError:
            pass
        reader.join()
        stream.close()


def glued_and_unread(target):
    request = HEAD + b"\r\n"
    held = collections.deque()
    while target.goes_on():
        stream = target.connect()
        if stream is None:
            continue
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.setblocking(False)
        data = request * 2000
        # As much as the daemon takes: it stops reading once its own answers are not read.
        for _ in range(100):
            try:
                stream.send(data)
            except OSError:
                break
        held.append(stream)
        if len(held) > 300:
            held.popleft().close()
    for stream in held:
        stream.close()


def glued_and_closed(target):
    request = (HEAD + b"\r\n") * 300
    while target.goes_on():
        stream = target.connect()
        if stream is not None:
            # Closed with most of it unread: the daemon finds out late, and meanwhile the next one is there.
            stream.setblocking(False)
            try:
                stream.send(request)
                stream.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            target.held.append(stream)
            if len(target.held) > 250:
                target.held.popleft().close()
            target.answers["sent"] += 1


def unread(target):
    request = b"GET /api/program/writer/logs?lines=10000 HTTP/1.1\r\nHost: localhost\r\n" + target.authorization() + b"\r\n"
    target.hold_unread(request)


def hold_unread(target, request, count=200):
    held = collections.deque()
    while target.goes_on():
        stream = target.connect()
        if stream is None:
            continue
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        target.send(stream, request * 4)
        held.append(stream)
        if len(held) > count:
            held.popleft().close()
            time.sleep(0.02)
    for stream in held:
        stream.close()


Target.hold_unread = hold_unread


def resets(target):
    whole = post("/api/auth/login", 40, b'{"username":"admin","password":"wrong!"}')
    while target.goes_on():
        for length in range(0, len(whole) + 1, 3):
            stream = target.connect()
            if stream is None:
                continue
            target.send(stream, whole[:length])
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.close()
            target.answers["reset by us"] += 1


def wrong_password(user):
    def attack(target):
        body = json.dumps({"username": user, "password": "wrong"}).encode()
        target.again_and_again(post("/api/auth/login", len(body), body))

    return attack


def random_bytes(target):
    noise = random.Random(1)

    def data():
        head = noise.choice([b"", b"GET ", b"GET / HTTP/1.1\r\n", HEAD, b"\x16\x03\x01"])
        return head + noise.randbytes(noise.randrange(1, 3000)) + b"\r\n\r\n"

    target.again_and_again(data)


def long_stops(target):
    request = post("/api/program/stubborn/restart", 0, headers=target.authorization())
    target.hold(200, request)


def empty_lines(target):
    while target.goes_on():
        stream = target.connect()
        if stream is not None:
            while target.goes_on() and target.send(stream, b"\r\n" * 32768):
                pass
            target.count(stream, 1)


DEEP = b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LENGTH = 65536

# Name, attack, attackers at a time, keys of [api], limit of open files.
ATTACKS = [
    ("nothing", lambda t: time.sleep(max(0, t.end - time.monotonic())), 1, {}, 0),
    ("half-open requests", lambda t: t.hold(1000, HEAD), 1, {}, 0),
    ("dripped header", lambda t: t.hold(200, HEAD + b"X: ", b"x"), 1, {}, 0),
    ("endless header", endless_header, 4, {}, 0),
    ("idle connections", lambda t: t.hold(5000, b""), 1, {}, 0),
    ("slow body", lambda t: t.hold(300, post("/api/auth/login", LENGTH, b"{" * (LENGTH - 2000)), b"{"), 1, {}, 0),
    (
        "slow body, token",
        lambda t: t.hold(300, post("/api/program", LENGTH, b"{" * (LENGTH - 2000), t.authorization()), b"{"),
        1,
        {},
        0,
    ),
    (
        "slow body, 1 MiB",
        lambda t: t.hold(100, post("/api/auth/login", 1 << 20, b"{" * ((1 << 20) - 2000)), b"{"),
        1,
        {"max_body": '"1MiB"'},
        0,
    ),
    ("slow body, no login", lambda t: t.hold(300, post("/api/program", LENGTH, b"{" * 30000), b"{"), 1, {}, 0),
    ("length of 10^14", lambda t: t.again_and_again(post("/api/program", 10**14, b"{")), 2, {}, 0),
    ("two lengths", lambda t: t.again_and_again(post("/api/program", 2, b"{}", b"Content-Length: 3\r\n")), 2, {}, 0),
    (
        "chunked bodies",
        lambda t: t.again_and_again(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 65535 + b"\r\n"),
        2,
        {},
        0,
    ),
    ("glued, read", glued_and_read, 2, {}, 0),
    ("glued, unread", glued_and_unread, 1, {}, 0),
    ("glued, closed", glued_and_closed, 3, {}, 0),
    ("long logs, unread", unread, 1, {}, 0),
    ("empty lines", empty_lines, 4, {}, 0),
    ("resets", resets, 2, {}, 0),
    ("random bytes", random_bytes, 2, {}, 0),
    ("deep JSON", lambda t: t.again_and_again(post("/api/auth/login", len(DEEP), DEEP)), 2, {"max_body": '"1MiB"'}, 0),
    ("64 files", lambda t: t.hold(300, HEAD), 1, {}, 64),
    ("wrong password", wrong_password("admin"), 30, {"password_hash": json.dumps(HASH)}, 0),
    ("unknown user", wrong_password("nobody"), 30, {"password_hash": json.dumps(HASH)}, 0),
    ("200 long stops", long_stops, 1, {}, 0),
]


def attacker(attack, address, token, seconds, results):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target = Target(address, token, seconds)
    try:
        attack(target)
    finally:
        results.put(target.answers)


def ask_well(client, address, method, path, token, kept):
    """Asks until there is an answer: the connection, seconds, whether all was well, how often it was lost."""
    begin = time.monotonic()
    lost = 0
    headers = {"Authorization": "Bearer " + token}
    for _ in range(20):
        fresh = client is None
        try:
            if fresh:
                client = http.client.HTTPConnection(*address, timeout=10)
            client.request(method, path, headers=headers)
            answer = client.getresponse()
            answer.read()
            good = answer.status == 200
            if not kept:
                client.close()
                client = None
            if good:
                return client, time.monotonic() - begin, True, lost
        except (OSError, http.client.HTTPException):
            pass
        lost += fresh
        if client is not None:
            client.close()
            client = None
        if time.monotonic() - begin > 10:
            break
    return None, time.monotonic() - begin, False, lost


def good_client(kept, address, token, seconds, results):
    times, bad, lost, client = [], 0, 0, None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client, taken, good, again = ask_well(client, address, "GET", "/api/program", token, kept)
        times.append(taken)
        bad += not good or taken > 1
        lost += again
        time.sleep(0.005)
    results.put((times, bad, lost))


def restarter(address, token, seconds, results):
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _, taken, good, _ = ask_well(None, address, "POST", "/api/program/sleeper/restart", token, False)
        times.append(taken if good else float("inf"))
        time.sleep(0.25)
    results.put(max(times))


def run(binary, seconds, common, row):
    name, attack, attackers, keys, files = row
    daemon = start(binary, common | keys, files)
    if name.endswith("stops"):
        args = "-c 'trap \"\" TERM; echo ready; while :; do sleep 1000; done'"
        daemon.ask("POST", "/api/program", {"name": "stubborn", "command": "/bin/sh", "args": args, "stop_timeout": "10m"})
        daemon.ask("POST", "/api/program/stubborn/start")
    before = daemon.figures()
    queues = [multiprocessing.Queue() for _ in range(3)]
    at = (daemon.address, daemon.token)
    # The attack begins before the good clients, and outlasts them.
    processes = [
        multiprocessing.Process(target=attacker, args=(attack, *at, seconds + 1.5, queues[0])) for _ in range(attackers)
    ]
    good = [multiprocessing.Process(target=good_client, args=(kept, *at, seconds, queues[1])) for kept in (False, True)]
    good.append(multiprocessing.Process(target=restarter, args=(*at, seconds, queues[2])))
    for process in processes:
        process.start()
    time.sleep(1)
    for process in good:
        process.start()
    most = before
    end = time.monotonic() + seconds + 0.5
    while time.monotonic() < end and daemon.process.poll() is None:
        most = tuple(map(max, most, daemon.figures()))
        time.sleep(0.02)
    answers = sum((queues[0].get(timeout=60) for _ in processes), collections.Counter())
    both = [queues[1].get(timeout=60) for _ in range(2)]
    restart = queues[2].get(timeout=60)
    for process in processes + good:
        process.join()
    if name.endswith("stops"):
        daemon.ask("POST", "/api/program/stubborn/stop?force=true")
    alive = daemon.end()
    times = sorted(time for times, _, _ in both for time in times)
    share = lambda part: 1000 * times[min(len(times) - 1, int(part * len(times)))]
    print(
        f"{name:<20} {before[0]:>6} {most[0] - before[0]:>+7} {most[1]:>7} {most[2]:>6} {len(times):>6}"
        f" {share(0.5):>6.1f} {share(0.99):>7.1f} {1000 * times[-1]:>7.1f} {sum(lost for _, _, lost in both):>4} {sum(bad for _, bad, _ in both):>4}"
        f" {1000 * restart:>7.1f}  {', '.join(f'{what}: {count}' for what, count in answers.most_common())}"
        f"{'' if alive else '  THE DAEMON DIED'}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hxe", required=True, help="the binary")
    parser.add_argument("--seconds", type=float, default=4, help="length of each attack (4)")
    parser.add_argument("--key", action="append", default=[], help="KEY=VALUE of [api] for all, as TOML has it")
    parser.add_argument("--only", default="", help="names of attacks, or their beginnings, separated by commas")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 6000:
        sys.exit(f"{hard} open files are allowed here, and 6000 are needed: see ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (6000, hard))
    multiprocessing.set_start_method("fork")
    print(f"{'attack':<20} {'rss kB':>6} {'more':>7} {'threads':>7} {'files':>6} {'good':>6}"
          f" {'p50':>6} {'p99':>7} {'max':>7} {'lost':>4} {'bad':>4} {'restart':>7}  answers")
    wanted = [name.strip() for name in options.only.split(",") if name.strip()]
    for row in ATTACKS:
        if not wanted or any(row[0].startswith(name) for name in wanted):
            run(os.path.abspath(options.hxe), options.seconds, dict(key.split("=", 1) for key in options.key), row)


if __name__ == "__main__":
    main()
