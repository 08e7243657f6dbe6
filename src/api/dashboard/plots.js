// Plots of the last minutes, in SVG, which takes its colours from the style sheet and its size from where it is.

import { now, SPAN } from "./data.js";
import { h, mark, say, svg } from "./dom.js";
import { time } from "./format.js";

const WIDTH = 600;
const HEIGHT = 100;
/** Between samples further apart nobody looked: no line is drawn. */
const GAP = 90_000;

/** The paths of a line and of what is below it, for points `[at, value]`. */
function paths(points, top, end) {
    let line = "";
    let area = "";
    let start = null;
    let before = null;
    const x = (at) => (WIDTH * (1 - (end - at) / SPAN)).toFixed(1);
    const y = (value) => (HEIGHT * (1 - Math.min(value / top, 1))).toFixed(1);
    const close = () => {
        area += start === null ? "" : `L${x(before)} ${HEIGHT}L${x(start)} ${HEIGHT}Z`;
        start = null;
    };
    for (const [at, value] of points) {
        if (value == null || at < end - SPAN) {
            continue;
        }
        const here = `${x(at)} ${y(value)}`;
        if (start === null || at - before > GAP) {
            close();
            // A line of no length shows as a point.
            line += `M${here}L${here}`;
            area += `M${here}`;
            start = at;
        } else {
            line += `L${here}`;
            area += `L${here}`;
        }
        before = at;
    }
    close();
    return { line, area };
}

function drawing() {
    const area = svg("path", { class: "area" });
    const line = svg("path", { class: "line" });
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
    const draw = (points, top, end) => {
        const drawn = paths(points, top, end);
        mark(line, "d", drawn.line);
        mark(area, "d", drawn.area);
    };
    return { picture, draw };
}

function highest(points, end) {
    return points.reduce((most, [at, value]) => (at >= end - SPAN && value > most ? value : most), 0);
}

/** A small plot, without words: they are beside it. `least` is how high it is at least. */
export function spark(least) {
    const { picture, draw } = drawing();
    picture.setAttribute("class", "spark");
    return {
        element: picture,
        update(points) {
            const end = now();
            draw(points, Math.max(least, highest(points, end) * 1.1), end);
        },
    };
}

/** A plot with words. `top` is its height where that is fixed, `least` its least height. */
export function chart({ label, format, top, least }) {
    const { picture, draw } = drawing();
    const value = h("span", { class: "value" });
    const upper = h("span", { class: "upper", "aria-hidden": "true" });
    const cursor = h("span", { class: "cursor", hidden: true });
    const box = h("div", { class: "plot", role: "img", "aria-label": label }, picture, cursor, upper);
    const element = h("figure", { class: "chart" },
        h("figcaption", {}, h("span", {}, label), value),
        box,
        h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, "10 min ago"), h("span", {}, "now")));
    let shown = [];
    let latest = null;
    let end = now();
    let pointed = null;

    function tell() {
        let at = null;
        if (pointed !== null) {
            const wanted = end - SPAN * (1 - pointed);
            const distance = (point) => Math.abs(point[0] - wanted);
            at = shown.reduce((best, point) => (best && distance(best) <= distance(point) ? best : point), null);
        }
        cursor.hidden = !at;
        if (at) {
            cursor.style.left = `${100 * (1 - (end - at[0]) / SPAN)}%`;
            say(value, `${format(at[1])} at ${time(new Date(at[0]))}`);
        } else {
            say(value, format(latest));
        }
    }

    box.addEventListener("pointermove", (event) => {
        const place = box.getBoundingClientRect();
        pointed = (event.clientX - place.left) / place.width;
        tell();
    });
    box.addEventListener("pointerleave", () => {
        pointed = null;
        tell();
    });
    return {
        element,
        update(points) {
            end = now();
            shown = points.filter(([at, number]) => number != null && at >= end - SPAN);
            latest = points.at(-1)?.[1];
            const most = highest(shown, end);
            const height = top ?? Math.max(least, most * 1.1);
            draw(shown, height, end);
            say(upper, format(height));
            mark(box, "aria-label", `${label} of the last 10 minutes: now ${format(latest)}, at most ${format(shown.length ? most : null)}`);
            tell();
        },
    };
}
