//! Which web pages may open a WebSocket. Browsers let every page open one to every address, and CORS does not hold for it:
//! the daemon itself has to look at where a page comes from. Source: RFC 6455 10.2.

use super::host;
use crate::http::{Head, Peer};

/// Whether the pages that the request comes from, if any, are the daemon's own (`http`, a name that is ours, the port that
/// was asked) or listed in `[api] cors_origins`. A Unix socket cannot be reached by a page, so there any Origin will do.
///
/// # Errors
/// The origin that is neither.
pub fn check(head: &Head, hosts: &[String], cors_origins: &[String]) -> Result<(), String> {
    if matches!(head.peer, Peer::Unix(_)) {
        return Ok(());
    }
    let listed = |origin: &str| {
        cors_origins
            .iter()
            .any(|known| known == "*" || known == origin)
    };
    let foreign = head
        .headers
        .iter()
        .filter(|(name, _)| name == "origin")
        .map(|(_, origin)| origin.as_str())
        .find(|origin| !listed(origin) && !is_own(origin, head, hosts));
    match foreign {
        None => Ok(()),
        Some(origin) => Err(origin.to_owned()),
    }
}

fn is_own(origin: &str, head: &Head, hosts: &[String]) -> bool {
    let Some(host) = origin.strip_prefix("http://") else {
        return false;
    };
    let asked = head.header("host").and_then(host::port);
    host::names_us(host, hosts) && asked.is_some() && host::port(host) == asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use crate::sys::socket::Credentials;

    fn head(host: &str, origins: &[&str], peer: Peer) -> Head {
        let mut headers = vec![("host".to_owned(), host.to_owned())];
        headers.extend(
            origins
                .iter()
                .map(|origin| ("origin".to_owned(), (*origin).to_owned())),
        );
        Head {
            method: Method::Get,
            path: "/api/ws".to_owned(),
            query: None,
            headers,
            http_11: true,
            peer,
        }
    }

    const TCP: Peer = Peer::Tcp(std::net::SocketAddr::V4(std::net::SocketAddrV4::new(
        std::net::Ipv4Addr::LOCALHOST,
        9,
    )));

    fn allowed(host: &str, origins: &[&str], listed: &[&str]) -> bool {
        let listed: Vec<String> = listed.iter().map(|origin| (*origin).to_owned()).collect();
        let hosts = ["hxe.example".to_owned()];
        check(&head(host, origins, TCP), &hosts, &listed).is_ok()
    }

    #[test]
    fn who_sends_none_is_no_page() {
        assert!(allowed("localhost:8080", &[], &[]));
    }

    #[test]
    fn our_own_pages_may_under_any_of_our_names_at_the_same_port() {
        for (host, origin) in [
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("localhost:8080", "http://[::1]:8080"),
            ("localhost:8080", "http://hxe.example:8080"),
            ("localhost", "http://localhost"),
            ("localhost:80", "http://localhost"),
            ("localhost", "http://localhost:80"),
        ] {
            assert!(allowed(host, &[origin], &[]), "{origin} at {host}");
        }
    }

    #[test]
    fn others_may_not() {
        for (host, origin) in [
            ("localhost:8080", "https://localhost:8080"),
            ("localhost:8080", "http://localhost:8081"),
            ("localhost:8080", "http://localhost"),
            ("localhost", "http://localhost:8080"),
            ("localhost:8080", "http://evil.example:8080"),
            ("localhost:8080", "http://localhost:8080.evil.example"),
            ("localhost:8080", "http://localhost:8080@evil.example:8080"),
            ("localhost:8080", "http://evil.example:8080/localhost:8080"),
            ("localhost:8080", "http://localhost:8080/"),
            ("localhost:99999", "http://localhost:99999"),
            ("localhost:8080", "localhost:8080"),
            ("localhost:8080", "http://"),
            ("localhost:8080", "HTTP://localhost:8080"),
            ("localhost:8080", "file://"),
            ("localhost:8080", "null"),
            ("localhost:8080", ""),
        ] {
            assert!(!allowed(host, &[origin], &[]), "{origin} at {host}");
        }
    }

    #[test]
    fn those_listed_may_and_a_star_lists_all() {
        let listed = ["https://a.example", "null"];
        for origin in listed {
            assert!(allowed("localhost:8080", &[origin], &listed), "{origin}");
        }
        assert!(!allowed("localhost:8080", &["https://b.example"], &listed));
        assert!(allowed("localhost:8080", &["https://b.example"], &["*"]));
    }

    #[test]
    fn each_of_several_must_be_allowed() {
        let own = "http://localhost:8080";
        assert!(!allowed(
            "localhost:8080",
            &[own, "http://evil.example"],
            &[]
        ));
        assert!(!allowed(
            "localhost:8080",
            &["http://evil.example", own],
            &[]
        ));
    }

    #[test]
    fn on_the_unix_socket_any_will_do() {
        let peer = Peer::Unix(Credentials {
            uid: 7,
            gid: 7,
            groups: Box::default(),
            pid: 7,
        });
        let head = head("hxe", &["http://evil.example"], peer);
        assert_eq!(check(&head, &[], &[]), Ok(()));
    }
}
