//! The log thread, `hxe-logs`: waits until a program wrote something, and lets its channel move it.
//!
//! The one writer of all log files. Sleeps without a timer when no program writes; takes requests from other threads
//! by a queue and a bell, also while it waits for more bytes. Started and asked by `mod`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use super::channel::{self, Channel, Context, Turn};
use super::growth::Growth;
use super::medium::Medium;
use super::{Settings, Stream, files};
use crate::clock::BootTime;
use crate::program::ProgramId;
use crate::report;
use crate::sys::bell::Bell;

/// How long more bytes are waited for, after a wake-up that found less than half a pipe, and before files are closed.
/// Moves a line at once and a flood in large pieces.
const LINGER: Duration = Duration::from_millis(1);
/// The same for a pipe that the kernel lets not grow: a fast program fills it in that time.
const LINGER_SMALL: Duration = Duration::from_micros(50);
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
const WAKE: u64 = u64::MAX;
const EVENTS: usize = 64;

/// What other threads ask of the log thread. A sender that is dropped tells that the thing is done.
pub enum Request {
    /// Moves what comes through these FIFOs, which are waited for already; replaces those that the program had.
    Add {
        id: ProgramId,
        fifos: [OwnedFd; 2],
        /// Where it is published what was moved.
        growth: Arc<Growth>,
    },
    /// Says that all that was asked for before is done.
    Reached(Sender<()>),
    /// Moves what is in the program's pipes and marks the place. `keep`: the run has ended without being asked to, and its
    /// last output is to be on disk.
    Mark {
        id: ProgramId,
        reached: Sender<()>,
        keep: bool,
    },
    /// Has the program's output go where it is to go by now.
    Move(ProgramId),
    /// Lets go of the program's FIFOs and files.
    Remove {
        id: ProgramId,
        done: Sender<()>,
    },
    Set(Settings),
    Stop,
}

/// Where requests are left, and what the log thread waits for.
pub struct Queue {
    requests: Mutex<VecDeque<Request>>,
    bell: Bell,
    epoll: OwnedFd,
}

impl Queue {
    pub fn new() -> io::Result<Queue> {
        let bell = Bell::new()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, &bell, data, epoll::EventFlags::IN)?;
        Ok(Queue {
            requests: Mutex::default(),
            bell,
            epoll,
        })
    }

    /// Has what comes through these FIFOs moved from now on. The log thread begins with it by itself: nobody waits for that.
    ///
    /// # Errors
    /// The kernel has no room for them.
    pub fn add(&self, id: ProgramId, fifos: [OwnedFd; 2], growth: Arc<Growth>) -> io::Result<()> {
        for (stream, fifo) in fifos.iter().enumerate() {
            // What comes before the log thread knows of it waits.
            let token = Token { id: id.0, stream };
            let data = epoll::EventData::new_u64(token.to_u64());
            epoll::add(&self.epoll, fifo, data, epoll::EventFlags::IN)?;
        }
        self.send(Request::Add { id, fifos, growth });
        Ok(())
    }

    pub fn send(&self, request: Request) {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(request);
        self.bell.ring();
    }

    fn next(&self) -> Option<Request> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// What the log thread holds.
pub struct Pump {
    queue: Arc<Queue>,
    context: Context,
    programs: BTreeMap<u32, [Channel; 2]>,
    /// Channels whose files are open.
    open: Vec<Token>,
    /// Channels that wait for a disk or descriptors, and until when.
    held: Vec<(BootTime, Token)>,
    stopped: bool,
}

/// A channel, as epoll carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    id: u32,
    stream: usize,
}

impl Token {
    fn to_u64(self) -> u64 {
        u64::from(self.id) << 1 | self.stream as u64
    }

    fn from_u64(data: u64) -> Token {
        Token {
            // What `to_u64` put there fits.
            id: (data >> 1) as u32,
            stream: (data & 1) as usize,
        }
    }
}

/// What a round came to.
struct Round {
    /// Somebody asked for something.
    asked: bool,
    /// For how long more may gather in the pipes; `None`: nothing had anything to move.
    gather: Option<Duration>,
}

impl Pump {
    pub fn new(queue: Arc<Queue>, context: Context) -> Pump {
        Pump {
            queue,
            context,
            programs: BTreeMap::new(),
            open: Vec::new(),
            held: Vec::new(),
            stopped: false,
        }
    }

