// Logging in. What was looked at is kept behind it.

import { login } from "./api.js";
import { freshId, h, say } from "./dom.js";

/** The password that everybody knows. */
const DEFAULT = "password";

/** Fills the place where one logs in; `done` is called with whether the password should be changed. */
export function fill(place, done) {
    const mistake = h("p", { class: "mistake", role: "alert" });
    const button = h("button", { class: "primary" }, "Log in");
    const [name, password] = [freshId(), freshId()];
    const username = h("input", { id: name, autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true });
    const secret = h("input", { id: password, type: "password", autocomplete: "current-password", required: true });
    const form = h("form", { class: "login", novalidate: true },
        h("h1", { tabindex: "-1" }, "Log in"),
        h("p", { class: "muted" }, `hxe on ${location.host}`),
        h("div", { class: "field" }, h("label", { for: name }, "User name"), username),
        h("div", { class: "field" }, h("label", { for: password }, "Password"), secret),
        mistake,
        button);
    username.value = "admin";
    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        say(mistake, "");
        button.disabled = true;
        try {
            await login(username.value, secret.value);
            const isDefault = secret.value === DEFAULT;
            secret.value = "";
            done(isDefault);
        } catch (failure) {
            say(mistake, failure.message);
            secret.focus();
            secret.select();
        } finally {
            button.disabled = false;
        }
    });
    place.replaceChildren(form);
    return () => secret.focus();
}
