//! The ring in memory: when a stream goes there or back to disk, and what of it is written to disk. Called by `channel`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use super::logfile::{Open, last_byte, write_record};
use super::{Channel, Context};
use crate::logs::dirs::Inode;
use crate::logs::files::{self, Opened};
use crate::logs::growth::Reach;
use crate::logs::index::{Kind, Moment};
use crate::logs::kept::{Kept, Pending, Range};
use crate::logs::medium::{Medium, RING_FILES};
use crate::logs::pieces::Line;
use crate::logs::read::Files;
use crate::logs::times::Times;
use crate::program::LogDisk;
use crate::report;

#[cfg(test)]
mod tests;

/// Bytes of both streams that are written to disk before an end that was not asked for.
const LAST: u64 = 64 * 1024;
const CHUNK: usize = 64 * 1024;

impl Channel {
    /// What of the stream goes to disk.
    fn disk(&self, context: &Context) -> LogDisk {
        self.growth.disk().unwrap_or(context.settings.disk)
    }

    /// Where what comes next is to go.
    pub(super) fn wanted(&self, context: &Context) -> Medium {
        Medium::of(self.disk(context))
    }

    /// Bytes that the open file may have.
    pub(super) fn max_size(&mut self, context: &Context) -> u64 {
        let medium = self.reach.medium;
        let most = medium.max_size(&context.settings);
        let moves = medium != self.wanted(context);
        // Very short lines have longer times than text: memory is bounded all the same.
        let has_much = |inode| {
            let known = self.appender.as_ref();
            known.is_some_and(|(of, appender)| *of == inode && appender.len() > most / 2)
        };
        let Some(open) = &mut self.open else {
            return most;
        };
        if open.most.is_none() && (moves || medium == Medium::Memory && has_much(open.inode)) {
            open.most = Some(open.offset);
        }
        open.most.unwrap_or(most).min(most)
    }

    /// Takes up what an earlier daemon left in memory, and where the stream goes on.
    pub(super) fn take_up_ring(&mut self, context: &mut Context) {
        let Ok(dir) = context.places.open(Medium::Memory, self.id) else {
            return;
        };
        self.kept = Kept::read(dir.as_fd(), self.stream).unwrap_or_default();
        self.prune(dir.as_fd());
        let is_there = !self.ring(dir.as_fd()).is_empty();
        if is_there && self.reach == Reach::default() {
            self.reach.medium = Medium::Memory;
        }
        if let Err(error) = self.finish_pending(context) {
            self.say_kept(&error);
        }
    }

    /// Has the stream go where it is to go, if it is not within a line.
    pub fn settle(&mut self, context: &mut Context) {
        if self.reach.medium == self.wanted(context) {
            return;
        }
        self.record(Kind::Data, context);
        let is_open = self.open.is_some();
        let is_within = self.open.as_ref().is_some_and(Open::is_within_a_line)
            || !is_open && self.ends_within_a_line(context);
        // Where nothing can be written, no line would end.
        if is_within && !self.is_cut() && self.trouble.is_none() {
            return;
        }
        self.open = None;
        if let Err(error) = self.move_over(context) {
            self.say_kept(&error);
        }
    }

    /// Has what comes next go to the other medium. What is in memory is written to disk first.
    ///
    /// # Errors
    /// That cannot be written; all is as it was.
    pub(super) fn move_over(&mut self, context: &mut Context) -> io::Result<()> {
        match self.reach.medium {
            Medium::Memory => {
                self.keep_all(context)?;
                self.is_ring_old = true;
            }
            Medium::Disk => self.clear_ring(context)?,
        }
        let dir = context.places.find(self.reach.medium.other(), self.id)?;
        let file = match dir {
            Some(dir) => files::look(dir.as_fd(), self.stream, 0)?,
            None => None,
        };
        self.appender = None;
        self.cut_at = None;
        self.reach.move_over(file.map_or(0, |(_, size)| size));
        self.survey(context);
        self.growth.tell();
        Ok(())
    }

