//! The CORS gate: which web pages of other origins may read our answers. Source: the Fetch standard, CORS protocol.

use super::reply;
use crate::http::{Head, Method, Reply};

/// Headers for whatever answer this request gets.
pub fn headers(head: &Head, origins: &[String]) -> Vec<(&'static str, String)> {
    if allows_all(origins) {
        return vec![("Access-Control-Allow-Origin", "*".to_owned())];
    }
    if origins.is_empty() {
        return Vec::new();
    }
    // Whatever the answer: a cache must not give it to a page of another origin.
    let mut headers = vec![("Vary", "Origin".to_owned())];
    if let Some(origin) = allowed_origin(head, origins) {
        headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
        headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
    }
    headers
}

/// The answer to a preflight request from an allowed origin.
pub fn preflight(head: &Head, origins: &[String]) -> Option<Reply> {
    let asks = head.method == Method::Options
        && head.header("origin").is_some()
        && head.header("access-control-request-method").is_some();
    let allowed = allows_all(origins) || allowed_origin(head, origins).is_some();
    (asks && allowed).then(|| {
        reply::empty(vec![
            (
                "Access-Control-Allow-Methods",
                "GET, POST, PUT, DELETE, OPTIONS".to_owned(),
            ),
            (
                "Access-Control-Allow-Headers",
                "Authorization, Content-Type".to_owned(),
            ),
            ("Access-Control-Max-Age", "600".to_owned()),
        ])
    })
}

fn allows_all(origins: &[String]) -> bool {
    origins.iter().any(|origin| origin == "*")
}

fn allowed_origin<'a>(head: &'a Head, origins: &[String]) -> Option<&'a str> {
    let origin = head.header("origin")?;
    origins
        .iter()
        .any(|known| known == origin)
        .then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Peer;

    fn request(method: Method, headers: &[(&str, &str)]) -> Head {
        Head {
            method,
            path: "/api/program".to_owned(),
            query: None,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            http_11: true,
            peer: Peer::Tcp(([127, 0, 0, 1], 9).into()),
        }
    }

    fn get(origin: &str) -> Head {
        request(Method::Get, &[("origin", origin)])
    }

    fn exact() -> Vec<String> {
        vec!["https://a.example".to_owned()]
    }

    #[test]
    fn an_exact_origin_is_echoed() {
        assert_eq!(
            headers(&get("https://a.example"), &exact()),
            [
                ("Vary", "Origin".to_owned()),
                (
                    "Access-Control-Allow-Origin",
                    "https://a.example".to_owned()
                ),
                ("Access-Control-Allow-Credentials", "true".to_owned()),
            ]
        );
    }

    #[test]
    fn another_origin_gets_nothing_but_vary() {
        for origin in ["https://b.example", "null", "https://a.example.evil", ""] {
            let vary = [("Vary", "Origin".to_owned())];
            assert_eq!(headers(&get(origin), &exact()), vary, "{origin}");
        }
        assert!(headers(&get("https://a.example"), &[]).is_empty());
    }

    #[test]
    fn a_star_is_literal_and_without_credentials() {
        let star = vec!["*".to_owned()];
        let expected = [("Access-Control-Allow-Origin", "*".to_owned())];
        assert_eq!(headers(&get("https://b.example"), &star), expected);
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_is_answered() {
        let asking = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
        ];
        let reply = preflight(&request(Method::Options, &asking), &exact()).unwrap();
        assert_eq!(reply.status, 204);
        let methods = (
            "Access-Control-Allow-Methods",
            "GET, POST, PUT, DELETE, OPTIONS".to_owned(),
        );
        assert!(reply.headers.contains(&methods));

        assert!(preflight(&request(Method::Options, &asking), &[]).is_none());
        assert!(preflight(&request(Method::Options, &asking[..1]), &exact()).is_none());
        assert!(preflight(&request(Method::Get, &asking), &exact()).is_none());
    }
}
