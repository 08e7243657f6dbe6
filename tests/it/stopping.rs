//! What a stop leaves behind: nothing, wherever it hides.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::{
    Daemon, Definition, Program, Setup, Value, both_ways, cgroup_dir, cgroup_of, children,
    is_alive, json, kill, need_root, processes_with, sh, sleeper, status_field, until, until_some,
};

/// Starts a program that leaves a process behind by `script`, which runs `$LEAVE` somehow, and gives that one's pid.
fn with_leftover<'d>(daemon: &'d Daemon, script: &str) -> (Program<'d>, i32) {
    let file = daemon.scratch("pid");
    let leave = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        file.display()
    );
    let definition = sh("a", script).with("environment", json!({"LEAVE": leave}));
    let program = daemon.create(&definition).started();
    let pid = until_some(|| fs::read_to_string(&file).ok()?.trim().parse().ok());
    (program, pid)
}

#[track_caller]
fn check_leaves_nothing_behind(script: &str) {
    for daemon in both_ways() {
        check_of_daemon_leaves_nothing_behind(&daemon, script);
    }
}

#[track_caller]
fn check_of_daemon_leaves_nothing_behind(daemon: &Daemon, script: &str) {
    let script = format!("{script}\necho ready; exec sleep 1000");
    let (program, left) = with_leftover(daemon, &script);
    program.says("ready");
    assert!(is_alive(left));
    let json = program.stopped();
    assert!(!is_alive(left), "{left} is left");
    assert_eq!(json["left_behind"], Value::Null);
}

#[test]
fn root_in_a_container_may_not_look_at_others_and_still_leaves_nothing_behind() {
    if need_root() {
        // What is told by the environment, and what only by the open pipe.
        for script in [
            r#"(setsid sh -c "$LEAVE" </dev/null >/dev/null 2>&1 &)"#,
            r#"(env -i LEAVE="$LEAVE" setsid sh -c "$LEAVE" &)"#,
        ] {
            let Some(setup) = Setup::in_container() else {
                return;
            };
            check_of_daemon_leaves_nothing_behind(&setup.start(), script);
        }
    }
}

