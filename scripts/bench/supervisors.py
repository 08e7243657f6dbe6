"""The supervisors that peers.py measures, each as its manual would have it set up."""

import functools
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from daemon import ask

API_PASSWORD = "password"


class Cannot(Exception):
    """A supervisor cannot do what is to be measured, or cannot be had. The reason is for the table."""


def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent(pid):
    try:
        return int(read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[1])
    except (IndexError, ValueError):
        return 0


def alive(pid):
    state = read(f"/proc/{pid}/stat").rsplit(")", 1)
    return len(state) > 1 and state[1].split()[0] not in "ZX"


def wait_for(condition, seconds=60, pause=0.01):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def changed(path):
    """When a file was last written; 0 for one that is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree_size(*places):
    """Bytes of the files below `places`, without what Python compiles by itself."""
    total = 0
    for place in places:
        for directory, _, names in os.walk(place):
            if not directory.endswith("__pycache__"):
                files = (os.path.join(directory, name) for name in names)
                total += sum(os.lstat(file).st_size for file in files)
    return total


@functools.cache
def closure(*names):
    """Debian packages to be installed where there is none at all, as apt-get says it."""
    command = ["apt-get", "-s", "-o", "Dir::State::status=/dev/null", "--no-install-recommends", "install", *names]
    text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60).stdout
    return {line.split()[1].split(":")[0] for line in text.splitlines() if line.startswith("Inst ")}


def packages(*names):
    """Bytes of Debian packages with all that they depend on, but for what every Debian has: none is recommended only."""
    query = ["dpkg-query", "-W", "-f", "${Package} ${Priority}\n"]
    text = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60).stdout
    everywhere = closure(*(line.split()[0] for line in text.splitlines() if line.endswith(" required")))
    found = closure(*names) - everywhere
    if not everywhere or not found:
        raise Cannot(f"apt-get does not say how large {' and '.join(names)} would be")
    command = ["apt-cache", "show", "--no-all-versions", *found]
    text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60).stdout
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Installed-Size:"))


def libraries(binary):
    """Bytes of the shared libraries that a binary needs beyond libc."""
    found = subprocess.run(["ldd", binary], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    paths = [line.split("=>")[1].split()[0] for line in found.splitlines() if "=> /" in line]
    return sum(os.path.getsize(os.path.realpath(path)) for path in paths if "/libc.so" not in path)


class Supervisor:
    """One that runs `count` programs, `command` each, with their output in files below `self.logs`.

    `rotation` is "default", or "off" for log files that grow without end; `times` is whether lines are to get times."""

    name = ""
    binaries = ()
    # Reasons why something cannot be measured; "" where it can.
    no_capture = ""
    no_rotation = ""
    no_times = ""
    no_api = ""
    # Whether lines always get times.
    keeps_times = False
    # What a reader must know to judge its figures.
    remark = ""

    def __init__(self, directory, options, count=10, what=("program",), rotation="default", times=False, restful=False):
        self.dir = pathlib.Path(directory)
        self.options = options
        self.count = count
        self.rotation = rotation
        self.times = times
        # To be measured while it has nothing to do: where rest and speed exclude each other, rest.
        self.restful = restful
        self.main = None
        self.logs = self.dir / "log"
        self.logs.mkdir(mode=0o755, exist_ok=True)
        self.stamps = self.dir / "stamps"
        self.stamps.touch()
        self.stamps.chmod(0o666)
        self.command = [str(options.floor), what[0], str(self.stamps), *what[1:]]
        self.began = 0
        # For what a real machine has in memory: what is written there is not written to flash.
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="peers-run-", dir="/dev/shm" if os.path.ismount("/dev/shm") else directory))
        self.run.chmod(0o711)

    @classmethod
    def find(cls, binary, tools):
        return shutil.which(binary)

    @classmethod
    def lacks(cls, options):
        """Binaries that it needs and that are not there, as text."""
        return ", ".join(binary for binary in cls.binaries if not cls.find(binary, options.tools))

    def binary(self, name):
        return self.find(name, self.options.tools)

    def spawn(self, *command, **environment):
        with open(self.dir / "supervisor.log", "ab") as log:
            self.spawned = command, environment
            self.began = time.monotonic_ns()
            self.main = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.dir,
                env=os.environ | environment,
            )

    def start(self):
        raise NotImplementedError

    def start_again(self):
        """What init does when it has died."""
        command, environment = self.spawned
        self.spawn(*command, **environment)

    def stop(self):
        """Ends the supervisor and its programs as its manual says."""
        self.main.send_signal(signal.SIGTERM)
        self.main.wait(20)

    def size(self):
        """Bytes to be installed, and how they are counted."""
        raise NotImplementedError

    def api(self):
        """Port and request that lists all programs."""
        raise Cannot(self.no_api)

    def main_pid(self):
        return self.main.pid

    def stamped(self):
        """(nanoseconds, pid) of each start, in order of time."""
        return sorted(tuple(map(int, line.split())) for line in read(self.stamps).splitlines() if line.count(" ") == 1)

    def programs(self):
        """Pids of the programs that run."""
        mark = str(self.stamps)
        return [pid for pid in {pid for _, pid in self.stamped()} if alive(pid) and mark in read(f"/proc/{pid}/cmdline")]

    def own(self):
        """Pids of the supervisor: what descends from its main process, but for the programs."""
        programs = set(self.programs())
        children = {}
        for pid in pids():
            children.setdefault(parent(pid), []).append(pid)
        found, todo = [], [self.main_pid()]
        while todo:
            pid = todo.pop()
            if pid not in programs and alive(pid):
                found.append(pid)
                todo += children.get(pid, [])
        return found

    def ready(self, seconds=90):
        expected = self.count * (2 if self.command[1] == "fork" else 1)
        wait_for(lambda: read(self.stamps).count("\n") >= expected or self.has_failed(), seconds)
        return read(self.stamps).count("\n") >= expected

    def has_failed(self):
        """Whether it has ended instead of supervising."""
        return self.main.poll() is not None

    def files(self):
        """Log files of programs, those rotated first."""
        found = [file for file in glob.glob(str(self.logs / "**"), recursive=True) if os.path.isfile(file)]
        return sorted((file for file in found if self.is_log(os.path.basename(file))), key=changed)

    def is_log(self, name):
        return True

    def around(self):
        """Pids of all that has to do with this run, by directory or argument: also what lost its supervisor."""
        found = []
        for pid in pids():
            try:
                about = os.readlink(f"/proc/{pid}/cwd") + read(f"/proc/{pid}/cmdline")
            except OSError:
                continue
            if str(self.dir) in about or str(self.run) in about:
                found.append(pid)
        return [pid for pid in found if pid != os.getpid()]

    def clean(self):
        # Again until nothing is respawned.
        end = time.monotonic() + 60
        while (left := [pid for pid in self.around() if alive(pid)]) and time.monotonic() < end:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        if self.main:
            self.main.kill()
            self.main.wait(60)
        shutil.rmtree(self.run, ignore_errors=True)


class Hxe(Supervisor):
    name = "hxe"
    remark = "its API and its guardian are part of all figures"
    keeps_times = True
    token = ""
    address = ("", 0)

    def start(self):
        config = self.dir / "hxe.toml"
        declared = self.dir / "programs.d"
        declared.mkdir()
        size = '"1GiB"' if self.rotation == "off" else '"1MiB"'
        config.write_text(
            '[api]\nlisten = "127.0.0.1:0"\nrate_limit = 0\n[storage]\n'
            + f'state_dir = "{self.dir}/state"\nrun_dir = "{self.run}"\nlog_dir = "{self.logs}"\n'
            + f'[logs]\nmax_size = {size}\n[programs]\ninclude = "{declared}/*.toml"\n'
        )
        self.logs.chmod(0o750)
        for number in range(self.count):
            (declared / f"p{number}.toml").write_text(
                f'[program]\nname = "p{number}"\ncommand = "{self.command[0]}"\nargs = "{" ".join(self.command[1:])}"\n'
                f'directory = "/"\nauto_restart = true\nenabled = true\n'
            )
        self.spawn(self.options.hxe, "daemon", "--config", str(config))
        log = self.dir / "supervisor.log"
        mark = "listening on http://"
        if not wait_for(lambda: mark in read(log)):
            raise RuntimeError(read(log))
        host, port = read(log).split(mark)[1].split()[0].rstrip("/").rsplit(":", 1)
        self.address = (host, int(port))

    def log_in(self):
        login = {"username": "admin", "password": API_PASSWORD}
        self.token = self.token or ask(self.address, "", "POST", "/api/auth/login", login)["token"]
        return self.token

    def ask(self, method, path, body=None):
        return ask(self.address, self.log_in(), method, path, body)

    def api(self):
        return self.address[1], "GET /api/program HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + self.log_in()

    def is_log(self, name):
        return name.startswith(("stdout.log", "stderr.log"))

    def size(self):
        return os.path.getsize(self.options.hxe) + libraries(self.options.hxe), "binary, libraries beyond libc"


class Supervisord(Supervisor):
    name = "supervisord"
    binaries = ("supervisord",)
    no_times = "it has no times for lines"
    remark = "looks for deaths once a second, and answers a kept connection by two packets, of which the second waits 44 ms"

    @classmethod
    def find(cls, binary, tools):
        own = tools / "supervisor/usr/bin" / binary
        return str(own) if own.exists() else shutil.which(binary, path="/usr/bin")

    def modules(self):
        own = self.options.tools / "supervisor/usr/lib/python3/dist-packages"
        return own if own.exists() else pathlib.Path("/usr/lib/python3/dist-packages")

    def start(self):
        self.port = free_port()
        config = self.dir / "supervisord.conf"
        text = (
            f"[supervisord]\nnodaemon=true\nuser=root\nminfds=4096\nlogfile={self.dir}/s.log\npidfile={self.dir}/s.pid\n"
            f"[inet_http_server]\nport=127.0.0.1:{self.port}\n[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        )
        if self.count:
            text += (
                f"[program:p]\ncommand={' '.join(self.command)}\nnumprocs={self.count}\nautorestart=true\n"
                f"process_name=%(process_num)d\nstdout_logfile={self.logs}/out%(process_num)d.log\n"
                f"stderr_logfile={self.logs}/err%(process_num)d.log\n"
            )
            if self.rotation == "off":
                text += "stdout_logfile_maxbytes=0\n"
        config.write_text(text)
        program = self.binary("supervisord")
        self.spawn("/usr/bin/python3", program, "-c", str(config), PYTHONPATH=str(self.modules()))

    def api(self):
        call = "<?xml version='1.0'?><methodCall><methodName>supervisor.getAllProcessInfo</methodName><params/></methodCall>"
        head = f"POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: {len(call)}"
        return self.port, head, call

    def size(self):
        return packages("supervisor"), "the package, Python, libraries"


class Scan(Supervisor):
    """A directory with a directory a program, and another below it for its logger; each logged program has two processes
    of theirs beside it, three with s6."""

    no_api = "no HTTP: it is asked by files and FIFOs"

    def start(self):
        scan = self.run / "scan"
        scan.mkdir()
        for number in range(self.count):
            service = scan / f"p{number}"
            (service / "log").mkdir(parents=True)
            log = self.logs / f"p{number}"
            log.mkdir()
            self.script(service / "run", "exec " + " ".join(self.command))
            self.script(service / "log" / "run", "exec " + self.logger(log))
        self.spawn(*self.scanner(), str(scan))

    def script(self, path, text):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def is_log(self, name):
        return name == "current" or name.startswith("@")


class Runit(Scan):
    name = "runit"
    binaries = ("runsvdir", "runsv", "sv", "svlogd")

    def scanner(self):
        return ("runsvdir",)

    def logger(self, log):
        if self.rotation == "off":
            (log / "config").write_text("s0\n")
        return f"svlogd {'-t ' if self.times else ''}{log}"

    def stop(self):
        self.main.send_signal(signal.SIGHUP)
        self.main.wait(20)

    def size(self):
        return packages("runit"), "the package and its scripts"


class S6(Scan):
    """The issue's table and earlier runs counted execline, which the package only recommends: 0.8 MiB more."""

    name = "s6"
    remark = "waits a second before a restart, unless the program itself has said that it is ready, which ours do not"
    binaries = ("s6-svscan", "s6-supervise", "s6-svc", "s6-svstat", "s6-log")

    def scanner(self):
        return "s6-svscan", "-c", "2000"

    def logger(self, log):
        return f"s6-log {'t ' if self.times else ''}{'s268435455 ' if self.rotation == 'off' else ''}{log}"

    def size(self):
        return packages("s6"), "the package, libraries"


