//! The start of what is to run with the daemon: in order of id, the next ones being prepared meanwhile.

use std::collections::VecDeque;

use super::{AUTOSTART_PATIENCE, Pending, Supervisor, wait_until_reached};
use crate::supervise::row::Row;
use crate::supervise::watcher::Mail;

/// How many programs are being started at a time at autostart, one after the other: while one becomes its program the next
/// ones prepare for that, and those before it finish.
const AUTOSTARTS_AHEAD: usize = 4;

impl Supervisor {
    /// Starts the enabled programs, in order of id, as long as they are wanted, but not those that are to be removed.
    pub fn autostart(&self, wanted: impl Fn() -> bool, pending: &Pending) {
        let enabled: Vec<_> = self
            .programs()
            .iter()
            .filter(|(id, handle)| {
                !pending.removes(**id) && handle.published.get().program.definition.enabled
            })
            .map(|(_, handle)| handle.mailbox.clone())
            .collect();
        let mut row = Row::default();
        let mut ahead = VecDeque::new();
        for mailbox in enabled {
            if !wanted() {
                return;
            }
            if mailbox.send(Mail::Autostart(Some(row.join()))).is_ok() {
                ahead.push_back(mailbox);
            }
            if ahead.len() == AUTOSTARTS_AHEAD
                && let Some(first) = ahead.pop_front()
            {
                wait_until_reached(&first, AUTOSTART_PATIENCE);
            }
        }
        for mailbox in ahead {
            wait_until_reached(&mailbox, AUTOSTART_PATIENCE);
        }
        // Only now, as it delays nobody any more.
        if let Some(cgroups) = &self.cgroups {
            cgroups.clear();
        }
    }
}
