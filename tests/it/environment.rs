use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::support::{
    Daemon, Definition, Program, Setup, is_root, json, need_root, sh, sleeper, status_field, until,
    until_some,
};

/// Runs a program to its end: the lines that it wrote.
fn output(daemon: &Daemon, definition: &Definition) -> Vec<String> {
    let program = daemon.create(definition).started();
    program.reaches("exited");
    program.messages("stdout")
}

/// A daemon whose programs may run as any user.
fn for_any_user() -> Daemon {
    Setup::new().own_password().start()
}

fn variables(daemon: &Daemon, definition: &Definition) -> BTreeMap<String, String> {
    output(daemon, definition)
        .into_iter()
        .map(|line| {
            let (name, value) = line.split_once('=').expect("env writes name=value");
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn a_programs_environment_is_clean() {
    let daemon = Setup::new()
        .variable("SECRET", "of the daemon")
        .variable("NOTIFY_SOCKET", "/nowhere")
        .variable("LANG", "C.UTF-8")
        .variable("TZ", "UTC")
        .variable("LD_PRELOAD", "")
        .start();
    let mut variables = variables(&daemon, &Definition::new("a", "/usr/bin/env", ""));
    assert_eq!(
        variables.remove("HXE_PROGRAM_ID").as_deref(),
        Some("program-1")
    );
    assert!(
        variables
            .remove("HXE_RUN_ID")
            .is_some_and(|id| !id.is_empty())
    );
    assert_eq!(variables.remove("LANG").as_deref(), Some("C.UTF-8"));
    assert_eq!(variables.remove("TZ").as_deref(), Some("UTC"));
    let left: Vec<&str> = variables.keys().map(String::as_str).collect();
    assert_eq!(left, ["HOME", "LOGNAME", "PATH", "SHELL", "USER"]);
    let user = daemon.program("a").get()["user"].clone();
    assert_eq!(user, variables["USER"].as_str());
    assert_eq!(user, variables["LOGNAME"].as_str());
}

#[test]
fn a_programs_own_variables_are_set_and_win() {
    let daemon = Daemon::start();
    let own = json!({"GREETING": "a b=c 'd'", "EMPTY": "", "HOME": "/elsewhere"});
    let definition = Definition::new("a", "/usr/bin/env", "").with("environment", own);
    let variables = variables(&daemon, &definition);
    assert_eq!(variables["GREETING"], "a b=c 'd'");
    assert_eq!(variables["EMPTY"], "");
    assert_eq!(variables["HOME"], "/elsewhere");
}

#[test]
fn a_command_is_looked_up_in_the_programs_own_path() {
    let daemon = Daemon::start();
    let tool = daemon.scratch("tool");
    fs::write(&tool, "#!/bin/sh\necho found\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&tool, mode).unwrap();
    let path = format!("/nowhere:{}:/bin", tool.parent().unwrap().display());
    let definition = Definition::new("a", "tool", "").with("environment", json!({"PATH": path}));
    assert_eq!(output(&daemon, &definition), ["found"]);
    assert_eq!(
        output(&daemon, &Definition::new("b", "echo", "found, too")),
        ["found, too"]
    );
}

#[test]
fn args_are_split_as_a_shell_splits_them() {
    let daemon = Daemon::start();
    let args = r#"<%s>\n one 'two  words' "q\"q" a\ b '' $HOME * ; 'daemon off;'"#;
    let definition = Definition::new("a", "/usr/bin/printf", args);
    assert_eq!(
        output(
            &daemon,
            &definition.with("args", args.replacen(r"<%s>\n", r"'<%s>\n'", 1))
        ),
        [
            "<one>",
            "<two  words>",
            "<q\"q>",
            "<a b>",
            "<>",
            "<$HOME>",
            "<*>",
            "<;>",
            "<daemon off;>"
        ]
    );
}

#[test]
fn a_program_runs_in_its_directory() {
    let daemon = Daemon::start();
    let scratch = daemon.scratch("");
    let directory = scratch.to_str().unwrap().trim_end_matches('/');
    let there = Definition::new("a", "/bin/pwd", "").with("directory", directory);
    assert_eq!(output(&daemon, &there), [directory]);
    assert_eq!(
        output(&daemon, &Definition::new("b", "/bin/pwd", "")),
        ["/"]
    );
}

#[test]
fn a_programs_umask_is_its_own() {
    let daemon = Daemon::start();
    for (name, umask, shown) in [
        ("a", "022", "0022"),
        ("b", "077", "0077"),
        ("c", "0", "0000"),
    ] {
        let definition = sh(name, "umask").with("umask", umask);
        assert_eq!(output(&daemon, &definition), [shown]);
    }
}

#[test]
fn a_program_has_three_descriptors_and_reads_nothing() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    // exec closes the descriptors one by one, and that one early which tells that it works.
    until(|| {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
        let mut numbers: Vec<String> = descriptors
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        numbers.sort();
        numbers == ["0", "1", "2"]
    });
    let stdin = fs::read_link(format!("/proc/{}/fd/0", program.pid())).unwrap();
    assert_eq!(stdin.to_str(), Some("/dev/null"));
}

#[test]
fn a_program_may_open_its_output_again() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&sh("a", "echo out > /dev/stdout; echo err > /dev/stderr"))
        .started();
    program.reaches("exited");
    assert_eq!(program.messages("stdout"), ["out"]);
    assert_eq!(program.messages("stderr"), ["err"]);
}

#[test]
fn a_program_leads_a_session_and_a_group_of_its_own() {
    let daemon = Daemon::start();
    let pid = daemon.create(&sleeper("a")).started().pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<i32> = after_name
        .split_whitespace()
        .skip(2)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    assert_eq!(fields, [pid, pid], "group and session");
}

#[test]
fn a_program_finds_no_signal_ignored_or_blocked() {
    let daemon = Daemon::start();
    let pid = daemon.create(&sleeper("a")).started().pid();
    for field in ["SigIgn", "SigBlk", "SigCgt"] {
        assert_eq!(
            status_field(pid, field).unwrap(),
            "0000000000000000",
            "{field}"
        );
    }
}

#[test]
fn a_program_has_the_soft_limit_of_open_files_that_hxe_was_started_with() {
    for setup in [Setup::new(), Setup::new().no_guardian()] {
        let daemon = setup.soft_open_files(200).start();
        let pid = daemon.create(&sleeper("a")).started().pid();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .expect("there is such a limit");
        assert_eq!(files.split_whitespace().next(), Some("200"));
    }
}

#[test]
fn a_program_has_the_limits_that_the_daemon_was_given() {
    let daemon = Daemon::start();
    let pid = daemon.create(&sleeper("a")).started().pid();
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let its = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert_eq!(its, own);
}

/// A line of `/proc/PID/status` that holds a real, effective, saved and file system id: all must be the same.
fn one_id(pid: i32, field: &str) -> String {
    let ids = status_field(pid, field).unwrap();
    let first = ids.split(' ').next().unwrap().to_owned();
    assert!(ids.split(' ').all(|id| id == first), "{field}: {ids}");
    first
}

/// Ids in order, as a list.
fn sorted(ids: &str) -> Vec<u32> {
    let ids = ids
        .split_whitespace()
        .map(|id| id.parse().expect("an id is a number"));
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids
}

/// What id(1) says of a user.
fn id_of(option: &str, user: &str) -> Vec<u32> {
    let output = Command::new("id").args([option, user]).output().unwrap();
    sorted(&String::from_utf8_lossy(&output.stdout))
}

#[track_caller]
fn check_runs_as(program: &Program, user: &str) {
    let pid = program.pid();
    assert_eq!(sorted(&one_id(pid, "Uid")), id_of("-u", user));
    assert_eq!(sorted(&one_id(pid, "Gid")), id_of("-g", user));
    assert_eq!(
        sorted(&status_field(pid, "Groups").unwrap()),
        id_of("-G", user)
    );
}

#[test]
fn without_a_user_a_program_of_root_runs_as_nobody() {
    if !need_root() {
        return;
    }
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    check_runs_as(&program, "nobody");
    let shown = program.get();
    assert_eq!(shown["user"], "nobody");
    assert!(["nobody", "nogroup"].contains(&shown["group"].as_str().unwrap()));
}

#[test]
fn a_program_runs_as_its_user_with_that_users_groups() {
    if !need_root() {
        return;
    }
    let daemon = for_any_user();
    for user in ["root", "daemon", "nobody"] {
        let program = daemon.create(&sleeper(user).with("user", user)).started();
        check_runs_as(&program, user);
    }
}

#[test]
fn supplementary_groups_are_those_of_the_group_file() {
    if !need_root() {
        return;
    }
    // Whoever the machine has put into a group that is not his own.
    let member = fs::read_to_string("/etc/group")
        .unwrap()
        .lines()
        .find_map(|line| {
            let names = line.rsplit(':').next()?.split(',');
            names.map(str::to_owned).find(|name| !name.is_empty())
        });
    let Some(user) = member else {
        eprintln!("skipped: no user here has supplementary groups");
        return;
    };
    let daemon = for_any_user();
    let program = daemon
        .create(&sleeper("a").with("user", user.as_str()))
        .started();
    check_runs_as(&program, &user);
}

#[test]
fn a_user_and_a_group_may_be_numbers() {
    if !need_root() {
        return;
    }
    let daemon = for_any_user();
    let definition = sleeper("a").with("user", "12345").with("group", "54321");
    let program = daemon.create(&definition).started();
    assert_eq!(one_id(program.pid(), "Uid"), "12345");
    assert_eq!(one_id(program.pid(), "Gid"), "54321");
    // A number without an entry has no primary group.
    daemon
        .try_create(&sleeper("b").with("user", "12345"))
        .issue("group");
}

#[test]
fn a_group_takes_the_place_of_the_primary_one() {
    if !need_root() {
        return;
    }
    let daemon = for_any_user();
    let definition = sleeper("a").with("user", "daemon").with("group", "root");
    let program = daemon.create(&definition).started();
    assert_eq!(one_id(program.pid(), "Gid"), "0");
    assert_eq!(sorted(&one_id(program.pid(), "Uid")), id_of("-u", "daemon"));
}

#[test]
fn nobody_and_nogroup_mean_each_other_as_a_group() {
    if !need_root() {
        return;
    }
    let daemon = Daemon::start();
    for group in ["nobody", "nogroup"] {
        let definition = sleeper(group).with("user", "nobody").with("group", group);
        check_runs_as(&daemon.create(&definition).started(), "nobody");
    }
}

#[test]
fn an_ordinary_users_programs_run_as_that_user() {
    let daemon = if is_root() {
        Setup::new().user(12345).start()
    } else {
        Daemon::start()
    };
    let program = daemon.create(&sleeper("a")).started();
    assert_eq!(
        status_field(program.pid(), "Uid"),
        status_field(daemon.pid(), "Uid")
    );
    let lines = output(&daemon, &sh("b", "echo hello"));
    assert_eq!(lines, ["hello"]);
    daemon
        .try_create(&sleeper("c").with("user", "root"))
        .issue("user");
}

#[test]
fn each_run_has_an_id_of_its_own() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "echo $HXE_RUN_ID"));
    for count in 1..=2 {
        program.post("start").ok(200);
        until_some(|| (program.messages("stdout").len() == count).then_some(()));
        program.reaches("exited");
    }
    let ids = program.messages("stdout");
    assert_ne!(ids[0], ids[1]);
}
