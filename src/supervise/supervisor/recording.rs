//! Where a program stands and how its runs ended: on record for the next daemon, and for who asks.

use std::io;

use super::Supervisor;
use crate::program::ProgramId;
use crate::supervise::Ended;
use crate::supervise::ends::End;
use crate::supervise::record::Record;

impl Supervisor {
    /// How the last runs of a program ended in this boot, newest first.
    ///
    /// # Errors
    /// Its record or its log cannot be read.
    pub fn ended(&self, id: ProgramId) -> io::Result<Vec<Ended>> {
        let read = |span, most| self.logs.written(id, span, most);
        self.outputs.ended(id, &read)
    }

    /// Puts on record where a program stands, with the `ends` that it has come to. Its directory is made anew where somebody
    /// removed it.
    pub(in crate::supervise) fn put_on_record(
        &self,
        id: ProgramId,
        record: &Record,
        ends: &[End],
    ) -> io::Result<()> {
        let write = || match ends {
            [] => self.records.write(id, record),
            ends => self.records.write_ends(id, record, ends),
        };
        match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.logs.make_run_dir(id)?;
                write()?;
            }
            done => done?,
        }
        if !ends.is_empty() {
            self.logs.ask_before_rotation(id);
        }
        Ok(())
    }
}
