//! One stream of one program, read forward: from a place on, over rotations, to what is written next.
//!
//! Gives the same entries as reading backwards does, each once it is finished. Keeps a place and no text, so that one
//! who does not read costs nothing; what rotation took away before it was read is counted. Files are open only while
//! they are read or their owner wants them kept. Called by `merge`.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::growth::{Growth, Reach};
use super::index::Moment;
use super::medium::Places;
use super::notes::Notes;
use super::pieces::Line;
use super::{Entry, Followed, Level, Stream, files};
use crate::program::ProgramId;

pub mod merge;
mod notes;
pub mod output;
mod place;
mod reading;
mod spans;

use place::{Found, Place};
use reading::{Cursor, Limit, Reading, Step};

/// Where a program's logs are.
pub struct Home {
    pub id: ProgramId,
    pub places: Places,
    pub notes: Arc<Notes>,
    pub growth: Arc<Growth>,
}

/// What comes next in a stream.
enum Head {
    Line(Step),
    Missed(u64),
}

/// One stream.
pub struct Forward {
    stream: Stream,
    place: Place,
    /// Within the file; not known until it is opened, if the place was taken without looking.
    cursor: Option<Cursor>,
    /// The place is where a run ended within a line.
    cut: bool,
    reading: Option<Box<Reading>>,
    head: Option<Head>,
    /// How the stream was when the file's limit was taken.
    measured: Option<Seen>,
    /// All was read that was there when the stream was so: nothing is looked at until it is another.
    seen: Option<Seen>,
}

/// The version of what is published on a stream, and whether the program was deleted.
type Seen = (u32, bool);

/// Whether there is more to read in the file.
enum More {
    Here,
    NotYet,
    /// The file is done with or gone.
    Elsewhere,
}

impl Forward {
    /// From the present end of a stream on.
    pub fn from_end(stream: Stream, reach: &Reach) -> Forward {
        Forward {
            stream,
            place: Place::of(reach),
            cursor: None,
            cut: reach.cut,
            reading: None,
            head: None,
            measured: None,
            seen: None,
        }
    }

    /// From the begin of the stream of a program that is new.
    pub fn from_begin(stream: Stream) -> Forward {
        Forward {
            cursor: Some(Cursor::default()),
            ..Forward::from_end(stream, &Reach::default())
        }
    }

    /// Takes the file that the place is in and its index, to keep them open.
    pub fn keep(&mut self, opened: files::Opened, index: Option<File>) {
        let mut reading = Reading::new(opened);
        reading.set_index(index);
        self.reading = Some(Box::new(reading));
    }

    /// Time and level of the next entry; `Some(None)`: something was missed before it.
    pub fn peek(&mut self, home: &Home) -> io::Result<Option<Option<(Moment, Level)>>> {
        if self.head.is_none() {
            self.head = self.look(home)?;
        }
        Ok(self.head.as_ref().map(|head| match head {
            Head::Line(Step { line, .. }) => {
                Some((line.at, line.level.unwrap_or(self.stream.level())))
            }
            Head::Missed(_) => None,
        }))
    }

    /// The next entry. `None`: it is gone; look again.
    pub fn take(&mut self, home: &Home) -> io::Result<Option<Followed>> {
        match &self.head {
            None => Ok(None),
            Some(Head::Missed(bytes)) => {
                let missed = Followed::Missed {
                    stream: self.stream,
                    bytes: *bytes,
                };
                self.head = None;
                Ok(Some(missed))
            }
            Some(Head::Line(step)) => {
                let line = step.line;
                let Some(message) = self.text(home, &line)? else {
                    return Ok(None);
                };
                self.pass();
                Ok(Some(Followed::Entry(Entry {
                    timestamp: line.at.wall(),
                    level: line.level.unwrap_or(self.stream.level()),
                    stream: self.stream,
                    message,
                })))
            }
        }
    }

    /// Passes over the next entry.
    pub fn pass(&mut self) {
        if let Some(Head::Line(step)) = self.head.take() {
            self.cursor = Some(step.cursor);
            self.place.given = step.given;
        }
    }

    /// Closes the file until there is something to read.
    pub fn close(&mut self) {
        self.reading = None;
    }

    #[cfg(test)]
    fn is_open(&self) -> bool {
        self.reading.is_some()
    }

