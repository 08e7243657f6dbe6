"""Shows what peers.py has found: all of it, or the table of README."""

import statistics
import textwrap

import measures

# Rows of README: what is said, with figures of columns that are no supervisors in braces; measure; name of the figure, or of
# several that share a cell.
README = [
    ("memory of the supervisor, PSS: no program (KiB)", "memory", "PSS, 0 programs, KiB"),
    ("ten programs", "memory", "PSS, 10 programs, KiB"),
    ("a hundred programs", "memory", "PSS, 100 programs, KiB"),
    ("five hundred programs", "memory", "PSS, 500 programs, KiB"),
    ("processes of its own for ten programs", "memory", "processes, 10 programs"),
    ("death to next start (ms), median and p99; kill and spawn alone: {floor}", "restart", "death to restart, ms, each"),
    ("from its start until 100 programs run (ms); spawning alone: {floor}", "up", "until 100 run, ms"),
    ("200 MB of log, no rotation (MB/s); `program > file`: {> file}, `program \\| cat > file`: {cat > file}", "pour", "log, rotation off, MB/s"),
    ("CPU for that (s/GB)", "pour", "log, rotation off, CPU s/GB"),
    ("lines lost of that", "pour", "log, rotation off, lines lost"),
    ("the same with the rotation that it has by itself (MB/s)", "pour", "log, rotation default, MB/s"),
    ("the same with a time for each line, no rotation (MB/s)", "pour", "log, with times, MB/s"),
    ("context switches in {seconds} idle seconds with ten programs", "idle", "idle, switches in {seconds} s"),
    ("CPU in these (ms)", "idle", "idle, CPU ms in {seconds} s"),
    ("bytes written in these", "idle", "idle, bytes written in {seconds} s"),
    ("the same three with a WebSocket and a follower attached", "idle", [
        "idle with streams, switches in {seconds} s", "idle with streams, CPU ms in {seconds} s",
        "idle with streams, bytes written in {seconds} s",
    ]),
    ("list of ten programs asked by 8 connections kept alive (1/s); C: {C}, tiny_http: {tiny_http}", "api", "API, 8 kept, req/s"),
    ("p99 of that (us); C: {C}, tiny_http: {tiny_http}", "api", "API, 8 kept, p99 us"),
    ("by 8, a new connection each time (1/s); C: {C}, tiny_http: {tiny_http}", "api", "API, 8 new, req/s"),
    ("by one, kept alive (1/s); C: {C}, tiny_http: {tiny_http}", "api", "API, 1 kept, req/s"),
    ("by one, a new connection each time (1/s); C: {C}, tiny_http: {tiny_http}", "api", "API, 1 new, req/s"),
    ("SIGKILL of its main process", "killed", "SIGKILL of its main process"),
    ("SIGKILL of its main process, which init starts again", "respawned", "SIGKILL of its main process, started again"),
    ("SIGKILL of the process that watches one program", "killed", "SIGKILL of what watches one program"),
    ("SIGKILL of the process that logs one program", "killed", "SIGKILL of what logs one program"),
    ("of 20 processes that forked away, left after a stop", "leftovers", "left after a stop, of 20 processes"),
    ("installed, with all it needs beyond a minimal Debian (MiB)", "disk", "installed, MiB"),
]


def middle(values):
    """What is shown of the rounds: the median; of lists all their values' median and p99; of texts the first."""
    if isinstance(values[0], list):
        every = [value for value in values for value in value]
        return f"{number(statistics.median(every))} / {number(measures.percentile(every, 0.99))}"
    if isinstance(values[0], str):
        return values[0]
    return number(statistics.median(values))


def number(value):
    """As many digits as mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0") if value >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")


def is_floor(found, column):
    return column not in found["run"]["supervisors"]


def notes_of(found, measure):
    """Columns that have a reason for what is missing in a measure, by that reason."""
    reasons = {}
    for column in found["run"]["supervisors"]:
        for reason in found["notes"].get(measure, {}).get(column, []):
            reasons.setdefault(reason, []).append(column)
    return reasons


def cell(values, column):
    """What a column has of one figure or several."""
    return " / ".join(middle(each[column]) for each in values if column in each) or "-"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def filled(text):
    return textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)


def everything(found, titles):
    """A table for each measure, with reasons below it for what is not there."""
    lines = []
    for measure, title in titles.items():
        results = found["results"].get(measure, {})
        reasons = notes_of(found, measure)
        if not results and not reasons:
            continue
        lines += [f"## {measure}: {title}", ""]
        with_figures = {column for values in results.values() for column in values}
        columns = [column for column in found["run"]["columns"] if column in with_figures]
        if columns:
            lines += [row([""] + columns), "|---" * (len(columns) + 1) + "|"]
            for name, values in results.items():
                cells = [middle(values[column]) if column in values else "" for column in columns]
                lines.append(row([name.replace(", each", ", median / p99")] + cells))
            lines.append("")
        lines += [f"- {', '.join(where)}: {reason}" for reason, where in reasons.items()]
        lines += [""] * bool(reasons)
    lines += [f"- {name}: {remark}" for name, remark in found["remarks"].items()]
    return "\n".join(lines)


def readme(found):
    """The table of README, with the sentence that says where its figures are from."""
    run = found["run"]
    lines = [
        filled(
            f"Measured by `{run['command']}` on {run['date']}, on {run['machine']}: medians of {run['rounds']} rounds in mixed"
            f" order, output of all programs kept. It took {run['minutes']:.0f} minutes."
        ),
        "",
        row([""] + run["supervisors"]),
        "|---" * (len(run["supervisors"]) + 1) + "|",
    ]
    seconds = str(run["idle_seconds"])
    for said, measure, names in README:
        names = [names] if isinstance(names, str) else names
        results = found["results"].get(measure, {})
        values = [results.get(name.replace("{seconds}", seconds), {}) for name in names]
        said = said.replace("{seconds}", seconds)
        for column in run["columns"]:
            if is_floor(found, column):
                said = said.replace("{" + column + "}", cell(values, column))
        cells = [cell(values, column) for column in run["supervisors"]]
        if any(text != "-" for text in cells):
            lines.append(row([said] + cells))
    remarks = " ".join(f"{name}: {remark}." for name, remark in found["remarks"].items())
    lines += ["", filled(f"A dash stands for what it does not do, or has not. {remarks}")]
    return "\n".join(lines)
