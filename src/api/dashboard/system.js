// The machine, and hxe itself.

import { request } from "./api.js";
import { bus, data, list, points } from "./data.js";
import { complain, note } from "./dialog.js";
import { h, say } from "./dom.js";
import { bytes, count, duration, moment, percent } from "./format.js";
import { bus as live } from "./live.js";
import { chart } from "./plots.js";

/** Shows the system in `place`, until `signal`. */
export function show(place, _, signal) {
    const plots = [
        [chart({ label: "CPU", format: percent, top: 100 }), "cpu"],
        [chart({ label: "Memory in use", format: bytes, least: 1024 ** 2 }), "memory"],
        [chart({ label: "Disk in use", format: percent, top: 100 }), "disk"],
    ];
    const uptime = h("dd", {}, "–");
    const facts = h("dl", { class: "facts" });
    const mistakes = h("div", {});
    const button = h("button", { type: "button", onclick: reload }, "Reload configuration");
    place.replaceChildren(
        h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "System"), button),
        mistakes,
        h("div", { class: "charts" }, plots.map(([plot]) => plot.element)),
        facts);

    function draw() {
        for (const [plot, measure] of plots) {
            plot.update(points("system", measure));
        }
        say(uptime, data.system ? duration(data.system.uptime) : "–");
    }

    async function read() {
        let daemon;
        try {
            daemon = await request("GET", "/daemon");
        } catch {
            return;
        }
        const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
        facts.replaceChildren(
            h("div", {}, h("dt", {}, "Machine up"), uptime),
            fact("hxe", `${daemon.version}, pid ${daemon.pid}`),
            fact("Serves since", moment(new Date(daemon.start_time))),
            fact("Programs", String(data.programs.size)),
            ...(daemon.upgrade ? [fact("Last upgrade", daemon.upgrade.state.replace("_", " ") + (daemon.upgrade.reason ? `: ${daemon.upgrade.reason}` : ""))] : []));
        mistakes.replaceChildren(...(daemon.mistakes.length
            ? [h("div", { class: "mistakes" }, h("p", {}, "The configuration on disk has mistakes; the one before it holds:"),
                h("ul", {}, daemon.mistakes.map((mistake) => h("li", {}, String(mistake)))))]
            : []));
    }

    async function reload() {
        button.disabled = true;
        try {
            const { added, changed, removed, unchanged, restart_required: later } = await request("POST", "/reload", { long: true });
            const parts = [[added, "added"], [changed, "changed"], [removed, "removed"]]
                .filter(([programs]) => programs.length)
                .map(([programs, word]) => `${programs.map(({ name }) => name).join(", ")} ${word}`);
            note(`Reloaded: ${parts.join("; ") || `nothing new, ${count(unchanged, "declared program")} unchanged`}`
                + (later.length ? `. Only after a restart: ${later.join(", ")}` : ""));
            list().catch(() => {});
        } catch (failure) {
            complain(`Not reloaded: ${failure.message}`);
        } finally {
            button.disabled = false;
            read();
        }
    }

    bus.addEventListener("samples", draw, { signal });
    live.addEventListener("open", read, { signal });
    draw();
    read();
    return { title: "System" };
}
