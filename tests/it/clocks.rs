use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Daemon, Follower, Program, Setup, is_alive, json, sh, sleeper, until};

const TEN_YEARS: i64 = 10 * 365 * 86_400;

/// A wall clock for a daemon, which a test sets. Debug builds have it.
struct Clock(PathBuf);

impl Clock {
    /// One that goes right.
    fn of(setup: Setup) -> (Setup, Clock) {
        let path = setup.path("clock");
        let setup = setup.variable(
            "HXE_CLOCK",
            path.to_str().expect("a temporary path is UTF-8"),
        );
        let clock = Clock(path);
        clock.shift(0);
        (setup, clock)
    }

    /// So many seconds ahead of the true time.
    fn shift(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }

    /// The wall shows now that it is so many seconds since 1970.
    fn set(&self, seconds: i64) {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        self.shift(seconds - now.as_secs().cast_signed());
    }
}

/// A program that counts, a line each.
fn counter(name: &str) -> crate::support::Definition {
    sh(
        name,
        "n=0; while :; do n=$((n+1)); echo $n; sleep 0.005; done",
    )
}

/// Waits until it has written so many lines more.
fn goes_on(program: &Program) {
    let count = || {
        let lines = program.stdout();
        lines.iter().filter(|byte| **byte == b'\n').count()
    };
    let before = count();
    until(|| count() >= before + 50);
}

fn years(program: &Program) -> Vec<String> {
    let mut years: Vec<String> = program
        .logs("?lines=10000")
        .iter()
        .map(|entry| entry["timestamp"].as_str().unwrap()[..4].to_owned())
        .collect();
    years.dedup();
    years
}

#[test]
fn a_wall_clock_that_jumps_ten_years_either_way_changes_nothing_but_what_is_shown() {
    let (setup, clock) = Clock::of(Setup::new());
    let daemon = setup
        .key("logs", "max_size", "\"4KiB\"")
        .key("logs", "max_files", 100)
        .start();
    let programs: Vec<Program> = ["a", "b", "c"]
        .map(|name| daemon.create(&counter(name).with("auto_restart", true)))
        .into_iter()
        .map(Program::started)
        .collect();
    let pids: Vec<i32> = programs.iter().map(Program::pid).collect();
    let mut follower = Follower::open(&programs[0], "&lines=0", "");
    let token = daemon.login();
    for shift in [TEN_YEARS, -TEN_YEARS, 0] {
        goes_on(&programs[0]);
        clock.shift(shift);
        goes_on(&programs[2]);
        daemon.with_token(&token, "GET", "/api/program", "").ok(200);
    }
    for (program, pid) in programs.iter().zip(pids) {
        assert_eq!(program.pid(), pid);
        let metrics = program.daemon.get(&program.path("/metrics")).ok(200);
        assert_eq!(metrics["metrics"]["restart_count"], 0);
        let numbers: Vec<u64> = program
            .messages("stdout")
            .iter()
            .map(|line| line.parse().unwrap())
            .collect();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "nothing is lost and the order holds");
    }
    let shown = years(&programs[0]);
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert_eq!(shown[0], shown[3]);
    let first: u64 = follower.message().parse().unwrap();
    for number in first + 1..first + 140 {
        assert_eq!(follower.message(), number.to_string());
    }
}

#[test]
fn uptime_is_true_whatever_the_wall_says() {
    let (setup, clock) = Clock::of(Setup::new());
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    for shift in [TEN_YEARS, -TEN_YEARS] {
        clock.shift(shift);
        let metrics = daemon.get(&program.path("/metrics")).ok(200);
        let uptime = metrics["metrics"]["uptime"].as_f64().unwrap();
        assert!((0.0..600.0).contains(&uptime), "{metrics}");
    }
}

