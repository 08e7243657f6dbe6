use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::support::{
    Daemon, Follower, NEW, OLD, Program, Setup, WebSocket, another_build, is_alive, json, kill,
    replace, server, sh, sleeper, until, upgrade, upgraded,
};

/// All that can be changed, in an order in which it can be, each on a connection of its own.
fn change_everything(daemon: &Daemon, name: &str) {
    daemon.login();
    let program = daemon.create(&sleeper(name));
    program.post("enable").ok(200);
    control(&program, "start", "running");
    control(&program, "restart", "running");
    let definition = json!({"name": name, "command": "/bin/sleep", "args": "1001"});
    daemon.put(&program.path(""), &definition).ok(200);
    control(&program, "stop", "stopped");
    program.post("disable").ok(200);
    daemon.delete(&program.path("")).ok(200);
}

/// Has something done that takes a moment. Where that is long, as on a busy machine, the answer may be that it goes on.
fn control(program: &Program, action: &str, state: &str) {
    let reply = program.post(action);
    if reply.status == 503 {
        let message = reply.error(503, "service_unavailable");
        assert!(message.contains("goes on"), "{message}");
        program.reaches(state);
    } else {
        reply.ok(200);
    }
}

#[test]
fn an_upgrade_keeps_the_pid_and_the_programs_and_refuses_no_request() {
    let (setup, path) = Setup::new().own_binary();
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let (pid, service) = (program.pid(), daemon.pid());
    // The same for all.
    daemon.token();
    let over = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..2 {
            let (daemon, over, rounds) = (&daemon, &over, &rounds);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    change_everything(daemon, &format!("changing-{number}"));
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                daemon.get("/api/program").ok(200);
            }
        });
        let build = [fs::read(&path).unwrap(), another_build(&path)];
        for (round, says) in [(1, NEW), (2, OLD)] {
            replace(&path, &build[round % 2]);
            assert_eq!(upgraded(&daemon)["state"], "done");
            assert_eq!(server(&daemon), says);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(rounds.into_inner() > 0);
    assert_eq!(program.pid(), pid);
    assert_eq!(daemon.pid(), service);
    // The guardian is the new one, too, and goes on as one, by its old name.
    let exe = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    until(|| exe(service) == path);
    let server = daemon.server_pid();
    for process in [service, server] {
        let comm = fs::read_to_string(format!("/proc/{process}/comm")).unwrap();
        assert_eq!(comm, "hxe\n");
    }
    kill(server, Signal::KILL);
    until(|| !is_alive(server));
    assert_eq!(program.pid(), pid);
}

#[test]
fn the_daemon_says_which_it_is_and_how_its_upgrade_went() {
    let (setup, path) = Setup::new().own_binary();
    let daemon = setup.start();
    let before = daemon.get("/api/daemon").ok(200);
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(before["pid"], daemon.pid());
    assert_eq!(before["server_pid"], daemon.server_pid());
    assert!(before["start_time"].is_string());
    assert!(before["upgrade"].is_null());
    let done = json!({"number": 1, "state": "done", "reason": null});
    assert_eq!(upgraded(&daemon), done);
    fs::remove_file(path).unwrap();
    let failed = upgraded(&daemon);
    assert_eq!(failed["number"], 2);
    assert_eq!(failed["state"], "given_up");
    let after = daemon.get("/api/daemon").ok(200);
    assert_eq!(after["pid"], before["pid"]);
    assert_ne!(after["server_pid"], before["server_pid"]);
}

