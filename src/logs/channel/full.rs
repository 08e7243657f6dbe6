//! What happens to a program's output while its log file cannot be written: it is dropped and counted, or
//! it waits. Called by `channel`.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;

use super::{Channel, Context};
use crate::clock::BootTime;
use crate::logs::index::Kind;
use crate::logs::{Level, OnFull, moving};
use crate::report;

/// How long a full disk is left alone with `on_full = "block"`, and for how long writing must work to be good again.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// How long a want of descriptors or memory is waited out.
const SCARCE_RETRY: Duration = Duration::from_millis(100);

/// Why nothing can be written for now.
pub struct Trouble {
    reason: io::Error,
    last: BootTime,
    dropped: u64,
}

impl Channel {
    /// Decides what becomes of bytes that cannot be written: `None` if they were dropped, else when to try again.
    pub(super) fn fail(
        &mut self,
        error: io::Error,
        most: usize,
        context: &mut Context,
    ) -> Option<BootTime> {
        self.record(Kind::Data, context);
        let now = BootTime::now();
        let errno = Errno::from_io_error(&error);
        let scarce = matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM));
        let drop = context.settings.on_full == OnFull::Drop && !scarce;
        // Opened anew with the next try: the directory may have been replaced.
        self.open = None;
        let trouble = match &mut self.trouble {
            Some(trouble) => trouble,
            none => {
                let (id, stream) = (self.id, self.stream.as_str());
                let then = if drop { "it is dropped" } else { "it waits" };
                report::warn(format_args!(
                    "the {stream} of {id} cannot be written to its log file, {then}: {error}"
                ));
                none.insert(Trouble {
                    reason: error,
                    last: now,
                    dropped: 0,
                })
            }
        };
        trouble.last = now;
        if scarce {
            return Some(now + SCARCE_RETRY);
        }
        if !drop {
            return Some(now + FULL_RETRY);
        }
        match moving::discard(self.fifo.as_fd(), most) {
            Ok(bytes) => {
                trouble.dropped += bytes as u64;
                self.growth.count_dropped(self.stream, bytes);
                self.gap = true;
                self.count(bytes);
                None
            }
            Err(_) => Some(now + FULL_RETRY),
        }
    }

    /// Ends an episode of trouble once writing has worked for a while.
    pub(super) fn works_again(&mut self, context: &mut Context) {
        let over = |trouble: &Trouble| {
            trouble.dropped == 0 || BootTime::now().since(trouble.last) >= FULL_RETRY
        };
        if self.trouble.as_ref().is_some_and(over) {
            self.tell_dropped(context);
            self.trouble = None;
            let (id, stream) = (self.id, self.stream.as_str());
            report::info(format_args!(
                "the {stream} of {id} is written to its log file again"
            ));
        }
    }

    /// Says in the program's log how much of its output is not there.
    pub(super) fn tell_dropped(&mut self, context: &Context) {
        let Some(trouble) = &mut self.trouble else {
            return;
        };
        let dropped = std::mem::take(&mut trouble.dropped);
        if dropped > 0 {
            let (id, stream, reason) = (self.id, self.stream.as_str(), &trouble.reason);
            let text = format!("dropped {dropped} bytes of {stream}: {reason}");
            report::warn(format_args!("{id}: {text}"));
            context
                .notes
                .note(id, Level::Warn, &text, Some(&self.growth));
        }
    }
}
