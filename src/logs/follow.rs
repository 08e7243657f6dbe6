//! Following logs: what programs write from now on, entry by entry, without a queue.
//!
//! A follower keeps a place in each of a program's streams and reads on from there when the log thread says that there
//! is more. However slow it is, it costs nobody anything: what rotation takes away before it was read is counted.

use std::io;
use std::sync::Arc;

use super::{Entry, Logs, Query, Stream};
use crate::clock::BootTime;
use crate::program::ProgramId;
use crate::sys::bell::Bell;

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
pub struct Follower {}

impl Follower {
    /// The next entry; `None`: all that is there has been given, and the bell rings when there may be more.
    ///
    /// # Errors
    /// Files cannot be opened or read.
    pub fn next(&mut self) -> io::Result<Option<Followed>> {
        todo!()
    }

    /// The program was deleted: once [`Follower::next`] gives `None`, nothing comes any more.
    pub fn is_over(&self) -> bool {
        todo!()
    }
}

/// The new entries of all programs.
pub struct Tails {}

impl Tails {
    /// Follows those programs that are `wanted` from now on, and no others; those followed already go on where they are.
    /// `wanted` is kept, and asked of programs that are added later.
    pub fn choose(&mut self, wanted: impl Fn(ProgramId) -> bool + Send + 'static) {
        let _ = wanted;
        todo!()
    }

    /// The next entry of any program, each in its turn, entries of one program in order of time. `hold` is asked of a
    /// program and the time of its next entry (0 for an earlier boot), and says whether that has to wait. `None`: there is
    /// nothing now that need not wait; the bell rings when there is more. What cannot be read is reported.
    pub fn next(
        &mut self,
        hold: impl Fn(ProgramId, BootTime) -> bool,
    ) -> Option<(ProgramId, Followed)> {
        let _ = hold;
        todo!()
    }

    /// The next entry of one program, if it was written until then.
    pub fn next_of(&mut self, id: ProgramId, until: BootTime) -> Option<Followed> {
        let _ = (id, until);
        todo!()
    }
}

impl Logs {
    /// The last entries that `query` asks for, and then those that come; `bell` rings when there may be more.
    ///
    /// # Errors
    /// Files cannot be opened.
    pub fn follow(&self, id: ProgramId, query: &Query, bell: Arc<Bell>) -> io::Result<Follower> {
        let _ = (id, query, bell);
        todo!()
    }

    /// What all programs write from now on. A program that is added later is followed from its begin.
    pub fn tails(&self, bell: Arc<Bell>) -> Tails {
        let _ = bell;
        todo!()
    }
}
