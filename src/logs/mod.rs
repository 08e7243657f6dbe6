//! Programs' logs: the kernel moves the bytes from FIFOs to files, times are kept beside them, reading does the rest.
//!
//! `log_dir/<id>/stdout.log` and `stderr.log` hold exactly what the program wrote, or files of the same names in `run_dir`
//! where not all is to be on disk; hxe's own lines are a third stream, always there. One thread (`hxe-logs`) moves the bytes of all programs; what it has not moved waits in the pipes, so
//! a daemon that dies loses nothing. Those who follow read the files by themselves, and are told when they have grown.
//! Called by watchers and by the API.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Gid, OFlags};
use rustix::io::Errno;

use crate::clock::{BootTime, Timestamp};
use crate::guardian::Link;
use crate::program::{LogDisk, ProgramId};
use crate::report;
use crate::sys::directory::Directory;

mod channel;
mod cut;
mod dirs;
mod files;
mod follow;
mod forward;
mod growth;
mod index;
mod kept;
mod level;
mod lines;
mod listeners;
mod medium;
mod moving;
mod notes;
mod pieces;
mod pump;
mod read;
mod removal;
mod tails;
#[cfg(test)]
mod tests;
mod times;

pub use follow::{Followed, Follower};
pub use forward::output::{Got, Output};
pub use read::Last;
pub use tails::Tails;

use channel::Context;
use dirs::Inode;
use growth::Register;
use medium::{Medium, Places};
use notes::Notes;
use pump::{Pump, Queue, Request};

const STACK: usize = 128 * 1024;
/// How long a run's end or begin waits for the log thread, which may be held by a full disk.
const MARK: Duration = Duration::from_secs(1);
/// How long adding and removing wait for it.
const ANSWER: Duration = Duration::from_secs(10);

/// `[logs]` of the configuration. All may change while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of one stream's file before it is rotated.
    pub max_size: u64,
    /// Rotated files kept.
    pub max_files: u32,
    /// Bytes that a program can write while nobody reads.
    pub pipe_size: usize,
    pub on_full: OnFull,
    /// What of programs' output goes to disk, where their definitions do not say it.
    pub disk: LogDisk,
    /// What is held in memory at least, of each stream that does not go to disk at once.
    pub ring_size: u64,
}

/// Looks at what a program wrote before its log is rotated, on the log thread, which waits for that. It is given what reads
/// the end of what was written in a span of time, of at most so many bytes.
pub type BeforeRotation =
    Box<dyn Fn(ProgramId, &dyn Fn(Span, usize) -> io::Result<String>) + Send + Sync>;

/// After the first moment and until the second.
pub type Span = (BootTime, BootTime);

/// What happens to a program's output when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// It is counted, said, and thrown away.
    Drop,
    /// It waits in the pipe: the program is held when that is full.
    Block,
}

/// A line's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// As the API shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    /// The level that the API calls `name`.
    pub fn from_name(name: &str) -> Option<Level> {
        [Level::Debug, Level::Info, Level::Warn, Level::Error]
            .into_iter()
            .find(|level| level.as_str() == name)
    }
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
    Hxe,
}

impl Stream {
    /// As the API shows it, and as files are named.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Hxe => "hxe",
        }
    }

    /// The level of a line that states none.
    const fn level(self) -> Level {
        match self {
            Stream::Stdout | Stream::Hxe => Level::Info,
            Stream::Stderr => Level::Error,
        }
    }
}

/// One line of a program's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub timestamp: Timestamp,
    pub level: Level,
    pub stream: Stream,
    pub message: String,
}

/// Which entries are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// How many of the last, counted after the filter; at most 10,000.
    pub lines: usize,
    /// Empty: all levels.
    pub levels: Vec<Level>,
}

/// The logs of all programs, whose pipes the guardian holds, too. Dropped, it ends the log thread; what programs write then waits in their pipes.
pub struct Logs {
    places: Places,
    notes: Arc<Notes>,
    queue: Arc<Queue>,
    /// What followers look at.
    register: Arc<Register>,
    link: Arc<Link>,
    max_files: AtomicUsize,
    before_rotation: Arc<OnceLock<BeforeRotation>>,
    /// The FIFOs that the log thread reads, to see when one was replaced.
    fifos: Mutex<BTreeMap<ProgramId, [Inode; 2]>>,
    /// FIFOs that an earlier daemon left, by the names that the guardian has for them, and that nobody has asked for yet.
    left: Mutex<BTreeMap<String, OwnedFd>>,
    /// What of programs' output goes to disk unless they say it.
    disk: Mutex<LogDisk>,
    /// Bytes written to `log_dir`.
    written: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// How much a program wrote to a stream since the daemon started, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// To its log files.
    pub written: u64,
    /// What they did not take.
    pub dropped: u64,
}

