// All programs: search, filter, order, and a row for each.

import { bus, data, points, used } from "./data.js";
import { freshId, h, mark, say } from "./dom.js";
import { bytes, count, duration, percent } from "./format.js";
import { live } from "./live.js";
import { spark } from "./plots.js";
import { badge, controls, ending, uptime } from "./status.js";

const STATUSES = ["all", "running", "stopped", "error"];
const ORDERS = {
    id: (a, b) => number(a) - number(b),
    name: (a, b) => a.name.localeCompare(b.name),
    status: (a, b) => severity(a) - severity(b) || number(a) - number(b),
    cpu: (a, b) => (used(b.id).cpu ?? -1) - (used(a.id).cpu ?? -1),
    memory: (a, b) => (used(b.id).memory ?? -1) - (used(a.id).memory ?? -1),
    restarts: (a, b) => (used(b.id).restarts ?? 0) - (used(a.id).restarts ?? 0),
};
const ORDER_NAMES = { id: "created", name: "name", status: "errors first", cpu: "CPU", memory: "memory", restarts: "restarts" };
const COLUMNS = ["Program", "State", "Uptime", "CPU", "Memory", "Restarts", "Actions"];

const number = ({ id }) => Number(id.slice(id.indexOf("-") + 1));
const severity = ({ status }) => ["error", "running", "stopped"].indexOf(status);

/** Which program was left for the list, to find it again. */
let cameFrom = null;
let seen = "#/";

/** Remembers the program whose page is shown. */
export function leave(id) {
    cameFrom = id;
}

/** The list as it was seen last: with its search, filter and order. */
export function address() {
    return seen;
}

/** Shows the list in `place`, until `signal`. */
export function show(place, { query }, signal) {
    const filter = {
        text: query.get("q") ?? "",
        status: STATUSES.includes(query.get("status")) ? query.get("status") : "all",
        order: query.get("order") in ORDERS ? query.get("order") : "id",
    };
    seen = location.hash || "#/";
    const rows = new Map();
    const searchId = freshId();
    const search = h("input", { id: searchId, type: "search", placeholder: "Search name or command", autocomplete: "off", spellcheck: "false" });
    search.value = filter.text;
    search.addEventListener("input", () => change({ text: search.value }));

    const counts = {};
    const group = freshId();
    const choices = STATUSES.map((status) => {
        counts[status] = h("span", { class: "count" });
        const radio = h("input", { type: "radio", name: group, value: status, checked: status === filter.status });
        radio.addEventListener("change", () => change({ status }));
        return h("label", { class: "choice" }, radio, h("span", {}, status[0].toUpperCase() + status.slice(1), " ", counts[status]));
    });
    const order = h("select", {}, Object.keys(ORDERS).map((key) => h("option", { value: key, selected: key === filter.order }, ORDER_NAMES[key])));
    order.addEventListener("change", () => change({ order: order.value }));

    const system = tiles();
    const found = h("p", { class: "hidden", role: "status" });
    const empty = h("div", { class: "empty", hidden: true });
    const body = h("tbody", { role: "rowgroup" });
    const table = h("table", { class: "programs", role: "table", "aria-label": "Programs", hidden: true },
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, COLUMNS.map((name) => h("th", { role: "columnheader", scope: "col", class: name === "Uptime" ? "since" : name.toLowerCase() }, name)))),
        body);
    place.replaceChildren(
        h("div", { class: "head" },
            h("h1", { tabindex: "-1" }, "Programs"),
            h("a", { class: "button primary", href: "#/new" }, "New program")),
        system.element,
        h("div", { class: "filters" },
            h("label", { class: "hidden", for: searchId }, "Search"), search,
            h("label", { class: "order" }, h("span", {}, "Order"), order),
            h("fieldset", { class: "choices pills" }, h("legend", { class: "hidden" }, "State"), choices)),
        found,
        empty,
        table);

    function change(part) {
        Object.assign(filter, part);
        const next = new URLSearchParams();
        for (const [key, value, usual] of [["q", filter.text, ""], ["status", filter.status, "all"], ["order", filter.order, "id"]]) {
            if (value !== usual) {
                next.set(key, value);
            }
        }
        seen = `#/${String(next) && `?${next}`}`;
        history.replaceState(null, "", seen);
        draw();
        say(found, count(body.rows.length, "program"));
    }

    function selected() {
        const text = filter.text.trim().toLowerCase();
        const fits = (program) =>
            (filter.status === "all" || program.status === filter.status) &&
            (!text || [program.name, program.id, program.description, program.command, program.args].some((part) => part.toLowerCase().includes(text)));
        return [...data.programs.values()].filter(fits).sort(ORDERS[filter.order]);
    }

    function draw() {
        const all = [...data.programs.values()];
        for (const status of STATUSES) {
            say(counts[status], String(all.filter((program) => status === "all" || program.status === status).length));
        }
        const shown = selected();
        for (const id of rows.keys()) {
            if (!data.programs.has(id)) {
                rows.delete(id);
            }
        }
        const elements = shown.map((program) => {
            const row = rows.get(program.id) ?? newRow(program.id);
            rows.set(program.id, row);
            row.update(program);
            return row.element;
        });
        arrange(body, elements);
        table.hidden = shown.length === 0;
        empty.hidden = !data.isLoaded || shown.length > 0;
        if (!empty.hidden) {
            explain(all.length === 0);
        }
        system.update();
    }

    function explain(isNone) {
        mark(empty, "data-none", isNone || null);
        empty.replaceChildren(...(isNone
            ? [h("p", {}, "There are no programs yet."), h("p", {}, h("a", { class: "button", href: "#/new" }, "Create the first one"))]
            : [h("p", {}, "No program fits."), h("p", {}, h("button", { type: "button", onclick: () => {
                search.value = "";
                choices[0].firstChild.checked = true;
                change({ text: "", status: "all" });
                search.focus();
            } }, "Show all"))]));
    }

    bus.addEventListener("programs", draw, { signal });
    bus.addEventListener("samples", draw, { signal });
    const ticking = setInterval(() => live.isReached && rows.forEach((row) => row.tick()), 1000);
    signal.addEventListener("abort", () => clearInterval(ticking));
    draw();
    const back = rows.get(cameFrom)?.link;
    cameFrom = null;
    return { title: "Programs", focus: back?.isConnected ? back : null };
}

