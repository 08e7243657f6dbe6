//! What runs wrote last: read from their logs when somebody asks, and kept here once rotation is about to take it away.
//!
//! A run's output is found in its log by the run's times, so an end costs nothing: no copy delays the next start, and a
//! program whose log does not rotate between two looks leaves none. Before a log file is rotated the log thread has the
//! output of those ends kept that is still in the log alone: `run_dir/<id>/outputs`, a slot an end, which its number
//! and a checksum tell from older and half written ones. Called by the log thread and the API.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use super::ends::{End, KEPT};
use super::records::{self, Records};
use crate::clock::{BootTime, boot_id};
use crate::program::{self, ProgramId};
use crate::report;
use crate::sys;
use crate::sys::directory::Directory;

/// Bytes of output that are kept of a run.
const MOST: usize = 4096;
/// Bytes before it: checksum, number and length.
const HEAD: usize = 32;
const SLOT: usize = HEAD + MOST;

/// How a run ended, and what it wrote last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Counts the ends of a program in this boot.
    pub number: u32,
    pub end: End,
    /// `None` where nothing had begun.
    pub output: Option<String>,
}

/// Reads the end of what was written in a span of time, of at most so many bytes, from a program's log.
pub type Read<'a> = &'a dyn Fn((BootTime, BootTime), usize) -> io::Result<String>;

/// The outputs of all programs.
pub(super) struct Outputs {
    records: Arc<Records>,
    run_dir: Arc<Directory>,
    /// That one could not be kept has been said.
    said: AtomicBool,
}

impl Outputs {
    pub(super) fn new(records: Arc<Records>, run_dir: Arc<Directory>) -> Outputs {
        Outputs {
            records,
            run_dir,
            said: AtomicBool::new(false),
        }
    }

    /// How the last runs of a program ended, newest first.
    ///
    /// # Errors
    /// Record or log cannot be read.
    pub(super) fn ended(&self, id: ProgramId, read: Read) -> io::Result<Vec<Ended>> {
        let kept = self.kept(id)?;
        let mut ended = Vec::new();
        for (number, end) in self.records.ends(id)? {
            let output = match (span(&end), find(&kept, number)) {
                (None, _) => None,
                (Some(_), Some(text)) => Some(text),
                (Some(span), None) => Some(read(span, MOST)?),
            };
            ended.push(Ended {
                number,
                end,
                output,
            });
        }
        // What was rotated away meanwhile was kept before.
        let kept = self.kept(id)?;
        for one in &mut ended {
            if let Some(text) = find(&kept, one.number) {
                one.output = Some(text);
            }
        }
        Ok(ended)
    }

    /// Keeps the output of all ends that is in the log alone. What cannot be kept is reported, once until it works again.
    pub(super) fn keep(&self, id: ProgramId, read: Read) {
        let kept = self.keep_all(id, read);
        let failed = kept.as_ref().is_err();
        if !self.said.swap(failed, Ordering::Relaxed)
            && let Err(error) = kept
        {
            let reason = sys::reason(&error);
            report::warn(format_args!(
                "what runs of {id} wrote last cannot be kept over the rotation of its log: {reason}"
            ));
        }
    }

    fn keep_all(&self, id: ProgramId, read: Read) -> io::Result<()> {
        let ends = self.records.ends(id)?;
        let kept = self.kept(id)?;
        for (number, end) in ends {
            let Some(span) = span(&end).filter(|_| find(&kept, number).is_none()) else {
                continue;
            };
            let text = read(span, MOST)?;
            let slot = format!("{}{text}", head(number, &text, id));
            let file = records::open(&self.run_dir, &path(id), OFlags::WRONLY | OFlags::CREATE)?;
            file.write_all_at(slot.as_bytes(), place(number))?;
        }
        Ok(())
    }

