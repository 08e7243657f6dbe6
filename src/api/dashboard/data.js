// What is known of the programs and of the system, and keeping it so: events tell what changes, and requests are made every
// few seconds while somebody looks. Views read it, and listen to the bus.

import { api, bus as requests, pathOf, refresh, request, token } from "./api.js";
import { bus as events, connectNow, live } from "./live.js";

/** Tells `programs` and `samples` when they have changed. */
export const bus = new EventTarget();

/** Milliseconds between looks at what is used, and between looks at all programs. */
const SAMPLE_EVERY = 5000;
const LIST_EVERY = 15_000;
/** How soon after an event more is read, and how often at most: a program may crash each second. */
const REREAD_AFTER = 300;
const REREAD_EVERY = 3000;
/** Requests that are left to what the user does. */
const RESERVE = 20;
/** How far back plots go, in milliseconds. */
export const SPAN = 10 * 60_000;

export const data = {
    /** By id, in order of id. */
    programs: new Map(),
    isLoaded: false,
    /** When the last answer came, by our clock. */
    asOf: 0,
    /** The latest of the machine: cpu (percent), memory (bytes), disk (percent), uptime (seconds). */
    system: null,
};

/** Points `[at, value]`, oldest first, by what uses and what is used, as "program-1 cpu" or "system disk". */
const series = new Map();
/** `cpu`, `memory` and `restarts` now, by id. */
let usage = new Map();
/** Where samples go on, as the daemon says it, and by how much its clock is ahead of ours, in milliseconds. */
let next = 0;
let ahead = 0;
/** A clock that moves by more than this has been set. */
const CLOCK_SET = 30_000;

let timer = 0;
let listedAt = 0;

/** The daemon's time now, which points and programs go by: a board's clock may be far from ours. */
export function now() {
    return Date.now() + ahead;
}

/** Points `[at, value]` of `cpu`, `memory` or `disk` of a program or of "system", oldest first. */
export function points(id, measure) {
    return series.get(`${id} ${measure}`) ?? [];
}

/** `cpu`, `memory` and `restarts` of a program now; empty where they are not known. */
export function used(id) {
    return usage.get(id) ?? {};
}

/** Reads all programs anew. */
export async function list() {
    listedAt = Date.now();
    const programs = await request("GET", "/program?limit=100000");
    data.programs = new Map(programs.map((program) => [program.id, program]));
    data.isLoaded = true;
    told("programs");
}

/** Takes a program as an answer shows it. */
export function put(program) {
    data.programs.set(program.id, program);
    told("programs");
}

/** Changes what is known of a program before an answer tells it. */
export function assume(id, change) {
    const program = data.programs.get(id);
    if (program) {
        data.programs.set(id, { ...program, ...change });
        told("programs");
    }
}

export function remove(id) {
    data.programs.delete(id);
    told("programs");
}

function told(what) {
    data.asOf = Date.now();
    bus.dispatchEvent(new Event(what));
}

/** Reads all anew, and goes on doing so. */
async function look() {
    clearTimeout(timer);
    if (!token() || document.hidden) {
        return;
    }
    let wait = SAMPLE_EVERY;
    if (api.remaining < RESERVE && api.resetAt > now()) {
        wait = Math.min(60_000, api.resetAt - now() + 500);
    } else if (api.pending < 4) {
        try {
            await refresh();
            if (Date.now() - listedAt > LIST_EVERY - 500) {
                await list();
            }
            await sample();
        } catch {
            // Whoever listens to the requests says so.
        }
    }
    clearTimeout(timer);
    timer = setTimeout(look, wait);
}

