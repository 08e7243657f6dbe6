//! What guardian and daemon tell each other: one datagram a message, with a descriptor where it speaks of one.
//!
//! A SOCK_SEQPACKET socket pair keeps messages whole and in order, and tells of the other's end. A message that is on its
//! way holds its descriptor open, so that what a daemon handed over outlives it from that moment on.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::outcome::Outcome;
use crate::clock::BootTime;
use crate::sys::process::{ExitStatus, Pid, Usage};

/// Bytes of the longest message.
const LONGEST: usize = 4096;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    pub status: ExitStatus,
    /// When that was seen; `None` where an earlier hxe saw it.
    pub at: Option<BootTime>,
    pub usage: Option<Usage>,
}

/// A message, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the guardian: hold this descriptor under this name, in place of what had it. To a daemon: one that is held.
    Keep(String),
    /// To the guardian: let go of what has this name.
    Forget(String),
    /// To a daemon: that was all that a daemon before it left.
    Begin,
    /// To the guardian: the daemon serves, and its binary as a guardian takes over a [`handover`] of this version.
    ///
    /// [`handover`]: super::handover
    Ready(u32),
    /// To the guardian: lines for the service manager.
    Notify(String),
    /// To a daemon: this process, which lost its own daemon, has ended, and is kept until it says `Reap`.
    Ended(Pid, Death),
    /// To the guardian: nothing more is to be known of this process.
    Reap(Pid),
    /// To a daemon: the guardian got this signal.
    Signal(i32),
    /// To a daemon: how the last upgrade went, or goes.
    Upgrade(Outcome),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Message::Keep(name) => write!(f, "keep {name}"),
            Message::Forget(name) => write!(f, "forget {name}"),
            Message::Begin => f.write_str("begin"),
            Message::Ready(version) => write!(f, "ready {version}"),
            Message::Notify(lines) => write!(f, "notify {lines}"),
            Message::Ended(pid, death) => {
                match death.status {
                    ExitStatus::Code(code) => write!(f, "exited {pid} {code}")?,
                    ExitStatus::Signal(number) => write!(f, "killed {pid} {number}")?,
                }
                let known = [
                    ("at", death.at.map(BootTime::as_micros)),
                    ("cpu", death.usage.map(|usage| usage.cpu_micros)),
                    ("rss", death.usage.and_then(|usage| usage.max_rss_kib)),
                ];
                known
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)))
                    .try_for_each(|(name, value)| write!(f, " {name} {value}"))
            }
            Message::Reap(pid) => write!(f, "reap {pid}"),
            Message::Signal(number) => write!(f, "signal {number}"),
            Message::Upgrade(outcome) => write!(f, "upgrade {outcome}"),
        }
    }
}

impl Message {
    pub(super) fn parse(text: &str) -> Option<Message> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let pid = |text: &str| Pid::new(text.parse().ok()?);
        Some(match word {
            "keep" => Message::Keep(rest.to_owned()),
            "forget" => Message::Forget(rest.to_owned()),
            "begin" => Message::Begin,
            "ready" => Message::Ready(rest.parse().ok()?),
            "notify" => Message::Notify(rest.to_owned()),
            "exited" | "killed" => {
                let mut words = rest.split(' ');
                let pid = pid(words.next()?)?;
                let how = words.next()?;
                let status = match word {
                    "exited" => ExitStatus::Code(how.parse().ok()?),
                    _ => ExitStatus::Signal(how.parse().ok()?),
                };
                // None of these from an earlier hxe, and more from a later one.
                let words: Vec<&str> = words.collect();
                let known = |name: &str| -> Option<u64> {
                    let mut pairs = words.chunks_exact(2);
                    pairs.find(|pair| pair[0] == name)?[1].parse().ok()
                };
                let usage = known("cpu").map(|cpu_micros| Usage {
                    cpu_micros,
                    max_rss_kib: known("rss"),
                });
                let at = known("at").map(BootTime::from_micros);
                Message::Ended(pid, Death { status, at, usage })
            }
            "reap" => Message::Reap(pid(rest)?),
            "signal" => Message::Signal(rest.parse().ok()?),
            "upgrade" => Message::Upgrade(Outcome::parse(rest)?),
            _ => return None,
        })
    }
}

