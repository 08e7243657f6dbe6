use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;

use crate::support::{Daemon, Definition, Reply, Setup, kill, sh, sleeper, until};

const TOKEN: &str = "0123456789abcdef-of-metrics";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

/// A sample's labels in their order, values unescaped.
type Labels = Vec<(String, String)>;

/// All that was scraped, every line of it checked.
#[derive(Debug, Default)]
struct Scraped {
    samples: BTreeMap<(String, Labels), f64>,
    /// Names of families, as samples have them.
    names: Vec<String>,
}

impl Scraped {
    /// Reads the text format 0.0.4 or OpenMetrics, and nothing that is not it.
    #[track_caller]
    fn parse(text: &str, open: bool) -> Scraped {
        let text = match open {
            true => text.strip_suffix("# EOF\n").expect("it ends with EOF"),
            false => text,
        };
        assert!(text.ends_with('\n') && !text.contains('\r'));
        let mut scraped = Scraped::default();
        let (mut stem, mut has_type) = (String::new(), false);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("there is a text");
                assert!(!help.is_empty() && !help.contains('\\'), "{line}");
                stem = name.to_owned();
                has_type = false;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("there is a type");
                assert!(name == stem && !has_type, "{line}");
                has_type = true;
                let full = match (open, kind) {
                    (true, "counter") => format!("{name}_total"),
                    (false, "counter") | (_, "gauge") => name.to_owned(),
                    _ => panic!("{line}"),
                };
                assert_eq!(kind == "counter", full.ends_with("_total"), "{line}");
                scraped.names.push(full);
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').expect("there is a unit");
                assert!(open && has_type && name == stem, "{line}");
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let (name, labels, value) = sample(line);
                assert!(has_type, "{line}");
                assert_eq!(Some(&name), scraped.names.last(), "{line}");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
                let before = scraped.samples.insert((name, labels), value);
                assert_eq!(before, None, "twice: {line}");
            }
        }
        let mut sorted = scraped.names.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(scraped.names, sorted);
        scraped
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels = labels
            .iter()
            .map(|(label, text)| ((*label).to_owned(), (*text).to_owned()))
            .collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    fn of(&self, name: &str, program: &str) -> Option<f64> {
        self.get(name, &[("program", program)])
    }
}

/// `name{label="text"} value`
#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect("a name ends");
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, quoted) = rest.split_once("=\"").expect("a label has a value");
            let mut text = String::new();
            let mut signs = quoted.char_indices();
            let end = loop {
                match signs.next().expect("a value ends") {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match signs.next().expect("something is escaped").1 {
                        'n' => '\n',
                        sign @ ('\\' | '"') => sign,
                        other => panic!("\\{other} in {line}"),
                    }),
                    (_, sign) => text.push(sign),
                }
            };
            labels.push((label.to_owned(), text));
            rest = &quoted[end + 1..];
            if let Some(value) = rest.strip_prefix('}') {
                rest = value;
                break;
            }
            rest = rest.strip_prefix(',').expect("labels are separated");
        }
    }
    let value = rest.strip_prefix(' ').expect("a value follows");
    (name.to_owned(), labels, value.parse().expect("a number"))
}

#[track_caller]
fn scrape(daemon: &Daemon) -> Scraped {
    let reply = daemon.get("/metrics").expect(200);
    let kind = reply.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    Scraped::parse(reply.text(), false)
}

fn with(daemon: &Daemon, token: &str, method: &str, path: &str) -> Reply {
    daemon.with_token(token, method, path, "")
}

#[test]
fn programs_are_shown_as_they_are() {
    let daemon = Daemon::start();
    // A new run for a moment has no memory.
    let run = daemon.create(&sleeper("runs")).started();
    daemon.create(&sleeper("never"));
    let ended = daemon.create(&sh("ended", "exit 7")).started();
    ended.reaches("failed");
    until(|| scrape(&daemon).of("hxe_program_memory_bytes", "runs") > Some(0.0));
    let scraped = scrape(&daemon);
    for (program, up, state) in [
        ("runs", 1.0, "running"),
        ("never", 0.0, "stopped"),
        ("ended", 0.0, "failed"),
    ] {
        assert_eq!(scraped.of("hxe_program_up", program), Some(up));
        assert_eq!(scraped.of("hxe_program_restarts_total", program), Some(0.0));
        let labels = [("program", program), ("state", state)];
        assert_eq!(scraped.get("hxe_program_state", &labels), Some(1.0));
        for stream in ["stdout", "stderr"] {
            let labels = [("program", program), ("stream", stream)];
            assert_eq!(scraped.get("hxe_log_bytes_total", &labels), Some(0.0));
            let dropped = scraped.get("hxe_log_dropped_bytes_total", &labels);
            assert_eq!(dropped, Some(0.0));
        }
    }
    let states = scraped.samples.keys();
    let states = states.filter(|(name, _)| name == "hxe_program_state");
    assert_eq!(states.count(), 3);
    assert_eq!(scraped.of("hxe_program_exit_code", "ended"), Some(7.0));
    assert_eq!(scraped.of("hxe_program_exit_code", "runs"), None);
    assert_eq!(scraped.of("hxe_program_memory_bytes", "ended"), None);
    assert!(scraped.of("hxe_program_cpu_seconds_total", "runs") >= Some(0.0));
    let labels = [("program", "runs"), ("id", run.id.as_str())];
    assert_eq!(scraped.get("hxe_program_info", &labels), Some(1.0));
    let daemon_start = scraped.get("hxe_start_time_seconds", &[]);
    let start = scraped.of("hxe_program_start_time_seconds", "runs");
    assert!(daemon_start > Some(1e9) && start >= daemon_start);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(scraped.get("hxe_build_info", &version), Some(1.0));
    for own in ["process_resident_memory_bytes", "process_open_fds"] {
        assert!(scraped.get(own, &[]) > Some(0.0), "{own}");
    }
}

