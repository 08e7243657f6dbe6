//! One program's three streams, read forward and merged: of what is there, the earliest first.
//!
//! Called by `follow` and `tails`.

use std::io;

use super::notes::{Notes, until};
use super::{Forward, Home};
use crate::clock::BootTime;
use crate::logs::index::{Moment, this_boot};
use crate::logs::notes::{Files, Note};
use crate::logs::{Entry, Followed, Level, Stream};

/// One program.
pub struct Merge {
    home: Home,
    /// In this order: of entries of the same time the first goes first, as when reading backwards.
    files: [Forward; 2],
    notes: Notes,
}

/// Time and level of an entry; `None`: something was missed.
type Peeked = Option<(Moment, Level)>;

/// What comes next.
struct Head {
    /// Which of the streams' files; `None`: hxe's own lines.
    file: Option<usize>,
    entry: Peeked,
}

impl Merge {
    /// From the present end of all streams on. Opens nothing.
    pub fn from_end(home: Home) -> Merge {
        let file = |stream| Forward::from_end(stream, &home.growth.reach(stream).1);
        let files = [file(Stream::Stderr), file(Stream::Stdout)];
        let notes = Notes::from_end(home.growth.notes(), Files::default());
        Merge { home, files, notes }
    }

    /// From the places of `files` on. With hxe's own lines up to there.
    ///
    /// # Errors
    /// Their files cannot be opened or read.
    pub fn from_places(home: Home, files: [Forward; 2]) -> io::Result<(Merge, Vec<Note>)> {
        let end = home.growth.notes();
        let opened = home.notes.open(home.id)?;
        let old = until(opened.read()?, end.1.last);
        let notes = Notes::from_end(end, opened);
        Ok((Merge { home, files, notes }, old))
    }

    /// From the begin of all streams on.
    pub fn from_begin(home: Home) -> Merge {
        Merge {
            home,
            files: [
                Forward::from_begin(Stream::Stderr),
                Forward::from_begin(Stream::Stdout),
            ],
            notes: Notes::from_begin(),
        }
    }

    /// Whether the program was deleted.
    pub fn is_removed(&self) -> bool {
        self.home.growth.is_removed()
    }

    /// When the next entry was written: 0 in an earlier boot, and where something was missed.
    ///
    /// # Errors
    /// Files cannot be opened or read.
    pub fn next_at(&mut self) -> io::Result<Option<BootTime>> {
        Ok(self.head()?.map(|head| match head.entry {
            Some((at, _)) if at.boot == this_boot() => at.since_boot,
            Some(_) | None => BootTime::default(),
        }))
    }

    /// The next entry with one of `levels`; of any, if there are none.
    ///
    /// # Errors
    /// As for [`Merge::next_at`].
    pub fn next(&mut self, levels: &[Level]) -> io::Result<Option<Followed>> {
        while let Some(head) = self.head()? {
            let wanted = head
                .entry
                .is_none_or(|(_, level)| levels.is_empty() || levels.contains(&level));
            let next = match (head.file, wanted) {
                (Some(file), true) => self.files[file].take(&self.home)?,
                (Some(file), false) => {
                    self.files[file].pass();
                    None
                }
                (None, _) if head.entry.is_none() => Some(Followed::Missed {
                    stream: Stream::Hxe,
                    bytes: self.notes.take_missed(),
                }),
                (None, _) => self
                    .notes
                    .take()
                    .filter(|_| wanted)
                    .map(|note| Followed::Entry(entry(note))),
            };
            if next.is_some() {
                return Ok(next);
            }
        }
        Ok(None)
    }

    /// Closes all files. What was found and not taken is found again.
    pub fn close(&mut self) {
        for file in &mut self.files {
            file.close();
        }
        self.notes.close();
    }

    /// Whether log files are open.
    #[cfg(test)]
    pub fn is_open(&self) -> bool {
        self.files.iter().any(Forward::is_open)
    }

    fn head(&mut self) -> io::Result<Option<Head>> {
        let mut files = self.peek_files()?;
        let note = self.notes.peek(&self.home)?;
        let note = note.map(|found| found.ok().map(|note| (note.at, note.level)));
        if note.is_some() {
            // What a run wrote is in the files before there is a line on its end, but may not have been a moment ago.
            files = self.peek_files()?;
        }
        let mut earliest: Option<Head> = None;
        for (number, found) in files.into_iter().enumerate() {
            if let Some(found) = found {
                earlier(&mut earliest, Some(number), found);
            }
        }
        if let Some(found) = note {
            earlier(&mut earliest, None, found);
        }
        Ok(earliest)
    }

    fn peek_files(&mut self) -> io::Result<[Option<Peeked>; 2]> {
        let [stderr, stdout] = &mut self.files;
        Ok([stderr.peek(&self.home)?, stdout.peek(&self.home)?])
    }
}

fn earlier(earliest: &mut Option<Head>, file: Option<usize>, entry: Peeked) {
    let is_first = match (&*earliest, &entry) {
        (None, _) => true,
        (Some(Head { entry: None, .. }), _) => false,
        (Some(_), None) => true,
        (
            Some(Head {
                entry: Some((other, _)),
                ..
            }),
            Some((at, _)),
        ) => other.is_after(at),
    };
    if is_first {
        *earliest = Some(Head { file, entry });
    }
}

fn entry(note: Note) -> Entry {
    Entry {
        timestamp: note.at.wall(),
        level: note.level,
        stream: Stream::Hxe,
        message: note.message,
    }
}