    /// Removes the ring that is on disk by now, unless somebody still reads there who must miss nothing.
    pub(super) fn clear_old_ring(&mut self, context: &Context) {
        if self.is_ring_old
            && !self.growth.is_read(self.stream)
            && let Err(error) = self.clear_ring(context)
        {
            self.say_kept(&error);
        }
    }

    fn clear_ring(&mut self, context: &Context) -> io::Result<()> {
        self.is_ring_old = false;
        let Some(dir) = context.places.find(Medium::Memory, self.id)? else {
            return Ok(());
        };
        self.lose_other_medium();
        files::remove_all(dir.as_fd(), self.stream)?;
        self.kept = Kept::default();
        Kept::remove(dir.as_fd(), self.stream)
    }

    /// Nobody who follows may look into the other medium any more.
    fn lose_other_medium(&mut self) {
        if let Some(moved) = &mut self.reach.moved {
            moved.gone = true;
            self.growth.publish(self.stream, self.reach);
        }
    }

    /// The files in memory, oldest first.
    fn ring(&self, dir: BorrowedFd) -> Vec<(Inode, u64)> {
        let look = |number| files::look(dir, self.stream, number).ok().flatten();
        // One number can be free.
        (0..=RING_FILES + 1).rev().filter_map(look).collect()
    }

    /// Forgets what is known of files that are not there any more.
    fn prune(&mut self, dir: BorrowedFd) {
        let ring = self.ring(dir);
        let size = |file| ring.iter().find(|(inode, _)| *inode == file);
        self.kept.prune(|file| size(file).map(|(_, size)| *size));
        self.kept.pending = self
            .kept
            .pending
            .filter(|pending| size(pending.range.file).is_some());
    }

    /// A file of this inode is new: what was known of one before it holds no more.
    pub(super) fn forget_kept(&mut self, dir: BorrowedFd) -> io::Result<()> {
        if self.kept == Kept::default() {
            return Kept::make_room(dir, self.stream);
        }
        let before = self.kept.clone();
        self.prune(dir);
        if self.kept != before {
            self.kept.write(dir, self.stream)?;
        }
        Ok(())
    }

    /// Writes to disk what is in memory only.
    fn keep_all(&mut self, context: &mut Context) -> io::Result<()> {
        let Some(dir) = context.places.find(Medium::Memory, self.id)? else {
            return Ok(());
        };
        let mut ranges = Vec::new();
        for (file, size) in self.ring(dir.as_fd()) {
            let mut from = 0;
            for (kept_from, kept_to) in self.kept.of(file).into_iter().chain([(size, size)]) {
                if from < kept_from {
                    let to = kept_from;
                    ranges.push(Range { file, from, to });
                }
                from = kept_to;
            }
        }
        for range in ranges {
            self.keep(range, context)?;
        }
        Ok(())
    }

    /// Writes a range to the end of the log file on disk.
    ///
    /// # Errors
    /// The system's; nothing of it is there then.
    fn keep(&mut self, range: Range, context: &mut Context) -> io::Result<()> {
        self.finish_pending(context)?;
        let dir = context.places.make(Medium::Disk, self.id)?;
        let mut log = files::open_current(dir.as_fd(), self.stream)?;
        let settings = &context.settings;
        if log.size > 0 && log.size + (range.to - range.from) > settings.max_size {
            files::rotate(dir.as_fd(), self.stream, settings.max_files)?;
            log = files::open_current(dir.as_fd(), self.stream)?;
        }
        if log.size == 0 {
            files::tidy(dir.as_fd(), settings.max_files)?;
        }
        if self.reach.medium == Medium::Memory {
            self.lose_other_medium();
        }
        self.kept.pending = Some(Pending {
            range,
            log: log.inode,
            size: log.size,
        });
        self.write_kept(context)?;
        self.finish_pending(context)
    }