#[test]
fn tokens_end_by_the_time_that_has_passed() {
    let (setup, clock) = Clock::of(Setup::new());
    let daemon = setup.key("api", "token_lifetime", "\"3s\"").start();
    let is_good = |token: &str| {
        let reply = daemon.with_token(token, "GET", "/api/program", "");
        reply.status == 200
    };
    let start = Instant::now();
    let [one, other] = [daemon.login(), daemon.login()];
    clock.shift(TEN_YEARS);
    let good = is_good(&one);
    assert!(good || start.elapsed() >= Duration::from_secs(3));
    clock.shift(-TEN_YEARS);
    let good = is_good(&other);
    assert!(good || start.elapsed() >= Duration::from_secs(3));
    until(|| !is_good(&one) && !is_good(&other));
    assert!(start.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_restart_is_due_when_its_time_has_passed_whatever_the_wall_says() {
    let (setup, clock) = Clock::of(Setup::new());
    let daemon = setup.start();
    let ending = |name, delay| {
        let definition = sh(name, "echo run; exit 1").with("auto_restart", true);
        daemon.create(
            &definition
                .with("restart_delay", delay)
                .with("max_restarts", -1),
        )
    };
    let held = ending("held", "1h").started();
    held.reaches("backoff");
    let often = ending("often", "10ms").started();
    for shift in [TEN_YEARS, -TEN_YEARS] {
        clock.shift(shift);
        let runs = often.stdout().len();
        until(|| often.stdout().len() > runs);
        assert_eq!(held.state(), "backoff");
    }
    assert!(held.stdout().len() <= 2 * "run\n".len());
}

#[test]
fn rate_limits_hold_whatever_the_wall_says() {
    let (setup, clock) = Clock::of(Setup::new());
    let daemon = setup
        .key("api", "rate_limit", 2)
        .key("api", "rate_limit_window", "\"1h\"")
        .start();
    let ask = || daemon.request("GET", "/no/such/path", "", "");
    for _ in 0..2 {
        ask().expect(404);
    }
    for shift in [TEN_YEARS, -TEN_YEARS] {
        clock.shift(shift);
        let reply = ask().expect(429);
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&wait), "{wait}");
    }
}

#[test]
fn a_daemon_works_in_1970_and_after_2038_and_keeps_the_order_of_its_logs() {
    let (setup, clock) = Clock::of(Setup::new());
    clock.set(60);
    let daemon = setup.start();
    let program = daemon.create(&sh("a", "echo $HXE_RUN_ID; exec sleep 1000"));
    let id = program.id.clone();
    let began = |daemon: &Daemon| {
        let program = daemon.program(&id);
        let before = program.messages("stdout").len();
        program.post("start").ok(200);
        until(|| program.messages("stdout").len() > before);
        let json = program.get();
        assert!(is_alive(program.pid()));
        json["start_time"].as_str().unwrap().to_owned()
    };
    let shown = began(&daemon);
    assert!(shown.starts_with("1970-01-01T00:0"), "{shown}");
    let json = program.get();
    assert!(
        json["created_at"]
            .as_str()
            .unwrap()
            .starts_with("1970-01-01T00:0")
    );
    // The clock is set, as NTP does once the network is there; and two more daemons come.
    for (seconds, year) in [
        (2_177_452_800, "2039-01-01T"),
        (2_051_222_400, "2035-01-01T"),
    ] {
        clock.set(seconds);
        let program = daemon.program(&id);
        program.stopped();
        let shown = began(&daemon);
        assert!(shown.starts_with(year), "{shown}");
    }
    let daemon = daemon.restart();
    clock.set(253_402_300_000);
    let shown = began(&daemon);
    assert!(shown.starts_with("9999-12-31T23:"), "{shown}");
    let program = daemon.program(&id);
    assert_eq!(program.messages("stdout").len(), 4);
    assert_eq!(
        years(&program)
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["1970", "2039", "2035", "9999"]
    );
    let body = json!({"username": "admin", "password": "password"}).to_string();
    let login = daemon.request("POST", "/api/auth/login", "", &body).ok(200);
    let token = login["token"].as_str().unwrap();
    daemon.with_token(token, "GET", "/api/program", "").ok(200);
}
