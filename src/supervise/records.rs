//! The files of run records: `run_dir/<id>/record`, rewritten in place, so that a full `run_dir` stops nothing, and no reader
//! ever sees half of one (one write within a page). What was planted in the place of one is neither followed nor written.
//! Behind a record, in the same page, are the last ends of the program's runs.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::ends::{End, KEPT, SLOT};
use super::record::{Found, LENGTH, Record};
use crate::clock::BootTime;
use crate::program::ProgramId;
use crate::sys;
use crate::sys::directory::Directory;

/// Bytes of a record and of all ends.
const WHOLE: usize = LENGTH + KEPT * SLOT;
/// How often ends are looked at that are just being written.
const LOOKS: u32 = 100;
const _: () = assert!(WHOLE <= 4096, "all of it must be in one page");

/// The records of all programs, and where else a program leaves traces in `run_dir`.
pub(super) struct Records {
    run_dir: Arc<Directory>,
}

impl Records {
    pub(super) fn new(run_dir: Arc<Directory>) -> Records {
        Records { run_dir }
    }

    /// How often the directory of all records was replaced: what was written before is not in it.
    pub(super) fn generation(&self) -> u32 {
        self.run_dir.generation()
    }

    /// Writes where the program stands; its directory is there.
    ///
    /// # Errors
    /// The system's. An earlier record stands as it was.
    pub(super) fn write(&self, id: ProgramId, record: &Record) -> io::Result<()> {
        let file = self.open(id, OFlags::WRONLY | OFlags::CREATE)?;
        let text = record.encode(id);
        debug_assert_eq!(text.len(), LENGTH);
        file.write_all_at(text.as_bytes(), 0)
    }

    /// The same, together with ends that it has come to: who finds the one finds the others.
    ///
    /// # Errors
    /// As for [`write`](Records::write).
    pub(super) fn write_ends(
        &self,
        id: ProgramId,
        record: &Record,
        ends: &[End],
    ) -> io::Result<()> {
        let file = self.open(id, OFlags::RDWR | OFlags::CREATE)?;
        let mut bytes = [b' '; WHOLE];
        let _ = sys::read_from_start(&file, &mut bytes)?;
        let mut number = numbered(&bytes, id).last().map_or(0, |(number, _)| *number);
        for end in ends {
            number = number.wrapping_add(1);
            let at = LENGTH + number as usize % KEPT * SLOT;
            bytes[at..at + SLOT].copy_from_slice(&end.encode(number, id));
        }
        bytes[..LENGTH].copy_from_slice(record.encode(id).as_bytes());
        file.write_all_at(&bytes, 0)
    }

