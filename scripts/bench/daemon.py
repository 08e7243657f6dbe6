"""A daemon to be measured, in a directory of its own on 127.0.0.1."""

import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile

PASSWORD = "correct horse"
TICKS = os.sysconf("SC_CLK_TCK")


def ask(address, token, method, path, body=None):
    """What hxe at `address` answers, as JSON; what is not a success ends this process."""
    client = http.client.HTTPConnection(*address, timeout=30)
    client.request(method, path, json.dumps(body) if body is not None else None, {"Authorization": "Bearer " + token})
    answer = client.getresponse()
    text = answer.read()
    client.close()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {text!r}")
    return json.loads(text)


class Daemon:
    """A running daemon with the defaults, but without a rate limit. `keys` are of [api], as TOML has them, `logs` is
    what is in [logs]."""

    def __init__(self, binary, keys={}, files=0, logs=""):
        self.home = tempfile.mkdtemp(prefix="hxe-bench-")
        os.chmod(self.home, 0o755)
        path = lambda name: json.dumps(os.path.join(self.home, name))
        api = {"listen": '"127.0.0.1:0"', "rate_limit": "0", "password": json.dumps(PASSWORD)} | keys
        if "password_hash" in api:
            del api["password"]
        with open(os.path.join(self.home, "hxe.toml"), "w") as config:
            config.write("[api]\n" + "".join(f"{key} = {value}\n" for key, value in api.items()))
            config.write(f"[storage]\nstate_dir = {path('state')}\nrun_dir = {path('run')}\nlog_dir = {path('log')}\n")
            config.write(f"[logs]\n{logs}")
            # Not what is installed on the machine.
            config.write(f"[programs]\ninclude = {path('programs.d/*.toml')}\n")

        self.binary = binary
        self.files = files
        self.start()

    def start(self):
        def limit():
            if self.files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))

        self.said = open(os.path.join(self.home, "said"), "w+")
        self.process = subprocess.Popen(
            [self.binary, "daemon", "--config", os.path.join(self.home, "hxe.toml")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.said,
            preexec_fn=limit,
        )
        line = self.process.stdout.readline().decode()
        if "listening" not in line:
            self.said.seek(0)
            raise SystemExit(f"the daemon did not start: {self.said.read()}")
        port = int(line.rsplit(":", 1)[1].strip().rstrip("/"))
        self.address = ("127.0.0.1", port)
        self.token = ""
        self.token = self.ask("POST", "/api/auth/login", {"username": "admin", "password": PASSWORD})["token"]
        # The process that serves is the only child of the guardian that is one of its own.
        children = read(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split()
        self.pid = next(int(pid) for pid in children if "--guarded" in read(f"/proc/{pid}/cmdline").split("\0"))

    def ask(self, method, path, body=None):
        return ask(self.address, self.token, method, path, body)

    def figures(self):
        """Of the process that serves: resident memory in kB, threads, open descriptors."""
        lines = dict(line.split(":", 1) for line in read(f"/proc/{self.pid}/status").splitlines())
        files = len(os.listdir(f"/proc/{self.pid}/fd"))
        return int(lines["VmRSS"].split()[0]), int(lines["Threads"]), files

    def cpu(self):
        """Seconds of CPU that hxe has used so far, its guardian too."""
        used = 0
        for pid in (self.pid, self.process.pid):
            fields = read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
            used += int(fields[11]) + int(fields[12])
        return used / TICKS

    def stop(self):
        """Ends it, and leaves its directory; whether it was alive."""
        alive = self.process.poll() is None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.said.close()
        return alive

    def end(self):
        """Ends it for good; whether it was alive."""
        alive = self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        return alive


def read(path):
    with open(path) as file:
        return file.read()
