use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::support::{
    Daemon, Definition, Setup, is_alive, kill, processes_with, sh, sleeper, stubborn, until,
};

/// Lets the daemon die in this way, and gives the one that comes after it.
type Death = fn(Daemon) -> Daemon;

/// The guardian dies, and the daemon with it; the next one is started by somebody else.
fn guardian(mut daemon: Daemon) -> Daemon {
    daemon.kill();
    daemon.succeed()
}

/// The daemon alone dies; its guardian starts the next one.
fn server(daemon: Daemon) -> Daemon {
    kill(daemon.server_pid(), Signal::KILL);
    daemon
}

/// There is no guardian to die with it.
fn alone(daemon: Daemon) -> Daemon {
    guardian(daemon)
}

const DEATHS: [(fn() -> Setup, Death); 3] = [
    (Setup::new, guardian),
    (Setup::new, server),
    (|| Setup::new().no_guardian(), alone),
];

#[test]
fn a_program_runs_on_as_it_was_when_the_daemon_is_killed() {
    for (setup, dies) in DEATHS {
        let daemon = setup().start();
        let definition = sleeper("a")
            .with("enabled", true)
            .with("auto_restart", true);
        let id = daemon.create(&definition).started().id;
        kill(daemon.program(&id).pid(), Signal::KILL);
        daemon.program(&id).reaches("backoff");
        let before = daemon.program(&id).reaches("running");
        let daemon = dies(daemon);
        let after = daemon.program(&id).get();
        for field in [
            "pid",
            "status",
            "state",
            "start_time",
            "exit_code",
            "enabled",
        ] {
            assert_eq!(after[field], before[field], "{field}");
        }
        let metrics = daemon.get(&daemon.program(&id).path("/metrics")).ok(200);
        assert_eq!(metrics["metrics"]["restart_count"], 1);
    }
}

#[test]
fn an_adopted_program_can_be_stopped_and_restarted() {
    for (setup, dies) in DEATHS {
        let daemon = setup().start();
        let id = daemon.create(&sleeper("a")).started().id;
        let daemon = dies(daemon);
        let program = daemon.program(&id);
        let pid = program.pid();
        program.post("restart").ok(200);
        let next = program.other_pid(pid);
        assert!(!is_alive(pid));
        let daemon = dies(daemon);
        let program = daemon.program(&id);
        assert_eq!(program.pid(), next);
        program.stopped();
        assert!(!is_alive(next));
        assert_eq!(program.state(), "stopped");
    }
}

#[test]
fn an_adopted_program_that_is_killed_comes_back() {
    for (setup, dies) in DEATHS {
        let daemon = setup().start();
        let definition = sleeper("a")
            .with("auto_restart", true)
            .with("restart_delay", "10ms");
        let id = daemon.create(&definition).started().id;
        let daemon = dies(daemon);
        let program = daemon.program(&id);
        let pid = program.pid();
        kill(pid, Signal::KILL);
        program.other_pid(pid);
    }
}

/// A program that ends with code 3 and last words when it gets USR1.
fn fragile(name: &str) -> Definition {
    sh(
        name,
        "trap 'echo last words; exit 3' USR1; echo ready; while :; do sleep 0.05; done",
    )
}

#[test]
fn a_program_that_ended_while_there_was_no_daemon_is_treated_by_its_policy() {
    for setup in [Setup::new(), Setup::new().no_guardian()] {
        let mut daemon = setup.start();
        let comes_back = sleeper("a")
            .with("auto_restart", true)
            .with("restart_delay", "10ms");
        let ids = [
            daemon.create(&comes_back).started().id,
            daemon.create(&sleeper("b")).started().id,
        ];
        let pids = ids.each_ref().map(|id| daemon.program(id).pid());
        daemon.kill();
        for pid in pids {
            kill(pid, Signal::KILL);
            until(|| !is_alive(pid));
        }
        let daemon = daemon.succeed();
        daemon.program(&ids[0]).other_pid(pids[0]);
        assert_eq!(daemon.program(&ids[1]).state(), "failed");
    }
}

