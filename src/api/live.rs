//! `/api/ws`: events as they happen, over a WebSocket.
//!
//! Owns the conversation: who it is with, what they want to hear, and in which order. Events wait where they come from
//! ([`Listener`], [`Tails`]) until there is room for them: nothing is queued here. Called by `routes`; the conversation runs
//! on the stream's thread.

mod message;
mod shapes;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ApiError, Field};
use super::sessions::{Sessions, Watch};
use super::{Api, Call, Outcome, gates, origin};
use crate::clock::BootTime;
use crate::http::{self, Control, End, Incoming, Over, Problem, WebSocket};
use crate::logs::{Followed, Logs, Tails};
use crate::program::ProgramId;
use crate::report;
use crate::supervise::{Listener, Supervisor};
use crate::sys::bell::Bell;

use message::{Filter, Message, Topic};

/// How long a client may take to say who it is.
const AUTH_PATIENCE: Duration = Duration::from_secs(10);
/// How long events may still be sent when the daemon ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Events sent before the client is listened to again.
const EVENTS_PER_TURN: usize = 64;

/// Codes of close frames. Source: RFC 6455 7.4; from 4000 on they are ours, 4000 above those of HTTP.
mod code {
    pub const GOING_AWAY: u16 = 1001;
    pub const SERVICE_RESTART: u16 = 1012;
    pub const TRY_AGAIN_LATER: u16 = 1013;
    pub const UNAUTHORIZED: u16 = 4401;
    pub const TIMEOUT: u16 = 4408;
}

/// `GET /ws`: becomes a WebSocket.
pub fn open(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let settings = api.settings();
    origin::check(&call.head, &settings.hosts, &settings.cors_origins)
        .map_err(|origin| ApiError::ForeignOrigin { origin })?;
    // Here, where it can still be answered that there is none.
    let bell = Bell::new().map_err(|error| {
        report::warn(format_args!("no WebSocket can be opened: {error}"));
        ApiError::Problem {
            problem: Problem::NoRoom,
            max_body: settings.max_body,
        }
    })?;
    let desk = Desk {
        sessions: Arc::clone(&api.sessions),
        supervisor: Arc::clone(&api.supervisor),
        logs: Arc::clone(&api.logs),
        is_trusted: gates::is_trusted(&call.head.peer, &settings),
        bell: Arc::new(bell),
    };
    http::upgrade(&call.head, move |socket| desk.serve(socket))
        .map(Outcome::Now)
        .map_err(ApiError::NotWebSocket)
}

/// What a conversation is led with.
struct Desk {
    sessions: Arc<Sessions>,
    supervisor: Arc<Supervisor>,
    logs: Arc<Logs>,
    /// Needs no token.
    is_trusted: bool,
    bell: Arc<Bell>,
}

/// Why a conversation ends.
enum Stop {
    /// There is nobody left to talk to.
    Over,
    /// To be closed with this code and reason.
    Close(u16, Cow<'static, str>),
}

impl From<Over> for Stop {
    fn from(_: Over) -> Stop {
        Stop::Over
    }
}

impl Stop {
    fn close(code: u16, reason: impl Into<Cow<'static, str>>) -> Stop {
        Stop::Close(code, reason.into())
    }
}

/// A client that has shown who it is.
struct Guest {
    /// `None`: it needs no token, and showed none.
    watch: Option<Watch>,
}

impl Guest {
    /// When it has to leave, as far as that can be said now.
    fn end(&self) -> Option<BootTime> {
        self.watch.as_ref().map(Watch::end)
    }

    fn welcome(&self) -> String {
        let claims = self.watch.as_ref().map(Watch::claims);
        shapes::auth_ok(claims.map(|claims| claims.expires_at()))
    }
}

impl Desk {
    fn serve(&self, mut socket: WebSocket) {
        let Err(stop) = self.converse(&mut socket);
        if let Stop::Close(code, reason) = stop {
            socket.close(code, &reason);
        }
    }

