//! How a program ceases to be a watcher's: it is removed, or another daemon goes on with it.
//!
//! Whoever waits, or comes too late, is told so. Called by the watcher, on its thread.

use super::{Asker, Event, Mail, State, Watcher};
use crate::supervise::{Caller, Refusal};

/// What callers are told who wait for what another daemon will end.
const LEAVING: Refusal =
    Refusal::Busy("Another hxe takes over: what was asked for goes on, ask again how it ended");
/// The same to who came too late.
const LEFT: Refusal = Refusal::Busy("Another hxe takes over: try again in a moment");

/// The same to who wants a program removed that is still being stopped.
const LEAVING_FIRST: Refusal = Refusal::Busy(
    "Another hxe takes over: the program is being stopped, and is not removed yet; ask for that again",
);

/// Why a program is no longer ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Removed,
    /// To another daemon.
    Left,
}

impl Gone {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Gone::Removed => Refusal::NotFound,
            Gone::Left => LEFT,
        }
    }

    /// Answers mail that came too late.
    pub(super) fn refuse(self, mail: Mail) {
        match mail {
            Mail::Command(_, caller) | Mail::Renew(_, caller) => caller(Err(self.refusal())),
            Mail::Delete(_, caller) => caller(Err(self.refusal())),
            Mail::Autostart(_) | Mail::Due | Mail::Leave(_) | Mail::Reached(_) | Mail::Wake => {}
        }
    }
}

impl Watcher {
    /// Lets go of the program as it is: what is wanted stands in its record, and who waits is told to ask again.
    pub(super) fn leave(&mut self) {
        for asker in self.machine.release() {
            match asker {
                Asker::Command(caller) => caller(Err(LEAVING)),
                Asker::Delete(caller) => caller(Err(LEAVING_FIRST)),
            }
        }
        self.gone = Some(Gone::Left);
    }

    /// Removes the program if nothing of it runs; else stops it and comes back.
    pub(super) fn delete(&mut self, caller: Caller<()>) {
        if let Some(gone) = self.gone {
            return caller(Err(gone.refusal()));
        }
        if self.run.is_some() || matches!(self.machine.state(), State::Backoff { .. }) {
            return self.step(Event::Stop {
                caller: Asker::Delete(caller),
                force: false,
            });
        }
        let removed = self.supervisor.remove(self.id);
        self.gone = removed.is_ok().then_some(Gone::Removed);
        caller(removed);
    }
}
