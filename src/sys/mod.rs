//! The kernel, behind safe functions. The only room with unsafe code; sees nothing of the crate.

pub mod background;
pub mod bell;
mod clone;
pub mod directory;
pub mod fault;
mod look;
pub mod memory;
pub mod process;
pub mod procfs;
pub mod random;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod users;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Reads a file from its start until it ends or `bytes` are full, wherever it stands; gives how many were read.
///
/// # Errors
/// The system's.
pub fn read_from_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// The system's reason alone: "No such file or directory", without Rust's "(os error 2)".
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
