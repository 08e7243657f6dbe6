//! hxe's own lines, read forward: those that were written since.
//!
//! A line's time is its place. The files are read only when a line was added, at most 64 KiB; what was overwritten
//! before it was read is counted. Called by `merge`.

use std::collections::VecDeque;
use std::io;

use super::Home;
use crate::clock::BootTime;
use crate::logs::growth::Noted;
use crate::logs::notes::{Files, Note};

/// How often reading is begun anew because lines were added meanwhile, before some are counted as missed.
const TRIES: u32 = 100;

/// hxe's own lines on one program.
pub struct Notes {
    /// Of those lines that were given.
    given: Noted,
    ahead: VecDeque<Note>,
    missed: u64,
    /// The version of what is published whose lines were all read.
    seen: Option<u32>,
    /// To read the last lines of a program that was deleted.
    files: Files,
}

impl Notes {
    /// From `given` on, which is all there was in this version. `files`: those that were there then.
    pub fn from_end((version, given): (u32, Noted), files: Files) -> Notes {
        Notes {
            given,
            ahead: VecDeque::new(),
            missed: 0,
            seen: Some(version),
            files,
        }
    }

    /// From the first line on.
    pub fn from_begin() -> Notes {
        Notes {
            seen: None,
            ..Notes::from_end((0, Noted::default()), Files::default())
        }
    }

    /// The next line, or how many bytes were missed before it.
    pub fn peek(&mut self, home: &Home) -> io::Result<Option<Result<&Note, u64>>> {
        if self.missed == 0
            && self.ahead.is_empty()
            && self.seen != Some(home.growth.notes_version())
        {
            self.read(home)?;
        }
        Ok(match self.missed {
            0 => self.ahead.front().map(Ok),
            bytes => Some(Err(bytes)),
        })
    }

    /// The next line.
    pub fn take(&mut self) -> Option<Note> {
        let note = self.ahead.pop_front()?;
        self.given = Noted {
            last: note.at.since_boot,
            bytes: self.given.bytes.wrapping_add(note.bytes),
        };
        Some(note)
    }

    /// How many bytes were missed.
    pub fn take_missed(&mut self) -> u64 {
        let missed = std::mem::take(&mut self.missed);
        self.given.bytes = self.given.bytes.wrapping_add(missed);
        missed
    }

    /// Lets go of all but the place.
    pub fn close(&mut self) {
        if self.missed > 0 || !self.ahead.is_empty() {
            self.missed = 0;
            self.seen = None;
        }
        self.ahead = VecDeque::new();
        self.files = Files::default();
    }

    fn read(&mut self, home: &Home) -> io::Result<()> {
        let mut tries = 0;
        loop {
            let (version, noted) = home.growth.notes();
            let files = home.notes.open(home.id)?;
            if files.is_there() {
                self.files = files;
            }
            let mut ahead = VecDeque::from(self.files.read()?);
            tries += 1;
            if home.growth.notes_version() != version && tries < TRIES {
                continue;
            }
            ahead.retain(|note| note.at.since_boot > self.given.last);
            let there: u64 = ahead.iter().map(|note| note.bytes).sum();
            self.missed = noted
                .bytes
                .wrapping_sub(self.given.bytes)
                .saturating_sub(there);
            self.ahead = ahead;
            self.seen = Some(version);
            return Ok(());
        }
    }
}

/// Those of `notes` that were written up to `last`.
pub fn until(mut notes: Vec<Note>, last: BootTime) -> Vec<Note> {
    notes.retain(|note| note.at.since_boot <= last);
    notes
}
