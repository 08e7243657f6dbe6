//! The REST API: routes, gates, handlers, and their shapes on the wire.
//!
//! A request passes the gates (`gates`) by its head, then its handler, which answers at once or hands on the right to
//! answer: to a program's watcher, or to a lane (`lane`) for what takes long. Knows neither sockets nor processes nor
//! files; called by `http`'s workers and set up by `daemon`.

mod assets;
mod auth;
mod body;
mod control;
mod cors;
mod daemon;
mod dashboard;
mod definition;
mod error;
mod exits;
mod follow;
mod gates;
mod host;
mod lane;
mod live;
mod logs;
#[cfg(test)]
mod manual;
mod metrics;
mod openapi;
mod origin;
mod output;
mod password;
mod programs;
mod prometheus;
mod query;
mod rate_limit;
mod reload;
mod reply;
mod routes;
mod sessions;
mod shapes;
mod token;

pub use body::Json;
pub use definition::TAKEN as FILE_FIELDS;
pub use gates::Passed;
pub use reload::{Reload, Reloaded};

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::guardian::Link;
use crate::http;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::program::Definition;
use crate::store::{self, Store};
use crate::supervise::{Snapshot, Supervisor};

use error::{ApiError, Cause};
use lane::{DEEP_STACK_BYTES, Lane};
use query::Query;
use rate_limit::RateLimiter;
use sessions::{Session, Sessions};

/// `[api]` of the configuration, without what only the listeners and the wire need. All may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Further names under which clients reach this machine.
    pub hosts: Vec<String>,
    pub username: String,
    pub password: Password,
    pub token_lifetime: Duration,
    /// Requests a window; 0: no limit.
    pub rate_limit: u32,
    pub rate_limit_window: Duration,
    /// `*`, or exact origins.
    pub cors_origins: Vec<String>,
    /// `max_body`, to be named in the 413.
    pub max_body: usize,
    /// Who is in it needs no token on the Unix socket.
    pub socket_group: Option<u32>,
    /// What opens `/metrics`, and nothing else; empty: nothing does but what opens all.
    pub metrics_token: Secret,
    /// Whether `/` serves the dashboard.
    pub dashboard: bool,
}

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a login is checked against.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    Plain(String),
    /// `$2b$...`, as htpasswd -B writes it.
    Bcrypt(String),
}

/// Never shows the password.
impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("(password)")
    }
}

/// The definition in a file that declares a program: the fields of a body, and the same rules.
///
/// # Errors
/// The first mistake: the field, and what is wrong.
pub fn declared(fields: Vec<(String, Json)>) -> Result<Definition, (String, String)> {
    definition::of_file(fields).map_err(|error| match error {
        ApiError::Body(at) => (at.field.into_owned(), at.issue),
        other => (String::new(), format!("{other:?}")),
    })
}

/// Password checks that may wait for the one that runs.
const WAITING_LOGINS: usize = 16;
/// Log searches that run at a time; a worker is never among them.
const PARALLEL_SEARCHES: usize = 2;
const WAITING_SEARCHES: usize = 64;
/// Reloads that may wait for the one that runs.
const WAITING_RELOADS: usize = 16;

/// The service behind the wire.
pub struct Api {
    settings: RwLock<Arc<Settings>>,
    supervisor: Arc<Supervisor>,
    logs: Arc<Logs>,
    sessions: Arc<Sessions>,
    store: Arc<Store>,
    limiter: Mutex<RateLimiter>,
    metrics: Metrics,
    state_dir: PathBuf,
    link: Arc<Link>,
    /// Answers so far, by the first digit of their status.
    requests: [AtomicUsize; 5],
    /// Since when this daemon serves.
    start_time: Timestamp,
    passwords: Lane,
    searches: Lane,
    reloads: Lane,
    reload: OnceLock<Arc<Reload>>,
    /// What is wrong with the configuration on disk.
    mistakes: Mutex<Vec<String>>,
}