    fn write_kept(&self, context: &Context) -> io::Result<()> {
        let dir = context.places.make(Medium::Memory, self.id)?;
        self.kept.write(dir.as_fd(), self.stream)
    }

    /// Writes the range that is to be written, however much of it is there already.
    fn finish_pending(&mut self, context: &mut Context) -> io::Result<()> {
        let Some(pending) = self.kept.pending else {
            return Ok(());
        };
        let written = self.write_range(&pending, context);
        let before = self.kept.clone();
        if written.is_ok() {
            self.kept.add(pending.range);
        }
        self.kept.pending = None;
        let noted = self.write_kept(context);
        if noted.is_err() {
            // What is written down still says that it is to be written: then it is, anew.
            self.kept = before;
        }
        written.and(noted)
    }

    fn write_range(&self, pending: &Pending, context: &mut Context) -> io::Result<()> {
        let Pending { range, log, size } = *pending;
        let (file, index) = self.ring_file(range.file, context)?;
        let dir = context.places.make(Medium::Disk, self.id)?;
        let opened = files::open_current(dir.as_fd(), self.stream)?;
        if opened.inode != log || opened.size < size {
            return Err(io::Error::other("the log file is another one by now"));
        }
        let end = opened.size;
        let mut open = Open::new(dir, Opened { size, ..opened });
        if end > size {
            open.file.set_len(size)?;
        }
        let copied = copy(&file, range, &open.file, size)
            .and_then(|()| self.copy_times(&file.file, index, range, &mut open));
        match copied {
            Ok(bytes) => context.count(Medium::Disk, bytes + (range.to - range.from) as usize),
            // Nothing of it shall be there: it is still in memory.
            Err(_) => open.file.set_len(size)?,
        }
        copied.map(drop)
    }

    /// Writes the times of a range beside the log file on disk; how many bytes that took.
    fn copy_times(
        &self,
        file: &File,
        index: Option<File>,
        range: Range,
        open: &mut Open,
    ) -> io::Result<usize> {
        let modified = files::modified(&file.metadata()?);
        let mut times = Times::new(index, range.to, modified);
        let mut spans = Vec::new();
        while times.current().start > range.from {
            times.step();
            spans.push(*times.current());
        }
        let (size, mut appender) = (open.offset, None);
        let mut bytes = 0;
        if last_byte(&open.file, size).is_some_and(|byte| byte != b'\n') {
            bytes += write_record(open, self.stream, &mut appender, Moment::now(), Kind::Cut)?;
        }
        for span in spans.iter().rev() {
            open.offset = size + (span.end - range.from);
            let kind = match span.cut {
                true => Kind::Cut,
                false => Kind::Data,
            };
            bytes += write_record(open, self.stream, &mut appender, span.at, kind)?;
        }
        Ok(bytes)
    }

