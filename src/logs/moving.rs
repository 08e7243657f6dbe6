//! Bytes from a FIFO to a file, exactly: what a SIGKILL interrupts is neither lost nor doubled.
//!
//! `splice(2)` takes bytes out of the pipe just as far as it wrote them. Called by `channel`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

const CHUNK: usize = 16 * 1024;

/// Moves up to `count` bytes to `offset` of the file; how many were moved. `copies` is set once the file's file
/// system turns out not to take spliced pages.
///
/// # Errors
/// `WouldBlock` when the pipe is empty; else what writing the file met. The bytes then wait on.
pub fn to_file(
    fifo: BorrowedFd,
    file: &std::fs::File,
    offset: u64,
    count: usize,
    copies: &mut bool,
    scratch: &mut Scratch,
) -> io::Result<usize> {
    if !*copies {
        let mut at = offset;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(fifo, None, file, Some(&mut at), count, flags) {
            Err(Errno::INVAL) => *copies = true,
            done => return Ok(done?),
        }
    }
    // Written first and taken out afterwards: a SIGKILL in between doubles a piece rather than losing it.
    let bytes = scratch.peek(fifo, count.min(CHUNK))?;
    let mut written = 0;
    let mut failure = None;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    discard(fifo, written)?;
    match failure {
        Some(error) if written == 0 => Err(error),
        _ => Ok(written),
    }
}

/// Throws up to `count` bytes of a pipe away; how many there were.
pub fn discard(fifo: BorrowedFd, count: usize) -> io::Result<usize> {
    let mut bin = [0; CHUNK];
    let mut gone = 0;
    while gone < count {
        let want = bin.len().min(count - gone);
        match rustix::io::read(fifo, &mut bin[..want]) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(n) => gone += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(gone)
}

/// Bytes that wait in a pipe.
pub fn waiting(fifo: BorrowedFd) -> usize {
    // FIONREAD of a FIFO fails only if it is none. A pipe holds less than usize anywhere.
    rustix::io::ioctl_fionread(fifo).map_or(0, |bytes| bytes as usize)
}

/// A pipe of ours in which to look at what waits in another.
#[derive(Default)]
pub struct Scratch {
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Scratch {
    /// Up to the first `count` bytes that wait in `fifo`; they stay there. Fewer if there are no more or our pipe,
    /// which the kernel may keep small, holds no more.
    ///
    /// # Errors
    /// `WouldBlock` when the pipe is empty; no pipe or no memory.
    pub fn peek(&mut self, fifo: BorrowedFd, count: usize) -> io::Result<Vec<u8>> {
        // Taken out, so that one which failed with bytes in it is not used again.
        let (reader, writer) = match self.pipe.take() {
            Some(pipe) => pipe,
            None => {
                let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // Small writes fill their pages by half: room for as many pages as may hold `count` bytes. Refused:
                // we see less at a time.
                let _ = rustix::pipe::fcntl_setpipe_size(&pipe.1, 256 * 1024);
                pipe
            }
        };
        let seen = match rustix::pipe::tee(fifo, &writer, count, SpliceFlags::NONBLOCK) {
            Ok(seen) => seen,
            Err(error) => {
                self.pipe = Some((reader, writer));
                return Err(error.into());
            }
        };
        let mut bytes = vec![0; seen];
        let mut len = 0;
        while len < seen {
            match rustix::io::read(reader.as_fd(), &mut bytes[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        if bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.pipe = Some((reader, writer));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    fn pipe_with(text: &[u8]) -> (OwnedFd, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK).unwrap();
        rustix::io::write(&writer, text).unwrap();
        (reader, writer)
    }

    #[test]
    fn looking_takes_nothing_out() {
        let (reader, _writer) = pipe_with(b"hello");
        let mut scratch = Scratch::default();
        assert_eq!(scratch.peek(reader.as_fd(), 3).unwrap(), b"hel");
        assert_eq!(scratch.peek(reader.as_fd(), 99).unwrap(), b"hello");
        assert_eq!(waiting(reader.as_fd()), 5);
    }

    #[test]
    fn where_splice_is_refused_bytes_are_copied() {
        // A file opened to append takes no spliced bytes.
        let temp = tempfile::NamedTempFile::new().unwrap();
        let mut file = std::fs::File::options()
            .append(true)
            .open(temp.path())
            .unwrap();
        let (reader, _writer) = pipe_with(b"hello");
        let mut copies = false;
        let mut scratch = Scratch::default();
        let moved = to_file(reader.as_fd(), &file, 0, 99, &mut copies, &mut scratch).unwrap();
        assert_eq!((moved, copies, waiting(reader.as_fd())), (5, true, 0));
        let again = to_file(reader.as_fd(), &file, 5, 99, &mut copies, &mut scratch);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        file.flush().unwrap();
        let mut text = String::new();
        let mut read = temp.reopen().unwrap();
        read.rewind().unwrap();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn discarding_stops_at_the_count() {
        let (reader, _writer) = pipe_with(b"hello");
        assert_eq!(discard(reader.as_fd(), 2).unwrap(), 2);
        assert_eq!(waiting(reader.as_fd()), 3);
        assert_eq!(discard(reader.as_fd(), 99).unwrap(), 3);
    }
}