    /// The last ends of the program's runs in this boot, newest first, each with its number.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn ends(&self, id: ProgramId) -> io::Result<Vec<(u32, End)>> {
        let file = match self.open_to_read(id)? {
            None => return Ok(Vec::new()),
            Some(file) => file,
        };
        let mut looks = 0;
        loop {
            let mut bytes = [b' '; WHOLE];
            let _ = sys::read_from_start(&file, &mut bytes)?;
            let mut ends = numbered(&bytes, id);
            let newest = ends.last().map_or(0, |(number, _)| *number as usize);
            looks += 1;
            // One that is being written just now is not there.
            if ends.len() >= newest.min(KEPT) || looks == LOOKS {
                ends.reverse();
                return Ok(ends);
            }
            std::thread::yield_now();
        }
    }

    /// Reads where the program stood when the last daemon of this boot ended.
    ///
    /// # Errors
    /// It cannot be read, or says what no daemon writes.
    pub(super) fn read(&self, id: ProgramId) -> io::Result<Found> {
        let file = match self.open_to_read(id)? {
            None => return Ok(Found::Nothing),
            Some(file) => file,
        };
        let mut bytes = [0; WHOLE + 1];
        let len = sys::read_from_start(&file, &mut bytes)?;
        let record = match len {
            LENGTH | WHOLE => &bytes[..LENGTH],
            _ => &bytes[..len],
        };
        if record == [b' '; LENGTH] {
            return Ok(Found::Nothing);
        }
        let text = std::str::from_utf8(record).ok();
        text.and_then(|text| Record::decode(text, id).ok())
            .ok_or_else(|| io::Error::other("the run record is damaged"))
    }

    /// Puts what cannot be read aside, for somebody to look at: its new name.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn set_aside(&self, id: ProgramId) -> io::Result<String> {
        let name = format!("{}.odd-{}", path(id), BootTime::now().as_micros());
        let run_dir = self.run_dir.get()?;
        rustix::fs::renameat(&run_dir, path(id), &run_dir, &name)?;
        Ok(name)
    }

    /// The programs that have a directory here, whether or not anybody knows them.
    pub(super) fn ids(&self) -> Vec<ProgramId> {
        let entries = rustix::fs::Dir::read_from(self.run_dir.get_to_read()).into_iter();
        entries
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok())
            .collect()
    }

    /// Device and inode of the program's pipes, those that are there.
    pub(super) fn pipes(&self, id: ProgramId) -> Vec<(u64, u64)> {
        let run_dir = self.run_dir.get_to_read();
        ["stdout", "stderr"]
            .into_iter()
            .filter_map(|name| {
                let path = format!("{id}/{name}");
                let stat = rustix::fs::statat(&run_dir, path, AtFlags::SYMLINK_NOFOLLOW);
                // Field widths differ between platforms.
                #[allow(clippy::unnecessary_cast)]
                stat.ok()
                    .map(|stat| (stat.st_dev as u64, stat.st_ino as u64))
            })
            .collect()
    }

    /// Where the program's file of this name is or was, as a path; `None` where `/proc` cannot tell.
    pub(super) fn place(&self, id: ProgramId, name: &str) -> Option<PathBuf> {
        let fd = self.run_dir.get_to_read();
        let fd = fd.as_raw_fd();
        let run_dir = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        Some(run_dir.join(id.to_string()).join(name))
    }

    /// Forgets where the program stood, and keeps how its runs ended.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn remove(&self, id: ProgramId) -> io::Result<()> {
        if let Some(file) = self.open_to_read(id)?
            && file.metadata()?.len() == WHOLE as u64
        {
            return self
                .open(id, OFlags::WRONLY)?
                .write_all_at(&[b' '; LENGTH], 0);
        }
        let run_dir = self.run_dir.get_to_read();
        match rustix::fs::unlinkat(&run_dir, path(id), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn open_to_read(&self, id: ProgramId) -> io::Result<Option<std::fs::File>> {
        match self.open(id, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn open(&self, id: ProgramId, how: OFlags) -> io::Result<std::fs::File> {
        open(&self.run_dir, &path(id), how)
    }
}

/// Opens a file of a program in `run_dir`, which only its owner may read.
///
/// # Errors
/// The system's; it is no file of its own.
pub(super) fn open(run_dir: &Directory, path: &str, how: OFlags) -> io::Result<std::fs::File> {
    let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(0o600);
    let run_dir = run_dir.get()?;
    let file = std::fs::File::from(rustix::fs::openat(&run_dir, path, flags, mode)?);
    let meta = file.metadata()?;
    // With another name it may be what somebody else relies on.
    if !meta.is_file() || meta.nlink() != 1 {
        let name = path.rsplit('/').next().unwrap_or(path);
        return Err(io::Error::other(format!("{name} is no file of its own")));
    }
    Ok(file)
}

fn path(id: ProgramId) -> String {
    format!("{id}/record")
}

/// The ends that are whole, oldest first.
fn numbered(bytes: &[u8; WHOLE], id: ProgramId) -> Vec<(u32, End)> {
    let slots = bytes[LENGTH..].chunks_exact(SLOT);
    let mut ends: Vec<_> = slots.filter_map(|slot| End::decode(slot, id)).collect();
    ends.sort_unstable_by_key(|(number, _)| *number);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::boot_id;
    use crate::supervise::ends::tests::failed;

    const ID: ProgramId = ProgramId(7);

    #[test]
    fn a_record_is_kept_in_its_file_until_it_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("program-7")).unwrap();
        let records = Records::new(Arc::new(Directory::at(temp.path())));
        assert_eq!(records.read(ID).unwrap(), Found::Nothing);
        for failures in [1, 2] {
            let mut record = Record::never_run(true, None);
            record.machine.failures = failures;
            records.write(ID, &record).unwrap();
            assert_eq!(records.read(ID).unwrap(), Found::Record(record));
        }
        records.remove(ID).unwrap();
        records.remove(ID).unwrap();
        assert_eq!(records.read(ID).unwrap(), Found::Nothing);
    }

    #[test]
    fn what_was_planted_in_its_place_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("program-7");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(temp.path().join("victim"), "precious").unwrap();
        std::os::unix::fs::symlink(temp.path().join("victim"), dir.join("record")).unwrap();
        let records = Records::new(Arc::new(Directory::at(temp.path())));
        assert!(records.write(ID, &Record::never_run(true, None)).is_err());
        assert!(records.read(ID).is_err());
        let kept = std::fs::read(temp.path().join("victim")).unwrap();
        assert_eq!(kept, b"precious");
    }

    fn house() -> (tempfile::TempDir, Records) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("program-7")).unwrap();
        let records = Records::new(Arc::new(Directory::at(temp.path())));
        (temp, records)
    }

    #[test]
    fn ends_outlive_records_and_only_the_last_ones_are_kept() {
        let (_temp, records) = house();
        assert!(records.ends(ID).unwrap().is_empty());
        let record = |failures| {
            let mut record = Record::never_run(true, None);
            record.machine.failures = failures;
            record
        };
        records.write(ID, &record(0)).unwrap();
        assert!(records.ends(ID).unwrap().is_empty());
        for n in 1..=25 {
            let end = End {
                failure: format!("failure {n}"),
                ..failed()
            };
            records.write_ends(ID, &record(n), &[end]).unwrap();
            assert_eq!(records.read(ID).unwrap(), Found::Record(record(n)));
            records.write(ID, &record(n + 100)).unwrap();
            assert_eq!(records.read(ID).unwrap(), Found::Record(record(n + 100)));
            let ends = records.ends(ID).unwrap();
            assert_eq!(ends.len(), KEPT.min(n as usize));
            for ((number, end), n) in ends.into_iter().zip((1..=n).rev()) {
                assert_eq!((number, end.failure), (n, format!("failure {n}")));
            }
        }
        records.remove(ID).unwrap();
        assert_eq!(records.read(ID).unwrap(), Found::Nothing);
        assert_eq!(records.ends(ID).unwrap().len(), KEPT);
        records.write(ID, &record(1)).unwrap();
        assert_eq!(records.read(ID).unwrap(), Found::Record(record(1)));
        assert_eq!(records.ends(ID).unwrap()[0].0, 25);
    }

    #[test]
    fn a_reader_sees_ends_whole_and_without_a_gap_while_they_are_written() {
        let (_temp, records) = house();
        let record = Record::never_run(true, None);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..=1_000 {
                    let end = End {
                        failure: n.to_string(),
                        ..failed()
                    };
                    records.write_ends(ID, &record, &[end]).unwrap();
                }
            });
            let mut newest = 0;
            while !writer.is_finished() {
                let ends = records.ends(ID).unwrap();
                for ((number, end), n) in
                    ends.iter().zip((1..=ends.first().map_or(0, |e| e.0)).rev())
                {
                    assert_eq!((*number, &*end.failure), (n, &*n.to_string()));
                }
                let first = ends.first().map_or(0, |(number, _)| *number);
                assert!(first >= newest && ends.len() >= KEPT.min(first as usize));
                newest = first;
            }
        });
    }

    #[test]
    fn ends_of_another_boot_are_not_there() {
        let (temp, records) = house();
        let record = Record::never_run(true, None);
        records.write_ends(ID, &record, &[failed()]).unwrap();
        let path = temp.path().join("program-7/record");
        let id = boot_id();
        let other = id.replace(|c: char| c.is_ascii_hexdigit(), "0");
        let text = std::fs::read_to_string(&path).unwrap().replace(id, &other);
        std::fs::write(&path, &text).unwrap();
        assert_eq!(records.read(ID).unwrap(), Found::OtherBoot);
        // The checksum tells.
        let (moved, slot) = text.split_at(LENGTH);
        let foreign = slot.replacen(|c: char| c.is_ascii_hexdigit(), "0", 8);
        std::fs::write(&path, format!("{moved}{foreign}")).unwrap();
        assert!(records.ends(ID).unwrap().is_empty());
    }
}
