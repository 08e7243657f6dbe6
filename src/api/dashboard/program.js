// The page of one program: how it is, its plots, its log, how its runs ended, and its definition.

import { pathOf, request } from "./api.js";
import { bus, data, paced, points, remove, used } from "./data.js";
import { confirm, excuse, note } from "./dialog.js";
import { entitle, h, mark, say } from "./dom.js";
import { bytes, duration, moment, percent } from "./format.js";
import { FIELDS } from "./form.js";
import { address, leave } from "./list.js";
import { bus as events, live } from "./live.js";
import * as log from "./log.js";
import { readable } from "./log.js";
import { chart } from "./plots.js";
import { badge, controls, ending, perform, uptime } from "./status.js";

const TABS = { log: "Log", exits: "Exits", definition: "Definition" };

/** Shows the program `id` in `place`, until `signal`. */
export function show(place, { id, tab }, signal) {
    leave(id);
    let program = data.programs.get(id);
    let isGone = false;
    let shownTab = null;
    let tabEnded = null;
    const name = h("h1", { tabindex: "-1" }, id);
    const state = badge();
    const buttons = controls(id, true);
    const enable = h("button", { type: "button", onclick: () => perform(id, program.enabled ? "disable" : "enable") });
    const edit = h("a", { class: "button", href: `#/program/${encodeURIComponent(id)}/edit` }, "Edit");
    const erase = h("button", { type: "button", class: "danger", onclick: askAndDelete }, "Delete");
    const declared = h("p", { class: "declared", id: "declared", hidden: true });
    const fact = (label) => {
        const value = h("dd", {}, "–");
        return { element: h("div", {}, h("dt", {}, label), value), value };
    };
    const facts = { pid: fact("Pid"), up: fact("Uptime"), restarts: fact("Restarts"), exit: fact("Last exit"), enabled: fact("Enabled") };
    const cpu = chart({ label: "CPU", format: percent, least: 10 });
    const memory = chart({ label: "Memory", format: bytes, least: 1024 ** 2 });
    const tabs = Object.entries(TABS).map(([key, label]) => [key, h("a", { href: `#/program/${encodeURIComponent(id)}${key === "log" ? "" : `/${key}`}` }, label)]);
    const panel = h("section", { class: "panel" });
    place.replaceChildren(
        h("p", { class: "back" }, h("a", { href: address() }, "← Programs")),
        h("div", { class: "head" }, name, state.element),
        declared,
        h("div", { class: "buttons" }, buttons.element, enable, edit, erase),
        h("div", { class: "page" },
            h("div", { class: "aside" },
                h("dl", { class: "facts" }, Object.values(facts).map(({ element }) => element)),
                h("div", { class: "charts" }, cpu.element, memory.element)),
            h("div", { class: "body" },
                h("nav", { class: "tabs", "aria-label": "Of this program" }, tabs.map(([, link]) => link)),
                panel)));

    function draw() {
        program = data.programs.get(id) ?? program;
        if (data.isLoaded && !data.programs.has(id) && !isGone) {
            isGone = true;
            tabEnded?.abort();
            absent(place);
        }
        if (isGone || !program) {
            return;
        }
        say(name, program.name);
        entitle(program.name);
        state.update(program);
        buttons.update(program);
        say(enable, program.enabled ? "Disable" : "Enable");
        mark(enable, "title", program.enabled ? "Have it no longer start with the daemon" : "Have it start with the daemon");
        declared.hidden = !program.declared;
        say(declared, program.declared ? `Declared in ${program.declared}: change it there, and reload. It cannot be edited, enabled, disabled or deleted here.` : "");
        for (const control of [enable, edit, erase]) {
            mark(control, "aria-describedby", program.declared ? "declared" : null);
            mark(control, "aria-disabled", program.declared ? "true" : null);
        }
        mark(edit, "href", program.declared ? null : `#/program/${encodeURIComponent(id)}/edit`);
        mark(edit, "role", program.declared ? "link" : null);
        enable.disabled = erase.disabled = Boolean(program.declared);
        const now = used(id);
        say(facts.pid.value, program.pid == null ? "–" : String(program.pid));
        say(facts.restarts.value, now.restarts == null ? "–" : String(now.restarts));
        say(facts.exit.value, ending(program) || "–");
        say(facts.enabled.value, program.enabled ? "yes" : "no");
        tick();
        cpu.update(points(id, "cpu"));
        memory.update(points(id, "memory"));
    }

    function tick() {
        if (program && live.isReached) {
            say(facts.up.value, uptime(program) || "–");
        }
    }

    async function askAndDelete() {
        const isMeant = await confirm({
            title: `Delete ${program.name}?`,
            text: program.pid == null ? "Its definition and its logs are removed for good." : "It is stopped, and its definition and its logs are removed for good.",
            action: "Delete",
        });
        if (!isMeant) {
            return;
        }
        erase.disabled = true;
        try {
            await request("DELETE", pathOf(id), { long: true });
            note(`${program.name}: deleted`);
            location.replace(address());
            // When its page is no longer shown.
            setTimeout(() => remove(id));
        } catch (failure) {
            erase.disabled = false;
            excuse(program.name, failure);
        }
    }

    /** Shows another tab. */
    function change(next) {
        if (next.tab === shownTab || !program || isGone) {
            return;
        }
        shownTab = next.tab;
        tabEnded?.abort();
        tabEnded = new AbortController();
        for (const [key, link] of tabs) {
            mark(link, "aria-current", key === shownTab ? "page" : null);
        }
        mark(panel, "aria-label", TABS[shownTab]);
        panel.replaceChildren();
        ({ log: log.show, exits: showExits, definition: showDefinition })[shownTab](panel, program, tabEnded.signal);
    }

    signal.addEventListener("abort", () => tabEnded?.abort());
    bus.addEventListener("programs", () => {
        draw();
        change({ tab: shownTab ?? tab });
    }, { signal });
    bus.addEventListener("samples", draw, { signal });
    const ticking = setInterval(tick, 1000);
    signal.addEventListener("abort", () => clearInterval(ticking));
    draw();
    change({ tab });
    return { title: program?.name ?? id, change };
}

