use crate::support::{Daemon, Program, Value, json, sh, sleeper, until};

fn exits(program: &Program) -> Vec<Value> {
    let json = program.daemon.get(&program.path("/exits")).ok(200);
    assert_eq!(json["program_id"], program.id.as_str());
    json["exits"].as_array().unwrap().clone()
}

#[test]
fn the_last_ten_ends_are_kept_newest_first() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "echo run $$; exit 3"));
    assert!(exits(&program).is_empty());
    for _ in 0..12 {
        program.post("start").ok(200);
        program.reaches("failed");
    }
    let exits = exits(&program);
    let numbers: Vec<_> = exits.iter().map(|end| end["number"].as_u64()).collect();
    assert_eq!(numbers, (3..=12).rev().map(Some).collect::<Vec<_>>());
    for end in &exits {
        assert_eq!(end["reason"], "crash", "{end}");
        assert_eq!(end["message"], "Program exited with code 3");
        assert_eq!(
            (&end["exit_code"], &end["exit_signal"]),
            (&json!(3), &json!(null))
        );
        assert_eq!(end["by"], json!(null));
        assert_eq!(end["output"], format!("run {}\n", end["pid"]));
        assert!(end["max_memory_bytes"].as_u64() > Some(0), "{end}");
        assert!(end["cpu_seconds"].as_f64() >= Some(0.0), "{end}");
        assert!(end["run_time"].as_f64() >= Some(0.0), "{end}");
        assert!(
            end["start_time"].as_str() <= end["end_time"].as_str(),
            "{end}"
        );
    }
}

#[test]
fn each_end_says_why() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    let newest = || exits(&program)[0].clone();
    let admin = json!({"user": "admin", "via": "api"});

    program.post("stop").ok(200);
    let end = newest();
    assert_eq!(
        (&end["reason"], &end["by"]),
        (&json!("stop"), &admin),
        "{end}"
    );
    assert_eq!(
        (&end["exit_code"], &end["exit_signal"]),
        (&json!(143), &json!("TERM"))
    );
    assert_eq!(end["output"], "");

    program.post("start").ok(200);
    program.post("restart").ok(200);
    let end = newest();
    assert_eq!(
        (&end["reason"], &end["by"]),
        (&json!("restart"), &admin),
        "{end}"
    );

    crate::support::kill(program.pid(), rustix::process::Signal::KILL);
    until(|| newest()["reason"] == "crash");
    assert_eq!(newest()["exit_signal"], "KILL");

    let gone = daemon.create(&crate::support::Definition::new("b", "/no/such", ""));
    gone.post("start").error(400, "start_failed");
    let end = exits(&gone)[0].clone();
    assert_eq!(end["reason"], "start_failed");
    assert!(
        end["message"].as_str().unwrap().contains("No such file"),
        "{end}"
    );
    for field in ["exit_code", "pid", "start_time", "run_time", "output"] {
        assert_eq!(end[field], json!(null), "{end}");
    }
}
