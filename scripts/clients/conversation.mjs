// Talks to a running daemon with the npm package `ws`, and says whether it answers as it should.
//
// Usage: node conversation.mjs URL PASSWORD
//
// Packages are found beside the script: run.sh copies it to where it has installed them.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import WebSocket from "ws";

const [url, password] = process.argv.slice(2);
const TIMEOUT = 30_000;

setTimeout(() => {
    console.error("the conversation was not over in time");
    process.exit(1);
}, TIMEOUT).unref();

/** The answer to a request, as JSON. */
async function call(method, path, body, token) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(`${url}/api${path}`, { method, headers, body: body && JSON.stringify(body) });
    const json = await answer.json();
    assert.ok(answer.ok, `${method} ${path}: ${JSON.stringify(json)}`);
    return json;
}

/** The first messages that following a program's log gives. */
async function followed(program, token, count) {
    const leave = new AbortController();
    const answer = await fetch(`${url}/api/program/${program}/logs?follow=true`, {
        headers: { Authorization: `Bearer ${token}` },
        signal: leave.signal,
    });
    let text = "";
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
        text += piece;
        if (text.split("\n").length > count) {
            break;
        }
    }
    leave.abort();
    return text.split("\n").slice(0, count).map((line) => JSON.parse(line).message);
}

/** An open WebSocket, whose messages wait until they are taken. */
async function open() {
    const socket = new WebSocket(`${url.replace("http://", "ws://")}/api/ws`);
    const waiting = [];
    let wake = () => {};
    socket.on("message", (data) => {
        waiting.push(JSON.parse(data));
        wake();
    });
    await once(socket, "open");
    return {
        socket,
        say: (message) => socket.send(JSON.stringify(message)),
        async event() {
            while (waiting.length === 0) {
                await new Promise((resolve) => { wake = resolve; });
            }
            return waiting.shift();
        },
    };
}

/** The code that the daemon closes with. */
const closed = async (socket) => (await once(socket, "close"))[0];

const stranger = await open();
stranger.say({ type: "auth", token: "bad" });
assert.equal(await closed(stranger.socket), 4401);

const { token, expires_at } = await call("POST", "/auth/login", { username: "admin", password });
const { socket, say, event } = await open();
say({ type: "auth", token });
assert.deepEqual(await event(), { type: "auth.ok", expires_at });

say({ type: "subscribe", events: ["everything"] });
const mistake = await event();
assert.deepEqual([mistake.type, mistake.details.field], ["error", "events"]);

const names = ["node-crash", "node-sleep"];
say({ type: "subscribe", events: ["*"], programs: names });
socket.ping("there?");
assert.equal(String((await once(socket, "pong"))[0]), "there?");

const create = async (name, script) =>
    (await call("POST", "/program", { name, command: "/bin/sh", args: `-c '${script}'` }, token)).id;

const crash = await create(names[0], "echo hello; exit 3");
await call("POST", `/program/${crash}/start`, undefined, token);
const found = [await event(), await event(), await event(), await event()];
assert.deepEqual(found.map((one) => one.type), ["program.started", "log.new", "log.new", "log.new"]);
// hxe says in the log, too, that it started the program: before or behind its first line.
const said = found.slice(1).map((one) => one.data.message).sort();
assert.deepEqual(said, ["Program exited with code 3", "Program started successfully", "hello"]);
const error = await event();
assert.deepEqual([error.type, error.data.exit_code, error.data.reason], ["program.error", 3, "crash"]);

const sleep = await create(names[1], "exec sleep 1000");
await call("POST", `/program/${sleep}/start`, undefined, token);
assert.equal((await event()).type, "program.started");
assert.equal((await event()).data.message, "Program started successfully");
await call("POST", `/program/${sleep}/stop`, undefined, token);
assert.equal((await event()).type, "log.new");
const stopped = await event();
assert.deepEqual([stopped.type, stopped.data.exit_signal], ["program.stopped", "TERM"]);

assert.deepEqual((await followed(crash, token, 3)).sort(), said);
for (const program of [crash, sleep]) {
    await call("DELETE", `/program/${program}`, undefined, token);
}

const end = closed(socket);
await call("POST", "/auth/logout", undefined, token);
assert.equal(await end, 4401);

const { version } = createRequire(import.meta.url)("ws/package.json");
console.log(`ws ${version} (Node): as it should be`);