function absent(place) {
    place.replaceChildren(h("div", { class: "empty" }, h("h1", { tabindex: "-1" }, "No such program"),
        h("p", {}, "It has been deleted, or never was."), h("p", {}, h("a", { class: "button", href: "#/" }, "All programs"))));
}

/** How the last runs ended, newest first, each with what it wrote last. */
function showExits(panel, program, signal) {
    const shown = h("ol", { class: "exits" });
    const empty = h("p", { class: "muted" }, "…");
    panel.replaceChildren(empty, shown);
    async function read() {
        let exits;
        try {
            ({ exits } = await request("GET", pathOf(program.id, "exits")));
        } catch (failure) {
            say(empty, `The exits cannot be read: ${failure.message}`);
            return;
        }
        say(empty, exits.length ? "" : "No run has ended yet.");
        empty.hidden = exits.length > 0;
        // What was opened stays open.
        const open = [...shown.children].filter((item) => item.querySelector("details[open]")).map((item) => item.dataset.number);
        shown.replaceChildren(...exits.map(exitShown));
        for (const item of shown.children) {
            if (open.includes(item.dataset.number)) {
                item.querySelector("details").open = true;
            }
        }
    }
    events.addEventListener("open", read, { signal });
    const readSoon = paced(read);
    events.addEventListener("event", ({ detail: { type, program_id: id } }) => id === program.id && type.startsWith("program.") && readSoon(), { signal });
    document.addEventListener("visibilitychange", readSoon, { signal });
    read();
}

function exitShown(exit) {
    const isBad = exit.reason === "crash" || exit.reason === "start_failed";
    const facts = [
        exit.run_time != null && `ran ${duration(exit.run_time)}`,
        exit.max_memory_bytes != null && `at most ${bytes(exit.max_memory_bytes)}`,
        exit.cpu_seconds != null && `${duration(exit.cpu_seconds)} of CPU`,
        exit.pid != null && `pid ${exit.pid}`,
        exit.by && `by ${[exit.by.user, exit.by.via].filter(Boolean).join(", ")}`,
    ];
    return h("li", { class: isBad ? "bad" : null, "data-number": exit.number },
        h("p", { class: "head" },
            h("strong", {}, exit.message),
            h("time", { datetime: exit.end_time, title: exit.end_time, class: "muted" }, moment(new Date(exit.end_time)))),
        h("p", { class: "muted" }, facts.filter(Boolean).join(" · ")),
        exit.output
            ? h("details", {}, h("summary", {}, "Its last output"), h("pre", { tabindex: "0", "aria-label": "Its last output" }, readable(exit.output)))
            : exit.output === "" && h("p", { class: "muted" }, "It wrote nothing."));
}

function showDefinition(panel, program, signal) {
    const draw = () => {
        const now = data.programs.get(program.id);
        if (now) {
            const rows = FIELDS.map(({ name, label, text }) => h("div", {}, h("dt", {}, label), h("dd", {}, text(now[name]) || "–")));
            for (const [label, value] of [["Id", now.id], ["Created", moment(new Date(now.created_at))], ["Changed", moment(new Date(now.updated_at))]]) {
                rows.push(h("div", {}, h("dt", {}, label), h("dd", {}, value)));
            }
            panel.replaceChildren(h("dl", { class: "definition" }, rows));
        }
    };
    bus.addEventListener("programs", draw, { signal });
    draw();
}
