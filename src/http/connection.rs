//! One connection, from accept to close: what is due on it, and what to do when its socket or its time says so.
//!
//! Owns the socket. Every function takes the connection by value and passes it on: to the table, to the [`Responder`] of
//! its request, to a stream, or to nobody, which closes it. Nothing here waits. Called by workers (`server.rs`) and by
//! `answer.rs`.

mod handover;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::answer::{Ending, Outgoing, Responder, Sent, Terms};
use super::request::{Arrival, Reader, Unreadable};
use super::service::{Behind, Then};
use super::table::Key;
use super::wire::Lease;
use super::{Head, Method, Peer, Problem, Reply, Request};
use crate::clock::BootTime;

/// How long a client has to see the last answer and close.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Bytes that a client may still send meanwhile.
const DRAIN_BYTES: usize = 256 * 1024;

/// A client's connection.
pub struct Connection {
    socket: OwnedFd,
    peer: Peer,
    reader: Reader,
    stage: Stage,
    /// The client has sent all that it will ever send.
    half_closed: bool,
    /// Since when the client could have sent a whole request, or read of its answer and did not.
    owes_since: BootTime,
    /// It has been answered, if only in part.
    served: bool,
    /// When to look again, should nothing happen.
    deadline: BootTime,
    /// The socket is in the epoll set; the first wait puts it there, and many a connection never waits.
    pub watched: bool,
    // Last, so that the place in the table is free only once the socket is closed.
    lease: Lease,
}

/// What is due next. While its request is being served, a connection is in nobody's hands but the responder's.
enum Stage {
    /// The first byte of a request.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body(Box<Pending>),
    /// Room in the socket for the rest of an answer.
    Answer(Box<Outgoing>),
    /// The client's end of the connection, behind the last answer; so many bytes are thrown away before patience ends.
    Drain(usize),
}

/// A request that passed the gates and whose body is not there yet.
struct Pending {
    head: Head,
    body_bytes: usize,
    then: Then,
    terms: Terms,
}

impl Pending {
    fn held_bytes(&self) -> usize {
        /// Two strings.
        const FRAME_BYTES: usize = 48;
        let headers = self.head.headers.iter();
        headers
            .map(|(name, value)| FRAME_BYTES + name.capacity() + value.capacity())
            .sum()
    }
}

/// What a read gave.
enum Received {
    Bytes,
    /// Nothing at the moment.
    Nothing,
    /// The client has sent all that it will.
    End,
    Failed,
}

impl Connection {
    pub fn new(socket: OwnedFd, peer: Peer, lease: Lease) -> Box<Connection> {
        let now = BootTime::now();
        let deadline = now + lease.wire().limits().request_timeout;
        Box::new(Connection {
            socket,
            peer,
            reader: Reader::default(),
            stage: Stage::Idle,
            half_closed: false,
            owes_since: now,
            served: false,
            deadline,
            watched: false,
            lease,
        })
    }

    pub fn key(&self) -> Key {
        self.lease.key()
    }

    pub fn service(&self) -> &dyn Behind {
        self.lease.wire().service()
    }

    /// When to call [`expire`](Connection::expire), if nothing wakes it before.
    pub fn deadline(&self) -> BootTime {
        self.deadline
    }

    /// Since when it is the client's turn: the one that has had it for longest is given up for another. Drained ones go
    /// first.
    pub fn owes_since(&self) -> BootTime {
        match self.stage {
            Stage::Idle | Stage::Head | Stage::Body(_) | Stage::Answer(_) => self.owes_since,
            Stage::Drain(_) => BootTime::default(),
        }
    }

    /// Accepted after `moment`, and no byte of a request is there yet.
    pub fn is_newer_than(&self, moment: BootTime) -> bool {
        let untouched = !self.served && self.reader.is_empty();
        untouched && matches!(self.stage, Stage::Idle) && self.owes_since > moment
    }

    /// Bytes of memory that it takes for what has come and for what is to be sent.
    pub fn held_bytes(&self) -> usize {
        self.reader.held_bytes()
            + match &self.stage {
                Stage::Body(pending) => pending.held_bytes(),
                Stage::Answer(outgoing) => outgoing.held_bytes(),
                Stage::Idle | Stage::Head | Stage::Drain(_) => 0,
            }
    }

    /// The same, behind an answer: a new one's client is about to ask.
    pub fn is_idle_again(&self) -> bool {
        self.served && self.is_idle()
    }

    /// No byte of a request has arrived here, nor waits in the kernel.
    pub fn is_idle(&self) -> bool {
        let mut byte = [0];
        matches!(self.stage, Stage::Idle)
            && self.reader.is_empty()
            && recv(
                &self.socket,
                &mut byte,
                RecvFlags::PEEK | RecvFlags::DONTWAIT,
            )
            .err()
                == Some(Errno::AGAIN)
    }

