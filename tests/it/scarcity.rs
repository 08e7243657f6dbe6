use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{
    Daemon, Program, Setup, is_alive, kill, need_root, processes_using, sh, sleeper, status_field,
    until,
};

/// Another soft limit for a daemon's server, until this is dropped.
struct Limit<'d> {
    daemon: &'d Daemon,
    name: &'static str,
    before: String,
}

impl<'d> Limit<'d> {
    /// `name` is an option of prlimit(1), `what` the limit's name in `/proc`. `None`, and why is said, where that is not
    /// possible.
    fn set(daemon: &'d Daemon, name: &'static str, what: &str, most: u32) -> Option<Limit<'d>> {
        let limits = format!("/proc/{}/limits", daemon.server_pid());
        let limits = fs::read_to_string(limits).expect("the daemon runs");
        let line = limits.lines().find_map(|line| line.strip_prefix(what));
        let before = line.and_then(|line| line.split_whitespace().next());
        let limit = Limit {
            daemon,
            name,
            before: before.expect("the kernel has this limit").to_owned(),
        };
        if !limit.change(&most.to_string()) {
            eprintln!("skipped: prlimit(1) is missing or may not be used");
            std::mem::forget(limit);
            return None;
        }
        Some(limit)
    }

    fn change(&self, soft: &str) -> bool {
        let mut prlimit = Command::new("prlimit");
        prlimit
            .arg(format!("--pid={}", self.daemon.server_pid()))
            .arg(format!("--{}={soft}:", self.name));
        // As the daemon's user: for others' limits even root needs a capability.
        let uid = status_field(self.daemon.server_pid(), "Uid").expect("it runs");
        let uid = uid.split(' ').next().and_then(|uid| uid.parse().ok());
        let uid: u32 = uid.expect("a number");
        prlimit
            .uid(uid)
            .gid(uid)
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        assert!(self.change(&self.before) || std::thread::panicking());
    }
}

fn crasher(name: &str) -> crate::support::Definition {
    sleeper(name)
        .with("auto_restart", true)
        .with("restart_delay", "10ms")
        .with("max_restarts", -1)
}

/// What holds while nothing can be started, whatever the reason is.
struct Dearth<'d> {
    runs_on: Program<'d>,
    crashes: Program<'d>,
    stopped: Program<'d>,
    pids: [i32; 2],
}

