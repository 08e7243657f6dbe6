//! [`Directory`]: one of ours that somebody may take away while we run, and that is there again at the next need.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Stat, fstat, lstat};

type Again = Box<dyn Fn() -> io::Result<OwnedFd> + Send + Sync>;
type Told = Arc<dyn Fn() + Send + Sync>;

/// An open directory and the path where it belongs.
pub struct Directory {
    path: PathBuf,
    /// Makes and opens it anew, checked as at the start.
    again: Again,
    open: Mutex<Arc<OwnedFd>>,
    generation: AtomicU32,
    told: Mutex<Vec<Told>>,
}

impl Directory {
    /// `open` is what lies at `path` now; `again` is how that is made and opened anew.
    pub fn new(path: &Path, open: OwnedFd, again: Again) -> Directory {
        Directory {
            path: path.to_owned(),
            again,
            open: Mutex::new(Arc::new(open)),
            generation: AtomicU32::new(0),
            told: Mutex::default(),
        }
    }

    /// One that is there, and that is just made when it is gone.
    #[cfg(test)]
    pub fn at(path: &Path) -> Directory {
        let open = |path: &Path| {
            std::fs::create_dir_all(path)?;
            std::fs::File::open(path).map(OwnedFd::from)
        };
        let again = path.to_owned();
        let fd = open(path).expect("a test's directory can be made");
        Directory::new(path, fd, Box::new(move || open(&again)))
    }

    /// The directory that lies at its path: made anew if it is gone, taken up if it is another one.
    ///
    /// # Errors
    /// It is gone or another one, and that cannot be mended: the disk is full or read-only, or what lies there is not ours.
    pub fn get(&self) -> io::Result<Arc<OwnedFd>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_in_place(&open) {
            return Ok(Arc::clone(&open));
        }
        let fresh = Arc::new((self.again)()?);
        *open = Arc::clone(&fresh);
        self.generation.fetch_add(1, Ordering::Release);
        // Who is told may need the directory.
        drop(open);
        let all = self.told().clone();
        for told in all {
            told();
        }
        Ok(fresh)
    }

    /// The same to look at what is there: where nothing can be made, the one that is gone, in which nothing is found.
    pub fn get_to_read(&self) -> Arc<OwnedFd> {
        self.get().unwrap_or_else(|_| {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&open)
        })
    }

    /// How often another one was taken up.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Has `told` called, by whoever needs the directory, when another one was taken up: what was in it is to be written
    /// anew.
    pub fn on_another(&self, told: impl Fn() + Send + Sync + 'static) {
        self.told().push(Arc::new(told));
    }

    fn told(&self) -> MutexGuard<'_, Vec<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_in_place(&self, open: &OwnedFd) -> bool {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        match (lstat(&self.path), fstat(open)) {
            (Ok(there), Ok(ours)) => identity(there) == identity(ours),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_is_made_anew_when_it_is_gone_and_only_then() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run");
        let directory = Directory::at(&path);
        let first = directory.get().unwrap();
        assert!(Arc::ptr_eq(&first, &directory.get().unwrap()));
        fs::remove_dir(&path).unwrap();
        let second = directory.get().unwrap();
        assert!(path.is_dir() && !Arc::ptr_eq(&first, &second));
        assert_eq!(directory.generation(), 1);
    }

    #[test]
    fn where_it_cannot_be_made_that_is_an_error_and_what_was_there_is_not_found() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run");
        let directory = Directory::at(&path);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "a file in its place").unwrap();
        assert!(directory.get().is_err());
        let stale = directory.get_to_read();
        assert!(rustix::fs::statat(&stale, "x", rustix::fs::AtFlags::empty()).is_err());
        fs::remove_file(&path).unwrap();
        assert!(directory.get().is_ok());
    }

    #[test]
    fn who_wants_to_know_of_another_one_may_use_it_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run");
        let shared = Arc::new(Directory::at(&path));
        let (inner, count) = (Arc::clone(&shared), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&count);
        shared.on_another(move || {
            assert!(inner.get().is_ok());
            counted.fetch_add(1, Ordering::Relaxed);
        });
        fs::rename(&path, temp.path().join("away")).unwrap();
        shared.get().unwrap();
        shared.get().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