    /// A request has begun, and is not whole.
    pub fn is_arriving(&self) -> bool {
        match self.stage {
            Stage::Idle => !self.is_idle(),
            Stage::Head | Stage::Body(_) => true,
            Stage::Answer(_) | Stage::Drain(_) => false,
        }
    }

    /// Its socket, where nothing was read that is not answered.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Waits for a request.
    pub fn expect(self: Box<Self>) {
        self.park(EventFlags::IN);
    }

    /// Does what `ready` allows. `scratch` is the worker's, lent for reading.
    pub fn wake(mut self: Box<Self>, ready: EventFlags, scratch: &mut [u8]) {
        if let Stage::Answer(mut outgoing) = self.stage {
            self.stage = Stage::Idle;
            let sent = outgoing.send(&self.socket);
            return self.sent(*outgoing, sent);
        }
        // Woken by room alone, there is something read already to look at.
        if ready != EventFlags::OUT {
            match self.receive(scratch) {
                Received::Bytes => {}
                Received::Nothing => return self.park(EventFlags::IN),
                Received::End => self.half_closed = true,
                Received::Failed => return,
            }
        }
        match self.stage {
            Stage::Drain(_) if self.half_closed => {}
            Stage::Drain(0) => {}
            Stage::Drain(_) => self.park(EventFlags::IN),
            _ => self.advance(),
        }
    }

    /// One bounded read.
    fn receive(&mut self, scratch: &mut [u8]) -> Received {
        match recv(&self.socket, &mut *scratch, RecvFlags::empty()) {
            Ok((_, 0)) => Received::End,
            Ok((_, bytes)) => {
                match &mut self.stage {
                    Stage::Drain(left) => *left = left.saturating_sub(bytes),
                    _ => self.reader.push(&scratch[..bytes]),
                }
                Received::Bytes
            }
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => Received::Failed,
        }
    }

    /// Goes on with what was read: to the gates with a head, to the service with a whole request.
    fn advance(mut self: Box<Self>) {
        if let Stage::Body(pending) = self.stage {
            let Some(body) = self.reader.body(pending.body_bytes) else {
                self.stage = Stage::Body(pending);
                return self.wait();
            };
            let Pending {
                head, then, terms, ..
            } = *pending;
            self.stage = Stage::Idle;
            return self.serve(then, Request { head, body }, terms);
        }
        let max_body = self.lease.wire().limits().max_body;
        match self.reader.head(&self.peer, max_body) {
            Ok(Some(arrival)) => self.gate(arrival),
            Ok(None) => {
                if !self.reader.is_empty() {
                    self.begin();
                }
                self.wait();
            }
            Err(Unreadable { problem, head }) => {
                let mut terms = Terms::of_unread(Ending::Drain);
                if let Some(head) = head {
                    terms.http_11 = head.http_11;
                    terms.head_only = head.method == Method::Head;
                    terms.headers = self.service().headers(&head);
                }
                let reply = self.service().problem(problem, &self.peer);
                self.answer(terms, reply);
            }
        }
    }

    /// The deadline of a request counts from its first byte.
    fn begin(&mut self) {
        if matches!(self.stage, Stage::Idle) {
            self.stage = Stage::Head;
            self.deadline = BootTime::now() + self.lease.wire().limits().request_timeout;
        }
    }

    /// Waits for more of a request, unless there will be none.
    fn wait(self: Box<Self>) {
        if !self.half_closed {
            self.park(EventFlags::IN);
        }
    }

    fn gate(mut self: Box<Self>, arrival: Arrival) {
        let Arrival {
            head,
            body_bytes,
            keep_alive,
            expects_continue,
        } = arrival;
        let verdict = self.service().gate(&head);
        let mut terms = Terms {
            http_11: head.http_11,
            head_only: head.method == Method::Head,
            ending: match keep_alive {
                true => Ending::Keep,
                false => Ending::Close,
            },
            headers: verdict.headers,
        };
        let body = self.reader.body(body_bytes);
        match (verdict.outcome, body) {
            (Ok(then), Some(body)) => self.serve(then, Request { head, body }, terms),
            (Ok(then), None) => {
                self.begin();
                if expects_continue && self.reader.is_empty() && !self.say_continue() {
                    return;
                }
                self.stage = Stage::Body(Box::new(Pending {
                    head,
                    body_bytes,
                    then,
                    terms,
                }));
                self.wait();
            }
            (Err(reply), body) => {
                if body.is_none() {
                    terms.ending = Ending::Drain;
                }
                self.answer(terms, reply);
            }
        }
    }

    /// Tells the client to send the body. `false`: it is gone, or takes not even this.
    fn say_continue(&self) -> bool {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        send(&self.socket, CONTINUE, SendFlags::NOSIGNAL) == Ok(CONTINUE.len())
    }

