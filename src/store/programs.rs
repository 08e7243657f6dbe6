//! Programs and the counter of their ids.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use redb::{ReadableTable, Table, WriteTransaction};

use super::{Error, META, PROGRAMS, Store, record, reserve};
use crate::clock::Timestamp;
use crate::program::{Definition, Program, ProgramId};
use crate::report;

/// In `META`: a number below which no program gets its own, u32, little-endian. Written only where the programs that are
/// there would not tell: when the last one is deleted.
pub(super) const NEXT_ID: &str = "next_id";

impl Store {
    /// All programs, in order of id. Records that cannot be understood are said, passed over and kept.
    pub fn programs(&self) -> Result<Vec<Program>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(PROGRAMS)?;
            let mut programs = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                let id = ProgramId(key.value());
                match record::decode_program(id, value.value()) {
                    Ok(program) => programs.push(program),
                    Err(why) => report::error(format_args!(
                        "{id} cannot be read from the database, so it is not run; its record is kept ({why})"
                    )),
                }
            }
            Ok(programs)
        })
    }

    /// Whether there is a record of this program, one that cannot be understood included; so it is, too, where nobody can know.
    pub fn has(&self, id: ProgramId) -> bool {
        let found = self.read(|transaction| {
            let table = transaction.open_table(PROGRAMS)?;
            Ok(table.get(id.0)?.is_some())
        });
        found.unwrap_or(true)
    }

    /// Gives no new program this id or one below: something of such a program is still there.
    pub fn keep_off(&self, id: ProgramId) {
        self.used.fetch_max(id.0, Ordering::Relaxed);
    }

    /// Adds a program under the next id.
    ///
    /// # Errors
    /// `NameTaken`, or the store failed.
    pub fn create(&self, definition: Definition, now: Timestamp) -> Result<Program, Error> {
        let used = self.used.load(Ordering::Relaxed);
        self.write_for_good(|transaction| {
            let meta = transaction.open_table(META)?;
            let mut table = transaction.open_table(PROGRAMS)?;
            check_name(&table, &definition.name, None)?;
            let id = next_id(&meta, &table, used)?;
            put(
                &mut table,
                Program {
                    id,
                    definition,
                    created_at: now,
                    updated_at: now,
                    declared: None,
                },
            )
        })
    }

    /// Keeps what files declare, all in one commit: new programs, which have no id yet, get the next ones, and others
    /// are replaced.
    ///
    /// # Errors
    /// `NameTaken`, or the store failed; nothing is changed then.
    pub fn declare(
        &self,
        programs: Vec<(Option<ProgramId>, Program)>,
    ) -> Result<Vec<Program>, Error> {
        let used = self.used.load(Ordering::Relaxed);
        self.write(|transaction| {
            let meta = transaction.open_table(META)?;
            let mut table = transaction.open_table(PROGRAMS)?;
            let mut names = HashMap::new();
            for row in table.iter()? {
                let (key, value) = row?;
                if let Some((name, file)) = record::name_of(value.value()) {
                    let file = file.map(|file| file.into_owned());
                    names.insert(name.into_owned(), (ProgramId(key.value()), file));
                }
            }
            let mut kept = Vec::with_capacity(programs.len());
            for (id, mut program) in programs {
                let name = &program.definition.name;
                match names.get(name) {
                    Some((owner, file)) if Some(*owner) != id => {
                        return Err(Error::NameTaken {
                            name: name.clone(),
                            file: file.clone(),
                        });
                    }
                    _ => {}
                }
                program.id = match id {
                    Some(id) => id,
                    None => next_id(&meta, &table, used)?,
                };
                let file = program.declared.as_deref().map(str::to_owned);
                names.insert(name.clone(), (program.id, file));
                kept.push(put(&mut table, program)?);
            }
            Ok(kept)
        })
    }

    /// Removes all of these programs that are there, in one commit. Their ids are never used again.
    ///
    /// # Errors
    /// The store failed.
    pub fn forget(&self, ids: &[ProgramId]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(PROGRAMS)?;
            for id in ids {
                remove(transaction, &mut table, *id)?;
            }
            Ok(())
        })
    }

    /// Replaces a program's definition.
    ///
    /// # Errors
    /// `NotFound`, `NameTaken` by another program, or the store failed.
    pub fn update(
        &self,
        id: ProgramId,
        definition: Definition,
        now: Timestamp,
    ) -> Result<Program, Error> {
        self.write_for_good(|transaction| {
            let mut table = transaction.open_table(PROGRAMS)?;
            let old = get(&table, id)?;
            check_name(&table, &definition.name, Some(id))?;
            put(
                &mut table,
                Program {
                    id,
                    definition,
                    created_at: old.created_at,
                    updated_at: now,
                    declared: old.declared,
                },
            )
        })
    }

    /// Removes a program. Its id is never used again.
    ///
    /// # Errors
    /// `NotFound`, or the store failed.
    pub fn delete(&self, id: ProgramId) -> Result<(), Error> {
        match self.delete_once(id) {
            Err(Error::Disk(full)) if reserve::is_full(&full) && reserve::give_back(&self.dir) => {
                let done = self.delete_once(id);
                reserve::hold(&self.dir);
                done
            }
            done => done,
        }
    }

    fn delete_once(&self, id: ProgramId) -> Result<(), Error> {
        self.write_for_good(|transaction| {
            let mut table = transaction.open_table(PROGRAMS)?;
            get(&table, id)?;
            remove(transaction, &mut table, id)
        })
    }
}

