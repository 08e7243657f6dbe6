//! The last entries of a program's log: its three streams, merged by time, read from their ends.
//!
//! Keeps where entries stand and not what they say, so that ten thousand of them take half a megabyte whatever is in
//! them. Files stay open until their entries are read: rotation and removal take nothing away. Called by `mod`.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::dirs::Inode;
use super::files::Chain;
use super::index::{Moment, this_boot};
use super::kept::{Kept, Pending};
use super::lines::{End, Lines};
use super::medium::{Medium, Places};
use super::notes::{Note, Notes};
use super::pieces::Line;
use super::times::Times;
use super::{Entry, Level, Query, Stream};
use crate::clock::{BootTime, Timestamp};
use crate::program::ProgramId;

/// Entries that a query may ask for.
const MOST: usize = 10_000;

/// The entries that [`Logs::last`](super::Logs::last) found, oldest first, read one by one.
#[derive(Default)]
pub struct Last {
    /// Newest first.
    found: Vec<Found>,
}

impl Last {
    /// Bytes of memory that it takes until the last entry is read.
    pub fn held_bytes(&self) -> usize {
        self.found.capacity() * size_of::<Found>()
    }
}

/// An entry, and where its text is.
struct Found {
    timestamp: Timestamp,
    level: Level,
    stream: Stream,
    /// Of entries of the same stream and time, that with the higher one is the later.
    order: u8,
    text: Text,
}

enum Text {
    Here(String),
    There {
        file: Arc<File>,
        start: u64,
        len: u32,
    },
}

impl Text {
    fn len(&self) -> usize {
        match self {
            Text::Here(message) => message.len(),
            Text::There { len, .. } => *len as usize,
        }
    }
}

impl Iterator for Last {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        loop {
            let found = self.found.pop()?;
            let message = match found.text {
                Text::Here(message) => message,
                Text::There { file, start, len } => {
                    let mut bytes = vec![0; len as usize];
                    match file.read_exact_at(&mut bytes, start) {
                        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
                        // Truncated by somebody since it was found.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                        Err(error) => return Some(Err(error)),
                    }
                }
            };
            return Some(Ok(Entry {
                timestamp: found.timestamp,
                level: found.level,
                stream: found.stream,
                message,
            }));
        }
    }
}

/// Finds the last entries that `query` asks for.
pub fn last(places: &Places, notes: &Notes, id: ProgramId, query: &Query) -> io::Result<Last> {
    if query.lines == 0 {
        return Ok(Last::default());
    }
    let mut sources = vec![Source::notes(notes.read(id)?)];
    for stream in [Stream::Stdout, Stream::Stderr] {
        sources.extend(files(places, id, stream, None)?);
    }
    search(sources, query)
}

/// All files of a stream, as far as they were written until then.
fn files(
    places: &Places,
    id: ProgramId,
    stream: Stream,
    until: Option<BootTime>,
) -> io::Result<Vec<Source>> {
    let (kept, disk) = on_disk(places, id, stream, until)?;
    let mut sources = Vec::new();
    if let Some(dir) = places.find(Medium::Memory, id)? {
        sources.push(Source::Files(Box::new(Files {
            until,
            ..Files::all(dir, stream, Medium::Memory, kept)
        })));
    }
    sources.extend(disk);
    Ok(sources)
}

/// How often it is looked anew because something was written to disk meanwhile.
const TRIES: u32 = 1000;

/// A stream's files on disk, as far as they were written until then, and what of those in memory is in them, both of the
/// same moment.
pub fn on_disk(
    places: &Places,
    id: ProgramId,
    stream: Stream,
    until: Option<BootTime>,
) -> io::Result<(Kept, Option<Source>)> {
    let kept = || -> io::Result<Option<Kept>> {
        let dir = places.find(Medium::Memory, id)?;
        Ok(match dir {
            Some(dir) => Kept::read(dir.as_fd(), stream),
            None => Some(Kept::default()),
        })
    };
    for tries in 1..=TRIES {
        let before = match kept()? {
            Some(kept) => kept,
            None if tries < TRIES => {
                std::thread::yield_now();
                continue;
            }
            // Nobody is so long about a page: it was damaged, and says nothing.
            None => Kept::default(),
        };
        let Some(dir) = places.find(Medium::Disk, id)? else {
            return Ok((before, None));
        };
        let mut files = Files {
            pending: before.pending,
            until,
            ..Files::all(dir, stream, Medium::Disk, Kept::default())
        };
        files.older()?;
        if kept()?.unwrap_or_default() == before {
            return Ok((before, Some(Source::Files(Box::new(files)))));
        }
    }
    Err(io::Error::other(
        "lines are written to disk faster than that can be looked at",
    ))
}

