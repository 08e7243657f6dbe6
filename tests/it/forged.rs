use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command};

use rustix::process::Signal;

use serde_json::Value;

use crate::support::{
    Daemon, Definition, Setup, is_alive, kill, processes_with, sh, sleeper, until,
};

/// Bytes of a run record.
const LENGTH: usize = 1024;

/// A process that is none of hxe's business, and must live through all of this.
struct Bystander(Child);

impl Bystander {
    fn new() -> Bystander {
        // It leads a session, as a program does: only its record tells that it is none.
        let child = Command::new("setsid").args(["sleep", "1000"]).spawn();
        Bystander(child.expect("setsid is there"))
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert!(is_alive(self.pid()), "a bystander was killed");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In clock ticks since boot. Source: proc_pid_stat(5), field 22.
fn start_ticks(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    let (_, rest) = stat.rsplit_once(')').expect("a name ends so");
    let field = rest.split_whitespace().nth(19);
    field.expect("it has that many").to_owned()
}

fn record(daemon: &Daemon, id: &str) -> PathBuf {
    daemon.setup.path("run").join(id).join("record")
}

/// Rewrites lines of a program's run record.
#[track_caller]
fn forge(daemon: &Daemon, id: &str, lines: &[(&str, &str)]) {
    let path = record(daemon, id);
    let text = fs::read_to_string(&path).unwrap();
    let mut forged: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let name = line.split(' ').next().unwrap_or_default();
        match lines.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => forged.push(format!("{name} {value}")),
            None => forged.push(line.to_owned()),
        }
    }
    let end = forged.pop().expect("a record has lines");
    for (name, value) in lines {
        let line = format!("{name} {value}");
        if !forged.contains(&line) {
            forged.push(line);
        }
    }
    let body = forged.join("\n");
    let rest = LENGTH - body.len() - end.len() - 3;
    let forged = format!("{body}\n{}\n{end}\n", " ".repeat(rest));
    assert_eq!(forged.len(), LENGTH);
    fs::write(path, forged).unwrap();
}

/// Kills a program with its children, which nobody supervises any more.
fn kill_group(pid: i32) {
    let group = rustix::process::Pid::from_raw(pid).expect("a pid is not 0");
    rustix::process::kill_process_group(group, Signal::KILL).expect("it is there");
}

/// Lines of a program that is to be killed at once.
const TO_BE_KILLED: [(&str, &str); 4] = [
    ("state", "stopping"),
    ("goal", "down"),
    ("kill-at", "1"),
    ("give-up-at", "1"),
];

/// Kills a daemon and its guardian, and the program that it has.
fn killed_with_its_program(daemon: &mut Daemon, id: &str) {
    let pid = daemon.program(id).pid();
    daemon.kill();
    kill(pid, Signal::KILL);
    until(|| !is_alive(pid));
}

#[test]
fn a_record_of_another_boot_is_of_no_use() {
    let bystander = Bystander::new();
    let mut daemon = Daemon::start();
    let id = daemon
        .create(&sleeper("a").with("enabled", true))
        .started()
        .id;
    killed_with_its_program(&mut daemon, &id);
    let (pid, ticks) = (bystander.pid().to_string(), start_ticks(bystander.pid()));
    let mut lines = TO_BE_KILLED.to_vec();
    lines.extend([
        ("boot", "00000000-0000-0000-0000-000000000000"),
        ("pid", &pid),
        ("start-ticks", &ticks),
    ]);
    forge(&daemon, &id, &lines);
    let daemon = daemon.succeed();
    daemon.program(&id).reaches("running");
    assert_ne!(daemon.program(&id).pid(), bystander.pid());
    assert!(daemon.output().contains("earlier boot"));
    bystander.is_untouched();
}

#[test]
fn a_process_that_has_the_pid_of_a_program_by_now_is_left_alone() {
    for lines in [&[][..], &TO_BE_KILLED] {
        let bystander = Bystander::new();
        let mut daemon = Daemon::start();
        let program = daemon.create(&sleeper("a")).started();
        let id = program.id.clone();
        let ticks = start_ticks(program.pid());
        killed_with_its_program(&mut daemon, &id);
        let pid = bystander.pid().to_string();
        // Both may have started within one tick.
        let ticks = match start_ticks(bystander.pid()) == ticks {
            true => (ticks.parse::<u64>().unwrap() - 1).to_string(),
            false => ticks,
        };
        let mut lines = lines.to_vec();
        lines.extend([("pid", pid.as_str()), ("start-ticks", &ticks)]);
        forge(&daemon, &id, &lines);
        let daemon = daemon.succeed();
        until(|| ["failed", "stopped"].contains(&daemon.program(&id).state().as_str()));
        assert_eq!(daemon.program(&id).try_pid(), None);
        bystander.is_untouched();
    }
}

