// The dashboard: which view is shown, who is logged in, and whether there is a connection.

import { bus as requests, logout, token } from "./api.js";
import { begin, bus, data } from "./data.js";
import { note } from "./dialog.js";
import { entitle, h, mark, say } from "./dom.js";
import * as form from "./form.js";
import { time } from "./format.js";
import * as list from "./list.js";
import { bus as events, connectNow, live } from "./live.js";
import * as login from "./login.js";
import * as program from "./program.js";
import * as system from "./system.js";

/** How long there is no connection before a banner says so, and how long the first may take, in milliseconds. */
const BANNER_AFTER = 600;
const FIRST_AFTER = 4000;
/** How long it is said that it is back. */
const BACK_STAYS = 3000;

const byId = (id) => document.getElementById(id);
const [view, loginPlace, banner] = ["view", "login", "banner"].map(byId);

/** The view that is shown: its module, what it was given, and what ends it. */
let shown = null;

/** What the part of the address behind "#" leads to. */
function routed() {
    const [path, query] = location.hash.replace(/^#/, "").split("?");
    const parts = path.split("/").filter(Boolean).map(decoded);
    const given = { query: new URLSearchParams(query ?? "") };
    if (parts[0] === "program" && parts[1]) {
        const id = idOf(parts[1]);
        if (parts[2] === "edit") {
            return [form, { ...given, id }];
        }
        return [program, { ...given, id, tab: ["exits", "definition"].includes(parts[2]) ? parts[2] : "log" }];
    }
    return { new: [form, given], system: [system, given] }[parts[0]] ?? [list, given];
}

function decoded(part) {
    try {
        return decodeURIComponent(part);
    } catch {
        return part;
    }
}

/** A program may be named by its name, too. */
function idOf(text) {
    const named = () => [...data.programs.values()].find(({ name }) => name === text)?.id;
    return data.programs.has(text) ? text : named() ?? text;
}

function route({ isFirst } = {}) {
    const [module, given] = routed();
    for (const link of byId("nav").children) {
        const isHere = link.hash === (module === system ? "#/system" : "#/") && module !== form;
        mark(link, "aria-current", isHere ? "page" : null);
    }
    if (shown?.module === module && shown.given.id === given.id && shown.change) {
        shown.given = given;
        shown.change(given);
        return;
    }
    shown?.ended.abort();
    const ended = new AbortController();
    shown = { module, given, ended };
    const { title, focus, change } = module.show(view, given, ended.signal);
    shown.change = change;
    entitle(title);
    if (!isFirst) {
        scrollTo(0, 0);
        (focus ?? view.querySelector("h1") ?? view).focus();
        focus?.scrollIntoView({ block: "center" });
    }
}

let titleBefore = "";

/** Shows either the view or the login. */
function admit({ isFirst } = {}) {
    const isKnown = Boolean(token());
    view.hidden = !isKnown;
    loginPlace.hidden = isKnown;
    for (const id of ["nav", "logout", "link"]) {
        byId(id).hidden = !isKnown;
    }
    mark(document.querySelector(".skip"), "href", isKnown ? "#view" : "#login");
    if (!isKnown) {
        if (loginPlace.childElementCount === 0) {
            titleBefore = document.title;
            entitle("Log in");
            const focus = login.fill(loginPlace, (isDefault) => isDefault && note(
                "This is the default password: set your own in hxe.toml.", 10_000));
            focus();
        }
        wasOpen = false;
        hide();
        return;
    }
    const wasLogin = loginPlace.childElementCount > 0;
    loginPlace.replaceChildren();
    const wasShown = Boolean(shown);
    if (!wasShown) {
        route({ isFirst });
    }
    if (wasLogin) {
        if (wasShown) {
            document.title = titleBefore;
        }
        view.querySelector("h1")?.focus();
    }
}

let bannerTimer = 0;
/** Whether there was a connection since the login. */
let wasOpen = false;

/** Says whether there is a connection. */
function tell() {
    const state = live.isOpen ? "live" : live.isReached ? "pending" : "lost";
    const isLost = state === "lost";
    mark(byId("link"), "data-state", state);
    say(byId("link-word"), { live: "Live", pending: "Connecting", lost: "Not connected" }[state]);
    document.body.classList.toggle("stale", isLost);
    clearTimeout(bannerTimer);
    if (live.isOpen) {
        if (banner.dataset.state && wasOpen) {
            show("back", "Connected again.");
            bannerTimer = setTimeout(hide, BACK_STAYS);
        } else {
            hide();
        }
        wasOpen = true;
        return;
    }
    bannerTimer = setTimeout(() => {
        if (!token()) {
            hide();
        } else if (isLost) {
            show("lost", `Not connected to hxe${data.asOf ? `: what is shown is from ${time(new Date(data.asOf))}` : ""}.`);
        } else {
            show("pending", "No live connection: what is shown is some seconds old.");
        }
    }, banner.dataset.state ? 0 : wasOpen || isLost ? BANNER_AFTER : FIRST_AFTER);
}

function show(state, text) {
    if (banner.dataset.state !== state) {
        banner.dataset.state = state;
        banner.replaceChildren(h("p", {}, text), state === "back" ? "" : h("button", { type: "button", onclick: connectNow }, "Try now"));
    }
}

function hide() {
    delete banner.dataset.state;
    banner.replaceChildren();
}

say(byId("host"), location.host);
byId("logout").addEventListener("click", logout);
document.querySelector(".skip").addEventListener("click", (event) => {
    // The address says which view is shown.
    event.preventDefault();
    (token() ? view : loginPlace.querySelector("input")).focus();
});
addEventListener("hashchange", () => token() && route());
requests.addEventListener("session", () => admit());
events.addEventListener("state", tell);
bus.addEventListener("programs", () => {
    // A name in the address can be found now.
    if (shown && shown.given.id && shown.given.id !== routed()[1].id) {
        route();
    }
});
admit({ isFirst: true });
tell();
begin();
