//! What the workers share: the epoll set, the table of connections, the timer, the limits.
//!
//! Owns the descriptors that the workers wait on. Everything in the set is EPOLLONESHOT: an event belongs to the one worker
//! that got it, until that one arms the descriptor again. Called by `server.rs`, `connection.rs` and `listener.rs`.

mod room;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::connection::Connection;
use super::listener::peer_of;
use super::service::Behind;
use super::stream::{End, Streams};
use super::table::{Key, Table};
use super::{Limits, Listener};
use crate::clock::BootTime;
use crate::report;
use crate::sys::memory;

/// How long listeners rest when there is nothing left to accept with.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client that has connected has to send its first request, when the server closes.
const GREETING: Duration = Duration::from_millis(300);

/// How long after the last connection the daemon takes itself to be left alone.
const CALM: Duration = Duration::from_secs(1);

/// How often connections are looked at that hold up the server's end.
const NAP: Duration = Duration::from_millis(20);

/// How long the server's end waits for clients.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For requests that are being worked out, and for answers to be read.
    pub answers: Duration,
    /// For requests that have begun to arrive: no less than for `answers`.
    pub arriving: Duration,
}

/// What an event is about.
pub enum Subject {
    Timer,
    Listener(usize),
    Connection(Key),
}

impl Subject {
    fn data(&self) -> EventData {
        EventData::new_u64(match self {
            Subject::Timer => 0,
            Subject::Listener(index) => *index as u64 + 1,
            Subject::Connection(key) => key.to_u64(),
        })
    }

    fn of(data: EventData) -> Subject {
        match (Key::from_u64(data.u64()), data.u64()) {
            (Some(key), _) => Subject::Connection(key),
            (None, 0) => Subject::Timer,
            (None, index) => Subject::Listener((index - 1) as usize),
        }
    }
}

pub struct Wire {
    epoll: OwnedFd,
    timer: OwnedFd,
    listeners: RwLock<Vec<Arc<Listener>>>,
    limits: RwLock<Limits>,
    service: Box<dyn Behind>,
    pub streams: Arc<Streams>,
    state: Mutex<State>,
    /// Told when the last connection has ended.
    empty: Condvar,
    closing: AtomicBool,
    /// Workers that may hold a connection that has no place yet.
    entering: AtomicUsize,
    /// What a connection takes has run out, and that was said.
    starved: AtomicBool,
}

#[derive(Default)]
struct State {
    table: Table,
    /// When the timer goes off.
    armed: Option<BootTime>,
    /// When paused listeners go on.
    resume: Option<BootTime>,
}

/// A connection's place in the table, held as long as its socket is open.
pub struct Lease {
    wire: Arc<Wire>,
    key: Key,
}

impl Lease {
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub fn key(&self) -> Key {
        self.key
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.wire.lock();
        state.table.release(self.key);
        if state.table.open() == 0 {
            self.wire.set_calm(&mut state);
            if self.wire.is_closing() {
                self.wire.empty.notify_all();
            }
        }
    }
}

