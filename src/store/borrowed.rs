//! A database in `run_dir` for a boot in which `state_dir` cannot be written: a copy of the one that is there, if one is.
//!
//! All that hxe needs to run what files declare is kept there, ids above all. What the API would change for good is refused.
//! Once `state_dir` can be written again, it takes over what was added, so that no id of this boot is used twice.

use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

use super::{Error, META, PROGRAMS, Store, file, programs, record, reserve};
use crate::clock::boot_id;
use crate::program::Program;
use crate::report;
use crate::sys;

/// In `META` of such a database only: the boot that it is of.
const BOOT: &str = "boot";

impl Store {
    /// Opens the database of `state_dir` or, where that cannot be written or is not there at all (`None`), one in `run_dir`
    /// for this boot.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_or_borrow(state_dir: Option<&Path>, run_dir: &Path) -> Result<Store, Error> {
        let Some(state_dir) = state_dir else {
            return Store::borrow(None, run_dir);
        };
        match Store::open(state_dir) {
            Err(Error::Disk(cause)) if is_read_only(&cause) => {
                report::warn(format_args!(
                    "{} cannot be written ({}): programs that files declare run, and others cannot be changed",
                    state_dir.display(),
                    sys::reason(&cause)
                ));
                Store::borrow(Some(state_dir), run_dir)
            }
            Ok(store) => {
                reserve::hold(state_dir);
                if let Err(error) = store.take_over(run_dir) {
                    report::error(format_args!(
                        "what was kept in {} while the database could not be written is lost: {error}",
                        run_dir.display()
                    ));
                }
                Ok(store)
            }
            other => other,
        }
    }

    fn borrow(state_dir: Option<&Path>, run_dir: &Path) -> Result<Store, Error> {
        if let Some(store) = Store::of_this_boot(run_dir)? {
            return Ok(store);
        }
        remove(run_dir)?;
        if let Some(state_dir) = state_dir {
            file::copy(state_dir, run_dir)?;
        }
        let store = Store {
            lasting: false,
            ..Store::open(run_dir)?
        };
        store.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert(BOOT, boot_id().as_bytes())?;
            Ok(())
        })?;
        Ok(store)
    }

    /// The database that an earlier daemon of this boot borrowed.
    fn of_this_boot(run_dir: &Path) -> Result<Option<Store>, Error> {
        if !file::is_there(run_dir) {
            return Ok(None);
        }
        let store = Store {
            lasting: false,
            ..Store::open(run_dir)?
        };
        let is_ours = store.read(|transaction| {
            let meta = transaction.open_table(META)?;
            let boot = meta.get(BOOT)?;
            Ok(boot.is_some_and(|boot| boot.value() == boot_id().as_bytes()))
        })?;
        Ok(is_ours.then_some(store))
    }

    /// Takes over the ids that were given while a borrowed database was in use.
    fn take_over(&self, run_dir: &Path) -> Result<(), Error> {
        let Some(borrowed) = Store::of_this_boot(run_dir)? else {
            return remove(run_dir);
        };
        let next = borrowed.read(|transaction| {
            let meta = transaction.open_table(META)?;
            programs::next_number(&meta, &transaction.open_table(PROGRAMS)?)
        })?;
        let ours = self.programs()?;
        let is_new = |program: &Program| {
            let clashes = |other: &Program| {
                other.id == program.id || other.definition.name == program.definition.name
            };
            program.declared.is_some() && !ours.iter().any(clashes)
        };
        let new: Vec<_> = borrowed.programs()?.into_iter().filter(is_new).collect();
        drop(borrowed);
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let mut table = transaction.open_table(PROGRAMS)?;
            for program in &new {
                table.insert(program.id.0, record::encode_program(program).as_slice())?;
            }
            let next = next.max(programs::next_number(&meta, &table)?);
            meta.insert(programs::NEXT_ID, next.to_le_bytes().as_slice())?;
            Ok(())
        })?;
        remove(run_dir)
    }

    /// Changes what must last longer than this boot.
    ///
    /// # Errors
    /// `Disk` where it would not.
    pub(super) fn write_for_good<T>(
        &self,
        op: impl FnOnce(&redb::WriteTransaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.lasting {
            true => self.write(op),
            false => Err(Error::Disk(Errno::ROFS.into())),
        }
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
    )
}

fn remove(run_dir: &Path) -> Result<(), Error> {
    match std::fs::remove_file(run_dir.join(file::NAME)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::Disk(error)),
        _ => Ok(()),
    }
}