    /// The text of the next entry; `None` if it is gone.
    fn text(&mut self, home: &Home, line: &Line) -> io::Result<Option<String>> {
        let reading = match &self.reading {
            Some(reading) => reading,
            None => match place::open(home, self.stream, &self.place)? {
                Found::This(opened) => self.reading.insert(Box::new(Reading::new(opened))),
                Found::Nothing | Found::Later => {
                    self.head = None;
                    return Ok(None);
                }
            },
        };
        match reading.text(line) {
            Ok(text) => Ok(Some(text)),
            // Truncated by somebody since it was found.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.pass();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Finds what comes next.
    fn look(&mut self, home: &Home) -> io::Result<Option<Head>> {
        loop {
            let mut more = More::NotYet;
            if let (Some(reading), Some(cursor)) = (&mut self.reading, &mut self.cursor)
                && let Some(limit) = reading.limit()
            {
                match reading.next(cursor) {
                    Ok(Some(step)) => return Ok(Some(Head::Line(step))),
                    Ok(None) => {}
                    // Truncated by somebody: there is no more than that, until the log thread finds out.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        if !limit.last {
                            self.seen = self.measured;
                            self.rest();
                            return Ok(None);
                        }
                    }
                    Err(error) => return Err(error),
                }
                if limit.last {
                    self.place.given = limit.end;
                    more = More::Elsewhere;
                }
            }
            if !matches!(more, More::Elsewhere) {
                more = self.measure(home)?;
            }
            match more {
                More::Here => {}
                More::NotYet => {
                    self.rest();
                    return Ok(None);
                }
                More::Elsewhere => match self.go_on(home)? {
                    Some(0) => {}
                    Some(missed) => return Ok(Some(Head::Missed(missed))),
                    None => {
                        self.rest();
                        return Ok(None);
                    }
                },
            }
        }
    }

    fn rest(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.rest();
        }
    }

    fn now(&self, home: &Home) -> (Seen, Reach) {
        // In this order: what is published before the program is removed is the last.
        let removed = home.growth.is_removed();
        let (version, reach) = home.growth.reach(self.stream);
        ((version, removed), reach)
    }

    /// Finds out how far the file may be read.
    fn measure(&mut self, home: &Home) -> io::Result<More> {
        let (seen, reach) = self.now(home);
        if self.seen == Some(seen) {
            return Ok(More::NotYet);
        }
        let complete = reach.cut || seen.1;
        let current = self.place.is_in_current(&reach);
        if current && reach.base != self.place.base {
            // Truncated by somebody: what is there now is new.
            self.place = Place {
                given: 0,
                ..Place::of(&reach)
            };
            self.cursor = Some(Cursor::default());
            self.reading = None;
        }
        if current && self.is_drained(&reach, complete) {
            self.seen = Some(seen);
            return Ok(More::NotYet);
        }
        // The stream may be back in that file: what it holds by now is not what came next.
        if self.place.inode.is_none() || reach.is_long_ago(self.place.generation) {
            return Ok(More::Elsewhere);
        }
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => match place::open(home, self.stream, &self.place)? {
                Found::This(opened) => none.insert(Box::new(Reading::new(opened))),
                Found::Nothing => return Ok(More::Elsewhere),
                Found::Later => {
                    self.seen = Some(seen);
                    return Ok(More::NotYet);
                }
            },
        };
        if reading.wants_index() {
            reading.set_index(place::index_of(home, self.stream, &self.place)?);
        }
        if self.cursor.is_none() {
            match reading.settle(self.place.given, self.cut) {
                Ok(cursor) => self.cursor = Some(cursor),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.seen = Some(seen);
                    return Ok(if current {
                        More::NotYet
                    } else {
                        More::Elsewhere
                    });
                }
                Err(error) => return Err(error),
            }
        }
        reading.set_limit(if current {
            Limit {
                end: reach.offset,
                complete,
                last: false,
            }
        } else {
            let size = reading.size()?;
            Limit {
                end: place::end(&reach, &self.place).map_or(size, |end| end.min(size)),
                complete: true,
                last: true,
            }
        })?;
        self.measured = Some(seen);
        Ok(More::Here)
    }

    /// Whether all was read that the current file, ours, holds.
    fn is_drained(&self, reach: &Reach, complete: bool) -> bool {
        match self.cursor {
            Some(cursor) => {
                cursor.scanned >= reach.offset && !(complete && cursor.line < reach.offset)
            }
            None => self.place.given == reach.offset && (self.cut || !complete),
        }
    }

    /// Goes to the oldest file behind ours; how many bytes were missed. `None`: there is none yet.
    fn go_on(&mut self, home: &Home) -> io::Result<Option<u64>> {
        let (seen, reach) = self.now(home);
        match place::next(home, self.stream, &self.place)? {
            Found::This(next) => {
                // With its index: both may be removed until they are read.
                let index = match next.opened {
                    Some(_) => place::index_of(home, self.stream, &next.place)?,
                    None => None,
                };
                self.reading = next.opened.map(|opened| {
                    let mut reading = Box::new(Reading::new(opened));
                    reading.set_index(index);
                    reading
                });
                self.cursor = Some(Cursor::at(next.place.given));
                self.place = next.place;
                Ok(Some(next.missed))
            }
            // Deleted: what was not read is gone.
            Found::Nothing if seen.1 && self.place != Place::of(&reach) => {
                let missed = self.place.missed(reach.total());
                self.place = Place::of(&reach);
                self.cursor = Some(Cursor::at(reach.offset));
                self.reading = None;
                Ok(Some(missed))
            }
            Found::Nothing | Found::Later => {
                self.seen = Some(seen);
                Ok(None)
            }
        }
    }
}
