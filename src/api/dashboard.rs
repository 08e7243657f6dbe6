//! The dashboard: a web page at `/`, whose further files are below `/dashboard`. They hold no secret, so all may have them;
//! what they show and do, the page asks of the API with the token of who has logged in.

use super::assets::{Asset, DASHBOARD};
use super::error::ApiError;
use super::{Api, Call, Outcome, gates};

/// Nothing but our own files is loaded, run or sent to, no code stands in the page, and no other page can frame it.
/// Source: CSP level 3. `connect-src` is the API, its WebSocket included.
const HEADERS: [(&str, &str); 3] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
];

/// The file that a path names.
pub fn file(path: &str) -> Option<&'static Asset> {
    let name = match path {
        "/" => "index.html",
        path => path.strip_prefix("/dashboard/")?,
    };
    DASHBOARD.iter().find(|asset| asset.name == name)
}

/// `GET /` and `GET /dashboard/{name}`.
pub fn get(_: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let path = &call.head.path;
    let file = file(path).ok_or_else(|| gates::no_path(path))?;
    Ok(file.reply(&call.head, &HEADERS).into())
}