/// Finds the last entries among those of `sources`: hxe's own lines first, so that of entries of the same time they
/// are the last.
pub fn search(mut sources: Vec<Source>, query: &Query) -> io::Result<Last> {
    let wanted = query.lines.min(MOST);
    let mut found = Vec::new();
    let mut heads = Vec::with_capacity(sources.len());
    for source in &mut sources {
        heads.push(source.previous(&query.levels)?);
    }
    while found.len() < wanted {
        let Some(newest) = newest(&heads) else {
            break;
        };
        let next = sources[newest].previous(&query.levels)?;
        found.extend(std::mem::replace(&mut heads[newest], next).map(|(_, entry)| entry));
    }
    Ok(Last { found })
}

/// The end of what a program wrote to stdout and stderr after `from` and until `until`, in this boot: whole lines of at
/// most `most` bytes, each with its line end, or the end of one line.
pub fn written(
    places: &Places,
    id: ProgramId,
    (from, until): (BootTime, BootTime),
    most: usize,
) -> io::Result<String> {
    let mut sources = Vec::new();
    for stream in [Stream::Stdout, Stream::Stderr] {
        sources.extend(files(places, id, stream, Some(until))?);
    }
    let mut heads = Vec::with_capacity(sources.len());
    let is_wanted = |(at, _): &(Moment, Found)| at.boot == this_boot() && at.since_boot > from;
    for source in &mut sources {
        heads.push(source.previous(&[])?.filter(is_wanted));
    }
    let mut last = Last::default();
    let mut bytes = 0;
    while bytes <= most
        && let Some(newest) = newest(&heads)
    {
        let next = sources[newest].previous(&[])?.filter(is_wanted);
        if let Some((_, found)) = std::mem::replace(&mut heads[newest], next) {
            bytes += 1 + found.text.len();
            last.found.push(found);
        }
    }
    let mut text = String::new();
    for entry in last {
        text += &entry?.message;
        text.push('\n');
    }
    if text.len() > most {
        let begin = text.ceil_char_boundary(text.len() - most);
        // Behind a line end, but not behind the last.
        let mut inner = text.as_bytes()[begin - 1..text.len() - 1].iter();
        let line = inner.position(|byte| *byte == b'\n');
        text.drain(..line.map_or(begin, |line| begin + line));
    }
    Ok(text)
}

/// Which of the streams' next entries is the newest.
fn newest(heads: &[Option<(Moment, Found)>]) -> Option<usize> {
    let mut newest: Option<(usize, &Moment, &Found)> = None;
    for (number, head) in heads.iter().enumerate() {
        if let Some((at, found)) = head
            && newest.is_none_or(|(_, other_at, other)| {
                let is_later = found.stream == other.stream && found.order > other.order;
                at.is_after(other_at) || is_later && !other_at.is_after(at)
            })
        {
            newest = Some((number, at, found));
        }
    }
    newest.map(|(number, ..)| number)
}

/// One stream, from its end.
pub enum Source {
    Hxe(VecDeque<Note>),
    Files(Box<Files>),
}

pub struct Files {
    chain: Chain,
    stream: Stream,
    /// The file that is being read.
    lines: Option<(Arc<File>, Lines)>,
    /// What of these files is on disk, and read from there.
    kept: Kept,
    /// What is being written to these files: it is not there yet.
    pending: Option<Pending>,
    /// What was written later is passed over.
    until: Option<BootTime>,
    medium: Medium,
    /// What was written to disk last was passed over: what is older in memory is older than that.
    is_behind_kept: bool,
}

impl Source {
    pub fn notes(notes: Vec<Note>) -> Source {
        Source::Hxe(notes.into())
    }

