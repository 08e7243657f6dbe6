use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::support::{Daemon, Reply, Setup};

/// All that the page loads, and itself.
fn paths(daemon: &Daemon) -> Vec<String> {
    let page = get(daemon, "/", "").expect(200);
    let links = page.text().split('"').filter(|text| text.starts_with('/'));
    let mut paths: Vec<String> = links.map(str::to_owned).collect();
    paths.retain(|path| path.starts_with("/dashboard/"));
    assert!(!paths.is_empty(), "{}", page.text());
    paths.push("/".to_owned());
    paths
}

/// Without a token.
fn get(daemon: &Daemon, path: &str, headers: &str) -> Reply {
    daemon.request("GET", path, headers, "")
}

/// What `gzip -d` makes of it; `None` where there is no gzip.
fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new("gzip");
    command
        .arg("-d")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut gzip = command.spawn().ok()?;
    let mut input = gzip.stdin.take()?;
    let packed = packed.to_owned();
    let writer = std::thread::spawn(move || input.write_all(&packed));
    let mut plain = Vec::new();
    gzip.stdout.take()?.read_to_end(&mut plain).unwrap();
    writer.join().unwrap().unwrap();
    assert!(gzip.wait().unwrap().success());
    Some(plain)
}

#[test]
fn the_page_and_its_files_are_served_to_all_as_what_they_are() {
    let daemon = Daemon::start();
    for path in paths(&daemon) {
        let reply = get(&daemon, &path, "").expect(200);
        let kind = match path.rsplit('.').next() {
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            Some("svg") => "image/svg+xml",
            _ => "text/html",
        };
        let given = reply.header("content-type").unwrap();
        assert!(given.starts_with(kind), "{path}: {given}");
        assert_eq!(reply.header("content-encoding"), None, "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-cache"), "{path}");
        let options = reply.header("x-content-type-options");
        assert_eq!(options, Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        let policy = reply.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}

#[test]
fn the_page_holds_no_code_of_its_own_which_its_policy_would_forbid() {
    let daemon = Daemon::start();
    let page = get(&daemon, "/", "").expect(200);
    let page = page.text().to_lowercase();
    for part in page.split("<script").skip(1) {
        let tag = part.split('>').next().unwrap();
        assert!(tag.contains("src=\"/dashboard/"), "{tag}");
    }
    for inline in ["<style", "style=", "onclick=", "onload=", "javascript:"] {
        assert!(!page.contains(inline), "{inline}");
    }
}

#[test]
fn files_are_packed_for_who_takes_it() {
    let daemon = Daemon::start();
    for path in paths(&daemon) {
        let plain = get(&daemon, &path, "").expect(200);
        let packed = get(&daemon, &path, "Accept-Encoding: br, gzip\r\n").expect(200);
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
        for reply in [&plain, &packed] {
            let vary = reply.header("vary").unwrap();
            assert!(vary.contains("Accept-Encoding"), "{path}: {vary}");
        }
        match unpacked(&packed.body) {
            Some(unpacked) => assert_eq!(unpacked, plain.body, "{path}"),
            None => eprintln!("skipped: there is no gzip here"),
        }
    }
}

#[test]
fn a_file_that_the_client_has_is_not_sent_again() {
    let daemon = Daemon::start();
    for path in paths(&daemon) {
        let etag = get(&daemon, &path, "").header("etag").unwrap().to_owned();
        let known = format!("If-None-Match: {etag}\r\n");
        for more in ["", "Accept-Encoding: gzip\r\n"] {
            let reply = get(&daemon, &path, &format!("{known}{more}")).expect(304);
            assert_eq!(reply.header("etag"), Some(etag.as_str()));
            assert!(reply.body.is_empty() && reply.header("content-length").is_none());
        }
        get(&daemon, &path, "If-None-Match: \"other\"\r\n").expect(200);
    }
}

#[test]
fn head_has_the_headers_and_other_methods_are_refused() {
    let daemon = Daemon::start();
    for path in paths(&daemon) {
        let get = get(&daemon, &path, "").expect(200);
        let head = daemon.request("HEAD", &path, "", "").expect(200);
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
        for method in ["POST", "PUT", "DELETE", "BREW"] {
            let reply = daemon.request(method, &path, "", "").expect(405);
            assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"));
        }
    }
    for path in ["/dashboard", "/dashboard/", "/dashboard/nothing.js"] {
        daemon.request("GET", path, "", "").expect(404);
        daemon.request("POST", path, "", "").expect(404);
    }
    daemon.request("GET", "/?x=1", "", "").expect(400);
}

#[test]
fn the_gates_stand_before_the_dashboard() {
    let daemon = Daemon::start();
    let request = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    daemon.sent(request).reply().expect(421);
}

#[test]
fn looking_at_the_page_is_not_counted() {
    let setup = Setup::new()
        .key("api", "rate_limit", 3)
        .key("api", "rate_limit_window", "\"1h\"");
    let daemon = setup.start();
    for path in paths(&daemon) {
        let reply = get(&daemon, &path, "").expect(200);
        assert_eq!(reply.header("x-ratelimit-remaining"), Some("3"), "{path}");
    }
    for path in ["/dashboard/nothing.js", "/dashboard", "/api/program"] {
        assert_ne!(get(&daemon, path, "").status, 429, "{path}");
    }
    daemon.request("POST", "/", "", "").expect(429);
    get(&daemon, "/", "").expect(200);
}

#[test]
fn without_a_dashboard_there_is_nothing() {
    let mut daemon = Daemon::start();
    let paths = paths(&daemon);
    daemon.reload(daemon.setup.clone().key("api", "dashboard", false));
    for path in &paths {
        let reply = get(&daemon, path, "");
        assert_eq!(reply.error(404, "not_found"), "Path not found");
        daemon.request("POST", path, "", "").expect(404);
    }
    daemon.get("/api/program").ok(200);
    daemon.reload(daemon.setup.clone().key("api", "dashboard", true));
    get(&daemon, "/", "").expect(200);
}
