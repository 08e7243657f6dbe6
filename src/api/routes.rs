//! The one table of routes. 404, 405, `Allow`, HEAD and OPTIONS all follow from it.

use std::slice;

use super::{
    Handler, auth, control, daemon, dashboard, exits, live, logs, metrics, openapi, output,
    programs, prometheus, reload,
};
use crate::http::Method;

/// A method on a path.
pub struct Route {
    pub method: Method,
    /// Below `/api` and `/api/v1`; `{id}` stands for one segment.
    pub pattern: &'static str,
    pub access: Access,
    pub handler: Handler,
}

/// What a request must bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A good token, or credentials of the Unix socket that need none.
    Known,
    /// Nothing.
    Open,
    /// The same, or `metrics_token`.
    Scrape,
    /// A good token, as it is about that token.
    Token,
}

const fn route(method: Method, pattern: &'static str, access: Access, handler: Handler) -> Route {
    Route {
        method,
        pattern,
        access,
        handler,
    }
}

use Access::{Known, Open, Token};
use Method::{Delete, Get, Post, Put};

#[rustfmt::skip]
pub static ROUTES: [Route; 24] = [
    route(Post,   "/auth/login",           Open,  auth::login),
    route(Post,   "/auth/refresh",         Token, auth::refresh),
    route(Post,   "/auth/logout",          Token, auth::logout),
    route(Get,    "/program",              Known, programs::list),
    route(Post,   "/program",              Known, programs::create),
    route(Get,    "/program/{id}",         Known, programs::get),
    route(Put,    "/program/{id}",         Known, programs::update),
    route(Delete, "/program/{id}",         Known, programs::delete),
    route(Post,   "/program/{id}/start",   Known, control::start),
    route(Post,   "/program/{id}/stop",    Known, control::stop),
    route(Post,   "/program/{id}/restart", Known, control::restart),
    route(Post,   "/program/{id}/signal",  Known, control::signal),
    route(Post,   "/program/{id}/enable",  Known, programs::enable),
    route(Post,   "/program/{id}/disable", Known, programs::disable),
    route(Get,    "/program/{id}/logs",    Known, logs::get),
    route(Get,    "/program/{id}/output",  Known, output::get),
    route(Get,    "/program/{id}/metrics", Known, metrics::program),
    route(Get,    "/program/{id}/exits",   Known, exits::get),
    route(Get,    "/metrics",              Known, metrics::system),
    route(Get,    "/history",              Known, metrics::history),
    route(Get,    "/daemon",               Known, daemon::get),
    route(Post,   "/reload",               Known, reload::reload),
    route(Get,    "/openapi.json",         Open,  openapi::get),
    // Who it is for is said in its first message: a browser can send no header with it.
    route(Get,    "/ws",                   Open,  live::open),
];

/// Beside `/api`: scrapers look there.
pub static SCRAPE: Route = route(Get, "/metrics", Access::Scrape, prometheus::scrape);

/// Beside `/api`, too: this path and those of all further files of the dashboard.
pub static PAGE: Route = route(Get, "/", Open, dashboard::get);

/// A path that there is, for a method that it has.
pub struct Match {
    pub route: &'static Route,
    /// What stands for `{id}`, as sent; empty where the pattern has none.
    pub id: String,
}

/// Why a request leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub enum Miss {
    NotFound,
    /// The path has only these methods, for `Allow`.
    NotAllowed(String),
    /// It was asked which methods the path has.
    Options(String),
}

/// Finds the route of a request; `path` as sent, without the query. `with_dashboard`: whether there is one.
///
/// # Errors
/// There is none.
pub fn find(method: &Method, path: &str, with_dashboard: bool) -> Result<Match, Miss> {
    let (routes, path) = if path == SCRAPE.pattern {
        (slice::from_ref(&SCRAPE), path)
    } else if with_dashboard && dashboard::file(path).is_some() {
        (slice::from_ref(&PAGE), PAGE.pattern)
    } else {
        (&ROUTES[..], below_api(path).ok_or(Miss::NotFound)?)
    };
    let fitting = || {
        routes
            .iter()
            .filter_map(|route| Some((route, captured(route.pattern, path)?)))
    };
    // HEAD is answered as GET is; the wire leaves the body away.
    let wanted = match method {
        Method::Head => &Method::Get,
        other => other,
    };
    if let Some((route, id)) = fitting().find(|(route, _)| route.method == *wanted) {
        let id = id.to_owned();
        return Ok(Match { route, id });
    }
    let mut methods: Vec<&str> = Vec::new();
    for (route, _) in fitting() {
        methods.push(route.method.as_str());
        if route.method == Method::Get {
            methods.push("HEAD");
        }
    }
    if methods.is_empty() {
        return Err(Miss::NotFound);
    }
    methods.push("OPTIONS");
    let allow = methods.join(", ");
    Err(match method {
        Method::Options => Miss::Options(allow),
        _ => Miss::NotAllowed(allow),
    })
}

/// The path below `/api` or, the same, `/api/v1`.
fn below_api(path: &str) -> Option<&str> {
    let below = path.strip_prefix("/api")?;
    match below.strip_prefix("/v1") {
        Some(versioned) if versioned.starts_with('/') => Some(versioned),
        _ => Some(below),
    }
}

