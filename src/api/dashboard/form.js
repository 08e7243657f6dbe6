// Creating and changing a program. The daemon alone judges what is entered; what it says is shown at the field.

import { pathOf, request } from "./api.js";
import { data, put } from "./data.js";
import { note } from "./dialog.js";
import { entitle, freshId, h, mark, say } from "./dom.js";
import { perform } from "./status.js";

const words = (value) => value ?? "";
const yesNo = (value) => (value ? "yes" : "no");

/** All fields of a definition. `text`: a value in words; `of`: an entered text as a value, as it is where it is none. */
export const FIELDS = [
    { name: "name", label: "Name", group: "Program", isNeeded: true, text: words },
    { name: "command", label: "Command", group: "Program", isNeeded: true, hint: "A path, or a name in its PATH", text: words },
    { name: "args", label: "Arguments", group: "Program", hint: "Split into words as a shell does; no shell runs", text: words, always: true },
    { name: "description", label: "Description", group: "Program", text: words, always: true },
    { name: "directory", label: "Directory", group: "Program", hint: "Where it runs; an absolute path", text: words },
    { name: "user", label: "User", group: "Program", hint: "Name or number", text: words, half: true },
    { name: "group", label: "Group", group: "Program", hint: "Else that of the user", text: words, half: true },
    { name: "enabled", label: "Start with the daemon", group: "Start and restart", kind: "flag", text: yesNo },
    { name: "auto_restart", label: "Restart it when it ends by itself", group: "Start and restart", kind: "flag", text: yesNo },
    {
        name: "restart_policy", label: "Restart after", group: "Start and restart", kind: "select", half: true, text: words,
        choices: { "": "default", "on-failure": "failures", always: "any end" },
    },
    { name: "max_restarts", label: "Restarts in a row", group: "Start and restart", hint: "-1: without end", half: true, text: String, of: numberOf },
    { name: "restart_delay", label: "Delay of restarts", group: "Start and restart", hint: "Such as 1s", half: true, text: words },
    {
        name: "success_exit_codes", label: "Exit codes of success", group: "Start and restart", hint: "Such as 0, 3", half: true,
        text: (codes) => codes.join(", "),
        of: (text) => text.split(/[\s,]+/).filter(Boolean).map(numberOf),
    },
    { name: "stop_signal", label: "Signal to stop it", group: "Stop", hint: "Such as TERM", half: true, text: words },
    { name: "stop_timeout", label: "Time to stop", group: "Stop", hint: "Such as 10s; then it is killed", half: true, text: words },
    {
        name: "environment", label: "Environment", group: "Surroundings", kind: "pairs",
        text: (pairs) => Object.entries(pairs).map(([name, value]) => `${name}=${value}`).join("\n"),
    },
    {
        name: "log_disk", label: "Write its log to disk", group: "Surroundings", kind: "select", half: true, text: words,
        choices: { "": "default", all: "all of it", errors: "the last before a crash", memory: "nothing" },
    },
    { name: "umask", label: "Umask", group: "Surroundings", hint: "Octal, such as 022", half: true, text: words },
];

/** A whole number, or the text that is none, for the daemon to say so. */
function numberOf(text) {
    return /^\s*[+-]?\d+\s*$/.test(text) ? Number(text) : text;
}

/** Shows the form in `place`: for a new program, or to change the one with `id`. */
export function show(place, { id }, signal) {
    const heading = h("h1", { tabindex: "-1" }, id ? "Edit" : "New program");
    const mistake = h("p", { class: "mistake", role: "alert", tabindex: "-1" });
    const save = h("button", { class: "primary" }, id ? "Save" : "Create");
    const back = id ? `#/program/${encodeURIComponent(id)}` : "#/";
    const inputs = new Map(FIELDS.map((field) => [field.name, input(field)]));
    const groups = [...new Set(FIELDS.map(({ group }) => group))].map((group) =>
        h("fieldset", {}, h("legend", {}, group),
            h("div", { class: "fields" }, FIELDS.filter((field) => field.group === group).map(({ name }) => inputs.get(name).element))));
    const starts = h("input", { type: "checkbox", id: freshId() });
    const form = h("form", { class: "definition", novalidate: true, autocomplete: "off" },
        groups,
        !id && h("div", { class: "field flag" }, starts, h("label", { for: starts.id }, "Start it now")),
        mistake,
        h("div", { class: "buttons" }, save, h("a", { class: "button", href: back }, "Cancel")));
    starts.checked = true;
    place.replaceChildren(h("p", { class: "back" }, h("a", { href: back }, id ? "← Program" : "← Programs")), heading, form);

    let isDirty = false;
    form.addEventListener("input", () => (isDirty = true));
    addEventListener("beforeunload", (event) => isDirty && event.preventDefault(), { signal });

    async function fillIn() {
        form.inert = true;
        try {
            const program = await request("GET", pathOf(id));
            say(heading, `Edit ${program.name}`);
            entitle(`Edit ${program.name}`);
            for (const { name } of FIELDS) {
                inputs.get(name).set(program[name]);
            }
            form.inert = Boolean(program.declared);
            save.disabled = Boolean(program.declared);
            if (program.declared) {
                say(mistake, `Declared in ${program.declared}: change it there, and reload.`);
            }
        } catch (failure) {
            say(mistake, failure.message);
        }
    }

    function clear() {
        say(mistake, "");
        inputs.forEach((input) => input.complain(""));
    }

    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        clear();
        const body = {};
        for (const field of FIELDS) {
            const value = inputs.get(field.name).get();
            if (value instanceof Error) {
                refuse({ field: field.name, message: value.message });
                return;
            }
            if (value !== undefined) {
                body[field.name] = value;
            }
        }
        save.disabled = true;
        try {
            const program = id ? await request("PUT", pathOf(id), { body }) : await request("POST", "/program", { body });
            put(program);
            isDirty = false;
            note(`${program.name}: ${id ? "saved" : "created"}`);
            if (!id && starts.checked) {
                perform(program.id, "start");
            }
            if (!signal.aborted) {
                location.replace(`#/program/${encodeURIComponent(program.id)}${id ? "/definition" : ""}`);
            }
        } catch (failure) {
            refuse(failure);
        } finally {
            save.disabled = false;
        }
    });

    function refuse(failure) {
        const input = inputs.get(failure.field);
        if (input) {
            input.complain(failure.message);
            say(mistake, "Not saved: see above.");
        } else {
            const advice = failure.status === 0 ? ": it may or may not have been saved" : "";
            say(mistake, `${failure.message}${advice}`);
            mistake.focus();
        }
    }

    if (id) {
        fillIn();
    }
    return { title: id ? `Edit ${data.programs.get(id)?.name ?? id}` : "New program" };
}

