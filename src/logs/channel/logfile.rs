//! The log file while it is written, and the times that go into its index. Called by `channel`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::clock::BootTime;
use crate::logs::dirs::Inode;
use crate::logs::index::{Appender, Kind, Moment, Write};
use crate::logs::{Stream, files};

/// The log file while it is written.
pub struct Open {
    pub dir: OwnedFd,
    pub file: File,
    pub inode: Inode,
    pub offset: u64,
    pub index: Option<File>,
    /// Bytes were moved since the last record.
    pub unrecorded: bool,
    pub recorded: BootTime,
    /// Its size when we opened it, and when it was last written before.
    start: u64,
    modified: Moment,
    /// It was empty: what its index says is of bytes that are gone.
    pub anew: bool,
    /// The file system takes no spliced pages.
    pub copies: bool,
    /// It takes no more than so many bytes, but for the end of a line: what comes next goes elsewhere.
    pub most: Option<u64>,
}

impl Open {
    pub fn new(dir: OwnedFd, opened: files::Opened) -> Open {
        Open {
            dir,
            file: opened.file,
            inode: opened.inode,
            offset: opened.size,
            index: None,
            unrecorded: false,
            recorded: BootTime::default(),
            start: opened.size,
            modified: opened.modified,
            anew: opened.size == 0,
            copies: false,
            most: None,
        }
    }

    /// Whether the file has bytes behind its last newline.
    pub fn is_within_a_line(&self) -> bool {
        last_byte(&self.file, self.offset).is_some_and(|byte| byte != b'\n')
    }
}

/// The last byte of a file of `size` bytes; `None` if it is empty or cannot be read.
pub fn last_byte(file: &File, size: u64) -> Option<u8> {
    let mut byte = [0];
    match file.read_at(&mut byte, size.checked_sub(1)?) {
        Ok(1) => Some(byte[0]),
        Ok(_) | Err(_) => None,
    }
}

/// Appends a record to the index of `open`: its bytes so far are of `now`. How many bytes that took.
pub fn write_record(
    open: &mut Open,
    stream: Stream,
    appender: &mut Option<(Inode, Appender)>,
    now: Moment,
    kind: Kind,
) -> io::Result<usize> {
    let mut bytes = 0;
    let index = match &mut open.index {
        Some(index) => index,
        none => {
            let index = files::open_index(open.dir.as_fd(), stream, open.inode)?;
            none.insert(index)
        }
    };
    if std::mem::take(&mut open.anew) {
        index.set_len(0)?;
    }
    let len = index.metadata()?.len();
    let appender = match appender {
        Some((inode, known)) if *inode == open.inode && known.len() == len => known,
        unknown => {
            // What an earlier daemon left, or nothing: bytes without a record are as old as the file was.
            let next = if len == 0 { 0 } else { open.start };
            let (_, fresh) = unknown.insert((open.inode, Appender::new(len, next)));
            if len == 0 && open.start > 0 {
                bytes += write(index, fresh.record(open.start, open.modified, Kind::Data))?;
            }
            fresh
        }
    };
    Ok(bytes + write(index, appender.record(open.offset, now, kind))?)
}

fn write(index: &File, write: Write) -> io::Result<usize> {
    index.write_all_at(&write.bytes[..write.len], write.at)?;
    Ok(write.len)
}