impl<'d> Dearth<'d> {
    fn prepare(daemon: &'d Daemon) -> Dearth<'d> {
        let script = "n=0; while read l; do n=$((n+1)); echo $n; done";
        let fifo = daemon.scratch("asks");
        let script = format!("mkfifo {0}; exec 3<>{0}; {script} <&3", fifo.display());
        let runs_on = daemon.create(&sh("runs on", &script)).started();
        until(|| fifo.exists());
        let crashes = daemon.create(&crasher("crashes")).started();
        let stopped = daemon.create(&sleeper("stopped"));
        let pids = [runs_on.pid(), crashes.pid()];
        Dearth {
            runs_on,
            crashes,
            stopped,
            pids,
        }
    }

    /// Checks what holds during it: `step` is where starts fail.
    fn check(&self, daemon: &Daemon, step: &str) {
        let reply = self.stopped.post("start");
        let error = reply.error(400, "start_failed");
        assert!(error.contains(step), "{error}");
        assert_eq!(self.stopped.state(), "failed");
        kill(self.pids[1], Signal::KILL);
        until(|| {
            let messages = self.crashes.messages("hxe");
            messages.iter().any(|message| message.contains(step))
        });
        daemon.login();
        // What runs goes on, and is heard.
        fs::write(daemon.scratch("asks"), "x\n").unwrap();
        self.runs_on.says("1");
        assert_eq!(self.runs_on.pid(), self.pids[0]);
    }

    /// Checks what holds once there is enough again.
    fn check_after(&self, daemon: &Daemon) {
        self.crashes.reaches("running");
        assert_ne!(self.crashes.pid(), self.pids[1]);
        self.stopped.post("start").ok(200);
        daemon.create(&sleeper("another")).started();
        assert_eq!(self.runs_on.pid(), self.pids[0]);
    }
}

#[test]
fn without_processes_and_threads_for_its_user_starts_fail_and_what_runs_goes_on() {
    if !need_root() {
        return;
    }
    let daemon = Setup::new().user(54321).start();
    let dearth = Dearth::prepare(&daemon);
    let Some(limit) = Limit::set(&daemon, "nproc", "Max processes", 1) else {
        return;
    };
    dearth.check(&daemon, "making a process");

    // No thread for a watcher: nothing of the program is left.
    let sentence = daemon
        .try_create(&sleeper("refused"))
        .error(503, "service_unavailable");
    assert!(sentence.contains("thread"), "{sentence}");
    assert_eq!(daemon.list(""), ["runs on", "crashes", "stopped"]);
    for dir in ["run", "log"] {
        let left = daemon.setup.path(dir).join("program-4");
        assert!(!left.exists(), "{left:?}");
    }

    drop(limit);
    dearth.check_after(&daemon);
    daemon.create(&sleeper("refused"));
}

/// A group of processes with a most of them, where the kernel lets us make one.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Group> {
        let name = format!("hxe-test-{}", std::process::id());
        let path = PathBuf::from("/sys/fs/cgroup/pids").join(name);
        match fs::create_dir(&path) {
            Ok(()) => Some(Group(path)),
            Err(error) => {
                eprintln!("skipped: no cgroup of our own: {error}");
                None
            }
        }
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empties as the processes in it end.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn without_processes_in_its_cgroup_starts_fail_and_what_runs_goes_on() {
    if !need_root() {
        return;
    }
    let Some(group) = Group::make() else {
        return;
    };
    let daemon = Daemon::start();
    let dearth = Dearth::prepare(&daemon);
    group.set("cgroup.procs", &daemon.server_pid().to_string());
    group.set("pids.max", "1");
    dearth.check(&daemon, "making a process");
    daemon
        .try_create(&sleeper("refused"))
        .error(503, "service_unavailable");
    assert_eq!(daemon.list(""), ["runs on", "crashes", "stopped"]);
    group.set("pids.max", "max");
    dearth.check_after(&daemon);
    drop(daemon);
    until(|| fs::read_to_string(group.0.join("cgroup.procs")).is_ok_and(|text| text.is_empty()));
}

#[test]
fn without_a_descriptor_nothing_ends_and_all_works_again_when_there_are_some() {
    let daemon = Daemon::start();
    let runs_on = daemon.create(&sleeper("runs on")).started();
    let crashes = daemon.create(&crasher("crashes")).started();
    let (server, runs, crashed) = (daemon.server_pid(), runs_on.pid(), crashes.pid());
    let Some(limit) = Limit::set(&daemon, "nofile", "Max open files", 3) else {
        return;
    };
    kill(crashed, Signal::KILL);
    until(|| !is_alive(crashed));
    until(|| daemon.output().contains("Too many open files"));
    drop(limit);
    crashes.other_pid(crashed);
    assert_eq!((daemon.server_pid(), runs_on.pid()), (server, runs));
    daemon.create(&sleeper("another")).started();
}

#[test]
fn clients_that_use_up_all_descriptors_keep_no_program_from_starting() {
    let daemon = Setup::new().open_files(128).start();
    let crashes = daemon.create(&crasher("crashes")).started();
    let pid = crashes.pid();
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = daemon.connect();
        client.send("GET / HTTP/1.1\r\n");
        clients.push(client);
    }
    kill(pid, Signal::KILL);
    until(|| {
        processes_using(&daemon.setup.path("")).iter().any(|other| {
            let cmdline = fs::read(format!("/proc/{other}/cmdline")).unwrap_or_default();
            *other != pid && cmdline.starts_with(b"/bin/sleep")
        })
    });
    drop(clients);
    crashes.reaches("running");
}