class Monit(Supervisor):
    """It starts programs by a shell and knows them by files with their pids; their output is theirs to keep."""

    name = "monit"
    binaries = ("monit",)
    no_capture = "it captures no output: programs write to files of their own"
    remark = "looks once a second, the shortest that it can; for the idle figures once in 30 seconds, as its manual has it"

    @classmethod
    def find(cls, binary, tools):
        own = tools / "monit/usr/bin" / binary
        return str(own) if own.exists() else shutil.which(binary)

    def start(self):
        self.port = free_port()
        config = self.dir / "monitrc"
        text = (
            f"set daemon {30 if self.restful else 1}\nset log {self.dir}/monit.log\nset pidfile {self.dir}/monit.pid\nset idfile {self.dir}/id\n"
            f"set statefile {self.dir}/state\nset httpd port {self.port} and use address 127.0.0.1 allow localhost\n"
        )
        for number in range(self.count):
            pid = self.dir / f"p{number}.pid"
            run = f"{' '.join(self.command)} >{self.logs}/p{number} 2>&1 & echo $! >{pid}"
            if self.restful:
                # It waits for each until it runs, which for 500 takes minutes. What it finds running, it takes up.
                subprocess.run(["/bin/sh", "-c", run], cwd=self.dir, check=True, start_new_session=True)
            text += (
                f"check process p{number} with pidfile {pid}\n  start program = \"/bin/sh -c '{run}'\"\n"
                f"  stop program = \"/bin/sh -c 'kill $(cat {pid})'\"\n"
            )
        config.write_text(text)
        config.chmod(0o600)
        self.spawn(self.binary("monit"), "-I", "-c", str(config))

    def api(self):
        return self.port, "GET /_status?format=xml HTTP/1.1\r\nHost: localhost"

    def stop(self):
        subprocess.run([self.binary("monit"), "-c", str(self.dir / "monitrc"), "stop", "all"], stdout=subprocess.DEVNULL, timeout=30)
        wait_for(lambda: len(self.programs()) <= self.count, 30)
        super().stop()

    def size(self):
        return packages("monit"), "the package, libraries"