#[test]
fn a_record_that_speaks_of_init_or_of_the_guardian_is_not_believed() {
    let daemon = Daemon::start();
    let ids = ["a", "b"].map(|name| daemon.create(&sleeper(name)).started().id);
    let pids = ids.each_ref().map(|id| daemon.program(id).pid());
    let server = daemon.server_pid();
    daemon.without_server(|| {
        for pid in pids {
            kill(pid, Signal::KILL);
            until(|| !is_alive(pid));
        }
        for (id, pid) in ids.iter().zip([1, daemon.pid()]) {
            let (number, ticks) = (pid.to_string(), start_ticks(pid));
            let mut lines = TO_BE_KILLED.to_vec();
            lines.extend([("pid", number.as_str()), ("start-ticks", &ticks)]);
            forge(&daemon, id, &lines);
        }
    });
    for id in &ids {
        daemon.program(id).reaches("stopped");
    }
    assert_ne!(daemon.server_pid(), server);
}

/// What is done to a record: the path, and that of a file that must stay as it is.
type Damage = fn(&PathBuf, &PathBuf);

const DAMAGES: [(&str, Damage); 9] = [
    ("empty", |path, _| fs::write(path, "").unwrap()),
    ("half", |path, _| {
        let text = fs::read(path).unwrap();
        fs::write(path, &text[..LENGTH / 2]).unwrap();
    }),
    ("zeros", |path, _| fs::write(path, [0; LENGTH]).unwrap()),
    ("random", |path, _| {
        fs::write(path, [0xfe; LENGTH]).unwrap();
    }),
    ("long", |path, _| {
        let mut text = fs::read(path).unwrap();
        text.resize(1 << 20, b' ');
        fs::write(path, text).unwrap();
    }),
    ("link", |path, victim| {
        fs::remove_file(path).unwrap();
        symlink(victim, path).unwrap();
    }),
    ("hard-link", |path, victim| {
        fs::remove_file(path).unwrap();
        fs::hard_link(victim, path).unwrap();
    }),
    ("directory", |path, _| {
        fs::remove_file(path).unwrap();
        fs::create_dir_all(path.join("inner")).unwrap();
    }),
    ("fifo", |path, _| {
        fs::remove_file(path).unwrap();
        let made = Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }),
];

/// A program whose processes can be told from all others.
fn marked(name: &str, mark: &str) -> Definition {
    let script = format!(": {mark}-{name}; while :; do sleep 1000; done");
    sh(name, &script).with("enabled", true)
}

#[test]
fn a_record_that_cannot_be_read_loses_no_process_and_starts_no_second_one() {
    for is_running in [true, false] {
        let mut daemon = Daemon::start();
        let mark = format!("forged-{}", daemon.pid());
        let victim = daemon.setup.path("victim");
        fs::write(&victim, "precious").unwrap();
        let pids = DAMAGES.map(|(name, _)| daemon.create(&marked(name, &mark)).started().pid());
        let ids = DAMAGES.map(|(name, _)| {
            let json = daemon.program(name).get();
            json["id"].as_str().unwrap().to_owned()
        });
        daemon.kill();
        for ((id, pid), (_, damage)) in ids.iter().zip(pids).zip(DAMAGES) {
            if !is_running {
                kill(pid, Signal::KILL);
                until(|| !is_alive(pid));
            }
            damage(&record(&daemon, id), &victim);
        }
        let daemon = daemon.succeed();
        for ((id, pid), (name, _)) in ids.iter().zip(pids).zip(DAMAGES) {
            daemon.program(id).reaches("running");
            let now = daemon.program(id).pid();
            assert_eq!(now == pid, is_running, "{name}");
            until(|| processes_with(&format!("{mark}-{name};")) == [now]);
            let said = format!("what {id} was doing is not known");
            assert!(daemon.output().contains(&said), "{}", daemon.output());
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        // They are taken up like any other from here on.
        let server = daemon.server_pid();
        kill(server, Signal::KILL);
        until(|| !is_alive(server));
        for id in &ids {
            daemon.program(id).stopped();
        }
    }
}

#[test]
fn what_runs_while_run_dir_is_lost_is_supervised_on() {
    let mut daemon = Daemon::start();
    let mark = format!("lost-{}", daemon.pid());
    let program = daemon.create(&marked("a", &mark)).started();
    let (id, pid) = (program.id.clone(), program.pid());
    daemon.kill();
    fs::remove_dir_all(daemon.setup.path("run")).unwrap();
    let daemon = daemon.succeed();
    let program = daemon.program(&id);
    assert_eq!(program.pid(), pid);
    let said = format!("the pipe that process {pid} of {id} writes to was removed");
    assert!(daemon.output().contains(&said), "{}", daemon.output());
    program.post("restart").ok(200);
    let next = program.other_pid(pid);
    until(|| processes_with(&format!("{mark}-a;")) == [next]);
    program.stopped();
}

#[test]
fn what_runs_while_the_database_is_lost_is_named_and_its_id_not_used_again() {
    let mut daemon = Daemon::start();
    let script = "echo before; while :; do sleep 0.05; echo on; done";
    let program = daemon.create(&sh("a", script)).started();
    program.says("before");
    let (id, pid) = (program.id.clone(), program.pid());
    daemon.kill();
    fs::remove_file(daemon.setup.path("state").join("hxe.redb")).unwrap();
    let daemon = daemon.succeed();
    let said = format!("process {pid} (sh) of {id} runs");
    assert!(daemon.output().contains(&said), "{}", daemon.output());
    assert!(is_alive(pid));
    assert_ne!(daemon.create(&sleeper("b")).id, id);
    // What it writes is kept, so that it does not wait for a reader.
    let log = daemon.log_dir().join(&id).join("stdout.log");
    let length = || fs::metadata(&log).map_or(0, |meta| meta.len());
    let before = length();
    until(|| length() > before);
    kill_group(pid);
    until(|| !is_alive(pid));
}

#[test]
fn what_runs_while_run_dir_is_lost_writes_to_the_pipe_that_the_guardian_has() {
    let daemon = Daemon::start();
    let go = daemon.scratch("go");
    // More than any pipe holds.
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; i=0; while [ $i -lt 300 ]; do i=$((i+1)); printf '%0999d\\n' $i; done; \
         echo last; exec sleep 1000",
        go.display()
    );
    let program = daemon.create(&sh("a", &script)).started();
    let pid = program.pid();
    fs::remove_dir_all(daemon.setup.path("run")).unwrap();
    let server = daemon.server_pid();
    kill(server, Signal::KILL);
    until(|| !is_alive(server));
    assert_eq!(program.pid(), pid);
    fs::write(&go, "").unwrap();
    program.says("last");
    assert_eq!(program.stdout().len(), 300 * 1000 + "last\n".len());
    assert!(
        !daemon.output().contains("was removed"),
        "{}",
        daemon.output()
    );
    program.post("restart").ok(200);
    program.other_pid(pid);
    program.stopped();
}

