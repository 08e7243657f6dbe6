//! What must outlive everything, in redb: programs, the id counter, the token secret, revoked tokens.
//!
//! An `Ok` of a change means that it is on disk, in one commit a change; starts, stops and crashes of programs are never
//! written here. Knows the domain, not how programs run, and never moves a file aside while the daemon runs: that is
//! for the start alone. Called by `supervise` (programs) and `api` (tokens), from any of their threads.

mod borrowed;
mod file;
mod programs;
mod record;
mod reserve;
#[cfg(test)]
mod tests;
mod tokens;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};

use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use crate::program::ProgramId;

pub use tokens::Revoked;

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `file`: the one that declares the program which has the name.
    #[error("a program named {name:?} exists already")]
    NameTaken { name: String, file: Option<String> },
    #[error("there is no {id}")]
    NotFound { id: ProgramId },
    /// The disk took it not (full, read-only, gone); nothing is changed. The next operation tries anew.
    #[error("the disk is full or cannot be written")]
    Disk(#[source] io::Error),
    /// Another process has the database open; it is not damaged.
    #[error("the database is in use by another process")]
    Locked,
    /// What lies in the database's place is not a file that hxe made, so it is neither read nor moved.
    #[error("{} is {what}: remove it, or choose another state_dir", path.display())]
    Refused { path: PathBuf, what: &'static str },
    /// Anything else; nothing is changed.
    #[error("the database failed")]
    Database(#[source] redb::Error),
}

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Error {
        match error {
            // redb tells damage by these two kinds; all others come from the kernel.
            redb::Error::Io(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Error::Database(redb::Error::Io(cause))
            }
            redb::Error::Io(cause) => Error::Disk(cause),
            redb::Error::PreviousIo => Error::Disk(io::Error::other("an earlier write has failed")),
            redb::Error::DatabaseAlreadyOpen => Error::Locked,
            other => Error::Database(other),
        }
    }
}

/// Makes `?` work on redb's errors, which are one type an operation.
macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for Error {
            fn from(error: redb::$error) -> Error {
                redb::Error::from(error).into()
            }
        })*
    };
}
from_redb!(
    CommitError,
    DatabaseError,
    StorageError,
    TableError,
    TransactionError
);

/// Programs by number: versioned JSON, see [`record`].
const PROGRAMS: TableDefinition<u32, &[u8]> = TableDefinition::new("programs");
/// Single values by name: see `programs::NEXT_ID` and `tokens::TOKEN`.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Logged-out tokens by `jti`: versioned JSON.
const REVOKED: TableDefinition<&str, &[u8]> = TableDefinition::new("revoked");

/// The open database.
pub struct Store {
    /// Where the database is: `state_dir`, or `run_dir` if it is borrowed.
    dir: PathBuf,
    /// It is there after the next boot, too.
    lasting: bool,
    /// `None` after a failure: the next operation opens the file anew, as redb refuses all work after a failed write.
    /// One lock for all, as reads happen at the start only and writers would wait for each other anyway.
    open: Mutex<Option<file::Open>>,
    /// No new id is this or below, whatever the counter says.
    used: AtomicU32,
}

impl Store {
    /// Opens or makes `hxe.redb` in `state_dir`, a directory of ours. A damaged file is moved aside and said.
    ///
    /// # Errors
    /// `Locked`, `Refused` where something strange lies in its place, `Disk`.
    pub fn open(state_dir: &Path) -> Result<Store, Error> {
        let open = file::open_or_create(state_dir)?;
        Ok(Store {
            dir: state_dir.to_owned(),
            lasting: true,
            open: Mutex::new(Some(open)),
            used: AtomicU32::new(0),
        })
    }

    /// Bytes written to databases since the process began, in whole pages; begins anew where it does not fit.
    pub fn written_bytes(&self) -> usize {
        file::written()
    }

    /// Reads, in a snapshot of its own.
    fn read<T>(
        &self,
        op: impl FnOnce(&redb::ReadTransaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.run(|_| Ok(()), |open| op(&open.database.begin_read()?))
    }

    /// Changes, in one commit that is on disk when this returns (redb's durability is immediate unless told otherwise).
    /// An `Err` of `op` changes nothing.
    fn write<T>(&self, op: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        // What is written to a file without a name is gone with this process.
        let put_back = |open: &mut file::Open| open.put_back(&self.dir);
        self.run(put_back, |open| {
            open.check_in_place(&self.dir)?;
            // Who may still read what this commit replaces has redb free its pages with the next commit. Else it does so at
            // once, in a second commit of its own, and keeps account of that in one more page of each.
            let _reader = open.database.begin_read()?;
            let transaction = open.database.begin_write()?;
            // Dropped without a commit, a transaction changes nothing.
            let done = op(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    /// Runs one operation on the database, which is opened anew first if the last one broke it, and given up if this
    /// one does. What cannot be made `ready` for it stays open as it is.
    fn run<T>(
        &self,
        ready: impl FnOnce(&mut file::Open) -> Result<(), Error>,
        op: impl FnOnce(&file::Open) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match slot.take() {
            Some(open) => open,
            None => file::reopen(&self.dir)?,
        };
        if let Err(error) = ready(&mut open) {
            *slot = Some(open);
            return Err(error);
        }
        let outcome = caught(|| op(&open));
        match outcome {
            Err(Error::Disk(_) | Error::Database(_)) => {
                // Nothing more can be done for a database that fails even to close; it recovers when it is opened.
                let _ = caught(|| {
                    drop(open);
                    Ok(())
                });
            }
            _ => *slot = Some(open),
        }
        outcome
    }
}

/// Turns a panic of redb, which damaged pages can cause, into an error. The panic hook has reported it by then.
fn caught<T>(op: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(op)).unwrap_or_else(|_| {
        Err(Error::Database(redb::Error::Corrupted(
            "its code panicked".to_owned(),
        )))
    })
}

/// Makes the tables of a new database, so that no reader meets a missing one.
fn make_tables(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(PROGRAMS)?;
    transaction.open_table(META)?;
    transaction.open_table(REVOKED)?;
    transaction.commit()?;
    Ok(())
}

/// Checks that these are our tables: `Database` if it is somebody else's redb file.
fn check_tables(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_read()?;
    transaction.open_table(PROGRAMS)?;
    transaction.open_table(META)?;
    transaction.open_table(REVOKED)?;
    Ok(())
}