class Circus(Supervisor):
    name = "circus"
    binaries = ("circusd",)
    no_rotation = "it rotates only where it is told a size"
    no_times = "its times are those of chunks, not of lines"
    no_api = "no HTTP: it is asked over ZeroMQ"
    remark = "looks for deaths each check_delay, which is 5 seconds unless told otherwise"

    @classmethod
    def find(cls, binary, tools):
        own = tools / "circus/bin" / binary
        return str(own) if own.exists() else None

    def start(self):
        config = self.dir / "circus.ini"
        # With stats_endpoint it would start a process more, for figures that nobody reads here.
        text = "[circus]\n" + "".join(f"{key} = tcp://127.0.0.1:{free_port()}\n" for key in ("endpoint", "pubsub_endpoint"))
        for number in range(self.count):
            text += f"[watcher:p{number}]\ncmd = {' '.join(self.command)}\nnumprocesses = 1\n"
            for stream in ("stdout", "stderr"):
                text += f"{stream}_stream.class = FileStream\n{stream}_stream.filename = {self.logs}/p{number}.{stream}\n"
        config.write_text(text)
        self.spawn(self.binary("circusd"), str(config))

    def size(self):
        modules = [place for place in glob.glob(str(self.options.tools / "circus/lib/python*/site-packages/*"))
                   if os.path.basename(place).split("-")[0] not in ("pip", "setuptools", "pkg_resources")]
        return tree_size(*modules) + packages("python3"), "its modules, Python, libraries"


