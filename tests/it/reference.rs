use std::process::Command;

use crate::support::{Daemon, Value, json};

#[test]
fn the_references_session_works_with_curl() {
    let daemon = Daemon::start();
    let curl = |args: &[&str]| {
        let output = Command::new("curl")
            .args(["-sS", "-m", "10"])
            .args(args)
            .output();
        let output = output.ok()?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let url = |path: &str| format!("http://localhost:{}{path}", daemon.address.port());
    let json_type = "Content-Type: application/json";
    let login = r#"{"username":"admin","password":"password"}"#;
    let login = [
        "-X",
        "POST",
        &url("/api/auth/login"),
        "-H",
        json_type,
        "-d",
        login,
    ];
    let Some(answer) = curl(&login) else {
        eprintln!("skipped: there is no curl here");
        return;
    };
    let token = format!(
        "Authorization: Bearer {}",
        answer["token"].as_str().unwrap()
    );
    let list = curl(&["-X", "GET", &url("/api/program"), "-H", &token]);
    assert_eq!(list, Some(json!([])));
    let body = r#"{
        "name": "Test Program",
        "command": "/usr/bin/echo",
        "args": "Hello, World!"
    }"#;
    let create = [
        "-X",
        "POST",
        &url("/api/program"),
        "-H",
        &token,
        "-H",
        json_type,
        "-d",
        body,
    ];
    assert_eq!(curl(&create).unwrap()["id"], "program-1");
    let start = [
        "-X",
        "POST",
        &url("/api/program/program-1/start"),
        "-H",
        &token,
    ];
    assert_eq!(
        curl(&start).unwrap()["message"],
        "Program started successfully"
    );
    daemon.program("program-1").says("Hello, World!");
}