    /// What is kept here, with the numbers of the ends.
    fn kept(&self, id: ProgramId) -> io::Result<Vec<(u32, String)>> {
        let file = match records::open(&self.run_dir, &path(id), OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut bytes = vec![0; KEPT * SLOT];
        let len = sys::read_from_start(&file, &mut bytes)?;
        let slots = bytes[..len].chunks(SLOT);
        Ok(slots.filter_map(|slot| decode(slot, id)).collect())
    }
}

/// Between which moments it wrote.
fn span(end: &End) -> Option<(BootTime, BootTime)> {
    end.started.map(|(began, _)| (began, end.logged))
}

fn find(kept: &[(u32, String)], number: u32) -> Option<String> {
    let mut kept = kept.iter();
    let (_, text) = kept.find(|(known, _)| *known == number)?;
    Some(text.clone())
}

fn path(id: ProgramId) -> String {
    format!("{id}/outputs")
}

fn place(number: u32) -> u64 {
    (number as usize % KEPT * SLOT) as u64
}

/// What stands before a text: [`HEAD`] bytes.
fn head(number: u32, text: &str, id: ProgramId) -> String {
    let known = format!("{number} {}", text.len());
    let sum = program::hash([boot_id(), &id.to_string(), &known, text]);
    format!("{:08x} {known:<22}\n", sum as u32)
}

fn decode(slot: &[u8], id: ProgramId) -> Option<(u32, String)> {
    let (found, rest) = slot.split_at_checked(HEAD)?;
    let found = std::str::from_utf8(found).ok()?;
    let mut fields = found.split_ascii_whitespace().skip(1);
    let number = fields.next()?.parse().ok()?;
    let text = rest.get(..fields.next()?.parse().ok()?)?;
    let text = std::str::from_utf8(text).ok()?;
    (head(number, text, id) == found).then(|| (number, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::supervise::record::Record;
    use crate::supervise::{Exit, Reason};
    use std::cell::Cell;

    const ID: ProgramId = ProgramId(7);

    struct House {
        temp: tempfile::TempDir,
        records: Arc<Records>,
        outputs: Outputs,
    }

    impl House {
        fn new() -> House {
            let temp = tempfile::tempdir().unwrap();
            std::fs::create_dir(temp.path().join("program-7")).unwrap();
            let run_dir = Arc::new(Directory::at(temp.path()));
            let records = Arc::new(Records::new(Arc::clone(&run_dir)));
            let outputs = Outputs::new(Arc::clone(&records), run_dir);
            House {
                temp,
                records,
                outputs,
            }
        }

        /// A run that began and ended at these microseconds.
        fn end(&self, began: u64, ended: u64) {
            let moment = |micros| (BootTime::from_micros(micros), Timestamp::from_micros(0));
            let end = End {
                reason: Reason::Crash,
                exit: Some(Exit::Code(1)),
                pid: Some(1),
                started: Some(moment(began)),
                ended: moment(ended),
                logged: BootTime::from_micros(ended),
                usage: None,
                by: None,
                failure: String::new(),
            };
            let record = Record::never_run(false, None);
            self.records.write_ends(ID, &record, &[end]).unwrap();
        }

        fn outputs(&self, read: Read) -> Vec<(u32, String)> {
            let ended = self.outputs.ended(ID, read).unwrap();
            let outputs = ended.into_iter();
            outputs
                .map(|ended| (ended.number, ended.output.unwrap()))
                .collect()
        }
    }

    /// A log that says when something was written.
    fn log((from, until): (BootTime, BootTime), _: usize) -> io::Result<String> {
        Ok(format!("{}-{}\n", from.as_micros(), until.as_micros()))
    }

    /// One that was rotated away.
    fn gone(_: (BootTime, BootTime), _: usize) -> io::Result<String> {
        Ok(String::new())
    }

    #[test]
    fn what_is_kept_outlives_the_log_and_goes_with_its_end() {
        let house = House::new();
        house.outputs.keep(ID, &log);
        assert!(!house.temp.path().join("program-7/outputs").exists());
        for n in 1..=12 {
            house.end(n * 10, n * 10 + 5);
            house.outputs.keep(ID, &log);
        }
        let kept = house.outputs(&gone);
        assert_eq!(kept.len(), KEPT);
        for ((number, text), n) in kept.into_iter().zip((3..=12).rev()) {
            assert_eq!((number, text), (n, format!("{}-{}\n", n * 10, n * 10 + 5)));
        }
        house.end(200, 205);
        assert_eq!(house.outputs(&gone)[0], (13, String::new()));
        assert_eq!(house.outputs(&log)[0], (13, "200-205\n".to_owned()));
    }

    #[test]
    fn what_is_kept_is_kept_once() {
        let house = House::new();
        house.end(1, 2);
        let reads = Cell::new(0);
        let read = |span, most| {
            reads.set(reads.get() + 1);
            log(span, most)
        };
        house.outputs.keep(ID, &read);
        house.outputs.keep(ID, &read);
        assert_eq!(reads.get(), 1);
    }

    #[test]
    fn what_is_rotated_away_while_it_is_read_was_kept_before() {
        let house = House::new();
        house.end(1, 2);
        let read = |span, most| {
            house.outputs.keep(ID, &log);
            gone(span, most)
        };
        assert_eq!(house.outputs(&read), [(1, "1-2\n".to_owned())]);
    }

    #[test]
    fn half_of_one_is_none_and_the_longest_fits() {
        let house = House::new();
        house.end(1, 2);
        let long = |_, most| Ok("x".repeat(most));
        house.outputs.keep(ID, &long);
        assert_eq!(house.outputs(&gone), [(1, "x".repeat(MOST))]);
        let path = house.temp.path().join("program-7/outputs");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 2 * SLOT);
        for cut in [SLOT + 5, SLOT + HEAD, 2 * SLOT - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(house.outputs(&gone), [(1, String::new())]);
        }
        let mut other = whole.clone();
        other[2 * SLOT - 1] = b'y';
        std::fs::write(&path, &other).unwrap();
        assert_eq!(house.outputs(&gone), [(1, String::new())]);
    }
}
