//! A small disk below a daemon's directory, which nobody but the test and its daemon sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::UnshareFlags;

use super::Setup;

/// A small disk, mounted until it is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one of so many KiB at this place of a setup. `None`, and why is said, where that is not allowed.
    pub fn mount(setup: &Setup, name: &str, kib: u32) -> Option<Disk> {
        // Of this thread alone, with the daemon that it starts.
        #[allow(deprecated, reason = "the one without unsafe; descriptors stay shared")]
        let unshared = rustix::thread::unshare(UnshareFlags::NEWNS);
        if let Err(error) = unshared {
            eprintln!("skipped: no mounts of our own here: {error}");
            return None;
        }
        let path = setup.path(name);
        fs::create_dir_all(&path).expect("the directory can be written");
        let options = format!("size={kib}k,mode=700");
        let target = path.to_str().expect("a temporary path is UTF-8");
        let mounted = mount(&["--make-rprivate", "/"])
            && mount(&["-t", "tmpfs", "-o", &options, "tmpfs", target]);
        if !mounted {
            eprintln!("skipped: mounting is not allowed here");
            return None;
        }
        Some(Disk(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room that is left, until the file is removed.
    #[track_caller]
    pub fn fill(&self) -> Filled {
        let file = self.0.join("fill");
        // Each ends where the room does.
        let _ = fs::write(&file, vec![0; 8 << 20]);
        assert!(fs::write(self.0.join("more"), [0; 8192]).is_err());
        let _ = fs::remove_file(self.0.join("more"));
        Filled(file)
    }

    /// Lets nobody write there, or anybody again.
    #[track_caller]
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        let path = self.0.to_str().expect("a temporary path is UTF-8");
        assert!(mount(&["-o", options, path]), "{options} works");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A disk without room.
pub struct Filled(PathBuf);

impl Filled {
    /// Gives so many bytes of it back.
    #[track_caller]
    pub fn give(&self, bytes: u64) {
        let file = fs::File::options().write(true).open(&self.0);
        let file = file.expect("it is there");
        let len = file.metadata().expect("it is open").len();
        file.set_len(len - bytes).expect("it is ours");
    }

    #[track_caller]
    pub fn make_room(self) {
        fs::remove_file(&self.0).expect("it is there");
    }
}

fn mount(args: &[&str]) -> bool {
    let status = Command::new("mount").args(args).status();
    status.is_ok_and(|status| status.success())
}
