//! One stream of one program: from its FIFO into its log file, with rotation, times, and what happens when the disk
//! is full.
//!
//! Owned by the log thread (`pump`), which says when there is something to move. Never waits and never sleeps.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::io::Errno;

use super::cut::{self, Cut};
use super::dirs::Inode;
use super::growth::{Growth, Reach};
use super::index::{Appender, Kind, Moment};
use super::kept::Kept;
use super::medium::Medium;
use super::moving;
use super::{Stream, files};
use crate::clock::BootTime;
use crate::program::ProgramId;
use crate::report;

mod context;
mod full;
mod logfile;
mod ring;
mod telling;

pub use context::Context;
use full::Trouble;
use logfile::{Open, last_byte, write_record};
pub use ring::keep_last;

/// Bytes that one turn moves before others have theirs.
const TURN: usize = 1024 * 1024;
/// What a pipe grows to while much comes through it: fewer wake-ups a gigabyte. Shrunk again afterwards.
const BUSY_PIPE: usize = 1024 * 1024;
/// At most one time record in this span, but for the last of a burst.
const RECORD_EVERY: Duration = Duration::from_millis(1);
/// After this it is looked again whether who reads along has caught up.
const HELD_BACK: Duration = Duration::from_millis(2);

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The pipe is empty. `much`: it was at least half full.
    Drained { much: bool },
    /// There is more, but it is others' turn.
    More,
    /// Nothing can be moved now: wait until then.
    Hold(BootTime),
}

/// A place in the stream where a run ends or begins.
struct Mark {
    /// Bytes in the pipe before it, counted from the mark before.
    bytes: usize,
    /// Dropped when the place is reached: that tells the one who waits.
    _reached: Sender<()>,
}

/// One stream of one program.
pub struct Channel {
    pub fifo: OwnedFd,
    id: ProgramId,
    stream: Stream,
    capacity: usize,
    /// The kernel does not let this pipe grow.
    small: bool,
    open: Option<Open>,
    /// Where the index of the log file with this inode goes on.
    appender: Option<(Inode, Appender)>,
    marks: VecDeque<Mark>,
    trouble: Option<Trouble>,
    /// Bytes were dropped behind the file's end: what comes next is a new line.
    gap: bool,
    /// Where a line was ended last: a run that writes nothing need not end it again.
    cut_at: Option<(Inode, u64)>,
    growth: Arc<Growth>,
    /// What is published there; its offset is that of the last record.
    reach: Reach,
    /// What of the files in memory is on disk.
    kept: Kept,
    /// The stream goes to disk, and all that is in memory is there as well.
    is_ring_old: bool,
}

impl Channel {
    pub fn new(
        id: ProgramId,
        stream: Stream,
        fifo: OwnedFd,
        growth: Arc<Growth>,
        context: &mut Context,
    ) -> Channel {
        let is_new = growth.reach(stream).1 == Reach::default();
        let mut channel = Channel {
            fifo,
            id,
            stream,
            capacity: 0,
            small: false,
            open: None,
            appender: None,
            marks: VecDeque::new(),
            trouble: None,
            gap: false,
            cut_at: None,
            reach: growth.reach(stream).1,
            growth,
            kept: Kept::default(),
            is_ring_old: false,
        };
        channel.resize(context);
        channel.take_up_ring(context);
        channel.survey(context);
        channel.settle(context);
        if is_new && channel.reach.moved.is_some() {
            // Nobody has seen it elsewhere.
            channel.reach = Reach {
                medium: channel.reach.medium,
                ..Reach::default()
            };
            channel.survey(context);
            channel.clear_old_ring(context);
        }
        channel
    }

