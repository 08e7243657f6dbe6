//! [`PidFile`]: the daemon's pid where init scripts look for it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::sys::process::Pid;

/// A pid file that this process wrote.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    content: String,
}

impl PidFile {
    /// Writes a pid and a line end to `path`, mode 0644, all at once: nobody ever reads half a number. What
    /// was there is replaced, so this is for who holds the daemon's locks.
    ///
    /// # Errors
    /// The directory is missing or cannot be written, the disk is full, or `path` is a directory.
    pub fn write(path: &Path, pid: Pid) -> io::Result<PidFile> {
        let content = format!("{pid}\n");
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let written = write_new(&temporary, &content).and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            // It may not be there at all.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(PidFile {
            path: path.to_owned(),
            content,
        })
    }

    /// Removes the file at a clean end, unless it holds another daemon's pid by now.
    ///
    /// # Errors
    /// It is ours and cannot be removed. That it is gone already is no error.
    pub fn remove(self) -> io::Result<()> {
        let removed = match fs::read_to_string(&self.path) {
            Ok(content) if content == self.content => fs::remove_file(&self.path),
            Ok(_) => return Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn write_new(path: &Path, content: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Left behind by an earlier process with our pid.
        _ => {}
    }
    // `create_new` follows no link that somebody put there.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    // The umask may have taken bits away.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_our_pid_and_everybody_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hxe.pid");
        fs::write(&path, "1234567\n").unwrap();
        let file = PidFile::write(&path, Pid::own()).unwrap();
        let content = fs::read_to_string(&path).unwrap();
        assert_eq!(content, format!("{}\n", std::process::id()));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        file.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_daemons_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hxe.pid");
        let file = PidFile::write(&path, Pid::own()).unwrap();
        fs::write(&path, "1\n").unwrap();
        file.remove().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_file_that_is_gone_already_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hxe.pid");
        let file = PidFile::write(&path, Pid::own()).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(file.remove().is_ok());
    }

    #[test]
    fn where_it_cannot_be_written_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        assert!(PidFile::write(&dir.path().join("missing/hxe.pid"), Pid::own()).is_err());
        fs::create_dir(dir.path().join("directory")).unwrap();
        assert!(PidFile::write(&dir.path().join("directory"), Pid::own()).is_err());
        assert!(PidFile::write(Path::new("/"), Pid::own()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
