"""Drives hxe by a client that was generated from its description: client.py URL PASSWORD, with hxe_api in the path."""

import sys
import time

from hxe_api import AuthenticatedClient, Client
from hxe_api.api.auth import login, logout
from hxe_api.api.control import start_program, stop_program
from hxe_api.api.logs import get_logs
from hxe_api.api.programs import create_program, delete_program, get_program, list_programs
from hxe_api.models import Credentials, Definition, Logs, NotFound, State, Status, Unauthorized

url, password = sys.argv[1:]
everybody = Client(base_url=url, raise_on_unexpected_status=True)
wrong = login.sync(client=everybody, body=Credentials("admin", "wrong"))
assert isinstance(wrong, Unauthorized), wrong
token = login.sync(client=everybody, body=Credentials("admin", password)).token
client = AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True)

script = "echo hello; exec sleep 1000"
program = create_program.sync(client=client, body=Definition("a b", "/bin/sh", args=f"-c '{script}'"))
assert program.state is State.STOPPED and program.pid is None, program
started = start_program.sync(program.id, client=client)
assert started.status is Status.RUNNING and started.pid > 0 and started.start_time.tzinfo, started

deadline = time.monotonic() + 30
while True:
    logs = get_logs.sync("a b", client=client, lines=10, level="info,warn")
    assert isinstance(logs, Logs), logs
    if any(entry.message == "hello" and entry.stream.value == "stdout" for entry in logs.logs):
        break
    assert time.monotonic() < deadline, logs
    time.sleep(0.1)

stopped = stop_program.sync(program.id, client=client)
assert (stopped.status, stopped.pid, stopped.exit_code) == (Status.STOPPED, None, 128 + 15), stopped
assert [one.name for one in list_programs.sync(client=client, status=Status.STOPPED)] == ["a b"]
delete_program.sync(program.id, client=client)
gone = get_program.sync(program.id, client=client)
assert isinstance(gone, NotFound) and gone.id == program.id, gone
logout.sync(client=client)
assert isinstance(list_programs.sync(client=client), Unauthorized)
print("login, create, start, logs, stop, delete, logout: all as described")
