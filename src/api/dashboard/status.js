// How a program is, as a shape and a word, and the buttons that start and stop it: the same in the list and on its page.

import { act, data, now } from "./data.js";
import { confirm, excuse, note } from "./dialog.js";
import { h, icon, mark, say } from "./dom.js";
import { duration } from "./format.js";

const MEANINGS = {
    backoff: "waits to be restarted",
    exited: "ended by itself, with success",
    failed: "ended with a failure, or could not be started",
    running: "its process runs",
    stopped: "not started, or stopped",
    stopping: "was asked to end",
};

/** The state of a program: `update` with the program. */
export function badge() {
    const word = h("span", {});
    const element = h("span", { class: "badge" }, h("span", { class: "mark", "aria-hidden": "true" }), word);
    return {
        element,
        update({ state }) {
            mark(element, "data-state", state);
            mark(element, "title", MEANINGS[state]);
            say(word, state);
        },
    };
}

/** How a run ended: "exit 3", "signal KILL"; nothing while it is not known. */
export function ending({ exit_code: code, exit_signal: signal }) {
    if (signal) {
        return `signal ${signal}`;
    }
    return code == null ? "" : `exit ${code}`;
}

/** How long a program has been running; nothing if it does not. */
export function uptime({ pid, start_time: start }) {
    return pid == null || !start ? "" : duration(Math.floor((now() - Date.parse(start)) / 1000));
}

/** Does it and says so, or says why not. */
export async function perform(id, action, options) {
    const name = data.programs.get(id)?.name ?? id;
    try {
        note(`${name}: ${await act(id, action, options)}`);
    } catch (failure) {
        excuse(name, failure);
    }
}

/** Buttons that start, stop and restart a program, and kill it, with `isFull` at any time: `update` with the program. */
export function controls(id, isFull) {
    let program = { name: id };
    const button = (action, label, perform) => {
        const text = h("span", {}, label);
        const name = h("span", { class: "hidden" });
        const element = h("button", { type: "button", class: `control ${action}`, title: label, onclick: perform }, icon(action), text, name);
        return { element, text, name };
    };
    const start = button("start", "Start", () => perform(id, "start"));
    const stop = button("stop", "Stop", () => perform(id, "stop"));
    const restart = button("restart", "Restart", () => perform(id, "restart"));
    const kill = button("kill", "Kill", async () => {
        const isMeant = await confirm({
            title: `Kill ${program.name}?`,
            text: "Its processes are ended at once, without being asked to finish what they do.",
            action: "Kill",
        });
        if (isMeant) {
            perform(id, "stop", { force: true });
        }
    });
    const all = [start, stop, restart, kill];
    return {
        element: h("div", { class: "controls" }, all.map(({ element }) => element)),
        update(next) {
            program = next;
            const { state } = program;
            const isUp = state === "running" || state === "backoff";
            const focused = all.find(({ element }) => element === document.activeElement);
            start.element.hidden = isUp || state === "stopping";
            stop.element.hidden = !isUp;
            restart.element.hidden = !isUp;
            kill.element.hidden = state !== "stopping" && !(isFull && program.pid != null);
            for (const { name } of all) {
                say(name, ` ${program.name}`);
            }
            // The focus stays among them when its button has gone.
            if (focused?.element.hidden) {
                all.find(({ element }) => !element.hidden)?.element.focus();
            }
        },
    };
}