#[test]
fn the_guardian_knows_how_a_program_ended_meanwhile_and_its_last_words() {
    let daemon = Daemon::start();
    let program = daemon.create(&fragile("a")).started();
    program.says("ready");
    let pid = program.pid();
    daemon.without_server(|| {
        kill(pid, Signal::USR1);
        until(|| !is_alive(pid));
    });
    let ended = program.reaches("failed");
    assert_eq!(ended["exit_code"], 3);
    program.says("last words");
    until(|| !Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_exit_code_of_an_adopted_program_is_known() {
    let daemon = Daemon::start();
    let program = daemon.create(&fragile("a")).started();
    program.says("ready");
    let id = program.id.clone();
    let daemon = server(daemon);
    let program = daemon.program(&id);
    let pid = program.pid();
    kill(pid, Signal::USR1);
    let ended = program.reaches("failed");
    assert_eq!(ended["exit_code"], 3);
    program.says("last words");
    until(|| !Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_stop_that_was_under_way_is_carried_through() {
    for (setup, dies) in DEATHS {
        let daemon = setup().start();
        let definition = stubborn("a").with("stop_timeout", "1s");
        let program = daemon.create(&definition).started();
        program.says("ready");
        let pid = program.pid();
        let id = program.id.clone();
        let _asked = daemon.sent(format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            program.path("/stop"),
            daemon.token()
        ));
        program.reaches("stopping");
        let daemon = dies(daemon);
        daemon.program(&id).reaches("stopped");
        assert!(!is_alive(pid));
    }
}

#[test]
fn a_restart_that_was_due_comes() {
    for (setup, dies) in DEATHS {
        let daemon = setup().start();
        let definition = sh("a", "echo run; exit 1")
            .with("auto_restart", true)
            .with("restart_delay", "1s");
        let id = daemon.create(&definition).started().id;
        daemon.program(&id).reaches("backoff");
        let daemon = dies(daemon);
        let program = daemon.program(&id);
        until(|| program.messages("stdout").len() > 1);
    }
}

#[test]
fn what_was_stopped_stays_so_after_a_kill_and_starts_after_an_orderly_end() {
    for (setup, dies) in DEATHS {
        let daemon = setup().start();
        let program = daemon.create(&sleeper("a").with("enabled", true)).started();
        program.stopped();
        let id = program.id.clone();
        let daemon = dies(daemon);
        assert_eq!(daemon.program(&id).state(), "stopped");
        let daemon = daemon.restart();
        daemon.program(&id).reaches("running");
    }
}

#[test]
fn no_line_is_lost_by_kills_at_full_speed() {
    for (setup, dies) in DEATHS {
        const LINES: usize = 200_000;
        let mut daemon = setup().start();
        let script = format!(
            "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; done; echo done; sleep 1000"
        );
        let id = daemon.create(&sh("a", &script)).started().id;
        let mut kills = 0;
        let is_done = |daemon: &Daemon| {
            let messages = daemon.program(&id).messages("stdout");
            messages.last().is_some_and(|line| line == "done")
        };
        while !is_done(&daemon) {
            daemon = dies(daemon);
            kills += 1;
        }
        assert!(kills > 0);
        let dir = daemon.log_dir().join(&id);
        let mut text = String::new();
        for number in (0..=5).rev() {
            let name = match number {
                0 => "stdout.log".to_owned(),
                n => format!("stdout.log.{n}"),
            };
            text += &std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        }
        let mut lines = text.lines();
        for number in 1..=LINES {
            assert_eq!(lines.next(), Some(number.to_string().as_str()));
        }
        assert_eq!(lines.next(), Some("done"));
    }
}

#[test]
fn a_start_right_behind_a_kill_of_the_guardian_is_not_refused() {
    let mut daemon = Daemon::start();
    let id = daemon.create(&sleeper("a")).started().id;
    let pid = daemon.program(&id).pid();
    for _ in 0..10 {
        // Of the guardian alone: its daemon is dying while the next one starts.
        daemon.kill();
        daemon = daemon.succeed();
    }
    assert_eq!(daemon.program(&id).pid(), pid);
}

#[test]
fn a_lock_whose_owner_has_died_is_waited_for() {
    let mut daemon = Daemon::start();
    daemon.stop();
    let state = daemon.setup.path("state");
    // As a child of a dead daemon that has not become its program yet: it holds a lock that the kernel names nobody for.
    let script = "exec 9<\"$0\"; flock -n 9 || exit; echo held; exec sleep 1";
    let mut holder = Command::new("sh")
        .args(["-c", script])
        .arg(&state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let stdout = holder.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut said).unwrap();
    if said == "held\n" {
        daemon = daemon.succeed();
    } else {
        eprintln!("skipped: there is no flock(1)");
    }
    holder.wait().unwrap();
    drop(daemon);
}

#[test]
fn a_daemon_that_is_killed_again_and_again_before_it_serves_is_soon_back() {
    let daemon = Daemon::start();
    let id = daemon.create(&sleeper("a")).started().id;
    let pid = daemon.program(&id).pid();
    for _ in 0..6 {
        let server = daemon.server_pid();
        kill(server, Signal::KILL);
        until(|| !is_alive(server));
    }
    assert_eq!(daemon.program(&id).pid(), pid);
}

/// Says that something is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn kills_in_a_row_change_nothing_lose_no_line_and_refuse_no_request() {
    let daemon = Setup::new().key("logs", "max_size", "\"256MiB\"").start();
    let noisy = daemon.create(&sh("noisy", "i=0; while :; do i=$((i+1)); echo $i; done"));
    let noisy = noisy.started();
    daemon.create(&sleeper("quiet")).started();
    daemon
        .create(&sh("failed", "exit 3"))
        .started()
        .reaches("failed");
    daemon
        .create(&sh("ended", "exit 0"))
        .started()
        .reaches("exited");
    daemon.create(&sleeper("stopped")).started().stopped();
    daemon.create(&sleeper("new"));
    let before = daemon.get("/api/program").ok(200);
    let uptime = || {
        let metrics = daemon.get(&noisy.path("/metrics")).ok(200);
        metrics["metrics"]["uptime"].as_f64().expect("it runs")
    };
    let mut up = uptime();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also where an assertion fails: nobody is to ask for ever.
        let is_over = Over(&over);
        let asking = scope.spawn(|| {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let token = daemon.token();
                let mut connection = daemon.sent(format!(
                    "GET /api/program HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
                ));
                // None where it was accepted by the one that died over it.
                if let Some(reply) = connection.reply_or_end() {
                    assert_eq!(reply.ok(200), before);
                    answered += 1;
                }
            }
            answered
        });
        for _ in 0..8 {
            let server = daemon.server_pid();
            kill(server, Signal::KILL);
            until(|| !is_alive(server));
            assert_eq!(daemon.get("/api/program").ok(200), before);
            let now = uptime();
            assert!(now >= up);
            up = now;
        }
        drop(is_over);
        assert!(asking.join().unwrap() > 0);
    });
    noisy.stopped();
    let text = String::from_utf8(noisy.stdout()).unwrap();
    let mut next = 1;
    for line in text.lines() {
        assert_eq!(line, next.to_string());
        next += 1;
    }
    assert!(next > 1);
}

