// The log of a program, live. Any number of lines may come: so many are kept, and few of them are in the document.

import { pathOf, request } from "./api.js";
import { bus as data, list, now } from "./data.js";
import { complain } from "./dialog.js";
import { freshId, h, mark, say } from "./dom.js";
import { count, moment, time } from "./format.js";
import { bus as events, live, subscribe } from "./live.js";

/** Lines that are kept, read at first, and read on request, which is all that the daemon gives at a time. */
const KEPT = 20_000;
const FIRST = 1000;
const MOST = 10_000;
/** Lines in the document, and how many are added as one scrolls. */
const SHOWN = 500;
const STEP = 200;
/** This near to an end of what is in the document, in pixels, more is added. */
const NEAR = 400;

const LEVELS = ["debug", "info", "warn", "error"];
const STREAMS = { stdout: "out", stderr: "err", hxe: "hxe" };

/** What one likes to see, from one log to the next. */
const taste = { times: true, wrap: true };

/** Colours and the like of terminals. */
const ESCAPES = /\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;
const CONTROLS = /[\x00-\x08\x0b\x0c\x0e-\x1f]/g;

/** Output as it is shown: without colours of terminals, and with a sign for what else cannot be seen. */
export function readable(output) {
    return output.replace(ESCAPES, "").replace(CONTROLS, (character) => String.fromCharCode(0x2400 + character.charCodeAt(0)));
}

/** When a line was written: with the day, but today. */
function lineTime(at) {
    return at.toDateString() === new Date(now()).toDateString() ? time(at) : moment(at);
}

const keyOf = ({ timestamp, stream, message }) => `${timestamp} ${stream} ${message}`;

/** How many there are of each entry, to know them again. */
class Known {
    #counts = new Map();

    constructor(entries) {
        for (const entry of entries) {
            const key = keyOf(entry);
            this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
        }
    }

    /** Whether it is among them; each counts once. */
    take(entry) {
        const key = keyOf(entry);
        const left = this.#counts.get(key);
        if (left) {
            this.#counts.set(key, left - 1);
        }
        return Boolean(left);
    }
}

