use crate::support::{Daemon, Setup, json, until};

/// Every endpoint that needs a token.
const GUARDED: &[(&str, &str)] = &[
    ("POST", "/api/auth/refresh"),
    ("POST", "/api/auth/logout"),
    ("GET", "/api/program"),
    ("POST", "/api/program"),
    ("GET", "/api/program/program-1"),
    ("PUT", "/api/program/program-1"),
    ("DELETE", "/api/program/program-1"),
    ("POST", "/api/program/program-1/start"),
    ("POST", "/api/program/program-1/stop"),
    ("POST", "/api/program/program-1/restart"),
    ("POST", "/api/program/program-1/enable"),
    ("POST", "/api/program/program-1/disable"),
    ("GET", "/api/program/program-1/logs"),
    ("GET", "/api/program/program-1/metrics"),
    ("GET", "/api/metrics"),
];

fn login(daemon: &Daemon, username: &str, password: &str) -> crate::support::Reply {
    let body = json!({"username": username, "password": password}).to_string();
    daemon.request("POST", "/api/auth/login", "", &body)
}

#[test]
fn a_login_answers_with_a_token_its_end_and_the_user() {
    let daemon = Daemon::start();
    let json = login(&daemon, "admin", "password").ok(200);
    assert_eq!(json["user"], json!({"username": "admin", "role": "admin"}));
    let token = json["token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3, "{token}");
    let end = json["expires_at"].as_str().unwrap();
    humantime::parse_rfc3339(end).expect("RFC 3339, UTC");
    assert_eq!(end.len(), "2025-01-01T12:00:00Z".len());
}

#[test]
fn wrong_credentials_are_answered_alike() {
    let daemon = Daemon::start();
    let wrong_password = login(&daemon, "admin", "wrong");
    let wrong_user = login(&daemon, "nobody", "password");
    assert_eq!(wrong_password.text(), wrong_user.text());
    wrong_password.error(401, "authentication_error");
    wrong_user.error(401, "authentication_error");
}

#[test]
fn a_login_that_is_no_login_is_refused() {
    let daemon = Daemon::start();
    let try_body = |body| daemon.request("POST", "/api/auth/login", "", body);
    for body in ["", "{", "[]", "null", "\"admin\"", "{} {}", "\u{feff}{}"] {
        try_body(body).error(400, "validation_error");
    }
    for (body, field) in [
        (r#"{"password":"password"}"#, "username"),
        (r#"{"username":"admin"}"#, "password"),
        (r#"{"username":1,"password":"password"}"#, "username"),
        (r#"{"username":"admin","password":null}"#, "password"),
        (r#"{"username":"admin","password":"password","x":1}"#, "x"),
    ] {
        try_body(body).issue(field);
    }
}

#[test]
fn without_a_token_nothing_is_answered() {
    let daemon = Daemon::start();
    for (method, path) in GUARDED {
        let reply = daemon.request(method, path, "", "");
        assert_eq!(reply.status, 401, "{method} {path}");
        reply.error(401, "authentication_error");
    }
}

#[test]
fn what_is_no_token_of_ours_is_refused() {
    let daemon = Daemon::start();
    let token = daemon.token();
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts[..] else {
        panic!("{token} has three parts");
    };
    // {"alg":"none"} and {"alg":"HS512","typ":"JWT"}, in base64.
    let (none, hs512) = (
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9",
    );
    let first = if signature.starts_with('A') { "B" } else { "A" };
    for forged in [
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        format!("{head}.{claims}"),
        format!("{head}.{claims}."),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{hs512}.{claims}.{signature}"),
        format!("{head}.{claims}.{first}{}", &signature[1..]),
        format!("{head}.{head}.{signature}"),
        format!("{token}.{signature}"),
        "\u{e9}".repeat(500),
    ] {
        let reply = daemon.with_token(&forged, "GET", "/api/program", "");
        assert_eq!(reply.status, 401, "{forged}");
    }
    let other = Daemon::start();
    let reply = other.with_token(token, "GET", "/api/program", "");
    assert_eq!(
        reply.error(401, "authentication_error"),
        "Invalid or expired token"
    );
}

#[test]
fn only_a_bearer_token_is_taken() {
    let daemon = Daemon::start();
    let token = daemon.token();
    for header in [
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: \r\n".to_owned(),
    ] {
        let reply = daemon.request("GET", "/api/program", &header, "");
        assert_eq!(reply.status, 401, "{header}");
    }
}

#[test]
fn a_refresh_gives_a_new_token_and_leaves_the_old_one_good() {
    let daemon = Daemon::start();
    let json = daemon.post("/api/auth/refresh", "").ok(200);
    assert!(json["expires_at"].is_string());
    let renewed = json["token"].as_str().unwrap();
    assert_ne!(renewed, daemon.token());
    for token in [renewed, daemon.token()] {
        daemon.with_token(token, "GET", "/api/program", "").ok(200);
    }
}

#[test]
fn a_logout_ends_its_token_and_no_other() {
    let daemon = Daemon::start();
    let token = daemon.login();
    let json = daemon
        .with_token(&token, "POST", "/api/auth/logout", "")
        .ok(200);
    assert_eq!(json, json!({"message": "Logged out successfully"}));
    for (method, path) in GUARDED {
        let reply = daemon.with_token(&token, method, path, "");
        assert_eq!(reply.status, 401, "{method} {path}");
    }
    daemon.get("/api/program").ok(200);
}

#[test]
fn a_token_ends_after_its_lifetime() {
    let daemon = Setup::new().key("api", "token_lifetime", "\"1s\"").start();
    let token = daemon.login();
    until(|| daemon.with_token(&token, "GET", "/api/program", "").status == 401);
    daemon
        .with_token(&token, "POST", "/api/auth/refresh", "")
        .error(401, "authentication_error");
}

#[test]
fn a_password_may_be_given_as_its_bcrypt_hash() {
    let hash = bcrypt::hash_with_salt("correct horse", 4, [7; 16])
        .expect("4 is a cost of bcrypt's")
        .format_for_version(bcrypt::Version::TwoB);
    let daemon = Setup::new()
        .key("api", "password_hash", format!("{hash:?}"))
        .start();
    login(&daemon, "admin", "correct horse").ok(200);
    for wrong in ["password", "correct hors", &hash] {
        login(&daemon, "admin", wrong).error(401, "authentication_error");
    }
}

#[test]
fn a_new_user_name_or_password_ends_all_tokens() {
    let mut daemon = Daemon::start();
    let token = daemon.login();
    daemon.stop();
    for setup in [
        daemon.setup.clone().own_password(),
        daemon.setup.clone().key("api", "username", "\"root\""),
    ] {
        let changed = setup.start();
        let reply = changed.with_token(&token, "GET", "/api/program", "");
        reply.error(401, "authentication_error");
    }
}

#[test]
fn a_password_that_comes_back_brings_no_tokens_back() {
    let mut daemon = Daemon::start();
    let token = daemon.login();
    daemon.stop();
    daemon.setup.clone().own_password().start().stop();
    let restored = daemon.setup.clone().start();
    let reply = restored.with_token(&token, "GET", "/api/program", "");
    reply.error(401, "authentication_error");
}
