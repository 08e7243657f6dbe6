"""The service under test: starting it, its processes, asking it."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time

PASSWORD = "correct horse"
# How long anything may take that must happen, on a machine that is busy.
PATIENCE = 30


class Unanswered(Exception):
    """The connection ended without an answer: nobody knows what became of the request."""


class Service:
    """An hxe in a directory of its own."""

    def __init__(self, home, binary):
        self.home = home
        self.binary = os.path.join(home, "hxe")
        # Which may be built anew meanwhile.
        self.original = shutil.copy(binary, os.path.join(home, "original"))
        self.replace_binary()
        self.process = None
        self.port = None
        self.token = None
        # While it is away because its guardian is: requests may be refused then.
        self.absent = threading.Event()
        self.absent.set()
        # How many have been started so far.
        self.guardians = 0
        # What was done to it when a request was refused that should not have been.
        self.doing = ""
        self.refused = []
        self.slowest = 0.0
        self.output = open(os.path.join(home, "output"), "ab")

    def path(self, name):
        return os.path.join(self.home, name)

    def configure(self, limits):
        text = f"""[api]
listen = "127.0.0.1:{limits['port']}"
rate_limit = 0
password = "{PASSWORD}"
[logs]
max_size = "4MiB"
max_files = 6
on_full = "block"
[storage]
state_dir = "{self.path('state')}"
run_dir = "{self.path('run')}"
log_dir = "{self.path('log')}"
"""
        with open(self.path("hxe.toml"), "w") as file:
            file.write(text)
        self.port = limits["port"]

    def replace_binary(self):
        """Puts a new copy where the binary is, at once, as a package manager does."""
        shutil.copy(self.original, self.binary + ".new")
        os.chmod(self.binary + ".new", 0o755)
        os.rename(self.binary + ".new", self.binary)

    def start(self):
        """Starts it and waits until it answers; gives how long that took."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [self.binary, "daemon", "--config", self.path("hxe.toml")],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output, cwd="/", start_new_session=True,
        )
        while True:
            code = self.process.poll()
            if code is not None:
                raise AssertionError(f"the service refused to start: exit code {code}:\n{self.last_said()}")
            try:
                self.call("GET", "/api/program?limit=1", counts=False)
                break
            except (Unanswered, ConnectionRefusedError):
                if time.monotonic() - began > PATIENCE:
                    raise AssertionError("the service did not answer in time") from None
                time.sleep(0.005)
        self.guardians += 1
        self.absent.clear()
        return time.monotonic() - began

    def last_said(self):
        with open(self.path("output"), errors="replace") as file:
            return "".join(file.readlines()[-8:])

    def daemon(self):
        """The pid of the daemon; None while there is none."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            children = [int(pid) for pid in file.read().split()]
        for pid in children:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if b"--guarded" in file.read().split(b"\0"):
                        return pid
            except OSError:
                pass
        return None

    def kill_daemon(self):
        pid = self.daemon()
        if pid is not None:
            kill(pid)
        began = time.monotonic()
        self.call("GET", "/api/program?limit=1")
        return time.monotonic() - began

    def kill_guardian(self, and_daemon):
        self.absent.set()
        pid = self.daemon() if and_daemon else None
        self.process.kill()
        if pid is not None:
            kill(pid)
        self.process.wait()

    def end(self, number):
        """Asks it to end; gives its exit code."""
        self.absent.set()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def call(self, method, path, body=None, counts=True):
        """Asks, and gives status and JSON. Logs in first, once: the token must stay good."""
        if self.token is None and path != "/api/auth/login":
            self.login()
        began = time.monotonic()
        before = (self.guardians, self.absent.is_set())
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            if counts and before == (self.guardians, False) and not self.absent.is_set():
                self.refused.append(f"{method} {path} ({self.doing})")
            raise
        except TimeoutError:
            raise AssertionError(f"{method} {path} was not answered within {PATIENCE} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(str(error)) from None
        finally:
            connection.close()
        if counts and method == "GET":
            self.slowest = max(self.slowest, time.monotonic() - began)
        if answer.status == 401:
            raise AssertionError("a token that was good is so no longer")
        return answer.status, json.loads(text)

    def login(self):
        status, answer = self.call("POST", "/api/auth/login", {"username": "admin", "password": PASSWORD})
        assert status == 200, answer
        self.token = answer["token"]

    def read(self, path):
        """A GET that is answered at last, whatever happens meanwhile."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                status, answer = self.call("GET", path)
                if status < 500:
                    return status, answer
            except (Unanswered, ConnectionRefusedError):
                pass
            if time.monotonic() > end:
                raise AssertionError(f"GET {path} was not answered in time")
            time.sleep(0.01)


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