/// See [`Wire::enter`].
pub struct Entry<'w>(&'w Wire);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.entering.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Wire {
    pub fn new(
        listeners: Vec<Listener>,
        limits: Limits,
        service: Box<dyn Behind>,
    ) -> io::Result<Wire> {
        let wire = Wire {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            timer: timerfd_create(
                TimerfdClockId::Boottime,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
            listeners: RwLock::new(listeners.into_iter().map(Arc::new).collect()),
            limits: RwLock::new(limits),
            service,
            streams: Arc::default(),
            state: Mutex::default(),
            empty: Condvar::new(),
            closing: AtomicBool::new(false),
            entering: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
        };
        wire.add(&wire.timer, Subject::Timer, EventFlags::IN)?;
        Ok(wire)
    }

    /// Begins to accept.
    pub fn open(&self) -> io::Result<()> {
        for (index, listener) in self.listeners().iter().enumerate() {
            self.add(&**listener, Subject::Listener(index), EventFlags::IN)?;
        }
        self.await_calm();
        Ok(())
    }

    /// Takes this Unix socket in place of the one that there was.
    pub fn replace_unix(&self, listener: Listener) -> io::Result<()> {
        let listener = Arc::new(listener);
        let mut listeners = self
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let is_unix = |listener: &Arc<Listener>| matches!(**listener, Listener::Unix(_));
        let index = match listeners.iter().position(is_unix) {
            Some(index) => {
                // Others may hold it open, so that closing it would leave it in the set.
                let _ = epoll::delete(&self.epoll, &*listeners[index]);
                listeners[index] = Arc::clone(&listener);
                index
            }
            None => {
                listeners.push(Arc::clone(&listener));
                listeners.len() - 1
            }
        };
        self.add(&*listener, Subject::Listener(index), EventFlags::IN)
    }

    fn listeners(&self) -> RwLockReadGuard<'_, Vec<Arc<Listener>>> {
        self.listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn listener(&self, index: usize) -> Arc<Listener> {
        Arc::clone(&self.listeners()[index])
    }

    pub fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    pub fn service(&self) -> &dyn Behind {
        &*self.service
    }

    /// No connection is kept for another request.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Blocks until something is ready: what, and for what.
    pub fn next(&self) -> (Subject, EventFlags) {
        // One event a call: a second one would wait here while another worker is free.
        let mut events = [const { MaybeUninit::uninit() }];
        loop {
            // The set is there for good, so that the only failure is EINTR: then it waits again.
            if let Ok(([event], _)) = epoll::wait(&self.epoll, &mut events, None) {
                return (Subject::of(event.data), event.flags);
            }
        }
    }

    /// Gives a connection that waited to the worker that its event woke.
    pub fn take(&self, key: Key) -> Option<Box<Connection>> {
        self.lock().table.take(key)
    }

    /// Takes a connection out of the epoll set: it leaves the workers.
    pub fn forget(&self, connection: &mut Connection) {
        if std::mem::take(&mut connection.watched) {
            // Fails only if it is not in the set.
            let _ = epoll::delete(&self.epoll, &*connection);
        }
    }

    /// Lets a connection wait until its socket is ready for `interest`, or its deadline is over. If all that wait hold too
    /// much by now, some of them are closed.
    pub fn park(&self, mut connection: Box<Connection>, interest: EventFlags) {
        let subject = Subject::Connection(connection.key());
        let mut state = self.lock();
        // Under the lock: once it is in the table, a connection may be taken and closed at any time.
        let watched = match connection.watched {
            true => self.arm(&connection, subject, interest),
            false => self.add(&connection, subject, interest),
        };
        if let Err(error) = watched {
            drop(state);
            return self.complain(&error);
        }
        connection.watched = true;
        let deadline = connection.deadline();
        state.table.put(connection);
        self.hurry(&mut state, deadline);
        drop(state);
        self.shed();
    }

    /// Lets the listeners rest a little: there is nothing to accept with, and asking again at once would spin.
    pub fn rest(&self) {
        self.pause(BootTime::now() + PAUSE);
    }

    /// Lets the listeners rest until then.
    fn pause(&self, resume: BootTime) {
        let mut state = self.lock();
        if state.resume.is_none() {
            state.resume = Some(resume);
            self.hurry(&mut state, resume);
        }
    }

    /// Says that connections cannot be taken; once, until one can.
    pub fn complain(&self, error: &io::Error) {
        if !self.starved.swap(true, Ordering::Relaxed) {
            report::warn(format_args!("connections cannot be served: {error}"));
        }
    }

    /// Has the timer go off once nobody has come for a while. That is all: an idle daemon does not even wake to find that
    /// there is nothing to do.
    pub fn await_calm(&self) {
        self.set_calm(&mut self.lock());
    }

    fn set_calm(&self, state: &mut State) {
        let calm = BootTime::now() + CALM;
        let due = state.table.deadline().into_iter().chain(state.resume);
        let next = due.chain([calm]).min();
        self.set_timer(state, next);
    }

    /// Does what the timer is for.
    pub fn tick(&self) {
        let now = BootTime::now();
        let mut state = self.lock();
        let expired: Vec<_> = state
            .table
            .take_all(|connection| connection.deadline() <= now)
            .collect();
        let resume = state.resume.take_if(|resume| *resume <= now).is_some();
        let next = state.table.deadline().into_iter().chain(state.resume).min();
        let is_calm = next.is_none() && state.table.open() == 0;
        self.set_timer(&mut state, next);
        drop(state);
        if is_calm {
            memory::release_unused();
        }
        if let Err(error) = self.arm(&self.timer, Subject::Timer, EventFlags::IN) {
            report::warn(format_args!("the timer of the API is lost: {error}"));
        }
        if resume {
            let listeners = self.listeners().len();
            for index in 0..listeners {
                self.listen(index);
            }
        }
        for connection in expired {
            connection.expire();
        }
    }

    /// Whether the listeners rest.
    pub fn is_resting(&self) -> bool {
        self.lock().resume.is_some()
    }

    /// Arms a listener again, unless all of them rest.
    pub fn listen(&self, index: usize) {
        if self.is_resting() {
            return;
        }
        // After `close` it is out of the set for good, and this fails.
        let _ = self.arm(
            &*self.listener(index),
            Subject::Listener(index),
            EventFlags::IN,
        );
    }

    /// The right to accept a connection, until it has its place; `None`: none is accepted any more.
    pub fn enter(&self) -> Option<Entry<'_>> {
        // In this order, so that whoever closes sees either this or nobody.
        self.entering.fetch_add(1, Ordering::SeqCst);
        let entry = Entry(self);
        (!self.is_closing()).then_some(entry)
    }