class Pm2(Supervisor):
    name = "pm2"
    binaries = ("pm2", "node")
    no_rotation = "it rotates only with a module"
    no_times = "its times are those of chunks, not of lines"
    no_api = "no HTTP but for a page that is off by default"
    remark = "figures are of its God daemon; the command that starts it has ended by then"

    @classmethod
    def find(cls, binary, tools):
        own = tools / "pm2/node_modules/.bin" / binary
        return str(own) if own.exists() else shutil.which(binary) if binary == "node" else None

    def start(self):
        apps = [
            {"name": f"p{number}", "script": self.command[0], "args": self.command[1:], "interpreter": "none",
             "exec_mode": "fork", "out_file": f"{self.logs}/p{number}.out", "error_file": f"{self.logs}/p{number}.err"}
            for number in range(self.count)
        ]
        config = self.dir / "ecosystem.config.json"
        config.write_text(json.dumps({"apps": apps}))
        command = ["start", str(config)] if apps else ["ping"]
        self.spawn(self.binary("node"), self.binary("pm2"), *command, **self.environment())
        wait_for(lambda: read(self.dir / "home/pm2.pid").strip())

    def environment(self):
        # Without the version check it asks nobody on the network.
        return {"PM2_HOME": str(self.dir / "home"), "PM2_DISABLE_VERSION_CHECK": "true"}

    def main_pid(self):
        return int(read(self.dir / "home/pm2.pid") or 0)

    def has_failed(self):
        return bool(self.main.poll())

    def stop(self):
        environment = os.environ | self.environment()
        subprocess.run([self.binary("node"), self.binary("pm2"), "kill"], env=environment, stdout=subprocess.DEVNULL, timeout=90)

    def size(self):
        # Not the package: that of some sources has headers and npm, too.
        node = os.path.realpath(self.binary("node"))
        return tree_size(self.options.tools / "pm2") + os.path.getsize(node) + libraries(node), "its modules, node, libraries"


SUPERVISORS = [Hxe, Runit, S6, Supervisord, Monit, Circus, Pm2]