#[test]
fn restarts_are_counted() {
    let daemon = Daemon::start();
    let definition = sleeper("a").with("auto_restart", true);
    let program = daemon.create(&definition).started();
    kill(program.pid(), Signal::KILL);
    until(|| scrape(&daemon).of("hxe_program_restarts_total", "a") == Some(1.0));
}

#[test]
fn output_is_counted_by_stream() {
    let daemon = Daemon::start();
    daemon
        .create(&sh("a", "echo 12345; echo 12 >&2"))
        .started()
        .reaches("exited");
    for (stream, bytes) in [("stdout", 6.0), ("stderr", 3.0)] {
        let labels = [("program", "a"), ("stream", stream)];
        until(|| scrape(&daemon).get("hxe_log_bytes_total", &labels) == Some(bytes));
    }
}

#[test]
fn answers_are_counted_by_class() {
    let daemon = Daemon::start();
    let count = |code| scrape(&daemon).get("hxe_http_requests_total", &[("code", code)]);
    let before = count("4xx").expect("it is there");
    for _ in 0..3 {
        daemon.get("/api/nothing").expect(404);
    }
    assert_eq!(count("4xx"), Some(before + 3.0));
    assert!(count("2xx") > Some(0.0));
    assert_eq!(count("5xx"), Some(0.0));
}

#[test]
fn names_of_any_signs_are_one_label_each_in_both_formats() {
    let daemon = Daemon::start();
    let names = ["q\"uote", "back\\slash", "\\n", "ü 日本 {a=\"b\"}", "# EOF"];
    for name in names {
        daemon.create(&Definition::new(name, "/bin/true", ""));
    }
    let accept = format!(
        "Authorization: Bearer {}\r\nAccept: {OPENMETRICS}\r\n",
        daemon.token()
    );
    let open = daemon.request("GET", "/metrics", &accept, "").expect(200);
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let open = Scraped::parse(open.text(), true);
    let text = scrape(&daemon);
    assert_eq!(text.names, open.names);
    for scraped in [text, open] {
        for name in names {
            assert_eq!(scraped.of("hxe_program_up", name), Some(0.0), "{name}");
        }
    }
}

#[test]
fn the_token_for_metrics_opens_them_and_nothing_else() {
    let setup = Setup::new().key("api", "metrics_token", format!("{TOKEN:?}"));
    let daemon = setup.start();
    let reply = with(&daemon, TOKEN, "GET", "/metrics").expect(200);
    Scraped::parse(reply.text(), false);
    with(&daemon, TOKEN, "HEAD", "/metrics").expect(200);
    with(&daemon, TOKEN, "POST", "/metrics").error(405, "method_not_allowed");
    for path in ["/api/metrics", "/api/program", "/api/daemon"] {
        with(&daemon, TOKEN, "GET", path).expect(401);
    }
    for path in ["/api/reload", "/api/auth/refresh"] {
        with(&daemon, TOKEN, "POST", path).expect(401);
    }
    for token in ["", "x", &TOKEN[1..], &format!("{TOKEN}0")] {
        with(&daemon, token, "GET", "/metrics").expect(401);
    }
    daemon.request("GET", "/metrics", "", "").expect(401);
    daemon.get("/metrics?x=1").expect(400);
    let request = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    daemon.sent(request).reply().expect(421);
    scrape(&daemon);
    assert!(!daemon.output().contains(TOKEN));
}

#[test]
fn a_new_token_for_metrics_holds_at_once_and_a_bad_one_is_not_shown() {
    let mut daemon = Daemon::start();
    with(&daemon, TOKEN, "GET", "/metrics").expect(401);
    let token = format!("{TOKEN:?}");
    daemon.reload(daemon.setup.clone().key("api", "metrics_token", token));
    with(&daemon, TOKEN, "GET", "/metrics").expect(200);
    let bad = daemon
        .setup
        .clone()
        .key("api", "metrics_token", "\"short secret\"");
    bad.write();
    let issue = daemon.post("/api/reload", "").issue("configuration");
    assert!(issue.contains("metrics_token"), "{issue}");
    assert!(!issue.contains("short secret"), "{issue}");
    with(&daemon, TOKEN, "GET", "/metrics").expect(200);
}

#[test]
fn the_command_prints_the_same() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("a")).started();
    let printed = daemon.hxe(&["metrics", "--export", "prometheus"]).ok();
    let printed = Scraped::parse(&printed, false);
    let scraped = scrape(&daemon);
    assert_eq!(printed.names, scraped.names);
    assert!(printed.samples.keys().eq(scraped.samples.keys()));
    daemon
        .hxe(&["metrics", "--export", "prometheus", "--all"])
        .fails(2);
}

#[test]
fn every_metric_of_the_alerts_and_the_dashboard_exists() {
    let names = scrape(&Daemon::start()).names;
    let mut used = BTreeSet::new();
    for text in [
        include_str!("../../conf/prometheus/alerts.yml"),
        include_str!("../../conf/prometheus/grafana.json"),
    ] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        used.extend(words.filter(|word| word.starts_with("hxe_") || word.starts_with("process_")));
    }
    assert!(used.len() > 10, "{used:?}");
    for word in used {
        assert!(names.iter().any(|name| name == word), "{word}");
    }
}
