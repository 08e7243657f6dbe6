//! Following one program's log: its last entries, and then what it writes from now on, without a queue.
//!
//! A follower keeps a place in each of the program's streams and reads on from there when the log thread says that
//! there is more. However slow it is, it costs nobody anything: what rotation takes away before it was read is counted.
//! Called by the API.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::files::Chain;
use super::forward::merge::Merge;
use super::forward::{Forward, Home};
use super::growth::{Growth, Reach};
use super::kept::Kept;
use super::lines::{End, Lines};
use super::listeners::Listener;
use super::medium::Medium;
use super::read::{self, Last, Source};
use super::times::Times;
use super::{Entry, Logs, Query, Stream, dirs};
use crate::program::ProgramId;
use crate::sys::bell::Bell;

#[cfg(test)]
mod tests;

/// How often files are looked for anew because they were rotated meanwhile.
const TRIES: u32 = 1000;
/// How long a rotation is waited for.
const ROTATION: Duration = Duration::from_secs(1);

/// What a follower comes to next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    Entry(Entry),
    /// Rotation took this many bytes of the stream away before they were read.
    Missed {
        stream: Stream,
        bytes: u64,
    },
}

/// One program's entries: the last ones, then those that come.
pub struct Follower {
    old: Old,
    new: Merge,
    query: Query,
    /// Told as long as this is there.
    _listener: Arc<Listener>,
}

/// The last entries.
enum Old {
    /// Still to be found.
    There(Vec<Source>),
    Found(Last),
    Given,
}

impl Follower {
    /// The next entry; `None`: all that is there has been given, and the bell rings when there may be more.
    ///
    /// # Errors
    /// Files cannot be opened or read.
    // No iterator: after `None` there may be more.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> io::Result<Option<Followed>> {
        loop {
            match &mut self.old {
                Old::There(sources) => {
                    let sources = std::mem::take(sources);
                    self.old = Old::Given;
                    self.old = Old::Found(read::search(sources, &self.query)?);
                }
                Old::Found(last) => match last.next() {
                    Some(entry) => return Ok(Some(Followed::Entry(entry?))),
                    None => self.old = Old::Given,
                },
                Old::Given => return self.new.next(&self.query.levels),
            }
        }
    }

    /// The program was deleted: once [`Follower::next`] gives `None`, nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.new.is_removed()
    }
}

impl Logs {
    /// The last entries that `query` asks for, and then those that come; `bell` rings when there may be more.
    ///
    /// # Errors
    /// Files cannot be opened.
    pub fn follow(&self, id: ProgramId, query: &Query, bell: Arc<Bell>) -> io::Result<Follower> {
        let home = Home {
            id,
            places: self.places.clone(),
            notes: self.notes.clone(),
            growth: self.growth_of(id),
        };
        // First told, then looked: what comes in between is seen, or rings.
        let listener = Listener::to_one(bell.clone());
        home.growth.listen(&listener);
        let (stderr, old_stderr) = start(&home, Stream::Stderr, &bell)?;
        let (stdout, old_stdout) = start(&home, Stream::Stdout, &bell)?;
        let (new, notes) = Merge::from_places(home, [stderr, stdout])?;
        // Silenced while a rotation was waited for.
        bell.ring();
        let old = match query.lines {
            0 => Old::Given,
            _ => {
                let mut sources = vec![Source::notes(notes)];
                sources.extend(old_stdout);
                sources.extend(old_stderr);
                Old::There(sources)
            }
        };
        Ok(Follower {
            old,
            new,
            query: query.clone(),
            _listener: listener,
        })
    }

    /// What is published of a program; of one that was deleted: that.
    pub(super) fn growth_of(&self, id: ProgramId) -> Arc<Growth> {
        if let Some(growth) = self.register.get(id) {
            return growth;
        }
        let growth = self.register.enter(id);
        let gone = dirs::open(&*self.places.run_dir.get_to_read(), id)
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if gone {
            self.register.remove(id);
        }
        growth
    }
}

/// Takes the present end of a stream as the place to follow it from: on from there, and back from there.
fn start(home: &Home, stream: Stream, bell: &Bell) -> io::Result<(Forward, Vec<Source>)> {
    for _ in 0..TRIES {
        bell.hush();
        let (_, reach) = home.growth.reach(stream);
        if reach.rotating {
            wait(bell);
            continue;
        }
        let (kept, disk) = match reach.medium {
            Medium::Disk => (Kept::default(), None),
            Medium::Memory => read::on_disk(&home.places, home.id, stream, None)?,
        };
        let mut sources = Vec::from_iter(disk);
        let mut forward = Forward::from_end(stream, &reach);
        let Some(dir) = home.places.find(reach.medium, home.id)? else {
            return Ok((forward, sources));
        };
        let mut chain = Chain::new(dir, stream);
        let first = chain.older()?;
        let (_, now) = home.growth.reach(stream);
        let place = |reach: &Reach| (reach.rotations, reach.inode, reach.moved);
        if now.rotating || place(&now) != place(&reach) {
            continue;
        }
        let Some((opened, index)) = first else {
            // No files: those that come are new.
            return Ok((forward, sources));
        };
        let current = Some(opened.inode) == reach.inode;
        let (size, last) = match (current, chain.is_at_current()) {
            (true, _) => (opened.size.min(reach.offset), end(&reach)),
            // Put there by somebody: the log thread finds it when it writes, and then it is new.
            (false, true) => (0, End::Finished),
            (false, false) => (opened.size, End::Finished),
        };
        let index_kept = index.as_ref().map(File::try_clone).transpose()?;
        let times = Times::new(index, size, opened.modified);
        let file = Arc::new(opened.file.try_clone()?);
        let lines = Lines::new(file.clone(), size, times, last);
        let lines = lines.without(kept.of(opened.inode));
        if current {
            forward.keep(opened, index_kept);
        }
        sources.insert(
            0,
            Source::files(chain, stream, file, lines, (reach.medium, kept)),
        );
        return Ok((forward, sources));
    }
    Err(io::Error::other(
        "log files are rotated faster than they can be opened",
    ))
}

/// What has no newline is a line if a run ended there by then.
fn end(reach: &Reach) -> End {
    if reach.cut { End::Finished } else { End::Open }
}

fn wait(bell: &Bell) {
    let mut fds = [PollFd::new(bell, PollFlags::IN)];
    // Interrupted or out of memory: then we look sooner. A second fits any Timespec.
    let _ = poll(&mut fds, Timespec::try_from(ROTATION).ok().as_ref());
}