impl Logs {
    /// How much a program wrote to this stream; nothing, where it is not known.
    pub fn volume(&self, id: ProgramId, stream: Stream) -> Volume {
        let growth = self.register.get(id);
        growth.map_or_else(Volume::default, |growth| Volume {
            written: growth.reach(stream).1.total(),
            dropped: growth.dropped(stream) as u64,
        })
    }

    /// Starts the log thread. Everything is opened relative to `log_dir` and `run_dir`, without following links. What an
    /// earlier daemon `left` with the guardian is taken up as programs are added.
    pub fn start(
        log_dir: Arc<Directory>,
        run_dir: Arc<Directory>,
        settings: Settings,
        link: Arc<Link>,
        left: BTreeMap<String, OwnedFd>,
    ) -> io::Result<Logs> {
        let notes = Arc::new(Notes::new(run_dir.clone()));
        let queue = Arc::new(Queue::new()?);
        let max_files = AtomicUsize::new(settings.max_files as usize);
        let disk = Mutex::new(settings.disk);
        let before_rotation = Arc::default();
        let places = Places { log_dir, run_dir };
        let context = Context::new(
            places.clone(),
            notes.clone(),
            settings,
            Arc::clone(&before_rotation),
        );
        let written = context.written.clone();
        let mut pump = Pump::new(queue.clone(), context);
        let thread = std::thread::Builder::new()
            .name("hxe-logs".to_owned())
            .stack_size(STACK)
            .spawn(move || pump.run())?;
        Ok(Logs {
            places,
            notes,
            queue,
            register: Arc::default(),
            link,
            max_files,
            before_rotation,
            fifos: Mutex::default(),
            left: Mutex::new(left),
            disk,
            written,
            thread: Some(thread),
        })
    }

    /// Takes new settings for what comes from now on.
    pub fn set(&self, settings: Settings) {
        self.max_files
            .store(settings.max_files as usize, Ordering::Relaxed);
        *self.disk() = settings.disk;
        self.queue.send(Request::Set(settings));
    }

    /// Makes a program's directories and FIFOs, or takes up those that are there, and begins to move what they hold. `disk`:
    /// as for [`Logs::set_disk`].
    ///
    /// # Errors
    /// A directory cannot be made or belongs to somebody else; no descriptors.
    pub fn add(&self, id: ProgramId, disk: Option<LogDisk>) -> io::Result<()> {
        self.set_disk(id, disk);
        self.make_log_dir(id)?;
        self.add_known(id)?;
        self.settle();
        Ok(())
    }

    /// What of a program's output goes to disk, by its definition; from now on, and before it is added. `None`: as for all.
    pub fn set_disk(&self, id: ProgramId, disk: Option<LogDisk>) {
        let growth = self.register.enter(id);
        if growth.disk() != disk {
            growth.set_disk(disk);
            self.queue.send(Request::Move(id));
        }
    }

