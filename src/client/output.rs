//! A program's output as it comes, in bytes.

use super::Error;
use super::connection::Connection;

/// What a program writes to one of its streams. Dropped, it is read no more.
pub struct Output {
    connection: Connection,
}

impl Output {
    pub(super) fn new(mut connection: Connection) -> Output {
        connection.socket.until = None;
        Output { connection }
    }

    /// One that comes within the time of its request.
    pub(super) fn bounded(connection: Connection) -> Output {
        Output { connection }
    }

    /// Appends what comes next, and waits for it. `false`: the run is over, or the daemon has ended and the run goes on.
    ///
    /// # Errors
    /// The connection broke, or the daemon cannot give all that was written: bytes are missing.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Result<bool, Error> {
        self.connection.piece(out)
    }
}