    /// The `lines` of a file, and the older files that `chain` comes to next, but for what of those is `kept` elsewhere.
    pub fn files(
        chain: Chain,
        stream: Stream,
        file: Arc<File>,
        lines: Lines,
        (medium, kept): (Medium, Kept),
    ) -> Source {
        Source::Files(Box::new(Files {
            chain,
            stream,
            lines: Some((file, lines)),
            kept,
            pending: None,
            until: None,
            medium,
            is_behind_kept: false,
        }))
    }

    /// The entry before the one given last, of those with one of `levels`; all, if there are none.
    fn previous(&mut self, levels: &[Level]) -> io::Result<Option<(Moment, Found)>> {
        let wanted = |level: Level| levels.is_empty() || levels.contains(&level);
        loop {
            let (at, found) = match self {
                Source::Hxe(notes) => match notes.pop_back() {
                    None => return Ok(None),
                    Some(note) => (
                        note.at,
                        Found {
                            timestamp: note.at.wall(),
                            level: note.level,
                            stream: Stream::Hxe,
                            order: 0,
                            text: Text::Here(note.message),
                        },
                    ),
                },
                Source::Files(files) => match files.previous()? {
                    None => return Ok(None),
                    Some((file, line)) => (
                        line.at,
                        Found {
                            timestamp: line.at.wall(),
                            level: line.level.unwrap_or(files.stream.level()),
                            stream: files.stream,
                            order: files.order(),
                            text: Text::There {
                                file,
                                start: line.start,
                                len: line.len,
                            },
                        },
                    ),
                },
            };
            if wanted(found.level) {
                return Ok(Some((at, found)));
            }
        }
    }
}

impl Files {
    /// All files of a stream in a directory, but for what is `kept` elsewhere.
    pub fn all(dir: OwnedFd, stream: Stream, medium: Medium, kept: Kept) -> Files {
        Files {
            chain: Chain::new(dir, stream),
            stream,
            lines: None,
            kept,
            pending: None,
            until: None,
            medium,
            is_behind_kept: false,
        }
    }

    /// The file that is being read.
    pub fn file(&self) -> io::Result<Option<Inode>> {
        let meta = self.lines.as_ref().map(|(file, _)| file.metadata());
        Ok(meta.transpose()?.map(|meta| Inode::from(&meta)))
    }

    /// The line before the one given last, and its file.
    pub fn previous(&mut self) -> io::Result<Option<(Arc<File>, Line)>> {
        loop {
            if let Some((file, lines)) = &mut self.lines {
                let line = lines.previous();
                self.is_behind_kept |= lines.has_hidden();
                match line {
                    Ok(Some(line)) => return Ok(Some((file.clone(), line))),
                    Ok(None) => {}
                    // Truncated while we read: the rest of it is gone.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                    Err(error) => return Err(error),
                }
            }
            if !self.older()? {
                self.lines = None;
                return Ok(None);
            }
        }
    }

    /// Where the line given last stands among those of the same time.
    fn order(&self) -> u8 {
        match self.medium {
            Medium::Memory if self.is_behind_kept => 0,
            Medium::Disk => 1,
            Medium::Memory => 2,
        }
    }

    /// Goes on to the next older file; whether there is one.
    fn older(&mut self) -> io::Result<bool> {
        while let Some((opened, index)) = self.chain.older()? {
            let pending = self.pending.filter(|pending| pending.log == opened.inode);
            let mut size = pending.map_or(opened.size, |pending| pending.size.min(opened.size));
            let last = match (&self.lines, self.until) {
                (None, Some(until)) => {
                    let index = index.as_ref().map(File::try_clone).transpose()?;
                    size = written_until(Times::new(index, size, opened.modified), until);
                    if size == 0 {
                        continue;
                    }
                    End::Finished
                }
                // Only the newest file still grows.
                (None, None) => End::Growing,
                (Some(_), _) => End::Finished,
            };
            let times = Times::new(index, size, opened.modified);
            let file = Arc::new(opened.file);
            let lines = Lines::new(file.clone(), size, times, last);
            let lines = lines.without(self.kept.of(opened.inode));
            self.lines = Some((file, lines));
            return Ok(true);
        }
        Ok(false)
    }
}

