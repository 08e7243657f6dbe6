// The WebSocket: what happens, as it happens. It comes back by itself, and says so.

import { bus as requests, token } from "./api.js";

/** Tells `state`, `open` (what is subscribed holds: look anew) and `event`, with a message in `detail`. */
export const bus = new EventTarget();

const FIRST_WAIT = 200;
const LONGEST_WAIT = 15_000;
/** A connection that says nothing for so long while it is made will not be one. */
const OPEN_PATIENCE = 10_000;

export const live = {
    isOpen: false,
    /** Whether the last request had an answer. */
    isReached: true,
};

let socket = null;
let attempts = 0;
let timer = 0;
let wanted = { events: ["program.*"] };
/** Who waits for an answer to `auth`, in order. */
let waiting = [];

/** What to be told from now on, over reconnections. Done once nothing of it can be missed. */
export function subscribe(selection) {
    wanted = selection;
    return live.isOpen ? settle() : Promise.resolve();
}

/** A subscription is not answered, but messages are taken in order: the answer to `auth` says that it holds. */
function settle() {
    socket.send(JSON.stringify({ type: "subscribe", ...wanted }));
    return identify();
}

function identify() {
    socket.send(JSON.stringify({ type: "auth", token: token() }));
    return new Promise((resolve) => waiting.push(resolve));
}

/** Connects now, if it is not connected, instead of when it is due. */
export function connectNow() {
    if (token() && !socket) {
        attempts = 0;
        connect();
    }
}

function connect() {
    clearTimeout(timer);
    const url = new URL("/api/ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    const mine = new WebSocket(url);
    socket = mine;
    waiting = [];
    timer = setTimeout(() => drop(mine), OPEN_PATIENCE);
    mine.onopen = async () => {
        await identify();
        // Something else may be wanted by the time that it holds.
        for (let held = null; held !== wanted;) {
            held = wanted;
            await settle();
        }
        clearTimeout(timer);
        attempts = 0;
        live.isReached = true;
        turn(true);
        bus.dispatchEvent(new Event("open"));
    };
    mine.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "auth.ok") {
            waiting.shift()?.();
        } else if (message.program_id) {
            bus.dispatchEvent(new CustomEvent("event", { detail: message }));
        }
    };
    mine.onclose = ({ code }) => {
        if (socket === mine) {
            closed(code);
        }
    };
}

/** Gives a connection up that may never say that it is over. */
function drop(mine) {
    if (mine && socket === mine) {
        mine.onclose = null;
        mine.onmessage = null;
        mine.onopen = null;
        mine.close();
        closed(0);
    }
}

function closed(code) {
    clearTimeout(timer);
    socket = null;
    turn(false);
    if (!token()) {
        return;
    }
    if (code === 4401) {
        // A request finds out whether the token is no longer good.
        bus.dispatchEvent(new Event("doubt"));
    }
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempts);
    attempts += 1;
    timer = setTimeout(connect, longest * (0.5 + Math.random() / 2));
}

function turn(isOpen) {
    live.isOpen = isOpen;
    bus.dispatchEvent(new Event("state"));
}

requests.addEventListener("session", () => {
    if (!token()) {
        clearTimeout(timer);
        drop(socket);
        clearTimeout(timer);
    } else if (live.isOpen) {
        identify();
    } else {
        connectNow();
    }
});
requests.addEventListener("reached", () => reach(true));
requests.addEventListener("unreached", () => {
    drop(socket);
    reach(false);
});

function reach(isReached) {
    if (live.isReached !== isReached) {
        live.isReached = isReached;
        if (isReached) {
            connectNow();
        }
        bus.dispatchEvent(new Event("state"));
    }
}

document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
        connectNow();
    }
});
addEventListener("online", connectNow);
addEventListener("pageshow", connectNow);
addEventListener("offline", () => drop(socket));