/** Shows the log of a program in `place`, until `signal`. */
export function show(place, program, signal) {
    /** All that is kept, and what of it fits the filter. */
    let entries = [];
    let matches = [];
    /** The part of `matches` that is in the document. */
    let from = 0;
    let to = 0;
    let follows = true;
    /** Paused by the button, not by scrolling. */
    let isHeld = false;
    let missed = 0;
    let isScheduled = false;
    /** Entries that come before the log is read, or read again, and what was read that may come again, by stream. */
    let early = [];
    let read = {};
    let isWhole = false;
    let loads = 0;
    const filter = { text: "", levels: new Set(LEVELS), stream: "all" };

    const lines = h("div", { class: "lines", role: "log", "aria-live": "off", "aria-label": "Log", tabindex: "0" });
    const empty = h("p", { class: "muted", hidden: true });
    const earlier = h("button", { type: "button", hidden: true, onclick: readAll }, "Read earlier lines");
    const pause = h("button", { type: "button", onclick: () => (follows ? hold() : follow()) });
    const missedNote = h("span", { class: "muted", "aria-hidden": "true" });
    const tally = h("span", { class: "muted tally" });
    const searchId = freshId();
    const search = h("input", { id: searchId, type: "search", placeholder: "Search the log", autocomplete: "off", spellcheck: "false" });
    search.addEventListener("input", () => select({ text: search.value.toLowerCase() }));
    const levels = LEVELS.map((level) => {
        const box = h("input", { type: "checkbox", checked: true });
        box.addEventListener("change", () => {
            filter.levels[box.checked ? "add" : "delete"](level);
            select({});
        });
        return h("label", { class: "choice", "data-level": level }, box, h("span", {}, level));
    });
    const stream = h("select", {}, h("option", { value: "all" }, "all streams"), Object.keys(STREAMS).map((name) => h("option", { value: name }, name)));
    stream.addEventListener("change", () => select({ stream: stream.value }));
    const toggle = (name, label) => {
        const box = h("input", { type: "checkbox", checked: taste[name] });
        box.addEventListener("change", () => {
            taste[name] = box.checked;
            lines.classList.toggle(name, taste[name]);
            if (follows) {
                lines.scrollTop = lines.scrollHeight;
            }
        });
        lines.classList.toggle(name, taste[name]);
        return h("label", { class: "choice" }, box, h("span", {}, label));
    };
    place.replaceChildren(
        h("div", { class: "filters" },
            h("label", { class: "hidden", for: searchId }, "Search the log"), search,
            h("fieldset", { class: "choices" }, h("legend", { class: "hidden" }, "Levels"), levels),
            h("label", { class: "order" }, h("span", { class: "hidden" }, "Stream"), stream),
            h("fieldset", { class: "choices" }, h("legend", { class: "hidden" }, "Show"), toggle("times", "times"), toggle("wrap", "wrap"))),
        h("div", { class: "log" }, earlier, empty, lines),
        h("div", { class: "buttons below" }, pause, h("button", { type: "button", onclick: download }, "Download"), missedNote, tally));

    const fits = (entry) =>
        filter.levels.has(entry.level) &&
        (filter.stream === "all" || filter.stream === entry.stream) &&
        (!filter.text || entry.text.toLowerCase().includes(filter.text));

    function select(part) {
        Object.assign(filter, part);
        matches = entries.filter(fits);
        redraw();
    }

    /** Takes entries that are new, at the end. */
    function append(fresh) {
        for (const entry of fresh) {
            entry.text = readable(entry.message);
            entries.push(entry);
            if (fits(entry)) {
                matches.push(entry);
                missed += follows ? 0 : 1;
            }
        }
        // Not each time: it moves all of them.
        if (entries.length > KEPT * 1.1) {
            const dropped = entries.splice(0, entries.length - KEPT);
            forget(dropped.filter(fits).length);
            isWhole = true;
        }
        schedule();
    }

    function forget(number) {
        matches.splice(0, number);
        for (let gone = from; gone < Math.min(number, to); gone += 1) {
            lines.firstElementChild.remove();
        }
        from = Math.max(0, from - number);
        to = Math.max(0, to - number);
    }

    function schedule() {
        if (!isScheduled) {
            isScheduled = true;
            requestAnimationFrame(() => {
                isScheduled = false;
                if (!signal.aborted) {
                    draw();
                }
            });
        }
    }

    /** Brings the document to what is there. */
    function draw() {
        if (follows) {
            const start = Math.max(from, matches.length - SHOWN);
            if (start >= to) {
                lines.replaceChildren(...matches.slice(start).map(line));
            } else {
                for (; from < start; from += 1) {
                    lines.firstElementChild.remove();
                }
                lines.append(...matches.slice(to).map(line));
            }
            from = start;
            to = matches.length;
            lines.scrollTop = lines.scrollHeight;
        }
        say(pause, follows ? "Pause" : "Go on");
        say(missedNote, follows || !missed ? "" : `${count(missed, "new line")}`);
        const isFiltered = matches.length !== entries.length;
        say(tally, isFiltered ? `${matches.length} of ${count(entries.length, "line")}` : count(entries.length, "line"));
        earlier.hidden = isWhole || from > 0 || entries.length === 0;
        empty.hidden = matches.length > 0 || early !== null;
        say(empty, entries.length ? "No line fits the filter." : "Nothing has been logged yet.");
    }

    /** Begins anew, at the end. */
    function redraw() {
        lines.replaceChildren();
        from = Math.max(0, matches.length - SHOWN);
        to = from;
        if (follows) {
            draw();
        } else {
            extend(1);
            lines.scrollTop = lines.scrollHeight;
            draw();
        }
    }

    /** Adds lines at one end of the document, and takes them away at the other. */
    function extend(direction) {
        const height = lines.scrollHeight;
        const at = lines.scrollTop;
        if (direction < 0) {
            const start = Math.max(0, from - STEP);
            lines.prepend(...matches.slice(start, from).map(line));
            from = start;
            lines.scrollTop = at + lines.scrollHeight - height;
            for (; to - from > SHOWN + STEP; to -= 1) {
                lines.lastElementChild.remove();
            }
        } else {
            const end = Math.min(matches.length, Math.max(to + STEP, from + SHOWN));
            lines.append(...matches.slice(to, end).map(line));
            to = end;
            const before = lines.scrollHeight;
            for (; to - from > SHOWN + STEP; from += 1) {
                lines.firstElementChild.remove();
            }
            lines.scrollTop = at + lines.scrollHeight - before;
        }
    }

    function line(entry) {
        const at = new Date(entry.timestamp);
        return h("div", { class: "line", "data-level": entry.level, "data-stream": entry.stream },
            h("time", { title: entry.timestamp }, `${lineTime(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`),
            h("span", { class: "level" }, entry.level),
            h("span", { class: "stream" }, STREAMS[entry.stream]),
            h("span", { class: "text" }, highlighted(entry.text)));
    }

    function highlighted(text) {
        if (!filter.text) {
            return text;
        }
        const parts = [];
        const lower = text.toLowerCase();
        let done = 0;
        // Where a letter has another length in lower case, nothing is marked.
        for (let at = lower.length === text.length ? lower.indexOf(filter.text) : -1; at >= 0; at = lower.indexOf(filter.text, done)) {
            parts.push(text.slice(done, at), h("mark", {}, text.slice(at, at + filter.text.length)));
            done = at + filter.text.length;
        }
        return [...parts, text.slice(done)];
    }

    function hold() {
        isHeld = true;
        follows = false;
        missed = 0;
        draw();
    }

    function follow() {
        isHeld = false;
        follows = true;
        missed = 0;
        if (matches.length - to > SHOWN) {
            redraw();
        } else {
            draw();
        }
    }

    lines.addEventListener("scroll", () => {
        const below = lines.scrollHeight - lines.scrollTop - lines.clientHeight;
        if (follows && below > 40) {
            follows = false;
            missed = 0;
            draw();
        } else if (!follows) {
            if (lines.scrollTop < NEAR && from > 0) {
                extend(-1);
            } else if (below < NEAR && to < matches.length) {
                extend(1);
            } else if (below < 4 && !isHeld && to === matches.length) {
                follow();
            }
            draw();
        }
    }, { passive: true });
    lines.addEventListener("keydown", (event) => {
        if (event.key === "Home") {
            event.preventDefault();
            hold();
            from = to = 0;
            lines.replaceChildren();
            extend(1);
            lines.scrollTop = 0;
            draw();
        } else if (event.key === "End") {
            event.preventDefault();
            follow();
        }
    });

    async function load() {
        loads += 1;
        const mine = loads;
        let fetched;
        try {
            ({ logs: fetched } = await request("GET", pathOf(program.id, `logs?lines=${FIRST}`)));
        } catch (failure) {
            if (failure.status && !signal.aborted) {
                complain(`The log cannot be read: ${failure.message}`);
            }
            fetched = live.isOpen ? [] : null;
        }
        // A later one has begun and knows more, or will when there is a connection.
        if (signal.aborted || mine !== loads || !fetched) {
            return;
        }
        const known = new Known(entries.slice(-3 * FIRST));
        const fresh = fetched.filter((entry) => !known.take(entry));
        const isAnew = fresh.length === fetched.length && fetched.length > 0;
        if (isAnew) {
            // What lies between may be missing.
            entries = [];
            matches = [];
            lines.replaceChildren();
            from = to = 0;
            isWhole = fetched.length < FIRST;
        }
        read = Object.fromEntries(Object.keys(STREAMS).map((name) => [name, new Known(fetched.filter((entry) => entry.stream === name))]));
        const waiting = early;
        early = live.isOpen ? null : [];
        append(fresh);
        append(waiting.filter(isNew));
        // Who reads something keeps it in sight, if it is still there.
        if (isAnew && !follows) {
            redraw();
        }
    }

    /** Whether an event is of what was not read. The first of a stream that is ends the question for all after it. */
    function isNew(entry) {
        if (read[entry.stream]?.take(entry)) {
            return false;
        }
        delete read[entry.stream];
        return true;
    }

    async function readAll() {
        earlier.disabled = true;
        try {
            const { logs } = await request("GET", pathOf(program.id, `logs?lines=${MOST}`));
            const first = entries.slice(0, 2).map(keyOf);
            const at = logs.findIndex((entry, index) => keyOf(entry) === first[0] && (first.length < 2 || (logs[index + 1] && keyOf(logs[index + 1]) === first[1])));
            const older = at < 0 ? [] : logs.slice(0, at);
            for (const entry of older) {
                entry.text = readable(entry.message);
            }
            isWhole = true;
            entries = [...older, ...entries];
            const added = older.filter(fits);
            matches = [...added, ...matches];
            from += added.length;
            to += added.length;
            hold();
            extend(-1);
            draw();
        } catch (failure) {
            complain(`The log cannot be read: ${failure.message}`);
        } finally {
            earlier.disabled = false;
        }
    }

    async function download() {
        let all = [];
        try {
            ({ logs: all } = await request("GET", pathOf(program.id, `logs?lines=${MOST}`)));
        } catch (failure) {
            complain(`The log cannot be read: ${failure.message}`);
            return;
        }
        const chosen = all.filter((entry) => fits({ ...entry, text: readable(entry.message) }));
        const text = chosen.map(({ timestamp, level, message }) => `${timestamp} ${level} ${message}\n`);
        const url = URL.createObjectURL(new Blob(text, { type: "text/plain" }));
        h("a", { href: url, download: `${program.id}.log` }).click();
        setTimeout(() => URL.revokeObjectURL(url), 10_000);
    }

    events.addEventListener("event", ({ detail: { type, program_id: id, timestamp, data: told } }) => {
        if (id !== program.id) {
            return;
        }
        if (type === "log.dropped") {
            const message = `${count(told.bytes, "byte")} of ${told.stream} were removed by rotation before they could be shown`;
            append([{ timestamp, level: "warn", stream: "hxe", message }]);
        } else if (type === "log.new") {
            if (early) {
                early.push(told);
            } else if (isNew(told)) {
                append([told]);
            }
        }
    }, { signal });
    events.addEventListener("open", load, { signal });
    // What comes with a new connection is later than what is not read yet.
    events.addEventListener("state", () => live.isOpen || (early ??= []), { signal });
    // Without one, it is read as what is used is: now and then.
    data.addEventListener("samples", () => live.isOpen || load(), { signal });
    // Meanwhile nothing was told of other programs.
    signal.addEventListener("abort", () => subscribe({ events: ["program.*"] }).then(() => list().catch(() => {})));
    mark(lines, "data-program", program.id);
    draw();
    subscribe({ events: ["program.*", "log.new"], programs: [program.id] }).then(load);
}