/// Whether to wait for room or for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Never,
    AsLongAsItTakes,
}

/// Sends a message, with a descriptor if it speaks of one.
///
/// # Errors
/// `WouldBlock` where there is no room and none is waited for; the other end is gone.
pub fn send(
    socket: impl AsFd,
    message: &Message,
    fd: Option<BorrowedFd>,
    wait: Wait,
) -> io::Result<()> {
    let text = message.to_string();
    let mut flags = SendFlags::NOSIGNAL;
    if wait == Wait::Never {
        flags |= SendFlags::DONTWAIT;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        // There is room for exactly one.
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(
            socket.as_fd(),
            &[IoSlice::new(text.as_bytes())],
            &mut ancillary,
            flags,
        )
    })?;
    Ok(())
}

/// Receives a message, and the descriptor that came with it.
///
/// # Errors
/// `WouldBlock` where there is none and none is waited for; `UnexpectedEof` if the other end is gone; `InvalidData` for
/// what is no message.
pub fn receive(socket: impl AsFd, wait: Wait) -> io::Result<(Message, Option<OwnedFd>)> {
    let mut text = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if wait == Wait::Never {
        flags |= RecvFlags::DONTWAIT;
    }
    let received = loop {
        let into = &mut [IoSliceMut::new(&mut text)];
        match recvmsg(socket.as_fd(), into, &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => break received?,
        }
    };
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if received.bytes == 0 && is_hung_up(&socket) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let whole = !received.flags.contains(ReturnFlags::TRUNC);
    std::str::from_utf8(&text[..received.bytes])
        .ok()
        .filter(|_| whole)
        .and_then(Message::parse)
        .map(|message| (message, fd))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether the other end is closed: an empty message looks like that, too.
fn is_hung_up(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    let asked = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())));
    // Who cannot ask assumes the worst.
    asked.is_err() || fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Progress;
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn what_is_sent_is_received_in_order() {
        let (one, other) = pair();
        let pid = Pid::new(7).unwrap();
        let ended = |status, more: Option<(Option<u64>, Option<u64>)>| {
            let at = more.map(|_| BootTime::from_micros(5));
            let usage = more.and_then(|(cpu, max_rss_kib)| {
                let cpu_micros = cpu?;
                Some(Usage {
                    cpu_micros,
                    max_rss_kib,
                })
            });
            Message::Ended(pid, Death { status, at, usage })
        };
        let messages = [
            Message::Keep("a b".into()),
            Message::Forget("program-1/stdout".into()),
            Message::Begin,
            Message::Ready(1),
            Message::Notify("RELOADING=1\nMONOTONIC_USEC=5".into()),
            ended(ExitStatus::Code(3), None),
            ended(ExitStatus::Signal(9), Some((None, None))),
            ended(ExitStatus::Signal(9), Some((Some(7), Some(1234)))),
            Message::Reap(pid),
            Message::Signal(15),
            Message::Upgrade(Outcome {
                number: 2,
                progress: Progress::GivenUp("no such file".into()),
            }),
        ];
        for message in &messages {
            send(&one, message, None, Wait::Never).unwrap();
        }
        for message in messages {
            let (received, fd) = receive(&other, Wait::Never).unwrap();
            assert_eq!(received, message);
            assert!(fd.is_none());
        }
        let error = receive(&other, Wait::Never).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(one);
        let error = receive(&other, Wait::AsLongAsItTakes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_empty_message_is_not_the_other_ends_end() {
        let (one, other) = pair();
        rustix::net::send(&one, &[], SendFlags::empty()).unwrap();
        send(&one, &Message::Begin, None, Wait::Never).unwrap();
        let error = receive(&other, Wait::Never).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (message, _) = receive(&other, Wait::Never).unwrap();
        assert_eq!(message, Message::Begin);
    }

    #[test]
    fn a_descriptor_lives_on_in_a_message() {
        let (one, other) = pair();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let name = Message::Keep("pipe".into());
        send(&one, &name, Some(writer.as_fd()), Wait::Never).unwrap();
        drop((one, writer));
        let (_, fd) = receive(&other, Wait::Never).unwrap();
        rustix::io::write(fd.unwrap(), b"x").unwrap();
        let mut byte = [0];
        rustix::io::read(reader, &mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }
}
