//! Removing the logs of a program that is deleted, also where the daemon dies over it. Called by `supervise`.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};

use super::pump::Request;
use super::{ANSWER, Logs, Stream, dirs, kept, unanswered};
use crate::program::ProgramId;
use crate::report;

impl Logs {
    /// Removes a program's logs and FIFOs; called when nothing of it runs any more.
    ///
    /// # Errors
    /// Something in its directories cannot be removed; the rest of them may be gone then.
    pub fn remove(&self, id: ProgramId) -> io::Result<()> {
        self.known().remove(&id);
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.link.forget(&kept(id, stream));
        }
        let removed = self.remove_files(id);
        self.notes.forget(id);
        self.register.remove(id);
        removed
    }

    /// Leaves word that a program's logs are to go once its definition is gone. Where it cannot be left, they may stay.
    pub fn mark_removal(&self, id: ProgramId) {
        let _ =
            dirs::open(&*self.places.log_dir.get_to_read(), id).and_then(|dir| dirs::mark(&dir));
    }

    /// Takes that back.
    pub fn unmark_removal(&self, id: ProgramId) {
        let _ =
            dirs::open(&*self.places.log_dir.get_to_read(), id).and_then(|dir| dirs::unmark(&dir));
    }

    /// Removes the logs of programs that an earlier daemon died over removing: those that are marked and not `known`. Logs
    /// without a mark may be those of a database that was lost.
    pub fn finish_removals(&self, known: impl Fn(ProgramId) -> bool) {
        for id in dirs::ids(self.places.log_dir.get_to_read()).unwrap_or_default() {
            let Ok(dir) = dirs::open(&*self.places.log_dir.get_to_read(), id) else {
                continue;
            };
            if !dirs::is_marked(&dir) {
                continue;
            }
            let done = match known(id) {
                true => dirs::unmark(&dir),
                false => self.remove(id),
            };
            if let Err(error) = done {
                report::warn(format_args!(
                    "{id} is deleted, but its logs cannot be: {error}"
                ));
            }
        }
    }

    fn remove_files(&self, id: ProgramId) -> io::Result<()> {
        let (done, gone) = mpsc::channel::<()>();
        self.queue.send(Request::Remove { id, done });
        match gone.recv_timeout(ANSWER) {
            Err(RecvTimeoutError::Disconnected) | Ok(()) => {}
            Err(late @ RecvTimeoutError::Timeout) => return Err(unanswered(late)),
        }
        dirs::remove(&*self.places.run_dir.get_to_read(), id)?;
        // With the mark in it.
        dirs::remove(&*self.places.log_dir.get_to_read(), id)
    }
}
