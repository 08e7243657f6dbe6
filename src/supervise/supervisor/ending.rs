//! The end of the daemon: all programs are stopped, or left as they are for another one.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Supervisor, wait_until_reached};
use crate::clock::BootTime;
use crate::report;
use crate::supervise::watcher::Mail;
use crate::supervise::{By, Caller, Command, Done, Snapshot};

/// What is said to who wants a change while all programs are stopped.
pub(super) const STOPPING: &str = "hxe is stopping: try again when it has started anew";
/// The same while they are left to another daemon.
const LEAVING: &str = "Another hxe takes over: try again in a moment";
/// How long watchers that are busy may hold up a daemon that leaves.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long watchers that are busy may hold up the signals of the daemon's end, all together.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(1);
/// Time for the last programs to be cleared up after, beyond their stop_timeout.
const STOP_MARGIN: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Stops every program: all are signalled in reverse order of start without waiting in between. Returns when all
    /// have stopped. From its begin on, changes are refused with [`Refusal::Busy`](crate::supervise::Refusal::Busy).
    pub fn stop_all(&self) {
        let programs = self
            .programs
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Under the lock that `post` sends under: what was sent before is stopped, what comes later is refused.
        let _ = self.closed.set(STOPPING);
        let mut running: Vec<(Arc<Snapshot>, SyncSender<Mail>)> = programs
            .values()
            .map(|handle| (handle.published.get(), handle.mailbox.clone()))
            .collect();
        drop(programs);
        running.sort_unstable_by_key(|(snapshot, _)| std::cmp::Reverse(snapshot.started_at));
        let longest = running
            .iter()
            .map(|(snapshot, _)| snapshot.effective.stop_timeout)
            .max()
            .unwrap_or_default();
        // Each caller holds a sender; the receiver ends when the last has been answered or dropped.
        let (sender, stopped) = channel::<()>();
        let mut late = Vec::new();
        let in_order_until = BootTime::now() + SIGNAL_PATIENCE;
        for (snapshot, mailbox) in running {
            let held = sender.clone();
            let caller: Caller<Done> = Box::new(move |_| drop(held));
            let stop = (Command::Stop { force: false }, By::SIGNAL);
            match mailbox.try_send(Mail::Command(Box::new(stop), caller)) {
                // Signalled before the next one is.
                Ok(()) if snapshot.pid.is_some() => {
                    wait_until_reached(&mailbox, in_order_until.since(BootTime::now()));
                }
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(mail)) => late.push((mailbox, mail)),
            }
        }
        for (mailbox, mail) in late {
            // Its watcher works its mailbox off: this does not take long.
            let _ = mailbox.send(mail);
        }
        drop(sender);
        let deadline = BootTime::now() + longest + STOP_MARGIN;
        if stopped.recv_timeout(deadline.since(BootTime::now())) == Err(RecvTimeoutError::Timeout) {
            for snapshot in self.list().iter().filter(|snapshot| snapshot.pid.is_some()) {
                let pid = snapshot.pid.unwrap_or_default();
                report::error(format_args!(
                    "{}: process {pid} does not end",
                    snapshot.program.id
                ));
            }
        }
        // The next daemon starts those that are enabled, as after a boot.
        for snapshot in self.list().iter().filter(|snapshot| snapshot.pid.is_none()) {
            let id = snapshot.program.id;
            if let Err(error) = self.records.remove(id) {
                report::warn(format_args!(
                    "the run record of {id} cannot be removed: {error}"
                ));
            }
        }
    }

    /// Lets go of every program as it is, for another daemon to go on with. From its begin on, changes are refused with
    /// [`Refusal::Busy`](crate::supervise::Refusal::Busy); when it returns, nothing more is done here.
    pub fn leave(&self) {
        let programs = self
            .programs
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let _ = self.closed.set(LEAVING);
        let mailboxes: Vec<_> = programs
            .values()
            .map(|handle| handle.mailbox.clone())
            .collect();
        drop(programs);
        let (sender, left) = sync_channel(0);
        for mailbox in mailboxes {
            // One that is busy works its mailbox off: this does not take long.
            let _ = mailbox.send(Mail::Leave(sender.clone()));
        }
        drop(sender);
        // Ends when the last watcher drops its end. What one is still at then stands in its record.
        let _ = left.recv_timeout(LEAVE_PATIENCE);
    }
}