    /// Bytes written to `log_dir`, since the daemon started; begins anew where it does not fit.
    pub fn written_bytes(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Where nothing is written to it at once, there is none yet.
    fn make_log_dir(&self, id: ProgramId) -> io::Result<()> {
        let growth = self.register.get(id);
        let disk = growth.and_then(|growth| growth.disk());
        if Medium::of(disk.unwrap_or_else(|| *self.disk())) == Medium::Memory {
            return Ok(());
        }
        dirs::make(&*self.places.log_dir.get()?, id, dirs::LOG_DIR).map(drop)
    }

    /// As [`Logs::add`], for a program that is there already: its directory in `log_dir` is made when something is to be
    /// written. Before anybody follows, [`Logs::settle`].
    ///
    /// # Errors
    /// As for that.
    pub fn add_known(&self, id: ProgramId) -> io::Result<()> {
        let dir = dirs::make(&*self.places.run_dir.get()?, id, dirs::RUN_DIR)?;
        let [stdout, stderr] = match self.take_left(id) {
            // What runs writes to these, whatever lies at their place by now.
            Some(fifos) => fifos,
            None => {
                let stdout = dirs::open_fifo(&dir, Stream::Stdout)?;
                let stderr = dirs::open_fifo(&dir, Stream::Stderr)?;
                // Before anything is written to them: what they hold vanishes with their last opener.
                self.link.keep(&kept(id, Stream::Stdout), stdout.fd.as_fd());
                self.link.keep(&kept(id, Stream::Stderr), stderr.fd.as_fd());
                [stdout, stderr]
            }
        };
        let fifos = [stdout.fd, stderr.fd];
        self.queue.add(id, fifos, self.register.enter(id))?;
        self.known().insert(id, [stdout.inode, stderr.inode]);
        Ok(())
    }

    /// Returns once the log thread has found out where the logs stand of all that was added, for those who follow them.
    pub fn settle(&self) {
        let (sender, reached) = mpsc::channel();
        self.queue.send(Request::Reached(sender));
        if let Err(RecvTimeoutError::Timeout) = reached.recv_timeout(ANSWER) {
            report::warn(format_args!("the log thread does not answer"));
        }
    }

    /// Whether an earlier daemon left the pipes of this program, and it has not been added yet.
    pub fn has_left(&self, id: ProgramId) -> bool {
        let streams = [Stream::Stdout, Stream::Stderr];
        let left = self.left();
        streams
            .iter()
            .all(|stream| left.contains_key(&kept(id, *stream)))
    }

    /// Lets go of what an earlier daemon left and nobody has asked for.
    pub fn drop_left(&self) {
        for name in std::mem::take(&mut *self.left()).into_keys() {
            self.link.forget(&name);
        }
    }

    /// The highest id that has a directory of logs or of a run, whether its program is known or not; 0 if none has.
    pub fn last_id(&self) -> ProgramId {
        let dirs = [&self.places.log_dir, &self.places.run_dir]
            .map(|dir| dirs::last_id(dir.get_to_read()));
        let ids = dirs.into_iter().map(|found| {
            found.unwrap_or_else(|error| {
                report::error(format_args!(
                    "whether there are logs of earlier programs cannot be seen: {error}"
                ));
                ProgramId(0)
            })
        });
        ids.max().unwrap_or(ProgramId(0))
    }

    /// Makes a program's directory in `run_dir`, where it is not there.
    ///
    /// # Errors
    /// The system's.
    pub fn make_run_dir(&self, id: ProgramId) -> io::Result<()> {
        dirs::make(&*self.places.run_dir.get()?, id, dirs::RUN_DIR).map(drop)
    }

    /// Opens stdout and stderr for a run whose group is `gid`: read-write, blocking, each an open description of its
    /// own. The run begins here: what comes now is a new line.
    ///
    /// # Errors
    /// As for [`Logs::add`].
    pub fn begin_run(&self, id: ProgramId, gid: u32) -> io::Result<[OwnedFd; 2]> {
        let mut fifos = self.open_fifos(id)?;
        if self.known().get(&id) != Some(&[fifos[0].inode, fifos[1].inode]) {
            // Removed or replaced by somebody since: the log thread must read what the program writes to.
            self.add_known(id)?;
            fifos = self.open_fifos(id)?;
        }
        for fifo in &fifos {
            // Not root, and not a member of that group: the program then cannot open /dev/stderr anew, no more.
            match rustix::fs::fchown(&fifo.fd, None, Some(Gid::from_raw(gid))) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = rustix::fs::fcntl_getfl(&fifo.fd)?;
            rustix::fs::fcntl_setfl(&fifo.fd, flags - OFlags::NONBLOCK)?;
        }
        if !self.is_between_lines(id, &fifos) {
            self.mark(id, false);
        }
        Ok(fifos.map(|fifo| fifo.fd))
    }

    /// Whether all that the program wrote is in its files, and ends there as lines do: what comes now is a new line anyway.
    /// For a program of which nothing runs.
    fn is_between_lines(&self, id: ProgramId, fifos: &[dirs::Fifo; 2]) -> bool {
        let mut streams = [Stream::Stdout, Stream::Stderr].into_iter().zip(fifos);
        self.register.get(id).is_some_and(|growth| {
            // In this order: it is seen first that the pipe is empty.
            streams.all(|(stream, fifo)| {
                moving::waiting(fifo.fd.as_fd()) == 0 && growth.is_settled(stream)
            })
        })
    }

    /// Device and inode of the pipes that the program's runs write to.
    ///
    /// # Errors
    /// As for [`Logs::add`].
    pub fn pipes(&self, id: ProgramId) -> io::Result<Vec<(u64, u64)>> {
        let stats = self.open_fifos(id)?.map(|fifo| rustix::fs::fstat(&fifo.fd));
        stats
            .into_iter()
            .map(|stat| {
                let stat = stat?;
                // Field widths differ between platforms.
                #[allow(clippy::unnecessary_cast)]
                Ok((stat.st_dev as u64, stat.st_ino as u64))
            })
            .collect()
    }

    /// Moves what the ended run left in its pipes, and marks the end: the last piece counts as a line. Returns once
    /// that is done, or after a second if the log thread cannot (disk full with `block`).
    pub fn end_run(&self, id: ProgramId) {
        self.mark(id, false);
    }

    /// The same for a run that was not told to end: with `disk = "errors"`, its last output is written to disk.
    pub fn end_run_unasked(&self, id: ProgramId) {
        self.mark(id, true);
    }

    /// Adds a line of hxe's own to the program's log. Never fails: what cannot be written is reported.
    pub fn note(&self, id: ProgramId, level: Level, message: &str) {
        let growth = self.register.get(id);
        self.notes.note(id, level, message, growth.as_deref());
    }

    /// Adds a line of a moment that has passed, such as a run's begin, but not before the program's line before: what the
    /// run has written since comes after it.
    pub fn note_at(&self, at: BootTime, id: ProgramId, level: Level, message: &str) {
        let growth = self.register.get(id);
        self.notes
            .note_at(Some(at), id, level, message, growth.as_deref());
    }

    /// Finds the last entries, oldest first, in bounded memory whatever their size.
    ///
    /// # Errors
    /// Files cannot be opened or read.
    pub fn last(&self, id: ProgramId, query: &Query) -> io::Result<Last> {
        read::last(&self.places, &self.notes, id, query)
    }

    /// The end of what a program wrote to stdout and stderr after the first and until the second moment, in this boot, as
    /// far as its log still has it: whole lines of at most `most` bytes, or the end of one.
    ///
    /// # Errors
    /// As for [`Logs::last`].
    pub fn written(&self, id: ProgramId, span: Span, most: usize) -> io::Result<String> {
        read::written(&self.places, id, span, most)
    }

    /// Says who looks at what a program wrote before its log is rotated, where that is asked for; once.
    pub fn before_rotation(
        &self,
        look: impl Fn(ProgramId, &dyn Fn(Span, usize) -> io::Result<String>) + Send + Sync + 'static,
    ) {
        let _ = self.before_rotation.set(Box::new(look));
    }

    /// Has that one look before the program's log is rotated the next time.
    pub fn ask_before_rotation(&self, id: ProgramId) {
        if let Some(growth) = self.register.get(id) {
            growth.ask_before_rotation();
        }
    }

    fn take_left(&self, id: ProgramId) -> Option<[dirs::Fifo; 2]> {
        let mut left = self.left();
        let stdout = left.remove(&kept(id, Stream::Stdout));
        let stderr = left.remove(&kept(id, Stream::Stderr));
        drop(left);
        let take = |fd: Option<OwnedFd>| dirs::Fifo::of(fd?).ok();
        Some([take(stdout)?, take(stderr)?])
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, LogDisk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_fifos(&self, id: ProgramId) -> io::Result<[dirs::Fifo; 2]> {
        let dir = dirs::make(&*self.places.run_dir.get()?, id, dirs::RUN_DIR)?;
        let dir = dir.as_fd();
        Ok([
            dirs::open_fifo(dir, Stream::Stdout)?,
            dirs::open_fifo(dir, Stream::Stderr)?,
        ])
    }

    /// Marks the present place in the program's streams, and waits until what is before it is on its way to disk.
    fn mark(&self, id: ProgramId, keep: bool) {
        let (reached, passed) = mpsc::channel();
        self.queue.send(Request::Mark { id, reached, keep });
        if let Err(RecvTimeoutError::Timeout) = passed.recv_timeout(MARK) {
            report::warn(format_args!(
                "what {id} wrote is still waiting to be written to its log files"
            ));
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<ProgramId, [Inode; 2]>> {
        self.fifos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.queue.send(Request::Stop);
        if let Some(thread) = self.thread.take() {
            // It survives panics, so this is no news to anybody.
            let _ = thread.join();
        }
    }
}

/// How a program's FIFO is called where the guardian holds it.
fn kept(id: ProgramId, stream: Stream) -> String {
    format!("{id}/{}", stream.as_str())
}

fn unanswered(_: RecvTimeoutError) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the log thread does not answer")
}
