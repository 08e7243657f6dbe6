"""What schemathesis has to know of hxe: how it logs in, and what it must not do to the machine that it runs on."""

import atexit
import json
import os
import re
from collections import Counter
from urllib.request import urlopen

import schemathesis

URL = os.environ["HXE_URL"]
# Whatever a definition says, one of these is run. The first stays for a while.
HARMLESS = [os.environ["HXE_STAYS"], os.environ["HXE_STAYS"], "/bin/true", "/no/such/program"]
# No program that ends at once is restarted without end.
MOST_RESTARTS = 3


def login():
    body = json.dumps({"username": "admin", "password": os.environ["HXE_PASSWORD"]})
    with urlopen(f"{URL}/api/auth/login", body.encode()) as answer:
        return json.load(answer)["token"]


@schemathesis.auth()
class Tokens:
    def get(self, case, context):
        return login()

    def set(self, case, data, context):
        # That which is ended is no longer good for the others.
        token = login() if case.operation.path == "/api/auth/logout" else data
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def before_call(context, case, kwargs):
    path, body, query = case.operation.path, case.body, case.query or {}
    # What is not allowed stays as it is: it is to be refused.
    if isinstance(body, dict):
        command, restarts = body.get("command"), body.get("max_restarts")
        if isinstance(command, str) and command:
            body["command"] = HARMLESS[len(command) % len(HARMLESS)]
        if type(restarts) is int and (restarts == -1 or MOST_RESTARTS < restarts <= 1_000_000):
            body["max_restarts"] = MOST_RESTARTS
        if re.fullmatch("([0-9]{1,5}(ms|s|m|h) ?)+", str(body.get("stop_timeout"))):
            body["stop_timeout"] = "100ms"
    # What goes on without end is for others to test: tests/it follows.
    if path == "/api/program/{id}/logs" and str(query.get("follow")).lower() == "true":
        del query["follow"]
    if path == "/api/program/{id}/output" and case.path_parameters:
        case.path_parameters["id"] = "no such program"


# How often each operation was answered with which status: a run in which nothing succeeds says nothing.
answers = Counter()


@schemathesis.hook
def after_call(context, case, response):
    answers[case.operation.label, response.status_code] += 1


@atexit.register
def tell():
    print("answers that were looked at:")
    for (operation, status), count in sorted(answers.items()):
        print(f"{operation}: {status} {count}")