type Programs<'t> = Table<'t, u32, &'static [u8]>;

/// The program with this id; `NotFound`, too, where its record cannot be understood, so that nothing overwrites that.
fn get(table: &Programs, id: ProgramId) -> Result<Program, Error> {
    let value = table.get(id.0)?.ok_or(Error::NotFound { id })?;
    record::decode_program(id, value.value()).map_err(|_| Error::NotFound { id })
}

fn put(table: &mut Programs, program: Program) -> Result<Program, Error> {
    table.insert(program.id.0, record::encode_program(&program).as_slice())?;
    Ok(program)
}

/// Checks that no program but `own` has this name. Reads all: 1,000 records take about a millisecond, less than the
/// commit that follows, and an index of names would have to be written with each change.
fn check_name(table: &Programs, name: &str, own: Option<ProgramId>) -> Result<(), Error> {
    for row in table.iter()? {
        let (key, value) = row?;
        if own == Some(ProgramId(key.value())) {
            continue;
        }
        match record::name_of(value.value()) {
            Some((taken, file)) if taken == name => {
                return Err(Error::NameTaken {
                    name: name.to_owned(),
                    file: file.map(|file| file.into_owned()),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes a program, and has no later one get its number.
fn remove(
    transaction: &WriteTransaction,
    table: &mut Programs,
    id: ProgramId,
) -> Result<(), Error> {
    if table.last()?.is_some_and(|(last, _)| last.value() == id.0) {
        let mut meta = transaction.open_table(META)?;
        let next = next_number(&meta, table)?;
        meta.insert(NEXT_ID, next.to_le_bytes().as_slice())?;
    }
    table.remove(id.0)?;
    Ok(())
}

/// The next id, above those that are `used`.
fn next_id(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    programs: &Programs,
    used: u32,
) -> Result<ProgramId, Error> {
    let number = next_number(meta, programs)?.max(used.saturating_add(1));
    if number == u32::MAX {
        return Err(Error::Database(redb::Error::Corrupted(
            "no id is left".to_owned(),
        )));
    }
    Ok(ProgramId(number))
}

/// The counter, or what follows the last program if the counter is missing or behind.
pub(super) fn next_number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    programs: &impl ReadableTable<u32, &'static [u8]>,
) -> Result<u32, Error> {
    let counter = meta
        .get(NEXT_ID)?
        .and_then(|value| value.value().try_into().map(u32::from_le_bytes).ok());
    let last = programs.last()?.map_or(0, |(key, _)| key.value());
    Ok(counter.unwrap_or(1).max(last.saturating_add(1)))
}