/// How many bytes of a file, by its times, were written until then.
fn written_until(mut times: Times, until: BootTime) -> u64 {
    let mut size = times.current().end;
    while size > 0 {
        times.step();
        let span = times.current();
        if span.at.boot != this_boot() || span.at.since_boot <= until {
            break;
        }
        size = span.start;
    }
    size
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::logs::Settings;
    use crate::logs::tests::{EVERYTHING, House, ID};

    /// A run that writes this, and its time.
    fn run(house: &House, write: impl FnOnce(&mut File, &mut File)) -> (BootTime, BootTime) {
        let from = BootTime::now();
        // As long as a process takes to begin, at least: times beside logs are of a tenth of that.
        std::thread::sleep(Duration::from_millis(1));
        house.run(write);
        (from, BootTime::now())
    }

    #[test]
    fn each_run_has_what_it_wrote_and_no_other() {
        let house = House::new(EVERYTHING);
        let spans: Vec<_> = (0..20)
            .map(|n| {
                run(&house, |stdout, stderr| match n % 4 {
                    // Without a line end.
                    0 => write!(stdout, "out {n}").unwrap(),
                    1 => writeln!(stderr, "err {n}").unwrap(),
                    2 => {}
                    _ => writeln!(stdout, "a {n}\n\nb {n}").unwrap(),
                })
            })
            .collect();
        for (n, span) in spans.into_iter().enumerate() {
            let expected = match n % 4 {
                0 => format!("out {n}\n"),
                1 => format!("err {n}\n"),
                2 => String::new(),
                _ => format!("a {n}\n\nb {n}\n"),
            };
            assert_eq!(house.logs.written(ID, span, 4096).unwrap(), expected);
        }
    }

    #[test]
    fn the_end_is_whole_lines_or_the_end_of_one() {
        let house = House::new(EVERYTHING);
        let many = run(&house, |stdout, _| {
            for n in 0..1000 {
                writeln!(stdout, "line {n}").unwrap();
            }
        });
        let long = run(&house, |stdout, _| {
            writeln!(stdout, "{}", "é".repeat(30_000)).unwrap();
        });
        let bytes = run(&house, |stdout, _| {
            stdout.write_all(&[0xff; 9000]).unwrap();
        });
        let read = |span, most| house.logs.written(ID, span, most).unwrap();
        assert_eq!(read(many, 20), "line 998\nline 999\n");
        assert_eq!(read(many, 18), "line 998\nline 999\n");
        assert_eq!(read(many, 17), "line 999\n");
        assert_eq!(read(many, 4), "999\n");
        assert_eq!(read(long, 4096), format!("{}\n", "é".repeat(2047)));
        let text = read(bytes, 4096);
        assert!(text.len() <= 4096 && text.len() > 4000);
        assert!(
            text.trim_end()
                .chars()
                .all(|c| c == char::REPLACEMENT_CHARACTER)
        );
        assert_eq!(read(long, 1), "\n");
    }

    #[test]
    fn it_is_found_in_rotated_files_and_over_their_ends() {
        let house = House::new(Settings {
            max_size: 4096,
            max_files: 5,
            ..EVERYTHING
        });
        let first = run(&house, |stdout, _| {
            for n in 0..600 {
                writeln!(stdout, "first {n}").unwrap();
            }
        });
        run(&house, |stdout, _| {
            for n in 0..600 {
                writeln!(stdout, "second {n}").unwrap();
            }
        });
        let text = house.logs.written(ID, first, 4096).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() > 360, "{}", lines.len());
        for (n, line) in (600 - lines.len()..600).zip(lines) {
            assert_eq!(line, format!("first {n}"));
        }
        // Until there is nothing of it any more.
        run(&house, |stdout, _| {
            stdout.write_all(&[b'\n'; 40_000]).unwrap()
        });
        assert_eq!(house.logs.written(ID, first, 4096).unwrap(), "");
    }

    #[test]
    fn what_is_found_can_be_read_by_another_thread() {
        fn sent<T: Send + 'static>() {}
        sent::<Last>();
    }
}
