//! The workers: threads that wait on one epoll set and do what it says.
//!
//! Owns the threads; decides nothing. Called by the daemon.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::service::Erased;
use super::wire::{Patience, Subject, Wire};
use super::{End, Limits, Listener, Service, listener};
use crate::clock::BootTime;

/// Enough for a request through JSON, redb and bcrypt, as measured.
const STACK_BYTES: usize = 256 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// How long [`Server::drain`] waits for answers that others work out.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// The same for requests that have begun to arrive.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(3);
/// How long [`Server::shutdown`] waits for what is being answered.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// The running workers.
pub struct Server {
    wire: Arc<Wire>,
}

impl Server {
    /// Starts the workers.
    ///
    /// # Errors
    /// The system's: no descriptors, no threads.
    pub fn start<S: Service>(
        listeners: Vec<Listener>,
        limits: Limits,
        service: Arc<S>,
    ) -> io::Result<Server> {
        for listener in &listeners {
            listener.prepare()?;
        }
        let wire = Arc::new(Wire::new(listeners, limits, Box::new(Erased(service)))?);
        for number in 0..limits.workers {
            let wire = Arc::clone(&wire);
            thread::Builder::new()
                .name(format!("hxe-api-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&wire))?;
        }
        wire.open()?;
        Ok(Server { wire })
    }

    /// Takes connections from this Unix socket, too, and no more from one that there was.
    ///
    /// # Errors
    /// The system's: no memory.
    pub fn replace_unix(&self, listener: UnixListener) -> io::Result<()> {
        let listener = Listener::Unix(listener);
        listener.prepare()?;
        self.wire.replace_unix(listener)
    }

    /// Takes new limits for what comes from now on; the number of workers stays.
    pub fn set_limits(&self, limits: Limits) {
        self.wire.set_limits(limits);
    }

    /// Has memory given back once nobody has come for a while from now on, as after the last connection.
    pub fn await_calm(&self) {
        self.wire.await_calm();
    }

    /// Its streams, for tests.
    #[cfg(test)]
    pub(super) fn streams(&self) -> Arc<super::stream::Streams> {
        Arc::clone(&self.wire.streams)
    }

    /// Serves connections, too, that another server has given up by [`drain`](Server::drain).
    pub fn take_over(&self, sockets: Vec<OwnedFd>) {
        self.wire.take_over(sockets);
    }

    /// Stops accepting, tells streams to end, and returns when all that was asked is answered: after 0.5 s also if it is
    /// not, after 3 s also if a request is still on its way. `why` is what the streams are told. Connections on which no
    /// request has begun are given to `idle`: none is read from, so that another server can go on with them.
    pub fn drain(&self, why: End, idle: &mut dyn FnMut(OwnedFd)) {
        let patience = Patience {
            answers: ANSWER_PATIENCE,
            arriving: ARRIVAL_PATIENCE,
        };
        self.wire.drain(why, patience, idle);
    }

    /// Stops accepting, closes idle connections, tells streams to end, and returns when all others have their answers and
    /// all streams have ended, or after 5 s. `why` is what the streams are told.
    pub fn shutdown(&self, why: End) {
        let patience = Patience {
            answers: SHUTDOWN_PATIENCE,
            arriving: SHUTDOWN_PATIENCE,
        };
        let until = BootTime::now() + SHUTDOWN_PATIENCE;
        self.wire.drain(why, patience, &mut drop);
        self.wire.streams.wait_for_all(until);
    }
}

fn work(wire: &Arc<Wire>) {
    let mut scratch = vec![0; READ_BYTES];
    loop {
        // A handler that panics drops its responder, which answers for it; the hook has said what it was.
        let _ = catch_unwind(AssertUnwindSafe(|| turn(wire, &mut scratch)));
    }
}

fn turn(wire: &Arc<Wire>, scratch: &mut [u8]) {
    match wire.next() {
        (Subject::Timer, _) => wire.tick(),
        (Subject::Listener(index), _) => listener::accept(wire, index, scratch),
        (Subject::Connection(key), ready) => {
            // Else it was closed in the meantime.
            if let Some(connection) = wire.take(key) {
                connection.wake(ready, scratch);
            }
        }
    }
}
