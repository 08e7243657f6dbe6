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

from supervisors import alive, changed, read, wait_for


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
    # Until it does not change any more: start-up is over, allocators have settled.
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
    """Deaths of ten programs, one after the other, each after more than a second."""
    took = []
    time.sleep(1.5)
    for victim in it.programs():
        before = len(it.stamped())
        begin = time.monotonic_ns()
        os.kill(victim, signal.SIGKILL)
        if wait_for(lambda: len(it.stamped()) > before, 40, 0.001):
            took.append((it.stamped()[-1][0] - begin) / 1e6)
    if not took:
        return {"death to restart, ms": "none"}
    return {"death to restart, ms, each": took}


def pour(it, size):
    """The log of one program that writes `size` bytes as fast as it can, measured until all is in files."""
    begin = it.stamped()[0][0]
    own = it.own()
    seen, at, used = -1, time.monotonic_ns(), 0
    quiet = 0
    ended = False
    while quiet < 100:
        time.sleep(0.01)
        found, now = cpu(own), log_size(it)
        ended = ended or len(it.stamped()) > 1
        if now != seen or found - used > 0.002:
            seen, at, used, quiet = now, time.monotonic_ns(), found, 0
        elif ended:
            quiet += 1
        if time.monotonic_ns() - begin > 120e9:
            break
    seconds = (max(at, it.stamped()[-1][0]) - begin) / 1e9
    counted = 0
    for attempt in range(3):
        # Standard error has a file of its own in most, which is empty here.
        cat = subprocess.Popen(["cat", *it.files()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        text = subprocess.run([it.options.floor, "check"], stdin=cat.stdout, stdout=subprocess.PIPE, text=True).stdout
        cat.wait()
        counted, gaps, last = map(int, text.split())
        if gaps == 0:
            break
        time.sleep(0.5)
    total = size // 100
    # What rotation deleted is not lost: only gaps are, and an end that is not there.
    lost = total - counted if it.rotation == "off" else gaps + (total - 1 - last)
    name = f"rotation {it.rotation}"
    return {
        f"log, {name}, MB/s": round(size / seconds / 1e6),
        f"log, {name}, CPU s/GB": round(used / size * 1e9, 2),
        f"log, {name}, {'lines lost' if it.rotation == 'off' else 'gaps'}": lost,
    }


def frame(text):
    """A masked text frame, of less than 64 KiB."""
    body = text.encode()
    head = bytes([0x81, 0x80 | len(body)]) if len(body) < 126 else b"\x81\xfe" + struct.pack(">H", len(body))
    return head + b"\0\0\0\0" + body


def attached(it):
    """A WebSocket and a follower of a log, where the supervisor is hxe."""
    if it.name != "hxe":
        return []
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
            raise RuntimeError("hxe refused a stream")
    web.sendall(frame(json.dumps({"type": "auth", "token": token})))
    if b"auth.ok" not in web.recv(4096):
        raise RuntimeError("hxe refused the token")
    return [follower, web]


def idle(it):
    """A time in which nothing happens."""
    streams = attached(it)
    time.sleep(3)
    own = it.own()
    before = switches(own), cpu(own), written(own)
    time.sleep(it.options.idle_seconds)
    after = switches(own), cpu(own), written(own)
    for stream in streams:
        stream.close()
    span = f"in {it.options.idle_seconds} s"
    return {
        f"idle, switches {span}": after[0] - before[0],
        f"idle, CPU ms {span}": round((after[1] - before[1]) * 1000, 2),
        f"idle, bytes written {span}": after[2] - before[2],
    }


def load(floor, port, request, connections, keeps, milliseconds):
    """Requests a second, p50 and p99 in microseconds, and how many were not answered 200."""
    head, _, body = request.partition("\r\n\r\n")
    whole = head + ("" if keeps else "\r\nConnection: close") + "\r\n\r\n" + body
    command = [floor, "load", str(port), str(connections), str(milliseconds), str(int(keeps))]
    text = subprocess.run(command, input=whole, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    answered, bad, p50, p99 = map(int, text.split())
    name = f"API, {connections} {'kept' if keeps else 'new'}"
    found = {f"{name}, req/s": round(answered * 1000 / milliseconds), f"{name}, p50/p99 us": f"{p50}/{p99}"}
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
    if at is None:
        return {}
    time.sleep(1)
    return loads(it.options.floor, at[0], at[1] + "\r\n\r\n" + (at[2] if len(at) > 2 else ""), it.options.load_ms)


def name_of(pid, it):
    """What a process of the supervisor is, as far as its command line tells, without this run's own paths."""
    words = [os.path.basename(word) for word in read(f"/proc/{pid}/cmdline").split("\0")[:2] if word]
    word = words[-1] if words and words[0].startswith(("python", "node")) and len(words) > 1 else (words or ["?"])[0]
    if it.name == "hxe":
        return "guardian" if pid == it.main_pid() else "daemon"
    return word[:24]


def killed(it):
    """SIGKILL of a process of each kind, the main one last; init brings nothing back here."""
    found = {}
    kinds = {}
    time.sleep(1)
    for pid in it.own():
        kinds.setdefault(name_of(pid, it), pid)
    order = sorted(kinds.items(), key=lambda item: item[1] == it.main_pid())
    for kind, pid in order:
        if not alive(pid):
            continue
        before, before_pongs = set(it.programs()), pongs(it)
        os.kill(pid, signal.SIGKILL)
        time.sleep(3)
        after = it.programs()
        for program in after:
            os.kill(program, signal.SIGUSR1)
        time.sleep(1)
        after_pongs = pongs(it)
        kept = {program for program in after if after_pongs[program] > before_pongs[program]}
        still = [program for program in after if alive(program)]
        found[f"SIGKILL of {'it' if pid == it.main_pid() else kind}"] = (
            f"{kind}: {len(before & set(still))}/{len(before)} run on, {len(set(still) - before)} new,"
            f" {len(set(after)) - len(still)} die at their next line, {len(kept)} logged"
        )
    return found


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
    if it.name != "hxe":
        return {}
    found = {}

    def measure(what, action):
        time.sleep(0.5)
        before = written(it.own())
        sizes = stored()
        action()
        time.sleep(1)
        changed = [path for path, kept in stored().items() if sizes.get(path) != kept]
        found[f"flash, {what}"] = f"{written(it.own()) - before} B, {len(changed)} files"

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


def floors(options, directory):
    """The physical floor, measured as the supervisors are, under the name it has in the table."""
    found = {}
    stamps = os.path.join(directory, "floor-stamps")

    def helper(*arguments):
        open(stamps, "w").close()
        return subprocess.run([options.floor, *arguments], stdout=subprocess.PIPE, text=True, timeout=120).stdout.split()

    wanted = options.measure.split(",")
    if "up" in wanted:
        found["until 100 run, ms"] = round(float([word for word in helper("spawn", "100", stamps) if word != "ready"][-1]), 1)
    if "restart" in wanted:
        took = [int(word) / 1e6 for word in helper("restart", "20", stamps) if word.isdigit()]
        found["death to restart, ms, each"] = took
    if "pour" in wanted:
        for name, command in (("file", '"$0" lines "$1" "$2" 0 >"$3"'), ("cat", '"$0" lines "$1" "$2" 0 | cat >"$3"')):
            open(stamps, "w").close()
            target = os.path.join(directory, "floor-log")
            shell = subprocess.Popen(
                ["/bin/sh", "-c", command, options.floor, stamps, str(options.megabytes * 1000000), target],
                start_new_session=True,
            )
            wait_for(lambda: read(stamps).count("\n") > 1, 120, 0.001)
            at = [int(line.split()[0]) for line in read(stamps).splitlines()]
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            os.unlink(target)
            found[f"log, program {'> file' if name == 'file' else 'through cat > file'}, MB/s"] = round(
                options.megabytes * 1e9 / (at[1] - at[0])
            )
    if "api" in wanted:
        server = subprocess.Popen([options.floor, "hello", "3500"], stdout=subprocess.PIPE, text=True)
        port = int(server.stdout.readline())
        found |= loads(options.floor, port, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", options.load_ms)
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