impl Api {
    /// `state_dir` is where `disk_usage` is measured.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(
        settings: Settings,
        supervisor: Arc<Supervisor>,
        logs: Arc<Logs>,
        store: Arc<Store>,
        state_dir: PathBuf,
        link: Arc<Link>,
    ) -> Result<Api, store::Error> {
        let sessions = Sessions::open(Arc::clone(&store), password::credentials(&settings))?;
        Ok(Api {
            settings: RwLock::new(Arc::new(settings)),
            supervisor,
            logs,
            sessions: Arc::new(sessions),
            store,
            limiter: Mutex::default(),
            metrics: Metrics::new(),
            state_dir,
            link,
            requests: Default::default(),
            start_time: Timestamp::now(),
            passwords: Lane::new("hxe-login", 1, WAITING_LOGINS),
            searches: Lane::new("hxe-search", PARALLEL_SEARCHES, WAITING_SEARCHES),
            reloads: Lane::with_stack(DEEP_STACK_BYTES, "hxe-reload", 1, WAITING_RELOADS),
            reload: OnceLock::new(),
            mistakes: Mutex::default(),
        })
    }

    /// Takes new settings; a changed user name or password ends all tokens.
    ///
    /// # Errors
    /// The store failed, and the old settings still hold.
    pub fn set(&self, settings: Settings) -> Result<(), store::Error> {
        // A login that is being checked against the old password fails from here on.
        self.sessions
            .set_credentials(password::credentials(&settings))?;
        let mut current = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(settings);
        Ok(())
    }

    fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    /// The program that the path names, by id or name.
    fn program(&self, call: &Call) -> Result<Arc<Snapshot>, ApiError> {
        let id = query::decode(&call.id);
        id.as_deref()
            .and_then(|id| self.supervisor.find(id))
            .ok_or_else(|| ApiError::no_program(id.unwrap_or_else(|| call.id.clone())))
    }
}

impl http::Service for Api {
    type Pass = Passed;

    fn gate(&self, head: &http::Head) -> http::Verdict<Passed> {
        self.pass(head)
    }

    fn serve(&self, pass: Passed, request: http::Request, responder: http::Responder) {
        let handler = pass.route.handler;
        let call = Call {
            head: request.head,
            body: request.body,
            id: pass.id,
            session: pass.session,
        };
        match handler(self, call) {
            Ok(Outcome::Now(reply)) => responder.respond(reply),
            Ok(Outcome::Later(go)) => go(responder),
            Err(error) => responder.respond(error.reply()),
        }
    }

    fn headers(&self, head: &http::Head) -> Vec<(&'static str, String)> {
        cors::headers(head, &self.settings().cors_origins)
    }

    fn problem(&self, problem: http::Problem, peer: &http::Peer) -> http::Reply {
        let max_body = self.settings().max_body;
        let mut reply = ApiError::Problem { problem, max_body }.reply();
        reply.headers.extend(self.limit_headers(peer));
        reply
    }

    fn answered(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(count) = self.requests.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn broken(&self) -> http::Reply {
        ApiError::Internal(Cause::NoAnswer).reply()
    }
}

/// A request that passed the gates, as handlers see it.
struct Call {
    head: http::Head,
    body: Vec<u8>,
    /// What stands for `{id}` in the path, as sent.
    id: String,
    session: Option<Session>,
}

impl Call {
    /// The query, with these parameters and no others.
    fn query(&self, known: &[&'static str]) -> Result<Query, ApiError> {
        Query::parse(self.head.query.as_deref(), known)
    }
}

/// Works a request out.
type Handler = fn(&Api, Call) -> Result<Outcome, ApiError>;

/// What a handler came to.
enum Outcome {
    Now(http::Reply),
    /// Takes the right to answer to whoever will.
    Later(Box<dyn FnOnce(http::Responder) + Send>),
}

impl Outcome {
    fn later(go: impl FnOnce(http::Responder) + Send + 'static) -> Outcome {
        Outcome::Later(Box::new(go))
    }

    /// Has the answer worked out on a lane; where that is full the answer is `full`.
    fn on_lane(
        lane: &Lane,
        full: ApiError,
        work: impl FnOnce() -> Result<http::Reply, ApiError> + Send + 'static,
    ) -> Outcome {
        let lane = lane.clone();
        Outcome::later(move |responder| {
            let sent = lane.run(responder, move |responder| {
                responder.respond(work().unwrap_or_else(ApiError::reply));
            });
            if let Err(responder) = sent {
                responder.respond(full.reply());
            }
        })
    }
}

impl From<http::Reply> for Outcome {
    fn from(reply: http::Reply) -> Outcome {
        Outcome::Now(reply)
    }
}

/// An answer that is only a sentence.
#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}