    fn converse(&self, socket: &mut WebSocket) -> Result<std::convert::Infallible, Stop> {
        let mut guest = self.receive_guest(socket)?;
        // Before the client is told that it is heard: it misses nothing from then on.
        let mut ear = Ear::new(self);
        socket.send(guest.welcome())?;
        loop {
            if let Err(stop) = go_on(socket) {
                // The ends of programs that were stopped with the daemon.
                ear.tell_the_last(socket)?;
                return Err(stop);
            }
            while let Some(incoming) = socket.receive()? {
                match understand(incoming) {
                    Ok(Message::Auth { token }) => {
                        guest = self.admit(token, socket)?;
                        socket.send(guest.welcome())?;
                    }
                    Ok(Message::Subscribe(filter)) => {
                        ear.catch_up(socket)?;
                        ear.choose(filter);
                    }
                    Err(at) => socket.send(shapes::error(&at))?,
                }
            }
            let end = guest.end();
            if end.is_some_and(|end| end <= BootTime::now()) {
                return Err(Stop::close(code::UNAUTHORIZED, "the token has expired"));
            }
            let until = match ear.tell(socket)? {
                true => Some(BootTime::now()),
                false => end,
            };
            socket.wait(&self.bell, until)?;
        }
    }

    /// Waits for the client to say who it is.
    fn receive_guest(&self, socket: &mut WebSocket) -> Result<Guest, Stop> {
        let until = BootTime::now() + AUTH_PATIENCE;
        loop {
            go_on(socket)?;
            if let Some(incoming) = socket.receive()? {
                return match understand(incoming) {
                    Ok(Message::Auth { token }) => self.admit(token, socket),
                    Ok(Message::Subscribe(_)) => Err(Stop::close(
                        code::UNAUTHORIZED,
                        "the first message must be of type auth",
                    )),
                    Err(at) => Err(Stop::close(
                        code::UNAUTHORIZED,
                        format!("the first message must be auth: {}: {}", at.field, at.issue),
                    )),
                };
            }
            if BootTime::now() >= until {
                let patience = AUTH_PATIENCE.as_secs();
                let reason = format!("no auth message came within {patience} s");
                return Err(Stop::close(code::TIMEOUT, reason));
            }
            socket.wait(&self.bell, Some(until))?;
        }
    }

    fn admit(&self, token: Option<String>, socket: &WebSocket) -> Result<Guest, Stop> {
        let token = token.as_deref();
        admit(&self.sessions, self.is_trusted, token, socket.control())
            .map_err(|reason| Stop::close(code::UNAUTHORIZED, reason))
    }
}

/// Lets a client in that shows a good token, or needs none. What ends the token ends the stream.
///
/// # Errors
/// What is wrong with it.
fn admit(
    sessions: &Arc<Sessions>,
    is_trusted: bool,
    token: Option<&str>,
    control: &Arc<Control>,
) -> Result<Guest, &'static str> {
    let Some(token) = token else {
        return match is_trusted {
            true => Ok(Guest { watch: None }),
            false => Err("auth needs a token"),
        };
    };
    sessions
        .check(token)
        .and_then(|session| sessions.watch(&session, control))
        .map(|watch| Guest { watch: Some(watch) })
        .ok_or("the token is invalid or has expired")
}

/// Whether it may go on.
fn go_on(socket: &WebSocket) -> Result<(), Stop> {
    match socket.ended() {
        None => Ok(()),
        Some(End::Shutdown) => Err(Stop::close(code::GOING_AWAY, "hxe is stopping")),
        Some(End::Handover) => Err(Stop::close(
            code::SERVICE_RESTART,
            "another hxe takes over: connect again",
        )),
        Some(End::Session) => Err(Stop::close(
            code::UNAUTHORIZED,
            "the token has been logged out, or user name or password have changed",
        )),
    }
}

fn understand(incoming: Incoming) -> Result<Message, Field> {
    let mistake = |issue: &str| Field {
        field: "message".into(),
        issue: issue.to_owned(),
    };
    let text = match incoming {
        Incoming::Text(text) => text,
        Incoming::Binary => return Err(mistake("The message must be text, not binary")),
    };
    message::parse(&text).map_err(|error| match error {
        ApiError::Body(at) => at,
        // Parsing finds no other.
        _ => mistake("The message is not understood"),
    })
}

/// What a client hears.
struct Ear {
    supervisor: Arc<Supervisor>,
    filter: Filter,
    listener: Listener,
    tails: Tails,
}

/// What is to be said next.
enum Next {
    Say(String),
    /// Something that this client does not want to hear.
    Pass,
    Nothing,
}

impl Ear {
    /// Hears everything from now on.
    fn new(desk: &Desk) -> Ear {
        let mut ear = Ear {
            supervisor: Arc::clone(&desk.supervisor),
            filter: Filter::default(),
            listener: desk.supervisor.listen(Arc::clone(&desk.bell)),
            tails: desk.logs.tails(Arc::clone(&desk.bell)),
        };
        ear.choose(Filter::default());
        ear
    }