/** The input of one field: `get` its value, undefined for the default; `set` it; `complain` about it. */
function input(field) {
    const id = freshId();
    const mistakeId = freshId();
    const hintId = freshId();
    const mistake = h("p", { class: "mistake", id: mistakeId });
    const made = MAKERS[field.kind ?? "text"](field, id, field.hint ? hintId : null);
    const label = h("label", { for: id }, field.label, field.isNeeded && h("span", { class: "muted" }, " (needed)"));
    const hint = field.hint && h("p", { class: "hint", id: hintId }, field.hint);
    const classes = ["field", field.kind ?? "text", field.half && "half"].filter(Boolean).join(" ");
    const parts = field.kind === "flag" ? [made.element, label] : [label, made.element];
    return {
        element: field.kind === "pairs"
            ? h("div", { class: classes, role: "group", "aria-label": field.label }, h("p", { class: "label" }, field.label), made.element, mistake)
            : h("div", { class: classes }, parts, hint, mistake),
        get: made.get,
        set: made.set,
        complain(text) {
            say(mistake, text);
            const target = made.target();
            mark(target, "aria-invalid", text ? "true" : null);
            mark(target, "aria-describedby", [text && mistakeId, field.hint && hintId].filter(Boolean).join(" ") || null);
            if (text) {
                target.focus();
            }
        },
    };
}

const MAKERS = {
    text(field, id, hintId) {
        const box = h("input", { id, type: "text", spellcheck: "false", autocapitalize: "none", "aria-describedby": hintId, required: field.isNeeded });
        return {
            element: box,
            target: () => box,
            get() {
                if (box.value === "" && !field.isNeeded && !field.always) {
                    return undefined;
                }
                return field.of ? field.of(box.value) : box.value;
            },
            set: (value) => (box.value = field.text(value)),
        };
    },
    flag(_, id) {
        const box = h("input", { id, type: "checkbox" });
        return { element: box, target: () => box, get: () => box.checked, set: (value) => (box.checked = value) };
    },
    select(field, id) {
        const box = h("select", { id }, Object.entries(field.choices).map(([value, label]) => h("option", { value }, label)));
        return { element: box, target: () => box, get: () => box.value || undefined, set: (value) => (box.value = value) };
    },
    pairs() {
        const rows = h("div", { class: "pairs" });
        const add = h("button", { type: "button", onclick: () => newPair("", "").focus() }, "Add a variable");
        function newPair(name, value) {
            const [left, right] = [name, value].map((text, at) => {
                const box = h("input", { type: "text", spellcheck: "false", autocapitalize: "none", "aria-label": at ? "Value" : "Variable", placeholder: at ? "value" : "NAME" });
                box.value = text;
                return box;
            });
            const row = h("div", { class: "pair" }, left, right, h("button", { type: "button", class: "quiet", "aria-label": "Remove the variable", onclick: () => {
                (row.nextElementSibling?.firstElementChild ?? add).focus();
                row.remove();
            } }, "×"));
            rows.append(row);
            return left;
        }
        return {
            element: h("div", {}, rows, add),
            target: () => rows.querySelector("input") ?? add,
            get() {
                const pairs = [...rows.children].map((row) => [...row.querySelectorAll("input")].map((box) => box.value)).filter(([name, value]) => name || value);
                const twice = pairs.find(([name], at) => pairs.findIndex(([other]) => other === name) < at);
                return twice ? new Error(`${twice[0]} is given more than once`) : Object.fromEntries(pairs);
            },
            set(value) {
                rows.replaceChildren();
                Object.entries(value).forEach(([name, text]) => newPair(name, text));
            },
        };
    },
};
