"""Changes through the API, with what was acknowledged remembered, and compared with what is there."""

import collections
import glob
import os
import threading
import time

from lines import Count
from service import PATIENCE, Unanswered

# Programs that are made and removed all the time.
NAMES = [f"change-{number}" for number in range(5)]


class Program:
    """A program as it was acknowledged."""

    def __init__(self, identity, writer, description):
        self.id = identity
        self.writer = writer
        self.description = description
        self.enabled = False
        self.up = False


class Changes:
    """The programs of a service by name, those that only run and those that change."""

    def __init__(self, service, random, definition):
        self.service = service
        self.random = random
        self.definition = definition
        self.programs = {}
        self.counts = {}
        # Programs that end by themselves: name -> (id, code, guardians when it was started, when it has ended).
        self.quitters = {}
        self.lock = threading.RLock()
        self.serial = 0
        self.lost = []
        self.acknowledged = collections.Counter()

    def count(self, program):
        directory = self.service.path(f"log/{program.id}")
        self.counts[program.writer] = Count(program.writer, directory, self.service.path("scratch"))

    def step(self):
        """One change, whatever the service is going through."""
        name = self.random.choice(NAMES)
        program = self.programs.get(name)
        if program is None:
            if self.random.random() < 0.3:
                return self.start_quitter()
            return self.create(name, 40, 0.02)
        kinds = ["update"] * 2 + ["delete", "switch"] + ["stop" if program.up else "start"] * 3 + ["restart"]
        getattr(self, self.random.choice(kinds))(name, program)

    def ask(self, method, path, body=None):
        """The status and the answer; None where nobody knows whether it was done."""
        try:
            status, answer = self.service.call(method, path, body)
        except (Unanswered, ConnectionRefusedError):
            return None, None
        if status == 507 or status < 500:
            self.acknowledged[status] += 1
            return status, answer
        self.acknowledged[status] += 1
        return None, answer

    def listed(self):
        status, programs = self.service.read("/api/program?limit=1000")
        assert status == 200, programs
        return {program["name"]: program for program in programs}

    def create(self, name, burst, pause, **more):
        self.serial += 1
        writer = f"w{self.serial}"
        body = self.definition(name, writer, burst, pause) | more
        status, answer = self.ask("POST", "/api/program", body)
        if status is None:
            answer = self.listed().get(name)
            status = 201 if answer else 0
        if status == 201:
            program = Program(answer["id"], writer, body["description"])
            program.enabled = body.get("enabled", False)
            self.programs[name] = program
            self.count(program)
        elif status not in (0, 507):
            self.lost.append(f"create {name}: {status} {answer}")
        return status == 201

    def update(self, name, program):
        self.serial += 1
        description = f"version {self.serial}"
        body = self.definition(name, program.writer, 40, 0.02, description) | {"enabled": program.enabled}
        status, answer = self.ask("PUT", f"/api/program/{program.id}", body)
        if status is None:
            found = self.listed().get(name)
            if found and found["description"] in (program.description, description):
                program.description = found["description"]
        elif status == 200:
            program.description = description
        elif status != 507:
            self.lost.append(f"update {name}: {status} {answer}")

    def switch(self, name, program):
        word = "disable" if program.enabled else "enable"
        status, answer = self.ask("POST", f"/api/program/{program.id}/{word}")
        if status is None:
            found = self.listed().get(name)
            program.enabled = found["enabled"] if found else program.enabled
        elif status == 200:
            program.enabled = not program.enabled
        elif status != 507:
            self.lost.append(f"{word} {name}: {status} {answer}")

    def delete(self, name, program):
        status, answer = self.ask("DELETE", f"/api/program/{program.id}")
        if status is None or status == 507:
            found = self.listed().get(name)
            if found:
                # It may have been stopped already, or be about to be.
                return self.stop(name, program)
            if status == 507:
                self.lost.append(f"delete {name}: refused, and done")
        elif status not in (200, 204):
            self.lost.append(f"delete {name}: {status} {answer}")
            return
        del self.programs[name]
        self.forget(program.writer)

    def forget(self, writer):
        self.counts.pop(writer, None)
        for path in glob.glob(self.service.path(f"scratch/{writer}.*")):
            os.unlink(path)

    def start(self, name, program):
        self.until_acknowledged(name, program, "start")
        program.up = True

    def restart(self, name, program):
        self.until_acknowledged(name, program, "restart")
        program.up = True

    def stop(self, name, program):
        self.until_acknowledged(name, program, "stop")
        program.up = False

    def until_acknowledged(self, name, program, word):
        end = time.monotonic() + PATIENCE
        while True:
            status, answer = self.ask("POST", f"/api/program/{program.id}/{word}")
            if status == 200 or (status == 400 and answer["error"] == "invalid_state"):
                return
            if status not in (None, 507) or time.monotonic() > end:
                self.lost.append(f"{word} {name}: {status} {answer}")
                return
            time.sleep(0.02)

    def start_quitter(self):
        self.serial += 1
        name, code, after = f"quits-{self.serial}", self.random.randint(1, 200), self.random.random() * 2
        body = self.definition(name, name, "quit", f"{code} {after}") | {"auto_restart": False}
        status, answer = self.ask("POST", "/api/program", body)
        if status is None:
            answer = self.listed().get(name)
        if not answer or "id" not in answer:
            return
        guardians = self.service.guardians
        self.until_acknowledged(name, Program(answer["id"], name, ""), "start")
        self.quitters[name] = (answer["id"], code, guardians, time.monotonic() + after)

    def look_after_quitters(self, all_of_them):
        """Those that must have ended: is that known, and how, and are their last words kept?"""
        for name, (identity, code, guardians, ends) in list(self.quitters.items()):
            if time.monotonic() < ends + 0.5 and not all_of_them:
                continue
            del self.quitters[name]
            found = wait_for(lambda: self.service.read(f"/api/program/{identity}")[1],
                             lambda found: found.get("state") == "failed")
            if found.get("state") != "failed":
                self.lost.append(f"the end of {name}: {found}")
            elif found["exit_code"] != code and (found["exit_code"] is not None or guardians == self.service.guardians):
                self.lost.append(f"exit code {code} of {name}: it is shown as {found['exit_code']}")
            log = self.service.path(f"log/{identity}/stdout.log")
            patience = PATIENCE if guardians == self.service.guardians else 0
            last = wait_for(lambda: read(log).split(b"\n")[-2:-1], lambda last: last and last[0].endswith(b" 2"), patience)
            # What is in a pipe ends with who holds it: the guardian, or the program itself.
            if (not last or not last[0].endswith(b" 2")) and guardians == self.service.guardians:
                self.lost.append(f"the last words of {name}: its log ends with {last}")
            deleted = wait_for(lambda: self.ask("DELETE", f"/api/program/{identity}"),
                               lambda answer: answer[0] in (200, 204, 404))
            if deleted[0] not in (200, 204, 404):
                self.lost.append(f"delete {name}: {deleted}")
            self.forget(name)

    def compare(self):
        """Is what is there what was acknowledged?"""
        found = {name: program for name, program in self.listed().items() if not name.startswith("quits-")}
        for name in found.keys() - self.programs.keys():
            self.lost.append(f"{name} is there, but was deleted")
        for name, program in self.programs.items():
            now = found.get(name)
            if now is None:
                self.lost.append(f"{name} is gone")
                continue
            for field, value in (("id", program.id), ("description", program.description), ("enabled", program.enabled)):
                if now[field] != value:
                    self.lost.append(f"{field} of {name}: {now[field]!r} instead of {value!r}")


def wait_for(get, is_enough, patience=PATIENCE):
    """What `get` gives, once it is enough, or at last."""
    end = time.monotonic() + patience
    while True:
        got = get()
        if is_enough(got) or time.monotonic() > end:
            return got
        time.sleep(0.02)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