    fn ring_file(&self, inode: Inode, context: &Context) -> io::Result<(Opened, Option<File>)> {
        let dir = context.places.open(Medium::Memory, self.id)?;
        for number in 0..=RING_FILES + 1 {
            if let Some(opened) = files::open_rotated(dir.as_fd(), self.stream, number)?
                && opened.inode == inode
            {
                let index = files::open_index_of(dir.as_fd(), self.stream, inode);
                return Ok((opened, index));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn say_kept(&self, error: &io::Error) {
        let (id, stream) = (self.id, self.stream.as_str());
        report::warn(format_args!(
            "the {stream} of {id} that is in memory cannot be written to its log file: {error}"
        ));
    }
}

/// Copies a range of a file in memory to `size` of another file.
fn copy(from: &Opened, range: Range, to: &File, size: u64) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK.min((range.to - range.from) as usize)];
    let mut at = range.from;
    while at < range.to {
        let count = (range.to - at).min(bytes.len() as u64) as usize;
        from.file.read_exact_at(&mut bytes[..count], at)?;
        to.write_all_at(&bytes[..count], size + (at - range.from))?;
        at += count as u64;
    }
    Ok(())
}

/// Writes the last of both streams to disk, as far as it is in memory only, where that is wanted of the program.
pub fn keep_last(channels: &mut [Channel; 2], context: &mut Context) {
    if channels[0].disk(context) != LogDisk::Errors {
        return;
    }
    let last = match last(channels, context) {
        Ok(last) => last,
        Err(error) => return channels[0].say_kept(&error),
    };
    for (channel, ranges) in channels.iter_mut().zip(last) {
        for range in ranges.into_iter().rev() {
            if let Err(error) = channel.keep(range, context) {
                channel.say_kept(&error);
                break;
            }
        }
    }
}

/// A stream's files in memory from their end, as far as none of it is on disk.
struct Tail {
    files: Files,
    /// Oldest first.
    ring: Vec<(Inode, u64)>,
    /// Where that ends which was written to disk last: a place in `ring`, and bytes of that file.
    floor: Option<(usize, u64)>,
    line: Option<Line>,
}

impl Tail {
    fn new(channel: &Channel, context: &Context) -> io::Result<Tail> {
        let dir = context.places.open(Medium::Memory, channel.id)?;
        let ring = channel.ring(dir.as_fd());
        let place = |file| ring.iter().position(|(inode, _)| *inode == file);
        let kept = channel.kept.ranges.iter();
        let mut tail = Tail {
            files: Files::all(dir, channel.stream, Medium::Memory, Kept::default()),
            floor: kept
                .filter_map(|range| Some((place(range.file)?, range.to)))
                .max(),
            ring,
            line: None,
        };
        tail.step()?;
        Ok(tail)
    }

    /// Goes to the line before.
    fn step(&mut self) -> io::Result<()> {
        self.line = self.files.previous()?.map(|(_, line)| line);
        if let (Some(line), Some(file), Some(floor)) = (&self.line, self.files.file()?, self.floor)
        {
            let place = self.ring.iter().position(|(inode, _)| *inode == file);
            self.line =
                Some(*line).filter(|line| place.is_some_and(|at| (at, line.start) >= floor));
        }
        Ok(())
    }
}

/// The last of both streams that is in memory only, newest first. What was kept at an end before this one is not the
/// last any more, nor is what was too much then.
fn last(channels: &mut [Channel; 2], context: &mut Context) -> io::Result<[Vec<Range>; 2]> {
    let mut last: [Vec<Range>; 2] = [Vec::new(), Vec::new()];
    let most = LAST.min(context.settings.max_size);
    let mut left = most;
    let mut tails = Vec::new();
    for channel in channels.iter_mut() {
        channel.record(Kind::Data, context);
        tails.push(Tail::new(channel, context)?);
    }
    while let Some(newest) = newest(&tails) {
        let (tail, taken) = (&mut tails[newest], &mut last[newest]);
        let (Some(line), Some(file)) = (tail.line, tail.files.file()?) else {
            break;
        };
        let behind = taken.last_mut().filter(|range| range.file == file);
        let size = |(_, size): &(Inode, u64)| *size;
        let of_file = tail.ring.iter().find(|(inode, _)| *inode == file);
        let to = match (&behind, of_file.map(size)) {
            (Some(range), _) => range.from,
            (None, Some(size)) => size,
            (None, None) => break,
        };
        let mut from = line.start;
        if to - from > left {
            if left < most {
                break;
            }
            from = to - left;
        }
        left -= to - from;
        match behind {
            Some(range) => range.from = from,
            None => taken.push(Range { file, from, to }),
        }
        tail.step()?;
    }
    Ok(last)
}

fn newest(tails: &[Tail]) -> Option<usize> {
    let mut newest: Option<(usize, &Moment)> = None;
    for (number, tail) in tails.iter().enumerate() {
        if let Some(line) = &tail.line
            && newest.is_none_or(|(_, other)| line.at.is_after(other))
        {
            newest = Some((number, &line.at));
        }
    }
    newest.map(|(number, _)| number)
}
