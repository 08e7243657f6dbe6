//! The gates, in their order: Host, CORS, rate limit, route, authentication. What passes goes on to its handler.

use std::sync::PoisonError;

use super::error::ApiError;
use super::rate_limit::{Allowance, Key, Limit};
use super::routes::{self, Access, Match, Miss, Route};
use super::sessions::Session;
use super::{Api, Settings, cors, dashboard, host, password, reply};
use crate::clock::{BootTime, Timestamp};
use crate::http::{Head, Method, Peer, Reply, Verdict};

/// A request that has passed.
pub struct Passed {
    pub(super) route: &'static Route,
    /// What stands for `{id}` in the path, as sent.
    pub(super) id: String,
    /// The token, where a good one was sent.
    pub(super) session: Option<Session>,
}

/// What the Authorization header holds.
enum Bearer {
    Absent,
    Bad,
    Good(Session),
}

impl Api {
    pub(super) fn pass(&self, head: &Head) -> Verdict<Passed> {
        let settings = self.settings();
        let mut headers = cors::headers(head, &settings.cors_origins);
        let outcome = self.pass_each(head, &settings, &mut headers);
        Verdict { headers, outcome }
    }

    fn pass_each(
        &self,
        head: &Head,
        settings: &Settings,
        headers: &mut Vec<(&'static str, String)>,
    ) -> Result<Passed, Reply> {
        let bearer = self.bearer(head);
        let is_trusted = is_trusted(&head.peer, settings);
        let limit = limit(settings).filter(|_| !is_trusted);
        let key = match &bearer {
            Bearer::Good(session) => session.claims.id().map(Key::Token),
            _ => None,
        };
        let key = key.unwrap_or_else(|| address(&head.peer));

        if let Err(refused) = before_counting(head, settings) {
            headers.extend(limit.iter().flat_map(|limit| self.peek(key, *limit)));
            return Err(refused);
        }
        if is_page(head, settings) {
            headers.extend(limit.iter().flat_map(|limit| self.peek(key, *limit)));
        } else if let Some(limit) = limit {
            let allowance = self.count(key, limit);
            headers.extend(allowance.headers(Timestamp::now()));
            if allowance.exceeded {
                let retry_after = allowance.retry_after();
                return Err(ApiError::RateLimited { retry_after }.reply());
            }
        }
        let Match { route, id } = routes::find(&head.method, &head.path, settings.dashboard)
            .map_err(|miss| match miss {
                Miss::NotFound => no_path(&head.path).reply(),
                Miss::NotAllowed(allow) => ApiError::MethodNotAllowed { allow }.reply(),
                Miss::Options(allow) => reply::empty(vec![("Allow", allow)]),
            })?;
        let is_known = is_trusted
            || route.access == Access::Scrape && may_scrape(head, &settings.metrics_token.0);
        let session = admit(route.access, bearer, is_known).map_err(ApiError::reply)?;
        Ok(Passed { route, id, session })
    }

    /// The headers of the rate limit for a client whose request is not counted.
    pub(super) fn limit_headers(&self, peer: &Peer) -> Vec<(&'static str, String)> {
        let settings = self.settings();
        let limit = limit(&settings).filter(|_| !is_trusted(peer, &settings));
        limit.map_or_else(Vec::new, |limit| self.peek(address(peer), limit).into())
    }

    fn count(&self, key: Key, limit: Limit) -> Allowance {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.count(key, limit, BootTime::now())
    }

    fn peek(&self, key: Key, limit: Limit) -> [(&'static str, String); 3] {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let allowance = limiter.peek(key, limit, BootTime::now());
        allowance.headers(Timestamp::now())
    }

    fn bearer(&self, head: &Head) -> Bearer {
        let Some(value) = head.header("authorization") else {
            return Bearer::Absent;
        };
        let Some(token) = bearer_token(value) else {
            return Bearer::Bad;
        };
        match self.sessions.check(token) {
            Some(session) => Bearer::Good(session),
            None => Bearer::Bad,
        }
    }
}

/// The gates that stand before the rate limit.
fn before_counting(head: &Head, settings: &Settings) -> Result<(), Reply> {
    host::check(head, &settings.hosts).map_err(|host| ApiError::Misdirected { host }.reply())?;
    match cors::preflight(head, &settings.cors_origins) {
        Some(answer) => Err(answer),
        None => Ok(()),
    }
}

/// Whether it is for a file of the dashboard. A visit takes some, and they say and cost less than a refusal.
fn is_page(head: &Head, settings: &Settings) -> bool {
    let is_read = matches!(head.method, Method::Get | Method::Head);
    is_read && settings.dashboard && dashboard::file(&head.path).is_some()
}

/// Whether this is the token for `/metrics`.
fn may_scrape(head: &Head, token: &str) -> bool {
    let given = head.header("authorization").and_then(bearer_token);
    !token.is_empty() && given.is_some_and(|given| password::same(given, token))
}

/// The token in `Bearer TOKEN`. Source: RFC 6750 2.1; the scheme in any case, RFC 9110 11.1.
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// Lets a request through that brings what its route asks for.
fn admit(access: Access, bearer: Bearer, is_known: bool) -> Result<Option<Session>, ApiError> {
    match (access, bearer) {
        (_, Bearer::Good(session)) => Ok(Some(session)),
        (Access::Open, _) => Ok(None),
        (Access::Known | Access::Scrape, _) if is_known => Ok(None),
        (_, Bearer::Absent) => Err(ApiError::Unauthenticated),
        (_, Bearer::Bad) => Err(ApiError::InvalidToken),
    }
}

/// Root, the daemon's own user, and who is in `socket_group`, as the kernel vouches for them, need no token and are not
/// limited.
pub(super) fn is_trusted(peer: &Peer, settings: &Settings) -> bool {
    let Peer::Unix(peer) = peer else {
        return false;
    };
    let is_in = |group| peer.gid == group || peer.groups.contains(&group);
    peer.uid == 0
        || peer.uid == rustix::process::geteuid().as_raw()
        || settings.socket_group.is_some_and(is_in)
}

/// Whose requests are counted together where there is no token.
fn address(peer: &Peer) -> Key {
    match peer {
        // One client is one, whichever of our listeners it came to.
        Peer::Tcp(address) => Key::Address(address.ip().to_canonical()),
        Peer::Unix(peer) => Key::User(peer.uid),
    }
}

fn limit(settings: &Settings) -> Option<Limit> {
    (settings.rate_limit > 0).then_some(Limit {
        requests: settings.rate_limit,
        window: settings.rate_limit_window,
    })
}

/// There is nothing at this path.
pub(super) fn no_path(path: &str) -> ApiError {
    ApiError::NotFound {
        resource: "path",
        id: path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::token::{Claims, Moment};
    use crate::api::{Password, Secret};
    use crate::http::Method;
    use crate::sys::socket::Credentials;
    use std::time::Duration;

    const TCP: Peer = Peer::Tcp(std::net::SocketAddr::V4(std::net::SocketAddrV4::new(
        std::net::Ipv4Addr::LOCALHOST,
        9,
    )));

    fn unix(uid: u32) -> Peer {
        Peer::Unix(Credentials {
            uid,
            gid: 1,
            groups: Box::default(),
            pid: 1,
        })
    }

    fn session() -> Session {
        let now = Moment {
            boot: BootTime::now(),
            wall: Timestamp::now(),
            boot_id: "boot",
        };
        Session {
            claims: Claims::new("admin", 1, Duration::from_secs(60), &now),
            credentials: [0; 32],
        }
    }

    /// The settings of a test, with this group.
    fn settings(socket_group: Option<u32>) -> Settings {
        Settings {
            hosts: Vec::new(),
            username: String::new(),
            password: Password::Plain(String::new()),
            token_lifetime: Duration::ZERO,
            rate_limit: 0,
            rate_limit_window: Duration::ZERO,
            cors_origins: vec!["https://a.example".to_owned()],
            max_body: 0,
            socket_group,
            metrics_token: Secret::default(),
            dashboard: true,
        }
    }

    fn status(access: Access, bearer: Bearer, is_trusted: bool) -> u16 {
        match admit(access, bearer, is_trusted) {
            Ok(_) => 200,
            Err(error) => error.reply().status,
        }
    }

    #[test]
    fn over_the_network_a_good_token_is_needed() {
        assert!(!is_trusted(&TCP, &settings(Some(1))));
        for access in [Access::Known, Access::Token] {
            assert_eq!(status(access, Bearer::Absent, false), 401);
            assert_eq!(status(access, Bearer::Bad, false), 401);
            assert_eq!(status(access, Bearer::Good(session()), false), 200);
        }
        assert_eq!(status(Access::Open, Bearer::Absent, false), 200);
        assert_eq!(status(Access::Open, Bearer::Bad, false), 200);
    }

    #[test]
    fn who_is_trusted_needs_a_token_only_where_it_is_about_one() {
        for bearer in [Bearer::Absent, Bearer::Bad] {
            assert_eq!(status(Access::Known, bearer, true), 200);
        }
        assert_eq!(status(Access::Token, Bearer::Absent, true), 401);
    }

    #[test]
    fn root_our_own_user_and_the_group_are_trusted_on_the_unix_socket() {
        let own = rustix::process::geteuid().as_raw();
        for uid in [0, own] {
            assert!(is_trusted(&unix(uid), &settings(None)));
        }
        let other = own + 1;
        assert!(!is_trusted(&unix(other), &settings(None)));
        assert!(!is_trusted(&unix(other), &settings(Some(7))));
        assert!(is_trusted(&unix(other), &settings(Some(1))), "its own");
        let with_further = Peer::Unix(Credentials {
            uid: other,
            gid: 1,
            groups: [5, 7].into(),
            pid: 1,
        });
        assert!(is_trusted(&with_further, &settings(Some(7))));
        assert!(!is_trusted(&with_further, &settings(Some(6))));
    }

    fn before(method: Method, headers: &[(&str, &str)]) -> Option<u16> {
        let settings = settings(None);
        let headers = headers.iter();
        let head = Head {
            method,
            path: "/api/program".to_owned(),
            query: None,
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            http_11: true,
            peer: TCP,
        };
        before_counting(&head, &settings)
            .err()
            .map(|reply| reply.status)
    }

    #[test]
    fn the_token_for_metrics_is_looked_at_whole_and_none_opens_nothing() {
        let may = |header: &str, token: &str| {
            let head = Head {
                method: Method::Get,
                path: "/metrics".to_owned(),
                query: None,
                headers: vec![("authorization".to_owned(), header.to_owned())],
                http_11: true,
                peer: TCP,
            };
            may_scrape(&head, token)
        };
        assert!(may("Bearer abc", "abc"));
        for (header, token) in [
            ("Bearer ab", "abc"),
            ("Bearer abcd", "abc"),
            ("Basic abc", "abc"),
            ("Bearer ", ""),
            ("Bearer", ""),
        ] {
            assert!(!may(header, token), "{header} {token}");
        }
    }

    #[test]
    fn the_host_is_looked_at_first() {
        let preflight = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
        ];
        let with = |host| [("host", host), preflight[0], preflight[1]];
        assert_eq!(before(Method::Options, &with("localhost")), Some(204));
        assert_eq!(before(Method::Options, &with("evil.example")), Some(421));
        assert_eq!(before(Method::Get, &with("localhost")), None);
    }

    #[test]
    fn the_scheme_may_be_in_any_case() {
        assert_eq!(bearer_token("Bearer a.b.c"), Some("a.b.c"));
        assert_eq!(bearer_token("bearer  a.b.c "), Some("a.b.c"));
        assert_eq!(bearer_token("Basic YTpi"), None);
        assert_eq!(bearer_token("Bearer"), None);
        assert_eq!(bearer_token("a.b.c"), None);
        assert_eq!(bearer_token(""), None);
    }

    #[test]
    fn one_client_is_one_by_either_family() {
        let four = Peer::Tcp("10.0.0.1:5".parse().unwrap());
        let mapped = Peer::Tcp("[::ffff:10.0.0.1]:6".parse().unwrap());
        assert_eq!(address(&four), address(&mapped));
        assert_eq!(address(&unix(7)), Key::User(7));
    }
}
