"""What peers.py measures: a function each, that gets a supervisor whose programs run, and returns its figures by name."""

import base64
import collections
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time

from supervisors import Cannot, alive, changed, read, wait_for


def pss(pids):
    """KiB of memory, shared pages divided among those who share them."""
    total = 0
    for pid in pids:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def cpu(pids):
    """Seconds of CPU, of threads that live."""
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(read(f"/proc/{pid}/task/{task}/schedstat").split()[0])
        except (OSError, IndexError):
            pass
    return total / 1e9


def switches(pids):
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                lines = read(f"/proc/{pid}/task/{task}/status").splitlines()
                total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
        except OSError:
            pass
    return total


def written(pids):
    """Bytes of pages that were dirtied and belong to a disk."""
    total = 0
    for pid in pids:
        for line in read(f"/proc/{pid}/io").splitlines():
            if line.startswith("write_bytes:"):
                total += int(line.split()[1])
    return total


def log_size(it):
    """Bytes of the log files; one that rotation takes away meanwhile counts nothing."""
    total = 0
    for file in it.files():
        try:
            total += os.path.getsize(file)
        except OSError:
            pass
    return total


def pongs(it):
    """How many times each pid has answered a SIGUSR1, as far as it was logged."""
    found = collections.Counter()
    for file in it.files():
        found.update(int(line.split()[1]) for line in read(file).splitlines() if line.startswith("pong "))
    return found


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def disk(it):
    bytes_, how = it.size()
    return {"installed, MiB": round(bytes_ / 1048576, 2), "counted": how}


def memory(it):
    # Until it does not change any more: start-up is over, allocators have settled. hxe gives back what its start took a
    # second after it.
    time.sleep(1.5)
    before = -1
    for _ in range(10):
        time.sleep(0.5)
        found = pss(it.own())
        if abs(found - before) < 16:
            break
        before = found
    return {f"PSS, {it.count} programs, KiB": found, f"processes, {it.count} programs": len(it.own())}


def up(it):
    at = [when for when, _ in it.stamped()]
    return {f"until {it.count} run, ms": round((max(at) - it.began) / 1e6, 1)}


def restart(it):
    """Deaths of the programs, one after the other, each after more than a second, as many as there is time for."""
    took = []
    time.sleep(1.5)
    end = time.monotonic() + it.options.deaths_s
    for victim in it.programs():
        before = len(it.stamped())
        begin = time.monotonic_ns()
        os.kill(victim, signal.SIGKILL)
        if wait_for(lambda: len(it.stamped()) > before, 40, 0.001):
            took.append((it.stamped()[-1][0] - begin) / 1e6)
        if time.monotonic() > end:
            break
    if not took:
        raise Cannot("it restarted nothing in 40 s")
    return {"death to restart, ms, each": took}