    fn choose(&mut self, filter: Filter) {
        let wants_logs = filter.wants(Topic::Log);
        // Programs that are asked for by name may be given it later: of those, all are looked at.
        let ids: Option<Vec<ProgramId>> = filter
            .programs()
            .and_then(|programs| programs.iter().map(|id| id.parse().ok()).collect());
        self.tails
            .choose(move |id| wants_logs && ids.as_ref().is_none_or(|ids| ids.contains(&id)));
        self.filter = filter;
    }

    /// Says what there is to be said, as long as there is room; `true` if there may be more.
    fn tell(&mut self, socket: &mut WebSocket) -> Result<bool, Stop> {
        if self.listener.has_overflowed() {
            let reason = "more events piled up than may wait: read faster, or subscribe to fewer";
            return Err(Stop::close(code::TRY_AGAIN_LATER, reason));
        }
        for _ in 0..EVENTS_PER_TURN {
            if !socket.has_room() {
                return Ok(false);
            }
            match self.next() {
                Next::Say(text) => socket.send(text)?,
                Next::Pass => {}
                Next::Nothing => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Says what has happened already: another filter holds for what happens from now on.
    fn catch_up(&mut self, socket: &mut WebSocket) -> Result<(), Stop> {
        while socket.has_room() && self.listener.peek().is_some() {
            if let Next::Say(text) = self.next() {
                socket.send(text)?;
            }
        }
        Ok(())
    }

    /// Says what there is to be said before the daemon goes, if the client takes it soon.
    fn tell_the_last(&mut self, socket: &mut WebSocket) -> Result<(), Stop> {
        let until = BootTime::now() + LAST_WORDS;
        while socket.ended() != Some(End::Session) && BootTime::now() < until {
            if !self.tell(socket)? {
                break;
            }
        }
        Ok(())
    }

    /// Events of one program come in the order in which they happened, log entries among them: those written until an
    /// event come before it, and those of a run that has begun after it is told.
    fn next(&mut self) -> Next {
        let Some(event) = self.listener.peek() else {
            return self.next_entry();
        };
        let is_selected = self.filter.selects(&event.id.to_string(), &event.name);
        if is_selected
            && self.filter.wants(Topic::Log)
            && let Some(followed) = self.tails.next_of(event.id, event.at)
        {
            return Next::Say(say(event.id, Some(&event.name), followed));
        }
        self.listener.pop();
        match is_selected && self.filter.wants(shapes::topic(event.kind)) {
            true => Next::Say(shapes::lifecycle(&event)),
            false => Next::Pass,
        }
    }

    fn next_entry(&mut self) -> Next {
        let listener = &self.listener;
        // Asked in this order, see `Listener::untold_since`.
        let next = self.tails.next(|id, at| {
            let begun = listener.untold_since(id);
            begun.is_some_and(|begin| at > begin) || listener.peek().is_some()
        });
        let Some((id, followed)) = next else {
            return Next::Nothing;
        };
        let has_names = self.filter.programs().is_some();
        let is_dropped = matches!(followed, Followed::Missed { .. });
        let name = match has_names || is_dropped {
            true => self.name(id),
            false => None,
        };
        let known = name.as_deref().unwrap_or_default();
        match self.filter.wants(Topic::Log) && self.filter.selects(&id.to_string(), known) {
            true => Next::Say(say(id, name.as_deref(), followed)),
            false => Next::Pass,
        }
    }

    /// A program's name, if it still exists.
    fn name(&self, id: ProgramId) -> Option<String> {
        let snapshot = self.supervisor.find(&id.to_string())?;
        Some(snapshot.program.definition.name.clone())
    }
}

fn say(id: ProgramId, name: Option<&str>, followed: Followed) -> String {
    match followed {
        Followed::Entry(entry) => shapes::entry(id, &entry),
        Followed::Missed { stream, bytes } => shapes::dropped(id, name, stream, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sessions::tests::logged_in;
    use super::*;

    #[test]
    fn only_a_trusted_peer_may_leave_the_token_out() {
        let (sessions, _, _dir) = logged_in(Duration::from_secs(60));
        let control = Arc::default();
        let guest = admit(&sessions, true, None, &control).ok().unwrap();
        assert_eq!(guest.welcome(), r#"{"type":"auth.ok","expires_at":null}"#);
        assert_eq!(guest.end(), None);
        let refused = admit(&sessions, false, None, &control).err();
        assert_eq!(refused, Some("auth needs a token"));
        // What is shown must be good, whoever shows it.
        assert!(admit(&sessions, true, Some("x"), &control).is_err());
    }
}