    /// Gives the pipe its size, as far as the kernel lets us.
    pub fn resize(&mut self, context: &mut Context) {
        let wanted = context.settings.pipe_size;
        self.small = false;
        match rustix::pipe::fcntl_setpipe_size(&self.fifo, wanted) {
            Ok(size) => self.capacity = size,
            Err(error) => {
                self.capacity = rustix::pipe::fcntl_getpipe_size(&self.fifo).unwrap_or(4096);
                // BUSY: it holds more than that just now, as after a burst; the next burst's end shrinks it.
                if error != Errno::BUSY && self.capacity < wanted && !context.said_small_pipe {
                    context.said_small_pipe = true;
                    let size = self.capacity;
                    report::warn(format_args!(
                        "pipes are smaller than logs.pipe_size wants ({size} instead of {wanted} bytes): {error}"
                    ));
                }
            }
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the kernel lets the pipe not grow.
    pub fn is_small(&self) -> bool {
        self.small
    }

    /// Marks the end or begin of a run behind what waits in the pipe now. `reached` is dropped once that is moved.
    pub fn mark(&mut self, reached: Sender<()>) {
        let before: usize = self.marks.iter().map(|mark| mark.bytes).sum();
        self.marks.push_back(Mark {
            bytes: moving::waiting(self.fifo.as_fd()).saturating_sub(before),
            _reached: reached,
        });
        self.growth.set_unfinished(self.stream, true);
    }

    /// Whether a mark has not been reached yet.
    pub fn is_marked(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Moves what waits in the pipe, as much as one turn may.
    pub fn turn(&mut self, context: &mut Context) -> Turn {
        let mut moved = 0;
        loop {
            let waiting = moving::waiting(self.fifo.as_fd());
            self.pass_marks(waiting, context);
            if waiting == 0 {
                let much = moved >= self.capacity / 2;
                if much {
                    self.grow();
                }
                return Turn::Drained { much };
            }
            if moved >= TURN {
                self.grow();
                return Turn::More;
            }
            if self.is_held_back(context) {
                return Turn::Hold(BootTime::now() + HELD_BACK);
            }
            let most = self
                .marks
                .front()
                .map_or(waiting, |mark| mark.bytes.min(waiting));
            let step = self.ready(context);
            match step.and_then(|()| self.step(most, context)) {
                Ok(n) => {
                    moved += n;
                    self.count(n);
                    self.works_again(context);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // Emptied by somebody else: looked at again with the next wake-up.
                    io::ErrorKind::WouldBlock => return Turn::Drained { much: false },
                    _ => match self.fail(error, most, context) {
                        Some(until) => return Turn::Hold(until),
                        None => moved += most,
                    },
                },
            }
        }
    }

    /// Whether somebody who must miss nothing has to read on first.
    fn is_held_back(&self, context: &Context) -> bool {
        let kept = self.reach.medium.max_files(&context.settings);
        self.growth.is_held(self.stream, self.reach.rotations, kept)
    }

    /// Writes the time record that is due for what was moved: others may keep the log thread from a burst's end.
    pub fn keep_time(&mut self, now: BootTime, context: &mut Context) {
        if let Some(open) = &self.open
            && open.unrecorded
            && now.since(open.recorded) >= RECORD_EVERY
        {
            self.record(Kind::Data, context);
        }
    }

    /// Ends a burst: writes the last time record and closes the files.
    pub fn close(&mut self, context: &mut Context) {
        self.record(Kind::Data, context);
        self.open = None;
        if self.capacity > context.settings.pipe_size
            && let Ok(size) =
                rustix::pipe::fcntl_setpipe_size(&self.fifo, context.settings.pipe_size)
        {
            self.capacity = size;
        }
    }

    fn grow(&mut self) {
        if self.capacity < BUSY_PIPE && !self.small {
            match rustix::pipe::fcntl_setpipe_size(&self.fifo, BUSY_PIPE) {
                Ok(size) => self.capacity = size,
                Err(_) => self.small = true,
            }
        }
    }

    /// Counts bytes that left the pipe.
    fn count(&mut self, bytes: usize) {
        if let Some(mark) = self.marks.front_mut() {
            mark.bytes = mark.bytes.saturating_sub(bytes);
        }
    }

    /// Writes and forgets the marks that are reached: with an empty pipe all of them.
    fn pass_marks(&mut self, waiting: usize, context: &mut Context) {
        while let Some(mark) = self.marks.front()
            && (mark.bytes == 0 || waiting == 0)
        {
            self.end_line(context);
            self.tell_dropped(context);
            self.clear_old_ring(context);
            if self.marks.len() == 1 {
                self.growth.set_unfinished(self.stream, false);
                self.growth.tell();
            }
            self.marks.pop_front();
        }
    }

    /// Makes what is written next a new line for readers, if the file ends within one.
    fn end_line(&mut self, context: &mut Context) {
        if self.growth.is_whole(self.stream) {
            return;
        }
        if self.open.is_some() || self.ends_within_a_line(context) {
            // A file that cannot be opened: the bytes are there, only the line's end is not known.
            if self.ready(context).is_err() {
                return;
            }
            self.cut(context);
            self.record(Kind::Data, context);
        }
        self.growth.set_whole(self.stream, true);
    }

    /// Writes down that what comes next in the open file is a new line, if its last byte does not say so.
    fn cut(&mut self, context: &mut Context) {
        if let Some(open) = &self.open
            && self.cut_at != Some((open.inode, open.offset))
            && open.is_within_a_line()
        {
            self.cut_at = Some((open.inode, open.offset));
            self.record(Kind::Cut, context);
        }
    }

    /// Whether the file, not open now, has bytes behind its last newline. Makes nothing.
    fn ends_within_a_line(&self, context: &Context) -> bool {
        let found = context
            .places
            .open(self.reach.medium, self.id)
            .and_then(|dir| files::open_existing(dir.as_fd(), self.stream));
        match found {
            Ok(Some(opened)) => {
                last_byte(&opened.file, opened.size).is_some_and(|byte| byte != b'\n')
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Sees to it that the log file is open, is the current one, and that we write at its end: looked at before each
    /// step, as what was written before is seen by somebody who truncates or moves the file at once.
    fn ready(&mut self, context: &mut Context) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            if files::is_current(open.dir.as_fd(), self.stream, open.inode) {
                let size = open.file.metadata()?.len();
                if size < open.offset
                    && let Some((_, appender)) = &mut self.appender
                {
                    appender.truncate(size);
                }
                open.anew |= size == 0;
                if size != open.offset {
                    self.reach.offset = open.offset;
                    self.reach.find(open.inode, size);
                }
                open.offset = size;
                return Ok(());
            }
            // Moved away or removed by somebody: its index goes with the next tidying.
            self.record(Kind::Data, context);
            self.open = None;
        }
        self.settle(context);
        let dir = context.places.make(self.reach.medium, self.id)?;
        let opened = files::open_current(dir.as_fd(), self.stream)?;
        let kept = self.reach.medium.max_files(&context.settings);
        if opened.size == 0
            && let Err(error) = files::tidy(dir.as_fd(), kept)
        {
            self.say_index(&error, context);
        }
        self.begin(dir, opened)
    }

    /// Writes into this file from now on.
    fn begin(&mut self, dir: OwnedFd, opened: files::Opened) -> io::Result<()> {
        if opened.size == 0 && self.reach.medium == Medium::Memory {
            self.forget_kept(dir.as_fd())?;
        }
        self.reach.find(opened.inode, opened.size);
        self.open = Some(Open::new(dir, opened));
        Ok(())
    }

    /// Moves up to `most` bytes into the open file, or rotates it.
    fn step(&mut self, most: usize, context: &mut Context) -> io::Result<usize> {
        let (max_size, medium) = (self.max_size(context), self.reach.medium);
        let Some(open) = &mut self.open else {
            return Ok(0);
        };
        let room = max_size.saturating_sub(open.offset);
        let mut count = most;
        let mut full = false;
        if most as u64 > room {
            let before = cut::BEFORE.min(max_size / 4);
            if room > before {
                // Less than `most`, so it fits usize.
                count = (room - before) as usize;
            } else {
                let allowed = (max_size + cut::BEYOND).saturating_sub(open.offset).max(1);
                // Both at most BEFORE + BEYOND.
                let (room, allowed) = (room as usize, allowed as usize);
                let bytes = context.scratch.peek(self.fifo.as_fd(), most.min(allowed))?;
                let at_line_end = open.offset > 0
                    && (!open.is_within_a_line() || self.cut_at == Some((open.inode, open.offset)));
                match cut::decide(&bytes, room, allowed, at_line_end) {
                    Cut::After(n) => (count, full) = (n, true),
                    Cut::NotYet(n) => count = n,
                    Cut::Before => {
                        self.rotate(context)?;
                        return Ok(0);
                    }
                }
            }
        }
        self.growth.set_whole(self.stream, false);
        let moved = moving::to_file(
            self.fifo.as_fd(),
            &open.file,
            open.offset,
            count,
            &mut open.copies,
            &mut context.scratch,
        );
        let moved = match moved {
            // The system allows files of less than `max_size`.
            Err(error) if is_too_large(&error) && open.offset > 0 => {
                self.rotate(context)?;
                return Ok(0);
            }
            moved => moved?,
        };
        context.count(medium, moved);
        if std::mem::take(&mut self.gap) {
            self.cut(context);
        }
        let Some(open) = &mut self.open else {
            return Ok(moved);
        };
        self.cut_at = None;
        open.offset += moved as u64;
        open.unrecorded = true;
        if BootTime::now().since(open.recorded) >= RECORD_EVERY {
            self.record(Kind::Data, context);
        }
        if full && moved == count {
            // The bytes are moved, so this is no failure yet: the next step finds the file full and rotates again.
            let _ = self.rotate(context);
        }
        Ok(moved)
    }

    /// Writes down that the bytes up to here are of now. A failure costs their times only.
    fn record(&mut self, kind: Kind, context: &mut Context) {
        let Some(open) = &mut self.open else {
            return;
        };
        if kind == Kind::Data && !open.unrecorded {
            return;
        }
        open.unrecorded = false;
        let now = Moment::now();
        open.recorded = now.since_boot;
        match write_record(open, self.stream, &mut self.appender, now, kind) {
            Ok(bytes) => context.count(self.reach.medium, bytes),
            Err(error) => {
                self.appender = None;
                open.index = None;
                self.say_index(&error, context);
            }
        }
        self.publish();
    }

    fn say_index(&self, error: &io::Error, context: &mut Context) {
        // Not found: somebody removed the directory, and the next burst makes it anew.
        if !context.said_index && error.kind() != io::ErrorKind::NotFound {
            context.said_index = true;
            let (id, stream) = (self.id, self.stream.as_str());
            report::warn(format_args!(
                "what is kept beside the log file of {id} ({stream}) cannot be written: {error}"
            ));
        }
    }
}

fn is_too_large(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::FBIG)
}
