use crate::support::Setup;

/// As it is kept.
const TEXT: &str = include_str!("../../src/api/openapi.json");

#[test]
fn everybody_can_have_the_description() {
    let daemon = Setup::new().key("api", "dashboard", false).start();
    for path in ["/api/openapi.json", "/api/v1/openapi.json"] {
        let reply = daemon.request("GET", path, "", "").expect(200);
        assert_eq!(reply.text(), TEXT);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let packed = daemon.request("GET", path, "Accept-Encoding: gzip\r\n", "");
        let packed = packed.expect(200);
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert!(packed.body.len() * 4 < TEXT.len());
        let etag = packed.header("etag").unwrap();
        let known = format!("If-None-Match: {etag}\r\n");
        daemon.request("GET", path, &known, "").expect(304);
    }
    daemon
        .request("HEAD", "/api/openapi.json", "", "")
        .expect(200);
    daemon
        .request("POST", "/api/openapi.json", "", "")
        .expect(405);
    daemon
        .request("GET", "/api/openapi.json?x=1", "", "")
        .expect(400);
}

#[test]
fn a_page_from_elsewhere_may_read_it_where_others_may_be_read() {
    let origins = "[\"https://docs.example\"]";
    let daemon = Setup::new().key("api", "cors_origins", origins).start();
    let origin = "Origin: https://docs.example\r\n";
    let reply = daemon
        .request("GET", "/api/openapi.json", origin, "")
        .expect(200);
    let allowed = reply.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://docs.example"));
    assert!(reply.header("vary").unwrap().contains("Origin"));
}