    /// Stops accepting, tells streams to end, gives connections on which no request has begun to `idle`, and waits until
    /// the others are answered or its `patience` is over.
    pub fn drain(&self, why: End, patience: Patience, idle: &mut dyn FnMut(OwnedFd)) {
        self.closing.store(true, Ordering::SeqCst);
        for listener in self.listeners().iter() {
            // Fails only if it is out of the set already.
            let _ = epoll::delete(&self.epoll, &**listener);
        }
        self.streams.close(why);
        let begin = BootTime::now();
        let greeted = match why {
            // Another one takes them over.
            End::Handover => begin,
            // Who has just connected is about to ask, and is not to be refused.
            End::Shutdown | End::Session => begin + GREETING,
        };
        loop {
            let now = BootTime::now();
            let may_leave = match now < greeted {
                true => Connection::is_idle_again,
                false => Connection::is_idle,
            };
            let leaving: Vec<_> = self.lock().table.take_all(may_leave).collect();
            for mut connection in leaving {
                self.forget(&mut connection);
                idle(connection.into_socket());
            }
            let state = self.lock();
            let left = match state.table.any(Connection::is_arriving) {
                true => begin + patience.arriving,
                false => begin + patience.answers,
            };
            let is_empty = state.table.open() == 0 && self.entering.load(Ordering::SeqCst) == 0;
            if is_empty || now >= left {
                return;
            }
            let nap = left.since(now).min(NAP);
            // Wakes when the last has ended; what the others come to is seen each time.
            let _ = self.empty.wait_timeout(state, nap);
        }
    }

    /// Takes connections over on which no request has begun.
    pub fn take_over(self: &Arc<Self>, sockets: Vec<OwnedFd>) {
        for socket in sockets {
            // Else the client has left meanwhile.
            if let Some(peer) = peer_of(&socket)
                && let Ok(connection) = self.admit(socket, peer)
            {
                connection.expect();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, fd: impl AsFd, subject: Subject, interest: EventFlags) -> io::Result<()> {
        let interest = interest | EventFlags::ONESHOT;
        Ok(epoll::add(&self.epoll, fd, subject.data(), interest)?)
    }

    fn arm(&self, fd: impl AsFd, subject: Subject, interest: EventFlags) -> io::Result<()> {
        let interest = interest | EventFlags::ONESHOT;
        Ok(epoll::modify(&self.epoll, fd, subject.data(), interest)?)
    }

    /// Sees to it that the timer goes off at `at` or before. A later deadline than the one set costs nothing: it is found
    /// when that one is over.
    fn hurry(&self, state: &mut State, at: BootTime) {
        if state.armed.is_none_or(|armed| at < armed) {
            self.set_timer(state, Some(at));
        }
    }

    /// Sets the timer; `None` stops it. An expiry not yet seen is forgotten (timerfd_settime(2)).
    fn set_timer(&self, state: &mut State, at: Option<BootTime>) {
        const ZERO: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if state.armed == at {
            return;
        }
        let it_value = at.map_or(ZERO, |at| {
            let micros = at.as_micros().clamp(1, i64::MAX as u64) as i64;
            Timespec {
                tv_sec: micros / 1_000_000,
                tv_nsec: (micros % 1_000_000 * 1_000) as _,
            }
        });
        let value = Itimerspec {
            it_interval: ZERO,
            it_value,
        };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value) {
            Ok(_) => state.armed = at,
            Err(error) => report::warn(format_args!("the timer of the API is lost: {error}")),
        }
    }
}
