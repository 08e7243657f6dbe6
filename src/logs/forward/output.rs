//! One stream of one program as bytes: all that it wrote, none of it changed.
//!
//! Who reads so must miss nothing: the log thread lets the program wait rather than rotate away what was not read yet. Only
//! where no rotated file is kept, or another reads the same stream, can bytes be missed, and that is told. Called by the API.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Home;
use super::place::{self, Found, Place};
use crate::logs::listeners::Listener;
use crate::logs::{Logs, Stream};
use crate::program::ProgramId;
use crate::sys::bell::Bell;

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    Bytes,
    /// All that is there was read; the bell rings when there may be more.
    Nothing,
    /// So many bytes are gone.
    Missed(u64),
}

/// A stream that is read.
pub struct Output {
    home: Home,
    stream: Stream,
    place: Place,
    file: Option<File>,
    _listener: Arc<Listener>,
}

impl Output {
    /// Appends what comes next, at most so many bytes.
    ///
    /// # Errors
    /// Files cannot be opened or read.
    pub fn read(&mut self, out: &mut Vec<u8>, most: usize) -> io::Result<Got> {
        let mut place = self.place;
        loop {
            let (_, reach) = self.home.growth.reach(self.stream);
            let current = place.is_in_current(&reach);
            if current && place.base != reach.base {
                // Truncated by somebody: what is there now is new.
                self.file = None;
                place = self.move_to(Place {
                    given: 0,
                    ..Place::of(&reach)
                });
            }
            let left = match current {
                true => reach.offset.saturating_sub(place.given),
                false => match place::end(&reach, &place) {
                    Some(end) => end.saturating_sub(place.given),
                    None => u64::MAX,
                },
            };
            if left == 0 && current {
                return Ok(Got::Nothing);
            }
            if place.inode.is_some() && left > 0 {
                match self.read_file(&place, out, left.min(most as u64) as usize)? {
                    None => return Ok(Got::Nothing),
                    Some(0) if current => return Ok(Got::Nothing),
                    Some(0) => {}
                    Some(count) => {
                        place.given += count as u64;
                        self.place = place;
                        return Ok(Got::Bytes);
                    }
                }
            }
            match place::next(&self.home, self.stream, &place)? {
                Found::Nothing | Found::Later => return Ok(Got::Nothing),
                Found::This(next) => {
                    self.file = next.opened.map(|opened| opened.file);
                    place = self.move_to(next.place);
                    if next.missed > 0 {
                        return Ok(Got::Missed(next.missed));
                    }
                }
            }
        }
    }

    /// Whether a run has ended, and there is still something of it to come.
    pub fn is_unfinished(&self) -> bool {
        self.home.growth.is_unfinished(self.stream)
    }

    /// Whether the program was deleted.
    pub fn is_removed(&self) -> bool {
        self.home.growth.is_removed()
    }

    fn move_to(&mut self, place: Place) -> Place {
        self.place = place;
        let growth = &self.home.growth;
        growth.hold(self.stream, Some(place.generation));
        place
    }

    /// Reads from the file of a place: how many bytes, 0 also where it is gone. `None`: it cannot be found just now.
    fn read_file(
        &mut self,
        place: &Place,
        out: &mut Vec<u8>,
        most: usize,
    ) -> io::Result<Option<usize>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match place::open(&self.home, self.stream, place)? {
                Found::This(opened) => none.insert(opened.file),
                Found::Nothing => return Ok(Some(0)),
                Found::Later => return Ok(None),
            },
        };
        let begin = out.len();
        out.resize(begin + most, 0);
        let read = file.read_at(&mut out[begin..], place.given);
        out.truncate(begin + read.as_ref().map_or(0, |count| *count));
        read.map(Some)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.home.growth.hold(self.stream, None);
    }
}

impl Logs {
    /// What a program writes to stdout or stderr, behind its first `from` bytes, or from now on where that is `None`;
    /// `bell` rings when there may be more.
    ///
    /// # Errors
    /// `InvalidInput`: where so many bytes end is not known any more. Its directory cannot be read.
    pub fn output(
        &self,
        id: ProgramId,
        stream: Stream,
        from: Option<u64>,
        bell: Arc<Bell>,
    ) -> io::Result<Output> {
        let home = Home {
            id,
            places: self.places.clone(),
            notes: self.notes.clone(),
            growth: self.growth_of(id),
        };
        // First told, then looked: what comes in between is seen, or rings.
        let listener = Listener::to_one(bell);
        home.growth.listen(&listener);
        let (_, reach) = home.growth.reach(stream);
        let mut output = Output {
            // Where there are no files yet, all that come are behind this.
            place: Place::of(&reach),
            home,
            stream,
            file: None,
            _listener: listener,
        };
        output.move_to(output.place);
        let kept = self.max_files.load(Ordering::Relaxed);
        if let Found::This(place) = place::behind(&output.home, stream, from, kept)? {
            output.move_to(place);
        }
        Ok(output)
    }
}
