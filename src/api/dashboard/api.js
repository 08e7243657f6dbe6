// Requests to the API, and the token that they carry. The token lives as long as the tab.

const KEY = "hxe-session";
/** How long an answer may take, in milliseconds. A stop takes as long as the program does: it goes on without us. */
const PATIENCE = 10_000;
const LONG_PATIENCE = 30_000;
/** The longest wait of the browser's timers. */
const FOREVER = 0x7fffffff;

/** Tells `session` (logged in or out), `reached` and `unreached`. */
export const bus = new EventTarget();

export const api = {
    /** Requests that are not answered yet: a browser has six connections. */
    pending: 0,
    /** What is left of the rate limit, and until when. */
    remaining: Infinity,
    resetAt: 0,
};

/** Why a request has no result. `status` is 0 where there was no answer. */
export class Failure extends Error {
    constructor(status, answer) {
        const issue = answer.details?.issue;
        super(issue ?? answer.message ?? `hxe answered with ${status}`);
        this.status = status;
        this.code = answer.error;
        this.summary = answer.message;
        this.field = answer.details?.field;
    }
}

let session = stored();

function stored() {
    try {
        return JSON.parse(sessionStorage.getItem(KEY));
    } catch {
        return null;
    }
}

function keep(next) {
    session = next;
    try {
        if (next) {
            sessionStorage.setItem(KEY, JSON.stringify(next));
        } else {
            sessionStorage.removeItem(KEY);
        }
    } catch {
        // A browser that stores nothing: then it holds until the page is left.
    }
    bus.dispatchEvent(new Event("session"));
}

export function token() {
    return session?.token;
}

/** How long the token lives is read off itself, as the daemon's clock need not be ours. */
function begun(token) {
    let lifetime = 3600_000;
    try {
        const claims = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
        lifetime = (claims.exp - claims.iat) * 1000;
    } catch {
        // An hour does, then.
    }
    return { token, since: Date.now(), lifetime };
}

export async function login(username, password) {
    const answer = await request("POST", "/auth/login", { body: { username, password }, open: true });
    keep(begun(answer.token));
}

export async function logout() {
    await request("POST", "/auth/logout").catch(() => {});
    keep(null);
}

/** Takes a new token where the old one is in the last quarter of its life. */
export async function refresh() {
    if (session && Date.now() - session.since > session.lifetime * 0.75) {
        const { token } = await request("POST", "/auth/refresh");
        keep(begun(token));
    }
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, Math.min(milliseconds, FOREVER)));

/** Makes a request and gives what it is answered with. Waits where it was too many; throws a `Failure`. */
export async function request(method, path, options = {}) {
    for (let tries = 1; ; tries += 1) {
        const response = await send(method, path, options);
        const wait = Number(response.headers.get("Retry-After") ?? 1);
        // Neither has changed anything.
        if (tries < 4 && (response.status === 429 || (response.status === 503 && method === "GET"))) {
            await sleep(wait * 1000 + Math.random() * 500);
            continue;
        }
        return answered(response, options);
    }
}

async function send(method, path, { body, long, open }) {
    const headers = {};
    const used = open ? undefined : token();
    if (used) {
        headers.Authorization = `Bearer ${used}`;
    }
    if (body !== undefined) {
        headers["Content-Type"] = "application/json";
    }
    api.pending += 1;
    try {
        const response = await fetch(`/api${path}`, {
            method,
            headers,
            body: body === undefined ? undefined : JSON.stringify(body),
            cache: "no-store",
            credentials: "omit",
            signal: AbortSignal.timeout(long ? LONG_PATIENCE : PATIENCE),
        });
        heed(response.headers);
        if (response.status === 401 && used && used === token()) {
            keep(null);
        }
        bus.dispatchEvent(new Event("reached"));
        return response;
    } catch (error) {
        if (long && error.name === "TimeoutError") {
            throw new Failure(0, { error: "under_way", message: "This is still under way" });
        }
        bus.dispatchEvent(new Event("unreached"));
        throw new Failure(0, { error: "unreachable", message: "No answer came from hxe" });
    } finally {
        api.pending -= 1;
    }
}

function heed(headers) {
    const remaining = headers.get("X-RateLimit-Remaining");
    api.remaining = remaining === null ? Infinity : Number(remaining);
    api.resetAt = Number(headers.get("X-RateLimit-Reset") ?? 0) * 1000;
}

async function answered(response, { text }) {
    if (response.ok) {
        return text ? response.text() : response.json();
    }
    const answer = await response.json().catch(() => ({}));
    throw new Failure(response.status, answer);
}

/** The path of a program, or of something of it. */
export function pathOf(id, ...rest) {
    return ["/program", encodeURIComponent(id), ...rest].join("/");
}