async function sample() {
    const asked = Date.now();
    const history = await request("GET", `/history${next ? `?since=${next}` : ""}`);
    const drift = Date.parse(history.time) - (asked + Date.now()) / 2;
    // Another boot, or a clock that was set: what is known is of other times.
    if (history.next < next || Math.abs(drift - ahead) > CLOCK_SET) {
        series.clear();
        const isWhole = next === 0;
        next = 0;
        ahead = drift;
        if (!isWhole) {
            return sample();
        }
    }
    ahead = drift;
    next = history.next;
    const { metrics } = history.system;
    data.system = { cpu: metrics.cpu_usage, memory: metrics.memory_bytes, disk: metrics.disk_usage, uptime: metrics.uptime };
    add("system cpu", history.times, history.system.cpu_usage);
    add("system memory", history.times, history.system.memory_bytes);
    add("system disk", [now() / 1000], [metrics.disk_usage]);
    usage = new Map();
    for (const { program_id: id, metrics, cpu_usage: cpu, memory_bytes: memory } of history.programs) {
        usage.set(id, { cpu: metrics.cpu_usage, memory: metrics.memory_bytes, restarts: metrics.restart_count });
        add(`${id} cpu`, history.times, cpu);
        add(`${id} memory`, history.times, memory);
    }
    told("samples");
}

/** Adds values to a series, and drops what is too old to be drawn. */
function add(name, times, values) {
    const oldest = now() - SPAN;
    const known = series.get(name) ?? [];
    const last = known.at(-1)?.[0] ?? 0;
    const fresh = times.map((at, index) => [at * 1000, values[index]]).filter(([at]) => at > last);
    series.set(name, [...known, ...fresh].filter(([at]) => at > oldest));
}

function lookAnew() {
    listedAt = 0;
    look();
}

/** Gives a function that has `read` done soon, but not too often, and not while nobody looks. */
export function paced(read) {
    let waits = 0;
    let last = 0;
    return () => {
        waits ||= setTimeout(async () => {
            waits = 0;
            last = Date.now();
            if (!document.hidden) {
                // The next look is soon.
                await read().catch(() => {});
            }
        }, Math.max(REREAD_AFTER, last + REREAD_EVERY - Date.now()));
    };
}

const reread = paced(list);

/** The state that a program is in after an event, as far as that tells it. */
function stateAfter(type, { reason }, program) {
    switch (type) {
        case "program.started":
        case "program.restarted":
            return "running";
        case "program.stopped":
            return reason === "requested" ? "stopped" : "exited";
        default:
            return program.auto_restart ? "backoff" : "failed";
    }
}

events.addEventListener("event", ({ detail: { type, program_id: id, timestamp, data: told } }) => {
    if (!type.startsWith("program.")) {
        return;
    }
    const program = data.programs.get(id);
    if (program) {
        const { restarts } = used(id);
        if (type === "program.restarted" && told.reason === "crash" && restarts != null) {
            usage.set(id, { ...used(id), restarts: restarts + 1 });
        }
        const state = stateAfter(type, told, program);
        assume(id, {
            name: told.name,
            status: told.status,
            state,
            pid: told.pid,
            exit_code: told.exit_code ?? null,
            exit_signal: told.exit_signal ?? null,
            ...(state === "running" && { start_time: timestamp }),
        });
    }
    reread();
});
events.addEventListener("open", lookAnew);
// Whether it is only the WebSocket that is gone.
events.addEventListener("state", () => live.isOpen || live.isReached && look());
events.addEventListener("doubt", () => request("GET", "/daemon").catch(() => {}));
requests.addEventListener("session", () => (token() ? lookAnew() : clearTimeout(timer)));
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : lookAnew()));

/** Begins, with the token that the tab has. */
export function begin() {
    if (token()) {
        connectNow();
        lookAnew();
    }
}

const DONE = { start: "started", stop: "stopped", restart: "restarted", enable: "enabled", disable: "disabled" };

/** Has a program do something: `start`, `stop`, `restart`, `enable` or `disable`. Gives what came of it, in words. */
export async function act(id, action, { force } = {}) {
    const before = data.programs.get(id);
    const isStop = action === "stop" || (action === "restart" && before?.state === "running");
    if (isStop) {
        assume(id, { state: "stopping" });
    }
    try {
        const path = pathOf(id, action) + (force ? "?force=true" : "");
        const answer = await request("POST", path, { long: true });
        if (action === "enable" || action === "disable") {
            assume(id, { enabled: answer.enabled });
        }
        const left = answer.left_behind?.map(({ name, pid }) => `${name} (pid ${pid})`).join(", ");
        return DONE[action] + (left ? `, but these go on: ${left}` : "");
    } finally {
        reread();
    }
}
