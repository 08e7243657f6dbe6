//! Rules for single values. Each check answers with the value as it is kept, or with what is wrong and what is allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::logs::OnFull;
use crate::program::LogDisk;

use super::kind::show;

/// Longest path that the kernel takes. Source: limits.h, PATH_MAX with its NUL.
const PATH_MAX: usize = 4095;
/// What a list may hold, so that its use stays cheap.
const MOST_ITEMS: usize = 64;
const MOST_LISTENERS: usize = 16;

/// `ADDRESS:PORT`, numeric or `localhost`, which is both loopback addresses. None twice, but port 0 as often as wanted.
pub(super) fn listen(items: &[String]) -> Result<Vec<SocketAddr>, String> {
    if items.is_empty() {
        return Err("at least one address is needed, such as \"127.0.0.1:8080\"".to_owned());
    }
    bounded(items, MOST_LISTENERS)?;
    let mut addresses = Vec::new();
    for item in items {
        for address in resolve(item)? {
            if address.port() == 0 || !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

fn resolve(item: &str) -> Result<Vec<SocketAddr>, String> {
    let localhost = item
        .rsplit_once(':')
        .filter(|(host, _)| host.eq_ignore_ascii_case("localhost"));
    if let Some(port) = localhost.and_then(|(_, port)| parse_port(port)) {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(loopback
            .map(|address| SocketAddr::new(address, port))
            .to_vec());
    }
    item.parse().map(|address| vec![address]).map_err(|_| {
        format!(
            "{} is not an address with a port: write an IP address and a port from 0 to 65535, such as \
             \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\", or \"localhost:8080\"",
            show(item)
        )
    })
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Host names as clients send them, in lower case. Source: RFC 1123 2.1.
pub(super) fn hosts(items: &[String]) -> Result<Vec<String>, String> {
    bounded(items, MOST_ITEMS)?;
    items
        .iter()
        .map(|item| {
            let name = item.strip_suffix('.').unwrap_or(item);
            if item.parse::<IpAddr>().is_ok() || is_host_name(name) {
                return Ok(name.to_ascii_lowercase());
            }
            Err(format!(
                "{} is not a host name: write it without scheme, port and path, such as \"device.example.org\"",
                show(item)
            ))
        })
        .collect()
}

fn is_host_name(name: &str) -> bool {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(fits)
}

/// `*` alone, or origins as browsers send them, in lower case. Source: RFC 6454 6.2.
pub(super) fn origins(items: &[String]) -> Result<Vec<String>, String> {
    bounded(items, MOST_ITEMS)?;
    if items.len() > 1 && items.iter().any(|item| item == "*") {
        return Err("\"*\" stands for all origins: remove it, or the others".to_owned());
    }
    items
        .iter()
        .map(|item| {
            if item == "*" || is_origin(item) {
                return Ok(item.to_ascii_lowercase());
            }
            Err(format!(
                "{} is not an origin: write \"*\" alone, or scheme, host and port without a path, such as \
                 \"https://example.org\" or \"http://localhost:3000\"",
                show(item)
            ))
        })
        .collect()
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let (host, port) = match authority.rsplit_once(':') {
        // The colon may be one of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_fits = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    let port_fits = port.is_none_or(|port| parse_port(port).is_some_and(|port| port != 0));
    scheme_fits && host_fits && port_fits
}

/// As a login sends it.
pub(super) fn username(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.chars().count()) && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("it must have 1 to 128 characters, none of them a control character".to_owned())
}

/// Never shown.
pub(super) fn password(text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err("it must not be empty".to_owned()),
        1..=1024 => Ok(()),
        _ => Err("it must be at most 1024 bytes long".to_owned()),
    }
}

/// Never shown. As a header can carry it, and too long to be guessed.
pub(super) fn metrics_token(text: &str) -> Result<(), String> {
    let is_good = (16..=1024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    match is_good || text.is_empty() {
        true => Ok(()),
        false => Err(
            "it must have 16 to 1024 letters, digits and other signs of ASCII without spaces"
                .to_owned(),
        ),
    }
}

/// Never shown. Its cost is bounded, as on a small board each step doubles seconds.
pub(super) fn password_hash(text: &str) -> Result<(), String> {
    let known = ["$2a$", "$2b$", "$2y$"]
        .iter()
        .any(|version| text.starts_with(version));
    let cost = match text.parse::<bcrypt::HashParts>() {
        Ok(parts) if known => parts.get_cost(),
        _ => {
            return Err(
                "it is not a bcrypt hash: it must have 60 characters and begin with $2a$, $2b$ or $2y$, as \
                 `htpasswd -nBC 10 admin` prints it behind the colon"
                    .to_owned(),
            );
        }
    };
    if !(4..=14).contains(&cost) {
        return Err(format!(
            "its cost is {cost}: it must be from 4 to 14, as in `htpasswd -nBC 10 admin`"
        ));
    }
    Ok(())
}

/// The name or number of a user or group; whether it exists is checked later.
pub(super) fn account(text: &str, may_be_empty: bool) -> Result<String, String> {
    let fits = |c: char| !c.is_control() && !c.is_whitespace() && c != ':' && c != ',';
    if text.len() <= 256 && text.chars().all(fits) && (may_be_empty || !text.is_empty()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} cannot be the name of a user or group",
        show(text)
    ))
}

/// An absolute path.
pub(super) fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!(
            "{} is not an absolute path: it must begin with \"/\"",
            show(text)
        ));
    }
    if text.len() > PATH_MAX || text.contains(char::is_control) {
        return Err(format!(
            "{} is not a usable path: it must be at most {PATH_MAX} bytes long, without control characters",
            show(text)
        ));
    }
    Ok(text.to_owned())
}