/// Kills the daemon and takes its database away.
fn killed_and_robbed(daemon: &mut Daemon) {
    daemon.kill();
    fs::remove_file(daemon.setup.path("state").join("hxe.redb")).unwrap();
}

#[test]
fn declared_programs_run_on_under_their_ids_while_the_database_is_lost() {
    let mut daemon = Daemon::start();
    let mark = format!("declared-{}", daemon.pid());
    let declare = |setup: &Setup, name: &str, args: &str| {
        let lines = format!(
            "name = {name:?}\ncommand = \"/bin/sh\"\nargs = \"-c ': {mark}-{name}; {args}while :; do sleep 1000; done'\"\n\
             enabled = true\n"
        );
        setup.declare(&format!("{name}.toml"), &lines)
    };
    // One of the API before, so that ids are not those that a new database gives.
    let lost = daemon.create(&sleeper("lost")).id;
    for name in ["same", "changed", "stopped"] {
        declare(&daemon.setup, name, "");
    }
    daemon.post("/api/reload", "").ok(200);
    let of = |daemon: &Daemon, name: &str| {
        let json = daemon.program(name).get();
        (json["id"].clone(), json["pid"].clone())
    };
    let same = of(&daemon, "same");
    let changed = of(&daemon, "changed");
    let stopped = of(&daemon, "stopped").0;
    daemon.program("stopped").stopped();
    killed_and_robbed(&mut daemon);
    declare(&daemon.setup, "changed", "true; ");
    let daemon = daemon.succeed();
    assert_eq!(of(&daemon, "same"), same);
    assert_eq!(of(&daemon, "stopped"), (stopped, Value::Null));
    let (id, pid) = changed;
    assert_eq!(of(&daemon, "changed").0, id);
    until(|| {
        daemon
            .program("changed")
            .try_pid()
            .is_some_and(|now| pid != now)
    });
    for (name, count) in [("same", 1), ("changed", 1), ("stopped", 0)] {
        let processes = || processes_with(&format!("{mark}-{name};"));
        until(|| processes().len() == count);
        assert_eq!(processes().len(), count, "{name}");
    }
    // No id is given twice, also once the last of these is gone.
    for name in ["same", "changed", "stopped"] {
        daemon.setup.undeclare(&format!("{name}.toml"));
    }
    daemon.post("/api/reload", "").ok(200);
    let daemon = daemon.restart();
    let next = daemon.create(&sleeper("next")).id;
    assert_eq!((lost.as_str(), next.as_str()), ("program-1", "program-5"));
}