#[test]
fn connections_that_wait_are_served_by_the_next_daemon() {
    let daemon = Daemon::start();
    let token = daemon.token();
    let request = format!(
        "GET /api/program HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let mut silent = daemon.connect();
    let mut idle = daemon.sent(&request);
    idle.reply().ok(200);
    // Has the silent one accepted: those before it were.
    daemon.get("/api/program").ok(200);
    let before = daemon.server_pid();
    assert_eq!(upgraded(&daemon)["state"], "done");
    assert!(!is_alive(before));
    for connection in [&mut silent, &mut idle] {
        connection.send(&request).reply().ok(200);
        connection.send(&request).reply().ok(200);
    }
}

#[test]
fn a_request_that_has_begun_to_arrive_is_waited_for() {
    let daemon = Daemon::start();
    let token = daemon.token();
    let body = sleeper("a").0.to_string();
    let (length, half) = (body.len(), body.len() / 2);
    let mut connection = daemon.sent(format!(
        "POST /api/program HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(connection.head_reply().status, 100);
    connection.send(&body[..half]);
    daemon.signal(Signal::USR2);
    until(|| daemon.output().contains("leaving"));
    connection.send(&body[half..]).reply().ok(201);
    assert_eq!(daemon.list(""), ["a"]);
}

#[test]
fn who_waits_for_a_stop_during_an_upgrade_is_told_to_ask_again() {
    let daemon = Daemon::start();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let define = |name| sh(name, script).with("stop_timeout", "1h");
    let programs = [daemon.create(&define("a")), daemon.create(&define("b"))];
    let programs = programs.map(|program| program.started());
    for program in &programs {
        program.says("ready");
    }
    thread::scope(|scope| {
        let stopping = scope.spawn(|| programs[0].post("stop"));
        let deleting = scope.spawn(|| daemon.delete(&programs[1].path("")));
        for program in &programs {
            program.reaches("stopping");
        }
        daemon.signal(Signal::USR2);
        for (asking, word) in [(stopping, "goes on"), (deleting, "not removed yet")] {
            let reply = asking.join().unwrap();
            assert!(reply.header("retry-after").is_some());
            let message = reply.error(503, "service_unavailable");
            assert!(message.contains(word), "{message}");
        }
    });
    for program in &programs {
        assert_eq!(program.state(), "stopping");
        kill(program.pid(), Signal::KILL);
        program.reaches("stopped");
    }
    daemon.delete(&programs[1].path("")).ok(200);
}

#[test]
fn no_line_is_lost_by_upgrades_at_full_speed_and_followers_end_with_a_whole_one() {
    let daemon = Setup::new().key("logs", "max_size", "\"64MiB\"").start();
    let end = daemon.scratch("end");
    let script = format!(
        "i=0; while [ ! -e {} ]; do i=$((i+1)); echo $i; done; echo done",
        end.display()
    );
    let program = daemon.create(&sh("a", &script)).started();
    program.says("1");
    for _ in 0..2 {
        let mut follower = Follower::open(&program, "&lines=1", "Accept: text/plain\r\n");
        thread::scope(|scope| {
            let follows = scope.spawn(|| {
                let mut last = None;
                while let Some(line) = follower.line() {
                    let number: Option<u64> = line.rsplit(' ').next().unwrap().parse().ok();
                    // Lines of hxe's own are among them.
                    if let (Some(last), Some(number)) = (last, number) {
                        assert_eq!(number, last + 1);
                    }
                    last = number.or(last);
                }
                last
            });
            assert_eq!(upgraded(&daemon)["state"], "done");
            assert!(follows.join().unwrap().is_some());
        });
    }
    fs::File::create(end).unwrap().flush().unwrap();
    program.says("done");
    let text = String::from_utf8(program.stdout()).unwrap();
    let mut lines = text.lines().rev();
    assert_eq!(lines.next(), Some("done"));
    let last: usize = lines.next().unwrap().parse().unwrap();
    assert!(last > 2);
    let numbers = (1..=last).map(|number| number.to_string());
    assert!(text.lines().take(last).eq(numbers));
}

#[test]
fn a_signal_during_an_upgrade_is_remembered_once() {
    let (setup, path) = Setup::new().own_binary();
    let fault = setup.path("fault");
    let daemon = setup.variable("HXE_FAULT", fault.to_str().unwrap()).start();
    replace(&path, &another_build(&path));
    fs::write(&fault, format!("hang {NEW} starts")).unwrap();
    daemon.signal(Signal::USR2);
    // It hangs, and holds the upgrade up.
    until(|| !fault.exists());
    for _ in 0..3 {
        daemon.signal(Signal::USR2);
    }
    for child in crate::support::children(daemon.pid()) {
        kill(child, Signal::KILL);
    }
    until(|| {
        let upgrade = upgrade(&daemon);
        upgrade["number"] == 2 && upgrade["state"] == "done"
    });
    assert_eq!(server(&daemon), NEW);
    assert_eq!(upgraded(&daemon)["number"], 3);
}

#[test]
fn quit_leaves_the_programs_running_for_the_next_start() {
    let mut daemon = Daemon::start();
    let id = daemon.create(&sleeper("a")).started().id;
    let pid = daemon.program(&id).pid();
    daemon.signal(Signal::QUIT);
    assert_eq!(daemon.ends(), Some(0));
    assert!(is_alive(pid));
    let daemon = daemon.succeed();
    assert_eq!(daemon.program(&id).pid(), pid);
}

#[test]
fn websockets_are_closed_by_an_upgrade_and_can_come_back_with_the_same_token() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::logged_in(&daemon);
    let token = daemon.token().to_owned();
    daemon.signal(Signal::USR2);
    let reason = socket.is_closed_with(1012);
    assert!(reason.contains("again"), "{reason}");
    WebSocket::open(&daemon).auth(&token);
}
