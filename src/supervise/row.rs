//! [`Row`]: programs that are started one after the other, each by its own watcher.
//!
//! Who stands in it prepares its start while those before it are still being started. Called by `supervisor` and `watcher`.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How long one waits for the one before. What hangs is mostly behind that: the program's directory and its file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives the places, in the order in which they are asked for.
#[derive(Default)]
pub(super) struct Row {
    last: Option<Receiver<()>>,
}

/// A place. Dropped, it lets the next one go.
pub(super) struct Turn {
    before: Option<Receiver<()>>,
    _behind: SyncSender<()>,
}

impl Row {
    /// The place behind all others.
    pub(super) fn join(&mut self) -> Turn {
        let (sender, receiver) = sync_channel(0);
        Turn {
            before: self.last.replace(receiver),
            _behind: sender,
        }
    }
}

impl Turn {
    /// Returns once the one before has gone. One that hangs does not hang the others.
    pub(super) fn wait(&self) {
        self.wait_for(PATIENCE);
    }

    fn wait_for(&self, patience: Duration) {
        if let Some(before) = &self.before {
            // Ends when that is dropped.
            let _ = before.recv_timeout(patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_when_the_one_before_has_gone() {
        let mut row = Row::default();
        let (first, second, third) = (row.join(), row.join(), row.join());
        first.wait_for(Duration::MAX);
        second.wait_for(Duration::from_millis(1));
        drop(first);
        second.wait_for(Duration::MAX);
        // Also one that has given its place up.
        drop(second);
        third.wait_for(Duration::MAX);
    }
}