def pour(it, size, seconds=30):
    """The log of one program that writes `size` bytes as fast as it can, measured until all is in files, or for so long."""
    begin = it.stamped()[0][0]
    own = it.own()
    seen, at, spent = -1, time.monotonic_ns(), 0
    quiet = 0
    ended = False
    # Nothing new in files for a second: it is over. What is done in the tenth of a second behind the last bytes belongs to
    # them, what comes later is what an idle supervisor does.
    while quiet < 100 and time.monotonic_ns() - begin < seconds * 1e9:
        time.sleep(0.01)
        now = log_size(it)
        ended = ended or len(it.stamped()) > 1
        if now != seen:
            seen, at, quiet = now, time.monotonic_ns(), 0
        elif ended:
            quiet += 1
        if quiet <= 10:
            spent = cpu(own)
    finish = max(at, it.stamped()[-1][0])
    name = "with times" if it.times else f"rotation {it.rotation}"
    if not ended:
        # What is in files by then is what it can do.
        return {
            f"log, {name}, MB/s": round(seen / (finish - begin) * 1e3, 1),
            f"log, {name}, CPU s/GB": round(spent / max(1, seen) * 1e9, 2),
        }
    for attempt in range(3):
        # Standard error has a file of its own in most, which is empty here.
        cat = subprocess.Popen(["cat", *it.files()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        text = subprocess.run([it.options.floor, "check"], stdin=cat.stdout, stdout=subprocess.PIPE, text=True).stdout
        cat.stdout.close()
        cat.wait()
        counted, gaps, last = map(int, text.split())
        if gaps == 0:
            break
        time.sleep(0.5)
    total = size // 100
    # What rotation deleted is not lost: only gaps are, and an end that is not there.
    lost = total - counted if it.rotation == "off" else gaps + (total - 1 - last)
    found = {
        f"log, {name}, MB/s": round(size / (finish - begin) * 1e3),
        f"log, {name}, CPU s/GB": round(spent / size * 1e9, 2),
        f"log, {name}, {'lines lost' if it.rotation == 'off' else 'gaps'}": lost,
    }
    if it.keeps_times and it.rotation == "off":
        found |= {title.replace(name, "with times"): value for title, value in found.items()}
    return found


def frame(text):
    """A masked text frame, of less than 64 KiB."""
    body = text.encode()
    head = bytes([0x81, 0x80 | len(body)]) if len(body) < 126 else b"\x81\xfe" + struct.pack(">H", len(body))
    return head + b"\0\0\0\0" + body


def attached(it):
    """A WebSocket and a follower of a log of hxe."""
    token = it.log_in()
    key = base64.b64encode(os.urandom(16)).decode()
    follower = socket.create_connection(it.address)
    follower.sendall(
        f"GET /api/program/p0/logs?follow=true HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    web = socket.create_connection(it.address)
    web.sendall(
        f"GET /api/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    for stream, sign in ((follower, b"200"), (web, b"101")):
        stream.settimeout(10)
        if sign not in stream.recv(4096)[:16]:
            raise Cannot("hxe refused a stream")
    web.sendall(frame(json.dumps({"type": "auth", "token": token})))
    if b"auth.ok" not in web.recv(4096):
        raise Cannot("hxe refused the token")
    return [follower, web]


def idle(its, seconds):
    """A time in which nothing happens, the same for all: what each of them uses is counted by itself. For each its figures."""
    time.sleep(5)
    every = [(it, it.own()) for it in its]
    before = [(switches(own), cpu(own), written(own)) for _, own in every]
    time.sleep(seconds)
    found = []
    for (it, own), begin in zip(every, before):
        after = switches(own), cpu(own), written(own)
        if not all(map(alive, own)):
            # What has ended took its counts along: that is no rest.
            found.append({})
            continue
        found.append({
            f"idle, switches in {seconds} s": after[0] - begin[0],
            f"idle, CPU ms in {seconds} s": round((after[1] - begin[1]) * 1000, 2),
            f"idle, bytes written in {seconds} s": after[2] - begin[2],
        })
    return found


def load(floor, port, request, connections, keeps, milliseconds):
    """Requests a second, p50 and p99 in microseconds, and how many were not answered 200."""
    head, _, body = request.partition("\r\n\r\n")
    whole = head + ("" if keeps else "\r\nConnection: close") + "\r\n\r\n" + body
    command = [floor, "load", str(port), str(connections), str(milliseconds), str(int(keeps))]
    text = subprocess.run(command, input=whole, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    answered, bad, p50, p99 = map(int, text.split())
    name = f"API, {connections} {'kept' if keeps else 'new'}"
    found = {f"{name}, req/s": round(answered * 1000 / milliseconds), f"{name}, p50 us": p50, f"{name}, p99 us": p99}
    if bad:
        found[f"{name}, not answered"] = bad
    return found


def loads(floor, port, request, milliseconds):
    found = {}
    for connections in (1, 8):
        for keeps in (True, False):
            found |= load(floor, port, request, connections, keeps, milliseconds)
    return found


def api(it):
    at = it.api()
    time.sleep(1)
    return loads(it.options.floor, at[0], at[1] + "\r\n\r\n" + (at[2] if len(at) > 2 else ""), it.options.load_ms)


def name_of(pid, it):
    """What a process of the supervisor is, as far as its command line tells, without this run's own paths."""
    words = [os.path.basename(word) for word in read(f"/proc/{pid}/cmdline").split("\0")[:2] if word]
    word = words[-1] if words and words[0].startswith(("python", "node")) and len(words) > 1 else (words or ["?"])[0]
    if it.name == "hxe":
        return "guardian" if pid == it.main_pid() else "daemon"
    return word[:24]


ROLES = {
    "runsv": ["what watches one program"], "s6-supervise": ["what watches one program"],
    "svlogd": ["what logs one program"], "s6-log": ["what logs one program"],
    # Of hxe, which has one for all of them.
    "daemon": ["what watches one program", "what logs one program"],
}


def killed(it):
    """SIGKILL of a process of each kind, the main one last; init brings nothing back here."""
    found = {}
    kinds = {}
    time.sleep(1)
    for pid in it.own():
        kinds.setdefault(name_of(pid, it), pid)
    main = it.main_pid()
    order = sorted(kinds.items(), key=lambda item: item[1] == main)
    for kind, pid in order:
        if not alive(pid):
            continue
        before, before_pongs = set(it.programs()), pongs(it)
        os.kill(pid, signal.SIGKILL)
        time.sleep(2)
        told = outcome(it, before, before_pongs)
        for role in ["its main process"] if pid == main else ROLES.get(kind, [kind]):
            found[f"SIGKILL of {role}"] = told
    return found


def respawned(it):
    """SIGKILL of the main process, which is started again a second later, as init does it."""
    time.sleep(1)
    before, before_pongs = set(it.programs()), pongs(it)
    os.kill(it.main_pid(), signal.SIGKILL)
    time.sleep(1)
    it.start_again()
    time.sleep(5)
    return {"SIGKILL of its main process, started again": outcome(it, before, before_pongs)}


def outcome(it, before, before_pongs):
    """What became of the programs of `before`, as text; each is made to say one line."""
    after = it.programs()
    for program in after:
        os.kill(program, signal.SIGUSR1)
    time.sleep(1)
    after_pongs = pongs(it)
    kept = {program for program in after if after_pongs[program] > before_pongs[program]}
    still = {program for program in after if alive(program)}
    told = [f"{len(before & still)} of {len(before)} run on"]
    if new := len(still - before):
        told.append(f"{new} started beside them" if before & set(after) else f"{new} started")
    if dead := len(set(after) - still):
        told.append(f"{dead} died at their next line")
    told.append(f"{len(kept)} logged" if not it.no_capture else "logs are their own")
    return ", ".join(told)


def leftovers(it):
    """Processes left after the supervisor was stopped as its manual says; each program left one behind, in a session of its own."""
    time.sleep(1)
    ends = ""
    try:
        it.stop()
    except subprocess.TimeoutExpired:
        ends = ", does not end itself"
    time.sleep(1)
    return {"left after a stop, of 20 processes": f"{len(it.programs())}{ends}"}


def full(it):
    """A log directory with room for 512 KiB, while a program writes 8 MB, 4 MB a second."""
    wait_for(lambda: len(it.stamped()) > 1, 5)
    done = len(it.stamped()) > 1
    still = alive(it.main_pid())
    os.unlink(it.logs / "ballast")
    # Its next run says something again.
    for program in it.programs():
        os.kill(program, signal.SIGKILL)
    begin = time.time_ns()
    again = wait_for(lambda: any(changed(file) > begin for file in it.files()), 8)
    return {
        "full disk": f"program {'goes on' if done else 'waits or died'}, supervisor {'lives' if still else 'died'},"
        f" {'logs' if again else 'does not log'} once there is room"
    }


def trickle(it):
    """What a megabyte of log lines, ten seconds long or slower, makes the supervisor write."""
    own = it.own()
    before, begin = written(own), sum(os.path.getsize(file) for file in all_files(it))
    seconds = 5
    time.sleep(seconds)
    rate = int(it.command[4])
    lines = rate * seconds / 100
    grew = sum(os.path.getsize(file) for file in all_files(it)) - begin
    return {
        f"flash, bytes dirtied a line at {rate} B/s": round((written(own) - before) / lines, 1),
        f"flash, size of files a line at {rate} B/s": round(grew / lines, 1),
    }


def all_files(it):
    return [os.path.join(at, name) for at, _, names in os.walk(it.logs) for name in names]


def flash(it):
    """Bytes that hxe writes for what it is told, and for a program that dies."""
    found = {}

    def measure(what, action):
        time.sleep(0.5)
        before = written(it.own())
        sizes = stored()
        action()
        time.sleep(1)
        changed = [path for path, kept in stored().items() if sizes.get(path) != kept]
        found[f"flash, bytes written, {what}"] = written(it.own()) - before
        found[f"flash, files changed, {what}"] = len(changed)

    def stored():
        paths = [os.path.join(at, name) for place in ("state", "log") for at, _, names in os.walk(it.dir / place) for name in names]
        return {path: (os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths if os.path.exists(path)}

    def crash():
        before = len(it.stamped())
        os.kill(it.programs()[0], signal.SIGKILL)
        wait_for(lambda: len(it.stamped()) > before)

    def define():
        it.ask("POST", "/api/program", {"name": "new", "command": "/bin/sleep", "args": "1000"})

    time.sleep(1.5)
    it.log_in()
    measure("nothing for a second", lambda: None)
    measure("a new definition", define)
    measure("a changed definition", lambda: it.ask("PUT", "/api/program/new", {"name": "new", "command": "/bin/sleep", "args": "999"}))
    measure("a start", lambda: it.ask("POST", "/api/program/new/start"))
    measure("a stop", lambda: it.ask("POST", "/api/program/new/stop"))
    measure("a crash (one line of log)", crash)
    return found


class Floor:
    """The physical floor, measured as the supervisors are, under the names that they have. For each measure that has one a
    method, which gives figures by column and name."""

    MEASURES = ("up", "restart", "pour", "api")

    def __init__(self, options, directory):
        self.options = options
        self.stamps = os.path.join(directory, "floor-stamps")
        self.log = os.path.join(directory, "floor-log")

    def helper(self, *arguments):
        open(self.stamps, "w").close()
        command = [self.options.floor, *arguments, self.stamps]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120).stdout.split()

    def up(self):
        took = [word for word in self.helper("spawn", "100") if word != "ready"][-1]
        return {"floor": {"until 100 run, ms": round(float(took), 1)}}

    def restart(self):
        took = [int(word) / 1e6 for word in self.helper("restart", "40") if word.isdigit()]
        return {"floor": {"death to restart, ms, each": took}}

    def pour(self):
        """The programs' own CPU is nobody's: what cat uses beside that is a supervisor's."""
        found = {}
        for column, command in (("> file", '"$0" lines "$1" "$2" 0 >"$3"'), ("cat > file", '"$0" lines "$1" "$2" 0 | cat >"$3"')):
            open(self.stamps, "w").close()
            arguments = [self.options.floor, self.stamps, str(self.options.megabytes * 1000000), self.log]
            shell = subprocess.Popen(["/bin/sh", "-c", command, *arguments], start_new_session=True)
            try:
                if not wait_for(lambda: read(self.stamps).count("\n") > 1, 60, 0.001):
                    raise Cannot("program > file did not end in a minute")
                at = [int(line.split()[0]) for line in read(self.stamps).splitlines()]
            finally:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
                os.unlink(self.log)
            found[column] = {"log, rotation off, MB/s": round(self.options.megabytes * 1e9 / (at[1] - at[0]))}
        return found

    def api(self):
        servers = {"C": [self.options.floor, "hello", "3500"]}
        if self.options.hello:
            servers["tiny_http"] = [self.options.hello, "3500"]
        found = {}
        for column, command in servers.items():
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                port = int(server.stdout.readline())
                request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
                found[column] = loads(self.options.floor, port, request, self.options.load_ms)
            finally:
                server.kill()
                server.wait()
                server.stdout.close()
        return found


def mount_full(it):
    """Makes the log directory one with room for 512 KiB; whether that could be done."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(it.logs)]
    if not shutil.which("mount") or subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        return False
    (it.logs / "ballast").write_bytes(b"x" * (7 << 19))
    return True