/// Where the daemon can die on the way of a program, see `sys::fault` in the daemon.
const STEPS: [&str; 10] = [
    "decided",
    "recorded",
    "buried",
    "forked",
    "fork recorded",
    "executed",
    "done",
    "seen",
    "cleared up",
    "signalled",
];

/// A daemon that dies at a step once it is told to, and where to write that.
fn mortal() -> (Daemon, PathBuf) {
    let setup = Setup::new();
    let fault = setup.path("fault");
    let path = fault
        .to_str()
        .expect("temporary paths are UTF-8")
        .to_owned();
    (setup.variable("HXE_FAULT", &path).start(), fault)
}

/// Has something asked of the program while the daemon dies at a step, if it comes by there.
fn ask_and_die(daemon: &Daemon, fault: &Path, step: &str, path: &str) {
    std::fs::write(fault, step).unwrap();
    let token = daemon.token();
    let mut connection = daemon.sent(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    ));
    // Its answer, or the end of the daemon that would have given it.
    connection.wait_for_end();
    let _ = std::fs::remove_file(fault);
}

/// A program that does nothing, and whose processes can be told from all others.
fn marked(name: &str, mark: &str) -> Definition {
    sh(name, &format!(": {mark}; while :; do sleep 1000; done"))
}

/// The processes of such a program.
fn processes(mark: &str) -> Vec<i32> {
    processes_with(mark)
}

#[test]
fn a_start_ends_with_one_process_at_whichever_step_the_daemon_dies() {
    let (daemon, fault) = mortal();
    for step in STEPS {
        let name = step.replace(' ', "-");
        let mark = format!("start-{name}-{}", daemon.pid());
        let program = daemon.create(&marked(&name, &mark));
        ask_and_die(&daemon, &fault, step, &program.path("/start"));
        // At the first steps nothing is on record yet, and who asked has to ask again.
        if step == "decided" && program.state() == "stopped" {
            program.post("start").ok(200);
        }
        program.reaches("running");
        let pid = program.pid();
        // What it forks looks like itself until it has become another program.
        until(|| processes(&mark) == [pid]);
    }
}

#[test]
fn a_stop_ends_with_no_process_at_whichever_step_the_daemon_dies() {
    let (daemon, fault) = mortal();
    for step in STEPS {
        let name = step.replace(' ', "-");
        let mark = format!("stop-{name}-{}", daemon.pid());
        let program = daemon.create(&marked(&name, &mark)).started();
        ask_and_die(&daemon, &fault, step, &program.path("/stop"));
        if step == "decided" && program.state() == "running" {
            program.stopped();
        }
        program.reaches("stopped");
        assert!(processes(&mark).is_empty(), "{step}");
        assert_eq!(program.reasons(), ["stop"], "{step}");
    }
}

