use crate::support::{Daemon, Definition, Program, Value, json, sh, until};

fn metrics(program: &Program) -> Value {
    let json = program.daemon.get(&program.path("/metrics")).ok(200);
    assert_eq!(json["program_id"], program.id.as_str());
    json["metrics"].clone()
}

#[test]
fn a_running_program_shows_what_it_uses() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&Definition::new("a", "/bin/sleep", "1000"))
        .started();
    // For a moment it has no memory: that of before is gone, and its own not there yet.
    until(|| metrics(&program)["memory_bytes"] != 0);
    let shown = metrics(&program);
    assert!(shown["cpu_usage"].is_number());
    let bytes = shown["memory_bytes"].as_u64().unwrap();
    let mebibytes = shown["memory_usage"].as_f64().unwrap();
    assert!(
        (mebibytes - bytes as f64 / 1_048_576.0).abs() <= 0.005 + f64::EPSILON,
        "{shown}"
    );
    assert_eq!(shown["restart_count"], 0);
    assert_eq!(shown["last_restart"], json!(null));
    until(|| metrics(&program)["uptime"].as_u64() >= Some(1));
}

#[test]
fn memory_is_that_of_all_its_processes() {
    let daemon = Daemon::start();
    let one = daemon.create(&sh("one", "exec sleep 1000")).started();
    let many = daemon
        .create(&sh(
            "many",
            "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait",
        ))
        .started();
    let bytes = |program| metrics(program)["memory_bytes"].as_u64().unwrap();
    until(|| bytes(&many) > 4 * bytes(&one));
}

#[test]
fn a_busy_program_shows_cpu_usage() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "while :; do :; done")).started();
    until(|| metrics(&program)["cpu_usage"].as_f64() > Some(10.0));
}

#[test]
fn a_stopped_program_uses_nothing() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", ""));
    for state in ["stopped", "exited"] {
        assert_eq!(program.state(), state);
        let shown = metrics(&program);
        for field in ["cpu_usage", "memory_usage", "memory_bytes", "uptime"] {
            assert_eq!(shown[field].as_f64(), Some(0.0), "{field} when {state}");
        }
        if state == "stopped" {
            program.post("start").ok(200);
            program.reaches("exited");
        }
    }
}

#[test]
fn the_system_shows_what_is_used_and_counts_programs() {
    let daemon = Daemon::start();
    daemon.create(&sh("idle", ""));
    daemon.create(&sh("up", "exec sleep 1000")).started();
    daemon
        .create(&sh("failed", "exit 1"))
        .started()
        .reaches("failed");
    daemon
        .create(&sh("done", "exit 0"))
        .started()
        .reaches("exited");
    let shown = daemon.get("/api/metrics").ok(200);
    let expected = json!({"total": 4, "running": 1, "stopped": 2, "error": 1});
    assert_eq!(shown["programs"], expected);
    let system = &shown["system"];
    for percent in ["cpu_usage", "disk_usage"] {
        let value = system[percent].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&value), "{percent}: {value}");
    }
    assert!(system["memory_usage"].as_f64() > Some(1.0));
    assert!(system["memory_bytes"].as_u64() > Some(1 << 20));
    assert!(system["uptime"].is_u64());
}

#[test]
fn metrics_take_no_query() {
    let daemon = Daemon::start();
    daemon.get("/api/metrics?all=true").issue("all");
}
