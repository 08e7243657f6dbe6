#!/usr/bin/env python3
"""Talks to a running daemon with the Python package `websockets`, and says whether it answers as it should.

Usage: conversation.py URL PASSWORD
"""

import asyncio
import json
import sys
import urllib.request

import websockets

URL, PASSWORD = sys.argv[1], sys.argv[2]
SOCKET = URL.replace("http://", "ws://", 1) + "/api/ws"
TIMEOUT = 30


def call(method, path, body=None, token=None):
    """The answer to a request, as JSON."""
    request = urllib.request.Request(URL + "/api" + path, method=method)
    if token:
        request.add_header("Authorization", "Bearer " + token)
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(request, data, timeout=TIMEOUT) as answer:
        return json.load(answer)


def login():
    """A new token."""
    return call("POST", "/auth/login", {"username": "admin", "password": PASSWORD})


def followed(program, token, count):
    """The first messages that following a program's log gives."""
    request = urllib.request.Request(f"{URL}/api/program/{program}/logs?follow=true")
    request.add_header("Authorization", "Bearer " + token)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return [json.loads(answer.readline())["message"] for _ in range(count)]


def expect(found, expected, what):
    """Ends with an error if something is not as it should be."""
    if found != expected:
        sys.exit(f"{what}: {found!r} instead of {expected!r}")


async def closed(socket):
    """The code that the daemon closes with."""
    try:
        while True:
            await socket.recv()
    except websockets.ConnectionClosed as closing:
        return closing.rcvd.code if closing.rcvd else None


async def converse():
    """The whole conversation."""
    async with websockets.connect(SOCKET) as socket:
        await socket.send(json.dumps({"type": "auth", "token": "bad"}))
        expect(await closed(socket), 4401, "a bad token")

    session = login()
    token = session["token"]
    async with websockets.connect(SOCKET) as socket:

        async def event():
            return json.loads(await socket.recv())

        await socket.send(json.dumps({"type": "auth", "token": token}))
        welcome = {"type": "auth.ok", "expires_at": session["expires_at"]}
        expect(await event(), welcome, "the answer to auth")

        await socket.send(json.dumps({"type": "subscribe", "events": ["everything"]}))
        error = await event()
        expect((error["type"], error["details"]["field"]), ("error", "events"), "an unknown event")

        names = ["python-crash", "python-sleep"]
        await socket.send(json.dumps({"type": "subscribe", "events": ["*"], "programs": names}))
        await (await socket.ping())

        def create(name, script):
            body = {"name": name, "command": "/bin/sh", "args": f"-c '{script}'"}
            return call("POST", "/program", body, token)["id"]

        crash = create(names[0], "echo hello; exit 3")
        call("POST", f"/program/{crash}/start", {}, token)
        found = [await event() for _ in range(4)]
        kinds = [one["type"] for one in found]
        # hxe says in the log, too, that it started the program: before or behind its first line.
        expect(kinds, ["program.started", "log.new", "log.new", "log.new"], "a start")
        said = [one["data"]["message"] for one in found[1:]]
        expect(sorted(said), ["Program exited with code 3", "Program started successfully", "hello"], "lines")
        error = await event()
        expect(error["type"], "program.error", "a crash")
        expect((error["data"]["exit_code"], error["data"]["reason"]), (3, "crash"), "a crash")

        sleep = create(names[1], "exec sleep 1000")
        call("POST", f"/program/{sleep}/start", {}, token)
        expect((await event())["type"], "program.started", "a start")
        expect((await event())["data"]["message"], "Program started successfully", "its line")
        call("POST", f"/program/{sleep}/stop", {}, token)
        expect((await event())["type"], "log.new", "the line of a stop")
        stopped = await event()
        expect((stopped["type"], stopped["data"]["exit_signal"]), ("program.stopped", "TERM"), "a stop")

        lines = await asyncio.to_thread(followed, crash, token, 3)
        expect(sorted(lines), sorted(said), "the log that is followed")
        for program in (crash, sleep):
            call("DELETE", f"/program/{program}", None, token)

        call("POST", "/auth/logout", {}, token)
        expect(await closed(socket), 4401, "a logout")


asyncio.run(asyncio.wait_for(converse(), TIMEOUT))
print(f"websockets {websockets.__version__} (Python): as it should be")
