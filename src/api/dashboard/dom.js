// Making elements. Text goes in as text and never as markup: names and logs are hostile input.

const SVG = "http://www.w3.org/2000/svg";

/** Paths in a box of 16 by 16. */
const ICONS = {
    start: "M4 2.5v11l9-5.5z",
    stop: "M3.5 3.5h9v9h-9z",
    restart: "M13 8a5 5 0 1 1-1.6-3.7M13.2 1.5v3.3H9.9",
    kill: "M4 4l8 8M12 4l-8 8",
};

/** An element: `on...` are listeners, `true` is an attribute without a value, `null` and `false` are left out. */
export function h(tag, properties, ...children) {
    return made(document.createElement(tag), properties, children);
}

/** An element of SVG. */
export function svg(tag, properties, ...children) {
    return made(document.createElementNS(SVG, tag), properties, children);
}

function made(element, properties, children) {
    for (const [name, value] of Object.entries(properties ?? {})) {
        if (name.startsWith("on")) {
            element.addEventListener(name.slice(2), value);
        } else if (value != null && value !== false) {
            element.setAttribute(name, value === true ? "" : value);
        }
    }
    element.append(...children.flat().filter((child) => child != null && child !== false));
    return element;
}

/** A picture that says nothing: words are beside it. */
export function icon(name) {
    return svg("svg", { viewBox: "0 0 16 16", class: `icon ${name}`, "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** Changes a text, and touches nothing where it is the same. */
export function say(element, text) {
    if (element.textContent !== text) {
        element.textContent = text;
    }
}

/** Sets an attribute, or removes it for `null`, and touches nothing where it is the same. */
export function mark(element, name, value) {
    if (value == null || value === false) {
        element.removeAttribute(name);
    } else if (element.getAttribute(name) !== String(value)) {
        element.setAttribute(name, value);
    }
}

/** Names the page: what is shown, and on which machine. */
export function entitle(title) {
    document.title = `${title} · ${location.hostname}`;
}

let ids = 0;

/** An id that no other element has. */
export function freshId() {
    ids += 1;
    return `e${ids}`;
}