/// What stands for `{id}` if the path fits the pattern: nothing where that has none.
fn captured<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let mut segments = path.split('/');
    let mut id = "";
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        if expected == "{id}" && !segment.is_empty() {
            id = segment;
        } else if expected != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(method: Method, path: &str) -> Option<(&'static str, String)> {
        let found = find(&method, path, true).ok()?;
        Some((found.route.pattern, found.id))
    }

    fn miss(method: Method, path: &str) -> Miss {
        find(&method, path, true).err().unwrap()
    }

    #[test]
    fn every_route_is_found_with_and_without_the_version() {
        for route in &ROUTES {
            for prefix in ["/api", "/api/v1"] {
                let path = format!("{prefix}{}", route.pattern.replace("{id}", "program-1"));
                let (pattern, id) = found(route.method.clone(), &path).unwrap();
                assert_eq!(pattern, route.pattern);
                let expected = if pattern.contains("{id}") {
                    "program-1"
                } else {
                    ""
                };
                assert_eq!(id, expected);
            }
        }
    }

    #[test]
    fn only_the_login_what_logs_in_by_itself_and_the_description_are_open() {
        let open: Vec<_> = ROUTES
            .iter()
            .filter(|route| route.access == Access::Open)
            .map(|route| route.pattern)
            .collect();
        assert_eq!(open, ["/auth/login", "/openapi.json", "/ws"]);
    }

    #[test]
    fn unknown_paths_are_not_found() {
        for path in [
            "",
            "*",
            "/api",
            "/api/",
            "/api/v1",
            "/api/v1/",
            "/api/v2/program",
            "/api/v1/v1/program",
            "/api/v11/program",
            "/apiprogram",
            "/API/program",
            "/api/Program",
            "/api/program/",
            "/api//program",
            "//api/program",
            "/api/program//",
            "/api/program//start",
            "/api/program/x/",
            "/api/program/x/start/",
            "/api/program/x/unknown",
            "/api/program/x/start/y",
            "/api/./program",
            "/api/x/../program",
            "/api/pr%6fgram",
            "api/program",
            "/api/ws/",
            "/index.html",
            "/dashboard",
            "/dashboard/",
            "/dashboard/nothing.js",
            "/dashboard/../metrics",
            "/dashboard//app.js",
            "/api/dashboard/app.js",
        ] {
            assert_eq!(miss(Method::Get, path), Miss::NotFound, "{path}");
        }
    }

    #[test]
    fn an_id_is_one_segment_as_sent() {
        assert_eq!(
            found(Method::Get, "/api/program/Web%20Server"),
            Some(("/program/{id}", "Web%20Server".to_owned()))
        );
        assert_eq!(
            found(Method::Post, "/api/program/start/start"),
            Some(("/program/{id}/start", "start".to_owned()))
        );
    }

    #[test]
    fn head_is_answered_where_get_is() {
        assert!(found(Method::Head, "/api/program").is_some());
        assert!(matches!(
            miss(Method::Head, "/api/auth/login"),
            Miss::NotAllowed(_)
        ));
    }

    #[test]
    fn a_wrong_method_learns_the_right_ones() {
        let allowed = |method, path| match miss(method, path) {
            Miss::NotAllowed(allow) => allow,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            allowed(Method::Patch, "/api/program"),
            "GET, HEAD, POST, OPTIONS"
        );
        assert_eq!(
            allowed(Method::Post, "/api/v1/program/x"),
            "GET, HEAD, PUT, DELETE, OPTIONS"
        );
        assert_eq!(allowed(Method::Get, "/api/auth/login"), "POST, OPTIONS");
        let strange: Method = "BREW".parse().unwrap();
        assert_eq!(allowed(strange, "/api/metrics"), "GET, HEAD, OPTIONS");
        assert_eq!(
            miss(Method::Options, "/api/program/x/stop"),
            Miss::Options("POST, OPTIONS".to_owned())
        );
        assert_eq!(miss(Method::Options, "/api/nothing"), Miss::NotFound);
    }

    #[test]
    fn scrapers_are_served_beside_the_api() {
        let handler = |path| find(&Method::Get, path, true).map(|found| found.route.access);
        assert_eq!(handler("/metrics"), Ok(Access::Scrape));
        assert_eq!(handler("/api/metrics"), Ok(Access::Known));
        assert_eq!(handler("/metrics/"), Err(Miss::NotFound));
        assert_eq!(
            miss(Method::Post, "/metrics"),
            Miss::NotAllowed("GET, HEAD, OPTIONS".to_owned())
        );
    }

    #[test]
    fn the_dashboard_is_beside_the_api_where_there_is_one() {
        for path in ["/", "/dashboard/index.html"] {
            assert!(find(&Method::Get, path, true).is_ok(), "{path}");
            assert_eq!(
                miss(Method::Put, path),
                Miss::NotAllowed("GET, HEAD, OPTIONS".to_owned())
            );
            for method in [Method::Get, Method::Put, Method::Options] {
                let found = find(&method, path, false);
                assert_eq!(found.err(), Some(Miss::NotFound), "{method} {path}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(text in "(/api|/v1|/program|/[a-z0-9%./-]{0,9}){0,6}") {
            for method in [Method::Get, Method::Options] {
                if let Ok(found) = find(&method, &text, true) {
                    prop_assert!(!found.id.contains('/'));
                }
            }
        }
    }
}
