//! The Host gate, against DNS rebinding: a web page whose name was pointed at this machine must not reach the API.
//! `origin` asks it, too, which names are ours.

use std::net::IpAddr;

use crate::http::{Head, Peer};

/// Whether the request names this machine: by an address, `localhost`, its host name (also with `.local`), or one of
/// `[api] hosts`. A Unix socket cannot be reached by a page, so there any name will do; nor can HTTP/1.0 without Host.
///
/// The wire has seen to it that there is at most one Host, and that it is the one of an absolute request target.
///
/// # Errors
/// The name that is not ours.
pub fn check(head: &Head, hosts: &[String]) -> Result<(), String> {
    let Some(host) = head.header("host") else {
        return Ok(());
    };
    if matches!(head.peer, Peer::Unix(_)) || names_us(host, hosts) {
        Ok(())
    } else {
        Err(host.to_owned())
    }
}

/// Whether `host`, as a Host header has it, names this machine.
pub fn names_us(host: &str, hosts: &[String]) -> bool {
    is_ours(host, hosts, machine_name)
}

/// The port that a Host header names: 80 where it names none. `None`: that is no port.
pub fn port(host: &str) -> Option<u16> {
    match host[without_port(host).len()..].strip_prefix(':') {
        None | Some("") => Some(80),
        Some(digits) => digits.parse().ok(),
    }
}

fn is_ours(host: &str, hosts: &[String], machine_name: impl Fn() -> String) -> bool {
    let name = without_port(host);
    if is_address(name) {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return false;
    }
    if is_address(name) || name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let listed = |known: &String| {
        let known = known.strip_suffix('.').unwrap_or(known);
        known.eq_ignore_ascii_case(name)
    };
    if hosts.iter().any(listed) {
        return true;
    }
    // Asked each time, as DHCP may set it late.
    let machine = machine_name();
    let short = machine.split('.').next().unwrap_or_default();
    !short.is_empty()
        && [machine.as_str(), short, &format!("{short}.local")]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
}

/// The part before `:port`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// An IPv4 address, or an IPv6 address with or without brackets and zone.
fn is_address(name: &str) -> bool {
    let inner = name
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    let text = inner.unwrap_or(name);
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    match text.parse::<IpAddr>() {
        Ok(address) => inner.is_none() || address.is_ipv6(),
        Err(_) => false,
    }
}

/// The machine's host name. Source: uname(2), nodename.
fn machine_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use crate::sys::socket::Credentials;
    use proptest::prelude::*;

    fn ours(host: &str) -> bool {
        let hosts = ["hxe.example".to_owned(), "Box.Example.".to_owned()];
        is_ours(host, &hosts, || "pi.lan".to_owned())
    }

    #[test]
    fn addresses_and_our_names_are_ours() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.168.1.7:1",
            "[::1]:8080",
            "[::1]",
            "::1",
            "[fe80::1%25eth0]:8080",
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "localhost.:80",
            "pi.lan",
            "pi",
            "PI.local:8080",
            "hxe.example",
            "HXE.example.:8080",
            "box.example",
        ] {
            assert!(ours(host), "{host}");
        }
    }

    #[test]
    fn all_else_is_not() {
        for host in [
            "",
            ":8080",
            ".",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.example:8080",
            "localhost:80:80",
            "localhost@evil.example",
            "localhost:evil",
            "127.1",
            "0x7f000001",
            "2130706433",
            "[127.0.0.1]",
            "[localhost]",
            "local",
            ".local",
            "pi.evil",
            "localhost..",
            "127.0.0.1/",
            "hxe.example, localhost",
        ] {
            assert!(!ours(host), "{host}");
        }
    }

    #[test]
    fn a_machine_without_a_name_admits_no_empty_one() {
        for host in ["", ".local", "."] {
            assert!(!is_ours(host, &[], String::new), "{host}");
        }
    }

    #[test]
    fn a_port_is_80_where_none_is_named() {
        for (host, expected) in [
            ("localhost", Some(80)),
            ("localhost:", Some(80)),
            ("localhost:8080", Some(8080)),
            ("[::1]", Some(80)),
            ("[::1]:8080", Some(8080)),
            ("::1", Some(80)),
            ("localhost:99999", None),
        ] {
            assert_eq!(port(host), expected, "{host}");
        }
    }

    fn checked(host: &str, peer: Peer) -> Result<(), String> {
        let head = Head {
            method: Method::Get,
            path: "/".to_owned(),
            query: None,
            headers: vec![("host".to_owned(), host.to_owned())],
            http_11: true,
            peer,
        };
        check(&head, &[])
    }

    #[test]
    fn over_the_network_the_host_must_be_ours() {
        let peer = || Peer::Tcp(([127, 0, 0, 1], 9).into());
        assert_eq!(checked("localhost:8080", peer()), Ok(()));
        let refused = Err("evil.example".to_owned());
        assert_eq!(checked("evil.example", peer()), refused);
    }

    #[test]
    fn on_the_unix_socket_any_host_will_do() {
        let peer = Peer::Unix(Credentials {
            uid: 7,
            gid: 7,
            groups: Box::default(),
            pid: 7,
        });
        assert_eq!(checked("hxe", peer), Ok(()));
    }

    proptest! {
        #[test]
        fn no_host_panics_and_none_is_ours_by_its_end_or_begin(
            text in "[a-z0-9.:\\[\\]@ %-]{0,30}",
        ) {
            let _ = ours(&text);
            let other = format!("localhost.{text}evil");
            prop_assert!(!ours(&other));
            let other = format!("evil{text}localhost");
            prop_assert!(!ours(&other));
        }
    }
}
