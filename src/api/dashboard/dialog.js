// Questions, and short messages on what was done.

import { freshId, h } from "./dom.js";

/** How long a message stays, in milliseconds; one on a failure stays until it is dismissed. */
const STAY = 6000;

/** Asks before something is done that cannot be undone. Gives whether it may be. */
export function confirm({ title, text, action }) {
    const [titleId, textId] = [freshId(), freshId()];
    const dialog = h("dialog", { "aria-labelledby": titleId, "aria-describedby": textId },
        h("form", { method: "dialog" },
            h("h2", { id: titleId }, title),
            h("p", { id: textId }, text),
            h("div", { class: "buttons" },
                h("button", { value: "", autofocus: true }, "Cancel"),
                h("button", { value: "yes", class: "danger" }, action))));
    // A press on what is behind it.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close(""));
    const asker = document.activeElement;
    document.body.append(dialog);
    dialog.showModal();
    return new Promise((resolve) => {
        dialog.addEventListener("close", () => {
            dialog.remove();
            if (asker?.isConnected) {
                asker.focus();
            }
            resolve(dialog.returnValue === "yes");
        });
    });
}

/** Says what was done. */
export function note(text, stay = STAY) {
    const shown = place("status", text);
    setTimeout(() => shown.remove(), stay);
}

/** Says what went wrong. */
export function complain(text) {
    place("alert", text);
}

/** Says why something about `subject` has no result, or that it takes longer than one waits for it. */
export function excuse(subject, failure) {
    const say = failure.code === "under_way" ? note : complain;
    say(`${subject}: ${failure.message}`);
}

function place(role, text) {
    const region = document.querySelector(`#notices [role=${role}]`);
    const shown = h("p", { class: role }, h("span", {}, text),
        h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => shown.remove() }, "×"));
    region.append(shown);
    while (region.childElementCount > 3) {
        region.firstElementChild.remove();
    }
    return shown;
}