/// A directory of hxe's own, without a slash at its end: with one, a symbolic link there would be followed.
pub(super) fn storage(text: &str) -> Result<PathBuf, String> {
    let path: PathBuf = Path::new(&path(text)?).components().collect();
    if path.file_name().is_none() {
        return Err(format!(
            "{} cannot be a directory of hxe's own: name one below \"/\", such as \"/var/lib/hxe\"",
            show(text)
        ));
    }
    Ok(path)
}

/// A pattern for paths, which may be relative to the file that has it; empty: none.
pub(super) fn include(text: &str) -> Result<String, String> {
    if !text.is_empty() && !text.starts_with('/') {
        return path(&format!("/{text}")).map(|_| text.to_owned());
    }
    match text {
        "" => Ok(String::new()),
        _ => path(text),
    }
}

/// `all`, `errors` or `memory`.
pub(super) fn log_disk(text: &str) -> Result<LogDisk, String> {
    LogDisk::from_name(text).ok_or_else(|| {
        format!(
            "{} is not known: it must be \"all\", \"errors\" or \"memory\"",
            show(text)
        )
    })
}

/// `drop` or `block`.
pub(super) fn on_full(text: &str) -> Result<OnFull, String> {
    match text {
        "drop" => Ok(OnFull::Drop),
        "block" => Ok(OnFull::Block),
        _ => Err(format!(
            "{} is not known: it must be \"drop\" or \"block\"",
            show(text)
        )),
    }
}

fn bounded(items: &[String], most: usize) -> Result<(), String> {
    if items.len() > most {
        return Err(format!(
            "{} entries are too many: at most {most} are allowed",
            items.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn listen_takes_numeric_addresses_with_ports() {
        let addresses = listen(&list(&["127.0.0.1:0", "[::1]:80", "0.0.0.0:8080"])).unwrap();
        assert_eq!(addresses.len(), 3);
    }

    #[test]
    fn localhost_is_both_loopback_addresses_and_nothing_is_there_twice() {
        let addresses = listen(&list(&["localhost:80", "127.0.0.1:80"])).unwrap();
        let expected: Vec<SocketAddr> =
            vec!["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()];
        assert_eq!(addresses, expected);
    }

    #[test]
    fn listen_refuses_what_is_no_address_with_a_port() {
        for item in [
            "",
            ":8080",
            "8080",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "localhost",
            "localhost:+80",
            "::1:8080",
            "example.org:80",
            "*:80",
            "http://127.0.0.1:80",
            "127.0.0.1:80 ",
            "[::1]",
        ] {
            assert!(listen(&list(&[item])).is_err(), "{item}");
        }
        assert!(listen(&[]).is_err());
    }

    #[test]
    fn hosts_are_names_without_port() {
        let names = list(&["Device.Example.org.", "a_b", "10.0.0.1", "fe80::1"]);
        assert_eq!(
            hosts(&names).unwrap(),
            ["device.example.org", "a_b", "10.0.0.1", "fe80::1"]
        );
        for item in [
            "", ".", "a b", "a/b", "a:80", "*", "*.a", "-a", "a..b", "http://a", "é",
        ] {
            assert!(hosts(&list(&[item])).is_err(), "{item}");
        }
    }

    #[test]
    fn origins_have_scheme_and_host_and_no_path() {
        for item in [
            "*",
            "https://example.org",
            "HTTP://LOCALHOST:3000",
            "http://[::1]:80",
            "http://[::1]",
            "chrome-extension://abcdef",
        ] {
            assert!(origins(&list(&[item])).is_ok(), "{item}");
        }
        for item in [
            "",
            "null",
            "example.org",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a:",
            "https://a:0",
            "https://a:99999",
            "https://a b",
            "https://u@a",
            "://a",
            "https://*.a",
            "1http://a",
            "http://[::1",
        ] {
            assert!(origins(&list(&[item])).is_err(), "{item}");
        }
        assert!(origins(&list(&["*", "http://a"])).is_err());
    }

    #[test]
    fn a_password_hash_is_one_that_can_be_checked() {
        let hash = "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";
        assert_eq!(password_hash(hash), Ok(()));
        assert_eq!(password_hash(&hash.replace("$2b", "$2y")), Ok(()));
        for wrong in [
            String::new(),
            "password".to_owned(),
            hash.replace("$2b", "$2x"),
            hash.replace("$04$", "$15$"),
            hash.replace("$04$", "$03$"),
            hash.replace("$04$", "$xx$"),
            hash[..59].to_owned(),
            format!("{hash}e"),
            hash.replace("cie", "ci!"),
        ] {
            let what = password_hash(&wrong).unwrap_err();
            assert!(!what.contains("EGdrhbKUv"), "{what}");
        }
    }

    #[test]
    fn paths_are_absolute_and_storage_is_below_the_root() {
        assert!(path("/").is_ok());
        for wrong in ["", "a/b", "/a\0b", "/a\nb"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
        assert!(path(&"/a".repeat(3000)).is_err());
        for wrong in ["/", "//", "/a/.."] {
            assert!(storage(wrong).is_err(), "{wrong}");
        }
        assert_eq!(include(""), Ok(String::new()));
        assert!(include("programs.d/*.toml").is_ok());
        assert!(include("a\nb").is_err());
    }

    #[test]
    fn users_and_groups_have_plain_names() {
        for name in ["nobody", "1000", "www-data", "a.b"] {
            assert!(account(name, false).is_ok());
        }
        for name in ["", "a b", "a:b", "a\n"] {
            assert!(account(name, false).is_err(), "{name}");
        }
        assert!(account("", true).is_ok());
    }
}