#[test]
fn a_crash_is_followed_by_one_process_at_whichever_step_the_daemon_dies() {
    let (daemon, fault) = mortal();
    for step in STEPS {
        let name = step.replace(' ', "-");
        let mark = format!("crash-{name}-{}", daemon.pid());
        let definition = marked(&name, &mark)
            .with("auto_restart", true)
            .with("restart_delay", "10ms");
        let program = daemon.create(&definition).started();
        let pid = program.pid();
        let server = daemon.server_pid();
        std::fs::write(&fault, step).unwrap();
        kill(pid, Signal::KILL);
        until(|| matches!(processes(&mark)[..], [next] if next != pid));
        // Who removes it decides: it dies only if it could, and then there is another one.
        if std::fs::remove_file(&fault).is_err() {
            until(|| daemon.server_pid() != server);
        }
        until(|| {
            program
                .try_pid()
                .is_some_and(|pid| processes(&mark) == [pid])
        });
        assert_eq!(program.reasons(), ["crash"], "{step}");
        program.stopped();
        assert_eq!(program.reasons(), ["stop", "crash"], "{step}");
    }
}

#[test]
fn who_is_told_to_end_ends_also_where_no_daemon_can_be_started() {
    let mut daemon = Daemon::start();
    let state = daemon.setup.path("state");
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::write(&state, "").unwrap();
    kill(daemon.server_pid(), Signal::KILL);
    until(|| daemon.output().contains("(state_dir) cannot be opened"));
    assert_eq!(daemon.stop(), Some(1));
}

#[test]
fn the_first_daemon_that_is_killed_as_soon_as_it_answers_comes_back() {
    let setup = Setup::new();
    let fault = setup.path("fault");
    std::fs::write(&fault, "answering").unwrap();
    let variable = fault.to_str().unwrap().to_owned();
    let daemon = setup.variable("HXE_FAULT", &variable).start();
    until(|| daemon.output().contains("was killed by signal"));
    daemon.get("/api/program").ok(200);
}

#[test]
fn what_is_to_start_with_the_daemon_does_so_if_it_dies_at_the_first() {
    let (mut daemon, fault) = mortal();
    let ids = ["a", "b", "c"].map(|name| daemon.create(&sleeper(name).with("enabled", true)).id);
    for step in ["decided", "forked", "executed", "done"] {
        assert_eq!(daemon.stop(), Some(0));
        std::fs::write(&fault, step).unwrap();
        daemon = daemon.succeed();
        until(|| daemon.output().contains("was killed by signal"));
        assert!(!fault.exists());
        for id in &ids {
            daemon.program(id).reaches("running");
        }
    }
}

#[test]
fn what_was_stopped_for_the_end_of_a_daemon_that_is_killed_over_it_starts_with_the_next() {
    let mut daemon = Daemon::start();
    let quick = daemon.create(&sleeper("a").with("enabled", true)).started();
    let slow = stubborn("b")
        .with("enabled", true)
        .with("stop_timeout", "1h");
    let slow = daemon.create(&slow).started();
    slow.says("ready");
    let other = daemon.create(&sleeper("c")).started();
    let ids = [&quick, &slow, &other].map(|program| program.id.clone());
    let pids = [&quick, &slow, &other].map(|program| program.pid());
    daemon.signal(Signal::TERM);
    until(|| !is_alive(pids[0]) && !is_alive(pids[2]));
    // Until that is on record.
    until(|| daemon.program(&ids[2]).state() == "stopped");
    daemon.kill();
    assert!(is_alive(pids[1]));
    let daemon = daemon.succeed();
    daemon.program(&ids[0]).reaches("running");
    kill(pids[1], Signal::KILL);
    daemon.program(&ids[1]).other_pid(pids[1]);
    daemon.program(&ids[1]).reaches("running");
    assert!(!is_alive(pids[1]));
    assert_eq!(daemon.program(&ids[2]).state(), "stopped");
    daemon.program(&ids[1]).post("stop?force=true").ok(200);
}

#[test]
fn a_removal_that_the_daemon_dies_over_is_finished_by_the_next_one() {
    let (daemon, fault) = mortal();
    let others = [
        sh("a", "echo kept"),
        sh("b", "echo gone"),
        sh("c", "echo kept"),
    ];
    let [first, gone, last] = others.map(|definition| {
        let program = daemon.create(&definition).started();
        program.reaches("exited");
        program
    });
    std::fs::write(&fault, "deleted").unwrap();
    let server = daemon.server_pid();
    let token = daemon.token();
    let path = gone.path("");
    let head = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer";
    let mut connection = daemon.sent(format!("DELETE {path} {head} {token}\r\n\r\n"));
    connection.wait_for_end();
    until(|| !is_alive(server));
    assert_eq!(daemon.list(""), ["a", "c"]);
    let logs = |id: &str| daemon.log_dir().join(id).exists();
    assert!(logs(&first.id) && logs(&last.id) && !logs(&gone.id));
    assert!(!daemon.setup.path("run").join(&gone.id).exists());
}