/** Makes the children of `parent` these, and moves only what must be moved: what has the focus keeps it. */
function arrange(parent, elements) {
    const wanted = new Set(elements);
    for (const child of [...parent.children]) {
        if (!wanted.has(child)) {
            child.remove();
        }
    }
    let at = parent.firstElementChild;
    for (const element of elements) {
        if (element === at) {
            at = at.nextElementSibling;
        } else {
            parent.insertBefore(element, at);
        }
    }
}

function newRow(id) {
    let program;
    const link = h("a", { href: `#/program/${encodeURIComponent(id)}` });
    const note = h("span", { class: "note" });
    const state = badge();
    const since = h("span", {});
    const [cpu, memory] = [h("span", { class: "number" }), h("span", { class: "number" })];
    const [cpuPlot, memoryPlot] = [spark(10), spark(1024 * 1024)];
    const restarts = h("span", { class: "number" });
    const buttons = controls(id);
    const cell = (name, ...children) => h("td", { role: "cell", class: name }, children);
    const element = h("tr", { role: "row" },
        cell("name", link, note),
        cell("state", state.element),
        cell("since", since),
        cell("cpu", h("span", { class: "label" }, "CPU"), cpuPlot.element, cpu),
        cell("memory", h("span", { class: "label" }, "Memory"), memoryPlot.element, memory),
        cell("restarts", h("span", { class: "label" }, "Restarts"), restarts),
        cell("actions", buttons.element));
    const tick = () => say(since, uptime(program) || ending(program) || "–");
    return {
        element,
        link,
        tick,
        update(next) {
            program = next;
            say(link, program.name);
            const notes = [program.enabled && "enabled", program.declared && "from a file"].filter(Boolean);
            say(note, notes.join(" · "));
            state.update(program);
            const now = used(id);
            const isUp = program.pid != null;
            say(cpu, isUp ? percent(now.cpu) : "–");
            say(memory, isUp ? bytes(now.memory) : "–");
            say(restarts, now.restarts == null ? "–" : String(now.restarts));
            cpuPlot.update(points(id, "cpu"));
            memoryPlot.update(points(id, "memory"));
            buttons.update(program);
            tick();
        },
    };
}

/** The machine in four figures. */
function tiles() {
    const tile = (label, measure, least) => {
        const value = h("b", { class: "number" }, "–");
        const plot = measure && spark(least);
        return { element: h("div", { class: "tile" }, h("span", {}, label), value, plot?.element), value, plot, measure };
    };
    const [cpu, memory, disk, uptime] = [tile("CPU", "cpu", 20), tile("Memory", "memory", 1), tile("Disk", "disk", 100), tile("Up", null)];
    return {
        element: h("a", { class: "tiles", href: "#/system" }, h("span", { class: "hidden" }, "System"), [cpu, memory, disk, uptime].map(({ element }) => element)),
        update() {
            const { system } = data;
            if (!system) {
                return;
            }
            say(cpu.value, percent(system.cpu));
            say(memory.value, bytes(system.memory));
            say(disk.value, percent(system.disk));
            say(uptime.value, duration(system.uptime));
            for (const { plot, measure } of [cpu, memory, disk]) {
                plot.update(points("system", measure));
            }
        },
    };
}
