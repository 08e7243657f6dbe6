// Numbers and times as people read them. Times of the daemon are told by its own clock, which a board may have wrong.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(number) {
    if (number == null) {
        return "–";
    }
    let unit = 0;
    while (number >= 1024 && unit < UNITS.length - 1) {
        number /= 1024;
        unit += 1;
    }
    return `${number.toFixed(unit > 0 && number < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

export function percent(number) {
    return number == null ? "–" : `${number.toFixed(number < 10 ? 1 : 0)} %`;
}

/** A length of time in two units at most. */
export function duration(seconds) {
    if (seconds > 0 && seconds < 10) {
        return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
    }
    const whole = Math.max(0, Math.floor(seconds));
    const parts = [
        [Math.floor(whole / 86400), "d"],
        [Math.floor(whole / 3600) % 24, "h"],
        [Math.floor(whole / 60) % 60, "min"],
        [whole % 60, "s"],
    ];
    const first = parts.findIndex(([count]) => count > 0);
    if (first < 0) {
        return "0 s";
    }
    const shown = parts.slice(first, first + 2).filter(([count]) => count > 0);
    return shown.map(([count, unit]) => `${count} ${unit}`).join(" ");
}

const two = (number) => String(number).padStart(2, "0");

/** The time of day here, as 14:03:22. */
export function time(date) {
    return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Day and time here, as 2026-11-28 14:03:22. */
export function moment(date) {
    return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time(date)}`;
}

/** Of one thing or several: "1 program", "2 programs". */
export function count(number, thing) {
    return `${number} ${thing}${number === 1 ? "" : "s"}`;
}