    /// Runs until it is told to stop. A panic is reported and survived: no other thread moves the bytes.
    pub fn run(&mut self) {
        while !self.stopped {
            if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
                report::error(format_args!("the log thread has met a bug; it goes on"));
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    fn work(&mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        // Whether we have waited for more bytes since the last ones came.
        let mut lingered = false;
        while !self.stopped {
            let timeout = self.timeout(lingered);
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            if let Err(error) = epoll::wait(&self.queue.epoll, buffer, timeout.as_ref())
                && error != rustix::io::Errno::INTR
            {
                report::error(format_args!("the log thread cannot wait: {error}"));
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
            let round = self.round(&events);
            if let Some(gather) = round.gather {
                lingered = !gather.is_zero();
                if lingered {
                    self.linger(gather);
                }
            } else if !round.asked {
                self.close_all();
            }
        }
    }

    /// Gives a turn to each channel that has something to move, and serves requests.
    fn round(&mut self, events: &[epoll::Event]) -> Round {
        let mut round = Round {
            asked: false,
            gather: None,
        };
        for event in events {
            match event.data.u64() {
                WAKE => round.asked = true,
                data => {
                    let gather = self.turn(Token::from_u64(data));
                    round.gather = Some(round.gather.map_or(gather, |least| least.min(gather)));
                }
            }
        }
        if round.asked {
            self.serve();
        }
        self.release();
        if round.gather.is_some() {
            self.keep_times();
        }
        round
    }

    /// How long to wait for an event: without end when nothing is open and nothing held.
    fn timeout(&self, lingered: bool) -> Option<Timespec> {
        let linger = match (self.open.is_empty(), lingered) {
            (true, _) => None,
            (false, true) => Some(Duration::ZERO),
            (false, false) => Some(LINGER),
        };
        let now = BootTime::now();
        let held = self.held.iter().map(|(until, _)| until.since(now)).min();
        linger.into_iter().chain(held).min().map(timespec)
    }

    /// Lets more bytes gather, unless somebody asks for something.
    fn linger(&self, span: Duration) {
        let mut fds = [PollFd::new(&self.queue.bell, PollFlags::IN)];
        // Interrupted or out of memory: then we look for bytes sooner.
        let _ = rustix::event::poll(&mut fds, Some(&timespec(span)));
    }

    /// Moves one channel's bytes; for how long more may gather in its pipe.
    fn turn(&mut self, token: Token) -> Duration {
        let Some(channel) = self
            .programs
            .get_mut(&token.id)
            .and_then(|channels| channels.get_mut(token.stream))
        else {
            return LINGER;
        };
        let turn = channel.turn(&mut self.context);
        if channel.is_open() && !self.open.contains(&token) {
            self.open.push(token);
        }
        match turn {
            Turn::Drained { much: false } if channel.is_small() => LINGER_SMALL,
            Turn::Drained { much: false } => LINGER,
            Turn::Drained { much: true } | Turn::More => Duration::ZERO,
            Turn::Hold(until) => {
                if !self.held.iter().any(|(_, held)| *held == token) {
                    self.held.push((until, token));
                }
                self.listen(token, epoll::EventFlags::empty());
                LINGER
            }
        }
    }

    /// Lets channels try again that have waited long enough.
    fn release(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let now = BootTime::now();
        for (_, token) in self
            .held
            .extract_if(.., |(until, _)| *until <= now)
            .collect::<Vec<_>>()
        {
            self.listen(token, epoll::EventFlags::IN);
        }
    }

    fn listen(&self, token: Token, flags: epoll::EventFlags) {
        if let Some(channels) = self.programs.get(&token.id) {
            let data = epoll::EventData::new_u64(token.to_u64());
            if let Err(error) =
                epoll::modify(&self.queue.epoll, &channels[token.stream].fifo, data, flags)
            {
                report::error(format_args!(
                    "a FIFO of {} cannot be waited for: {error}",
                    ProgramId(token.id)
                ));
            }
        }
    }

    /// Writes the time records that are due: followers see no byte before, and while some programs flood, no burst of
    /// another one is ended by quiet.
    fn keep_times(&mut self) {
        let now = BootTime::now();
        for token in &self.open {
            if let Some(channels) = self.programs.get_mut(&token.id) {
                channels[token.stream].keep_time(now, &mut self.context);
            }
        }
    }

    /// Ends all bursts: what is not written now may not be for a long time.
    fn close_all(&mut self) {
        for token in std::mem::take(&mut self.open) {
            if let Some(channels) = self.programs.get_mut(&token.id) {
                channels[token.stream].close(&mut self.context);
            }
        }
    }

    fn serve(&mut self) {
        self.queue.bell.hush();
        while let Some(request) = self.queue.next() {
            match request {
                Request::Add { id, fifos, growth } => self.add(id, fifos, &growth),
                Request::Reached(sender) => drop(sender),
                Request::Mark { id, reached, keep } => self.mark(id, &reached, keep),
                Request::Move(id) => self.settle(id),
                Request::Remove { id, done } => {
                    self.remove(id);
                    drop(done);
                }
                Request::Set(settings) => self.set(settings),
                Request::Stop => {
                    self.close_all();
                    self.stopped = true;
                }
            }
        }
    }

    fn add(&mut self, id: ProgramId, fifos: [OwnedFd; 2], growth: &Arc<Growth>) {
        self.drain(id);
        self.remove(id);
        self.tidy(id);
        let [stdout, stderr] = fifos;
        let channels = [
            Channel::new(id, STREAMS[0], stdout, growth.clone(), &mut self.context),
            Channel::new(id, STREAMS[1], stderr, growth.clone(), &mut self.context),
        ];
        self.programs.insert(id.0, channels);
    }

    fn mark(&mut self, id: ProgramId, reached: &Sender<()>, keep: bool) {
        if let Some(channels) = self.programs.get_mut(&id.0) {
            for channel in channels {
                channel.mark(reached.clone());
            }
            self.drain(id);
        }
        if keep && let Some(channels) = self.programs.get_mut(&id.0) {
            channel::keep_last(channels, &mut self.context);
        }
    }

    fn settle(&mut self, id: ProgramId) {
        for channel in self.programs.get_mut(&id.0).into_iter().flatten() {
            channel.settle(&mut self.context);
        }
    }

    /// Gives a program turns until all its marks are reached, or cannot be for now.
    fn drain(&mut self, id: ProgramId) {
        for stream in 0..STREAMS.len() {
            let token = Token { id: id.0, stream };
            // Marks bound what is moved; a pipe holds no more than a few turns.
            for _ in 0..64 {
                self.turn(token);
                let more = self
                    .programs
                    .get(&id.0)
                    .is_some_and(|channels| channels[stream].is_marked());
                if !more || self.held.iter().any(|(_, held)| *held == token) {
                    break;
                }
            }
        }
    }

    fn remove(&mut self, id: ProgramId) {
        if let Some(mut channels) = self.programs.remove(&id.0) {
            for channel in &mut channels {
                // What was moved last is published.
                channel.close(&mut self.context);
                // Closing does it as well, but for a descriptor that a fork holds for a moment.
                let _ = epoll::delete(&self.queue.epoll, &channel.fifo);
            }
        }
        self.open.retain(|token| token.id != id.0);
        self.held.retain(|(_, token)| token.id != id.0);
    }

    fn set(&mut self, settings: Settings) {
        let fewer = settings.max_files < self.context.settings.max_files;
        let resized = settings.pipe_size != self.context.settings.pipe_size;
        self.context.settings = settings;
        let ids: Vec<u32> = self.programs.keys().copied().collect();
        for id in ids {
            if fewer {
                self.tidy(ProgramId(id));
            }
            self.settle(ProgramId(id));
            if resized && let Some(channels) = self.programs.get_mut(&id) {
                for channel in channels {
                    channel.resize(&mut self.context);
                }
            }
        }
    }

    fn tidy(&self, id: ProgramId) {
        let keep = self.context.settings.max_files;
        let done = self
            .context
            .places
            .open(Medium::Disk, id)
            .and_then(|dir| files::tidy(dir.as_fd(), keep));
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => report::warn(format_args!(
                "old log files of {id} cannot be removed: {error}"
            )),
            _ => {}
        }
    }
}

fn timespec(span: Duration) -> Timespec {
    // No span here is longer than a few seconds; were one, we would only look sooner.
    Timespec::try_from(span).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::dirs;
    use crate::logs::growth::Register;
    use crate::logs::medium::Places;
    use crate::logs::notes::Notes;
    use crate::logs::tests::{EVERYTHING, House, ID, open_path, until};
    use crate::sys::directory::Directory;
    use std::io::Write;

    fn open(path: &std::path::Path) -> Arc<Directory> {
        Arc::new(Directory::at(path))
    }

    /// A program's stdout, as the log thread's own descriptor and as the program's.
    fn fifos(temp: &std::path::Path) -> ([OwnedFd; 2], std::fs::File) {
        let dir = dirs::make(open_path(&temp.join("run")).unwrap(), ID, dirs::RUN_DIR).unwrap();
        let [ours, theirs, stderr] = [Stream::Stdout, Stream::Stdout, Stream::Stderr]
            .map(|stream| dirs::open_fifo(&dir, stream).unwrap().fd);
        ([ours, stderr], theirs.into())
    }

    #[test]
    fn what_was_moved_is_published_while_others_keep_the_thread_from_rest() {
        let temp = House::ground();
        let notes = Arc::new(Notes::new(open(&temp.path().join("run"))));
        let places = Places {
            log_dir: open(&temp.path().join("log")),
            run_dir: open(&temp.path().join("run")),
        };
        let context = Context::new(places, notes, EVERYTHING, Arc::default());
        let mut pump = Pump::new(Arc::new(Queue::new().unwrap()), context);
        let growth = Register::default().enter(ID);
        let (fifos, mut program) = fifos(temp.path());
        pump.add(ID, fifos, &growth);
        let event = |id: u32| epoll::Event {
            flags: epoll::EventFlags::IN,
            data: epoll::EventData::new_u64(Token { id, stream: 0 }.to_u64()),
        };
        for line in ["first\n", "second\n"] {
            // The second comes too soon for a time record of its own, most of the time.
            program.write_all(line.as_bytes()).unwrap();
            pump.round(&[event(ID.0)]);
        }
        let then = BootTime::now();
        until(|| BootTime::now().since(then) > Duration::from_millis(1));
        pump.round(&[event(99)]);
        assert_eq!(growth.reach(Stream::Stdout).1.offset, 13);
    }
}
