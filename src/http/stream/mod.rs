//! Streams: connections that last, each with a thread of its own, `hxe-stream-N`.
//!
//! Owns their number and their end. A stream has left the workers: its place in the table is free, and it counts towards
//! `max_streams` instead. It ends when its client leaves, when its work is done, or when it is told to through its
//! [`Control`]; none wakes up before. Called by `connection.rs` with an answer that has no end; what is sent is the
//! service's affair.

mod feed;
mod line;
#[cfg(test)]
pub mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use rustix::process::{getpriority_process, setpriority_process};

pub use feed::Feed;
pub use line::{Line, PATIENCE};

use super::{Problem, WebSocket};
use crate::clock::BootTime;
use crate::sys::bell::Bell;

/// As the workers have, who also read logs and write JSON. What is not touched takes no memory: a stream that waits costs
/// 16 KiB in all, as measured with 64 of them.
const STACK_BYTES: usize = 256 * 1024;
/// How much a stream stands back behind the threads that serve everybody.
const NICENESS: i32 = 5;
/// Numbers in the names of threads begin anew here: the kernel keeps 15 bytes of a name.
const NUMBERS: u16 = 10_000;

/// Why a stream is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server shuts down.
    Shutdown,
    /// The server shuts down, and another one goes on at once.
    Handover,
    /// The session that it was opened in is over.
    Session,
}

/// How others end a stream. May be kept after its end, and holds no descriptor then.
#[derive(Default)]
pub struct Control {
    order: Mutex<Order>,
}

#[derive(Default)]
struct Order {
    why: Option<End>,
    /// Wakes the stream. It is the stream's, and goes with it.
    bell: Weak<Bell>,
}

impl Control {
    /// Has the stream end soon, also while it waits for its client. The first reason counts.
    pub fn end(&self, why: End) {
        let mut order = self.lock();
        order.why.get_or_insert(why);
        if let Some(bell) = order.bell.upgrade() {
            bell.ring();
        }
    }

    /// Why the stream is to end, once it is.
    pub fn ended(&self) -> Option<End> {
        self.lock().why
    }

    /// Has `bell` ring at the end, which may have been asked for already.
    fn attach(&self, bell: &Arc<Bell>) {
        let mut order = self.lock();
        order.bell = Arc::downgrade(bell);
        if order.why.is_some() {
            bell.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream is over: the client has left, or it was told to end.
#[derive(Debug)]
pub struct Ended;

/// What is counted on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Feed,
    WebSocket,
}

/// What a stream does, once its head is sent.
pub enum Work {
    Feed(Box<dyn FnOnce(&mut Feed) + Send>),
    WebSocket(Box<dyn FnOnce(WebSocket) + Send>),
}

/// What its thread takes over of a connection.
pub struct Job {
    pub line: Line,
    /// Status line and headers.
    pub head: Vec<u8>,
    /// What was read behind the request.
    pub rest: Vec<u8>,
    /// A feed is sent in chunks.
    pub chunked: bool,
    pub work: Work,
}

/// The streams that are open.
#[derive(Default)]
pub struct Streams {
    state: Mutex<State>,
    /// Told when the last has ended.
    empty: Condvar,
}

#[derive(Default)]
struct State {
    open: Vec<(Kind, Arc<Control>)>,
    /// In the name of the next thread.
    number: u16,
    /// None is opened any more.
    closed: bool,
}

/// A place among the streams, held until the last of one is gone.
pub struct Berth {
    streams: Arc<Streams>,
    number: u16,
    control: Arc<Control>,
}

impl Streams {
    /// Takes a place, unless `max` of this kind are open.
    ///
    /// # Errors
    /// What the client is to be told.
    pub fn claim(self: &Arc<Self>, kind: Kind, max: usize) -> Result<Berth, Problem> {
        let mut state = self.lock();
        if state.closed {
            return Err(Problem::NoRoom);
        }
        if state
            .open
            .iter()
            .filter(|(known, _)| *known == kind)
            .count()
            >= max
        {
            return Err(match kind {
                Kind::Feed => Problem::TooManyFeeds,
                Kind::WebSocket => Problem::TooManyWebSockets,
            });
        }
        let control = Arc::new(Control::default());
        state.open.push((kind, Arc::clone(&control)));
        let number = state.number;
        state.number = (number + 1) % NUMBERS;
        Ok(Berth {
            streams: Arc::clone(self),
            number,
            control,
        })
    }

    /// Tells all to end, and why, and opens no more.
    pub fn close(&self, why: End) {
        let mut state = self.lock();
        state.closed = true;
        for (_, control) in &state.open {
            control.end(why);
        }
    }

    /// Waits until all have ended, at most until `until`.
    pub fn wait_for_all(&self, until: BootTime) {
        let left = until.since(BootTime::now());
        // Whether all have ended or patience did, there is nothing more to be done.
        let _ = self
            .empty
            .wait_timeout_while(self.lock(), left, |state| !state.open.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Berth {
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Starts the thread, which does what it is sent; without a job it ends.
    ///
    /// # Errors
    /// There are no more threads.
    pub fn start(self) -> io::Result<Sender<Job>> {
        let (sender, job) = mpsc::channel();
        thread::Builder::new()
            .name(format!("hxe-stream-{}", self.number))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if let Ok(job) = job.recv() {
                    stand_back();
                    run(job);
                }
                // Last: whoever counts streams finds nothing left of this one.
                drop(self);
            })?;
        Ok(sender)
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let mut state = self.streams.lock();
        state
            .open
            .retain(|(_, control)| !Arc::ptr_eq(control, &self.control));
        if state.open.is_empty() {
            self.streams.empty.notify_all();
        }
    }
}

/// Lets the log thread and the workers go first: followers of a program that writes without end would else take as much
/// of the processor as those. Linux does this for the calling thread only; setpriority(2), "C library/kernel differences".
fn stand_back() {
    if let Ok(now) = getpriority_process(None) {
        // Without it, the stream is no worse than before.
        let _ = setpriority_process(None, now + NICENESS);
    }
}

fn run(job: Job) {
    let Job {
        line,
        head,
        rest,
        chunked,
        work,
    } = job;
    line.tune();
    // A panic is told by the hook, and ends the stream.
    match work {
        Work::Feed(work) => {
            let mut feed = Feed::new(line, chunked);
            if feed.begin(&head).is_ok() {
                let done = catch_unwind(AssertUnwindSafe(|| work(&mut feed)));
                feed.finish(done.is_ok());
            }
        }
        Work::WebSocket(work) => {
            if let Ok(socket) = WebSocket::begin(line, &head, rest) {
                let _ = catch_unwind(AssertUnwindSafe(|| work(socket)));
            }
        }
    }
}