#[test]
fn a_stop_reaches_a_child_in_the_background() {
    check_leaves_nothing_behind(r#"sh -c "$LEAVE" &"#);
}

#[test]
fn a_stop_reaches_a_child_that_ignores_term() {
    check_leaves_nothing_behind(r#"sh -c "trap '' TERM; $LEAVE" &"#);
}

#[test]
fn a_stop_reaches_a_child_in_its_own_session() {
    check_leaves_nothing_behind(r#"setsid sh -c "$LEAVE" &"#);
}

#[test]
fn a_stop_reaches_what_has_forked_twice() {
    check_leaves_nothing_behind(r#"(setsid sh -c "$LEAVE" &)"#);
}

#[test]
fn a_stop_reaches_what_has_cleared_its_environment() {
    check_leaves_nothing_behind(r#"(env -i LEAVE="$LEAVE" setsid sh -c "$LEAVE" &)"#);
}

#[test]
fn a_stop_reaches_what_has_closed_its_output() {
    check_leaves_nothing_behind(r#"(setsid sh -c "$LEAVE" </dev/null >/dev/null 2>&1 &)"#);
}

#[test]
fn a_stop_reaches_a_stopped_process_in_its_own_session() {
    for daemon in both_ways() {
        let script = r#"(setsid sh -c "$LEAVE" </dev/null >/dev/null 2>&1 &); exec sleep 1000"#;
        let (program, left) = with_leftover(&daemon, script);
        kill(left, Signal::STOP);
        until(|| status_field(left, "State").is_some_and(|s| s.starts_with('T')));
        program.stopped();
        assert!(!is_alive(left), "{left} is left");
    }
}

#[test]
fn what_hides_every_trace_is_killed_by_its_cgroup_or_named() {
    for daemon in both_ways() {
        let mark = format!("hidden-{}", daemon.pid());
        let script = format!(
            "(env -i PATH=$PATH setsid sh -c ': {mark}; sleep 1000; :' </dev/null >/dev/null 2>&1 &); \
             echo ready; exec sleep 1000"
        );
        let program = daemon.create(&sh("a", &script)).started();
        program.says("ready");
        let pids = until_some(|| {
            Some(processes_with(&mark)).filter(|pids| {
                // Its own shell, and the one that hides, once it is nobody's child.
                pids.iter()
                    .any(|pid| is_child_of(*pid, daemon.server_pid()))
            })
        });
        let hidden = pids
            .into_iter()
            .find(|pid| is_child_of(*pid, daemon.server_pid()));
        let hidden = hidden.expect("it was there");
        let has_cgroup = cgroup_of(hidden).is_some_and(|path| path.contains("/hxe-"));
        let stopped = program.stopped();
        if has_cgroup {
            assert_eq!(stopped["left_behind"], Value::Null);
            assert!(!is_alive(hidden));
        } else {
            assert_eq!(stopped["left_behind"][0]["pid"], hidden, "{stopped}");
            assert!(
                program
                    .messages("hxe")
                    .join("\n")
                    .contains(&format!("Process {hidden} (sh)"))
            );
            assert!(is_alive(hidden));
        }
        processes_with(&mark)
            .into_iter()
            .for_each(|pid| kill(pid, Signal::KILL));
    }
}

/// Whether this process became the child of that one: it lost its own parent.
fn is_child_of(pid: i32, parent: i32) -> bool {
    status_field(pid, "PPid") == Some(parent.to_string())
        && fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| !all.starts_with(b"HXE"))
        && status_field(pid, "NSsid").is_some_and(|sid| sid == pid.to_string())
        && fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|to| to.ends_with("null"))
}

#[test]
fn a_run_has_a_cgroup_of_its_own_where_there_are_any_and_it_goes_with_the_run() {
    let daemon = Daemon::start();
    let one = daemon.create(&sleeper("one")).started();
    let two = daemon.create(&sleeper("two")).started();
    let dirs = [&one, &two].map(|program| cgroup_dir(program.pid()));
    let own = cgroup_dir(daemon.server_pid());
    let probe = own
        .as_ref()
        .map(|own| own.join(format!("hxe-test-{}", daemon.pid())));
    let can = probe.is_some_and(|probe| {
        let can = fs::create_dir(&probe).is_ok() && probe.join("cgroup.kill").exists();
        let _ = fs::remove_dir(&probe);
        can
    });
    if !can || Path::new("/run/systemd/system").exists() {
        eprintln!("skipped: this machine has no cgroups for us");
        return;
    }
    let [first, second] = dirs.map(|dir| dir.expect("there are cgroups"));
    assert_ne!(first, second);
    assert_eq!(first.parent(), own.as_deref());
    assert_eq!(
        fs::read_to_string(first.join("cgroup.procs")).expect("it is there"),
        format!("{}\n", one.pid())
    );
    // What the program makes below goes, too.
    fs::create_dir(first.join("below")).expect("we may");
    one.stopped();
    assert!(!first.exists());
    assert!(second.exists());
    // A start that fails leaves none, and a daemon that is killed finds them again.
    let missing = daemon.create(&Definition::new("missing", "/nowhere", ""));
    missing.post("start").error(400, "start_failed");
    let (id, server) = (two.id.clone(), daemon.server_pid());
    let before = of_this_daemon(&second);
    assert_eq!(before, std::slice::from_ref(&second));
    kill(server, Signal::KILL);
    until(|| daemon.server_pid() != server);
    let program = daemon.program(&id);
    program.stopped();
    assert_eq!(of_this_daemon(&second), Vec::<PathBuf>::new());
}

/// The cgroups of the daemon that made this one.
fn of_this_daemon(one: &Path) -> Vec<PathBuf> {
    let name = one
        .file_name()
        .expect("it has a name")
        .to_string_lossy()
        .into_owned();
    let prefix = name.splitn(3, '-').take(2).collect::<Vec<_>>().join("-") + "-";
    let dir = one.parent().expect("it is below another");
    let entries = fs::read_dir(dir).expect("it can be read");
    let names = entries.map(|entry| entry.expect("it can be read").path());
    names
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect()
}

#[test]
fn a_stop_reaches_a_child_of_another_user() {
    if need_root() {
        for daemon in
            [Setup::new(), Setup::without_cgroups()].map(|setup| setup.own_password().start())
        {
            let file = daemon.scratch("pid");
            let script = format!(
                "setsid setpriv --reuid 1234 --regid 1234 --clear-groups --reset-env sleep 1000 & echo $! > {}; echo ready; \
                 exec sleep 1000",
                file.display()
            );
            let definition = sh("a", &script).with("user", "root");
            let program = daemon.create(&definition).started();
            program.says("ready");
            let left = fs::read_to_string(&file).expect("it is written before ready");
            let left = left.trim().parse().expect("a pid");
            if fs::read_to_string("/usr/bin/setpriv")
                .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
            {
                eprintln!("skipped: there is no setpriv");
                return;
            }
            until(|| status_field(left, "Uid").is_some_and(|uids| uids.starts_with("1234 ")));
            program.stopped();
            assert!(!is_alive(left), "{left} is left");
        }
    }
}

#[test]
fn a_stop_ends_a_fork_bomb_of_200() {
    for daemon in both_ways() {
        let mark = format!("bomb-{}", daemon.pid());
        // Each forks away, into a session of its own, and ignores TERM; half of them have cleared their environment.
        let script = format!(
            "i=0; while [ $i -lt 100 ]; do i=$((i+1)); \
             (setsid sh -c \"trap '' TERM; : {mark}; sleep 1000; :\" &); \
             (env -i PATH=$PATH setsid sh -c \"trap '' TERM; : {mark}; sleep 1000; :\" &); done; \
             echo ready; exec sleep 1000"
        );
        let program = daemon.create(&sh("a", &script)).started();
        program.says("ready");
        until(|| processes_with(&mark).len() >= 200);
        let json = program.stopped();
        assert_eq!(json["left_behind"], Value::Null);
        assert!(processes_with(&mark).is_empty());
    }
}

#[test]
fn a_stop_ends_what_goes_on_forking() {
    for daemon in both_ways() {
        let mark = format!("hydra-{}", daemon.pid());
        // Whoever is killed has a successor already, in another session.
        let hydra = daemon.scratch("hydra");
        fs::write(
            &hydra,
            format!(
                "trap '' TERM HUP\n: {mark}\nsleep 0.02\nsetsid sh {0} {mark} &\nexit 0\n",
                hydra.display()
            ),
        )
        .expect("the scratch directory can be written");
        let script = format!(
            "setsid sh {} {mark} & echo ready; exec sleep 1000",
            hydra.display()
        );
        let program = daemon.create(&sh("a", &script)).started();
        program.says("ready");
        until(|| !processes_with(&mark).is_empty());
        program.stopped();
        assert!(
            processes_with(&format!("{} {mark}", hydra.display()).replace(' ', "\0")).is_empty()
        );
    }
}

#[test]
fn strangers_and_other_programs_are_not_touched_however_alike_they_look() {
    for daemon in both_ways() {
        // A program with an orphan that hides, one of the same kind that is stopped, and somebody else's.
        let orphans = daemon.scratch("orphans");
        let hide = format!("echo $$ >> {}; exec sleep 1000", orphans.display());
        let script = &format!(
            "(env -i setsid sh -c '{hide}' </dev/null >/dev/null 2>&1 &); echo ready; exec sleep 1000"
        );
        let others: Vec<Program> = ["one", "two"]
            .map(|name| daemon.create(&sh(name, script)).started())
            .into();
        others.iter().for_each(|program| program.says("ready"));
        let pids = others
            .iter()
            .map(|program| program.pid())
            .collect::<Vec<_>>();
        let mut stranger = std::process::Command::new("/bin/sleep")
            .arg("1000")
            .env_clear()
            .spawn()
            .expect("sleep is there");
        for _ in 0..3 {
            daemon.create(&sh("a", script)).started().says("ready");
            let stopped = daemon.program("a").stopped();
            let named = stopped["left_behind"].as_array().map_or(0, Vec::len);
            // Without cgroups nothing tells whose they are, so they are named, and not touched.
            assert!(named <= 3, "{stopped}");
            daemon.delete("/api/program/a").ok(200);
        }
        for pid in pids {
            assert!(is_alive(pid));
        }
        let is_untouched = stranger.try_wait().expect("it is ours").is_none();
        stranger.kill().expect("it is ours");
        stranger.wait().expect("it is ours");
        assert!(is_untouched);
        others.iter().for_each(|program| drop(program.stopped()));
        // One that was ended before it could name itself needs no end by us.
        let orphans = fs::read_to_string(orphans).unwrap_or_default();
        for orphan in orphans.lines().map(|line| line.parse().expect("a pid")) {
            if status_field(orphan, "Name").as_deref() == Some("sleep") {
                kill(orphan, Signal::KILL);
            }
        }
    }
}

#[test]
fn what_was_left_behind_is_reaped() {
    let daemon = Daemon::start();
    let script = r#"(setsid sh -c "$LEAVE" &); echo ready; exec sleep 1000"#;
    let (program, left) = with_leftover(&daemon, script);
    program.says("ready");
    until(|| children(daemon.server_pid()).contains(&left));
    program.stopped();
    until(|| children(daemon.server_pid()).is_empty());
}

#[test]
fn an_end_by_itself_leaves_nothing_behind_and_forking_away_is_said() {
    let daemon = Daemon::start();
    let file = daemon.scratch("pid");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", file.display());
    let script = format!(r#"(setsid sh -c "$LEAVE" &); {wait}; exit 0"#);
    let (program, left) = with_leftover(&daemon, &script);
    program.reaches("exited");
    assert!(!is_alive(left), "{left} is left");
    let notes = program.messages("hxe").join("\n");
    assert!(notes.contains("foreground"), "{notes}");
}

#[test]
fn other_programs_are_not_touched_by_a_stop() {
    let daemon = Daemon::start();
    let other = daemon.create(&sleeper("other")).started();
    let pid = other.pid();
    daemon.create(&sleeper("a")).started().stopped();
    assert_eq!(other.pid(), pid);
    assert!(is_alive(pid));
}