    fn serve(mut self: Box<Self>, then: Then, request: Request, terms: Terms) {
        self.stage = Stage::Idle;
        // A panic in there drops the responder, which answers, and is caught at the top of the worker.
        then(request, Responder::new(self, terms));
    }

    /// Answers what did not come in time.
    fn time_out(mut self: Box<Self>) {
        let terms = self.terms_of_unread(Ending::Drain);
        let reply = self.service().problem(Problem::Timeout, &self.peer);
        self.answer(terms, reply);
    }

    /// What the answer to a request owes that will not be read to its end.
    fn terms_of_unread(&mut self, ending: Ending) -> Terms {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Body(pending) => Terms {
                ending,
                ..pending.terms
            },
            _ => Terms::of_unread(ending),
        }
    }

    /// Sends the answer to the request at hand. From any thread.
    pub fn answer(self: Box<Self>, terms: Terms, reply: Reply) {
        self.service().answered(reply.status);
        match handover::sort(&terms, reply) {
            Ok(departure) => self.leave(terms, departure),
            Err(reply) => self.say(terms, reply),
        }
    }

    /// Sends an answer that has an end.
    fn say(self: Box<Self>, mut terms: Terms, reply: Reply) {
        if terms.ending == Ending::Keep && self.lease.wire().is_closing() {
            terms.ending = Ending::Close;
        }
        let outgoing = Outgoing::new(&terms, reply)
            .or_else(|_| Outgoing::new(&terms, self.service().broken()));
        // Where even the answer for broken ones is broken, the connection closes.
        let Ok(mut outgoing) = outgoing else { return };
        let sent = match outgoing.send(&self.socket) {
            // Whatever was taken: the client's time begins now.
            Sent::Some { .. } => Sent::Some { moved: true },
            sent => sent,
        };
        self.sent(outgoing, sent);
    }

    /// Waits for room for the rest of an answer, or goes on behind it.
    fn sent(mut self: Box<Self>, outgoing: Outgoing, sent: Sent) {
        match sent {
            Sent::All => self.answered(outgoing.ending),
            Sent::Some { moved } => {
                if moved {
                    self.rest();
                }
                self.stage = Stage::Answer(Box::new(outgoing));
                self.park(EventFlags::OUT);
            }
            Sent::Failed => {}
        }
    }

    fn answered(mut self: Box<Self>, ending: Ending) {
        let wire = self.lease.wire();
        let unread = !self.reader.is_empty();
        match ending {
            Ending::Keep if unread => {
                self.rest();
                // What was read behind the request is a worker's affair; room there is at once.
                self.park(EventFlags::OUT);
            }
            Ending::Keep if self.half_closed => {}
            // One more that has come in spite of that is answered.
            Ending::Keep if wire.is_closing() && self.is_idle() => {}
            Ending::Keep => {
                self.rest();
                self.park(EventFlags::IN);
            }
            Ending::Close if !unread => {}
            Ending::Close | Ending::Drain if self.half_closed => {}
            Ending::Close | Ending::Drain => self.drain(),
        }
    }

    /// From now on it is the client's turn: to read, or to send the next request.
    fn rest(&mut self) {
        self.served = true;
        self.owes_since = BootTime::now();
        self.deadline = self.owes_since + self.lease.wire().limits().request_timeout;
    }

    fn drain(mut self: Box<Self>) {
        if shutdown(&self.socket, Shutdown::Write).is_ok() {
            self.reader = Reader::default();
            self.stage = Stage::Drain(DRAIN_BYTES);
            self.deadline = BootTime::now() + DRAIN_TIME;
            self.park(EventFlags::IN);
        }
    }

    /// Does what is due when the deadline is over.
    pub fn expire(mut self: Box<Self>) {
        match self.stage {
            Stage::Idle | Stage::Drain(_) => {}
            Stage::Head | Stage::Body(_) => self.time_out(),
            Stage::Answer(mut outgoing) => {
                self.stage = Stage::Idle;
                // The kernel tells of room only once a third of the buffer is free; a slow client may have made less.
                match outgoing.send(&self.socket) {
                    Sent::Some { moved: false } => {}
                    sent => self.sent(*outgoing, sent),
                }
            }
        }
    }

    /// Closes to make room for others: 408 if a request had begun.
    pub fn evict(mut self) {
        if matches!(self.stage, Stage::Head | Stage::Body(_)) {
            let terms = self.terms_of_unread(Ending::Close);
            let reply = self.service().problem(Problem::Timeout, &self.peer);
            if let Ok(mut outgoing) = Outgoing::new(&terms, reply) {
                // As far as it goes at once: to wait for more would keep the place.
                outgoing.send(&self.socket);
            }
        }
    }

    /// Back to the table until the socket is ready for `interest`, or the deadline is over.
    fn park(self: Box<Self>, interest: EventFlags) {
        let wire = Arc::clone(self.lease.wire());
        wire.park(self, interest);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
