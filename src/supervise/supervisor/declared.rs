//! Programs that files declare: what differs from what is known is kept in one commit, then carried out.
//!
//! A daemon that dies in between leaves nothing half done: what the files no longer declare is found at the next start as
//! what the store has and they have not, what was to be restarted by the fingerprint in its run record, and what was to be
//! started by the record that says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{AUTOSTART_PATIENCE, NO_DESCRIPTORS, Supervisor, wait_until_reached};
use crate::program::{Declaration, Declarations, Program, ProgramId};
use crate::report;
use crate::store;
use crate::supervise::ends::{Asked, By, Reason};
use crate::supervise::record::{Found, Record};
use crate::supervise::watcher::{Mail, Renewal};
use crate::supervise::{Caller, Done, Phase, Refusal, Settings, Snapshot, launch};

/// What the files change, known and kept, but not carried out yet.
#[derive(Default)]
pub struct Pending {
    added: Vec<ProgramId>,
    /// With whether that matters to the process.
    changed: Vec<(ProgramId, bool)>,
    removed: Vec<ProgramId>,
    unchanged: usize,
    /// Said of programs that could not be taken up.
    failed: Vec<Change>,
}

/// What was done to a program.
#[derive(Clone, Debug)]
pub struct Change {
    /// `program-N`
    pub id: String,
    pub name: String,
    /// `added`, `started`, `updated`, `restarted`, `removed` or `failed`.
    pub action: &'static str,
    /// Why it failed.
    pub message: Option<String>,
}

/// What a reload did.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    pub added: Vec<Change>,
    pub changed: Vec<Change>,
    pub removed: Vec<Change>,
    pub unchanged: usize,
}

impl Pending {
    /// Whether there is nothing to be carried out but the start of new programs.
    pub fn is_settled(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    /// Whether this program is to be removed.
    pub(super) fn removes(&self, id: ProgramId) -> bool {
        self.removed.binary_search(&id).is_ok()
    }

    /// Leaves the start of new programs to the start of the daemon.
    pub fn without_starts(self) -> Pending {
        Pending {
            added: Vec::new(),
            ..self
        }
    }
}

impl Reloaded {
    /// All that was done.
    pub fn all(&self) -> impl Iterator<Item = &Change> {
        [&self.added, &self.changed, &self.removed]
            .into_iter()
            .flatten()
    }
}

impl Change {
    fn of(snapshot: &Snapshot, action: &'static str) -> Change {
        Change {
            id: snapshot.program.id.to_string(),
            name: snapshot.program.definition.name.clone(),
            action,
            message: None,
        }
    }

    fn failed(self, reason: &dyn std::fmt::Display) -> Change {
        Change {
            action: "failed",
            message: Some(reason.to_string()),
            ..self
        }
    }
}

impl Supervisor {
    /// Takes what the files declare for what holds from now on; nothing is started or stopped yet. At a `reload` any
    /// mistake in them changes nothing; at a start they are said, and what is right is taken.
    ///
    /// # Errors
    /// `Misdeclared`, or as `create`; nothing is changed then. At a start: only while the daemon ends.
    pub fn declare(
        self: &Arc<Self>,
        files: Declarations,
        settings: &Settings,
        reload: bool,
    ) -> Result<Pending, Refusal> {
        self.refuse_when_closed()?;
        let _change = self.change();
        let all = self.list();
        let mut known: HashMap<&str, &Snapshot> = all
            .iter()
            .map(|snapshot| (snapshot.program.definition.name.as_str(), &**snapshot))
            .collect();
        let mut mistakes = files.mistakes;
        let mut pending = Pending::default();
        let mut rows = Vec::new();
        let mut lost = match reload {
            false => self.lost(),
            true => HashMap::new(),
        };
        for declaration in files.programs {
            let found = known.remove(declaration.definition.name.as_str());
            match found {
                Some(found) if found.program.declared.is_none() => {
                    mistakes.push(clash(&declaration, &found.program));
                }
                Some(found) if is_same(&found.program, &declaration) => match is_outdated(found) {
                    true => pending.changed.push((found.program.id, false)),
                    false => pending.unchanged += 1,
                },
                _ => {
                    // At a start, a user that is not there yet is a reason not to start that program, and no other.
                    if reload {
                        mistakes.extend(unusable(&declaration, settings));
                    }
                    let (mut id, program) = row(found.map(|found| &*found.program), declaration);
                    if id.is_none() {
                        id = program.declared_as().and_then(|name| lost.remove(&name));
                    }
                    rows.push((id, program));
                }
            }
        }
        if reload && !mistakes.is_empty() {
            return Err(Refusal::Misdeclared(mistakes));
        }
        for mistake in mistakes {
            report::error(format_args!("{mistake}"));
        }
        // What a file declared that cannot be read now goes on as it was.
        let is_gone = |snapshot: &&Snapshot| {
            let file = snapshot.program.declared.as_ref();
            file.is_some_and(|file| !files.unreadable.covers(file))
        };
        pending.removed = known
            .into_values()
            .filter(is_gone)
            .map(|snapshot| snapshot.program.id)
            .collect();
        pending.removed.sort_unstable();
        for program in self.keep(rows, reload)? {
            self.take(program, reload, &mut pending);
        }
        if !reload {
            self.name_the_unknown();
            self.logs.drop_left();
            self.logs.settle();
        }
        Ok(pending)
    }

    /// Has the store keep these rows. At a start without a store that can be written, what is known by an id goes on all
    /// the same.
    fn keep(
        &self,
        rows: Vec<(Option<ProgramId>, Program)>,
        reload: bool,
    ) -> Result<Vec<Program>, store::Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let kept = self.store.declare(rows.clone());
        let Err(error) = kept else { return kept };
        if reload {
            return Err(error);
        }
        let (known, new): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(id, _)| id.is_some());
        report::error(format_args!("what files declare cannot be kept: {error}"));
        for (_, program) in new {
            report::error(format_args!(
                "{} is left out, as it has no id yet",
                describe(&program)
            ));
        }
        Ok(known.into_iter().map(|(_, program)| program).collect())
    }

    /// Publishes a program that is new or has a new definition.
    fn take(self: &Arc<Self>, program: Program, reload: bool, pending: &mut Pending) {
        let id = program.id;
        self.logs.set_disk(id, program.definition.log_disk);
        if let Some(published) = self.published(id) {
            let effective = launch::effective(&program.definition, &self.settings());
            let earlier = published.get();
            let old = &earlier.program.definition;
            let matters = old.fingerprint() != program.definition.fingerprint();
            let is_enabled = program.definition.enabled && !old.enabled;
            if is_enabled && !reload && earlier.started_at.is_none() {
                self.post(id, Mail::Due);
            }
            published.update(|snapshot| {
                snapshot.program = Arc::new(program);
                snapshot.effective = Arc::new(effective);
            });
            pending.changed.push((id, matters));
            return;
        }
        let name = describe(&program);
        let found = match reload {
            // An id that is new has no record.
            false => self.records.read(id).ok(),
            true => None,
        };
        let is_found = matches!(found, Some(Found::Record(_)));
        let record = match found {
            Some(Found::Record(record)) => {
                report::warn(format_args!(
                    "{name} is {id} again, as its run record says; its definition was lost from the database"
                ));
                record
            }
            // Whatever becomes of this daemon, it is started if it is enabled.
            _ => Record::never_run(program.definition.enabled, program.declared_as()),
        };
        let adopted = match self.has_descriptors() {
            true => self
                .record_first(id, record)
                .and_then(|record| self.adopt(program, record)),
            false => Err(NO_DESCRIPTORS),
        };
        match adopted {
            // It runs with the definition that it was started with: if that is another one, it is restarted.
            Ok(snapshot) if is_found => pending.changed.push((id, is_outdated(&snapshot))),
            Ok(_) => pending.added.push(id),
            Err(refusal) => {
                let message = format!("{id}, {name}, cannot be supervised: {refusal}");
                report::error(format_args!("{message}"));
                pending.failed.push(Change {
                    id: id.to_string(),
                    name,
                    action: "failed",
                    message: Some(message),
                });
            }
        }
    }

    /// Stops and removes what is gone, restarts what runs with what has changed, and starts what is new and enabled; returns
    /// when all that is done. `by`: who asked for a reload.
    ///
    /// # Errors
    /// The daemon ends; the next one goes on with it.
    pub fn carry_out(&self, pending: Pending, by: Option<By>) -> Result<Reloaded, Refusal> {
        let mut reloaded = Reloaded {
            added: pending.failed,
            unchanged: pending.unchanged,
            ..Reloaded::default()
        };
        // First of all: what is new may need what these have, a port for example.
        reloaded.removed = self.remove_all(&pending.removed, by.as_ref());
        let renewed = self.renew_all(pending.changed, by.as_ref());
        for id in pending.added {
            let Some(mailbox) = self.mailbox(id) else {
                continue;
            };
            let Some(published) = self.published(id) else {
                continue;
            };
            if !published.get().program.definition.enabled {
                reloaded.added.push(Change::of(&published.get(), "added"));
                continue;
            }
            if mailbox.try_send(Mail::Autostart(None)).is_ok() {
                wait_until_reached(&mailbox, AUTOSTART_PATIENCE);
            }
            let snapshot = published.get();
            let mut change = Change::of(&snapshot, "started");
            if matches!(snapshot.phase, Phase::Failed | Phase::Backoff) {
                change = change.failed(&"It did not start: its log tells why");
            }
            reloaded.added.push(change);
        }
        reloaded.changed = renewed.wait();
        self.refuse_when_closed()?;
        Ok(reloaded)
    }

    /// Stops and removes these, all at once.
    fn remove_all(&self, ids: &[ProgramId], by: Option<&By>) -> Vec<Change> {
        let removals = Answers::new();
        for id in ids {
            let Some(published) = self.published(*id) else {
                continue;
            };
            let snapshot = published.get();
            let sender = removals.sender.clone();
            let caller: Caller<()> = Box::new(move |result| {
                let change = Change::of(&snapshot, "removed");
                let _ = sender.send(match result {
                    Ok(()) => (snapshot.program.id, change),
                    Err(refusal) => (snapshot.program.id, change.failed(&refusal)),
                });
            });
            let (reason, by) = (Reason::Reload, by.cloned());
            self.post(*id, Mail::Delete(Box::new(Asked { reason, by }), caller));
        }
        let changes = removals.wait();
        // Only now: a daemon that dies before finds them in the store, and in no file.
        let is_removed = |id: &ProgramId| self.published(*id).is_none();
        let removed: Vec<ProgramId> = ids.iter().copied().filter(is_removed).collect();
        if !removed.is_empty()
            && let Err(error) = self.store.forget(&removed)
        {
            report::warn(format_args!(
                "what files no longer declare is stopped, and forgotten at the next start: {error}"
            ));
        }
        changes
    }

    /// Restarts those of these that run with another definition than theirs, all at once.
    fn renew_all(&self, changed: Vec<(ProgramId, bool)>, by: Option<&By>) -> Answers {
        let renewals = Answers::new();
        for (id, changed) in changed {
            let Some(published) = self.published(id) else {
                continue;
            };
            let earlier = published.get();
            let sender = renewals.sender.clone();
            let caller: Caller<Done> = Box::new(move |result| {
                let change = Change::of(&earlier, "updated");
                let _ = sender.send(match result {
                    Ok(done) if done.snapshot.started_at != earlier.started_at => {
                        (id, Change::of(&done.snapshot, "restarted"))
                    }
                    Ok(_) => (id, change),
                    Err(refusal) => (id, change.failed(&refusal)),
                });
            });
            let by = by.cloned();
            let renewal = Box::new(Renewal { changed, by });
            self.post(id, Mail::Renew(renewal, caller));
        }
        renewals
    }
}

/// What is wrong with the files, as far as it can be told without the programs that there are.
pub fn check(files: Declarations, settings: &Settings) -> Vec<String> {
    let mut mistakes = files.mistakes;
    let unusable = |declaration: &Declaration| unusable(declaration, settings);
    mistakes.extend(files.programs.iter().filter_map(unusable));
    mistakes
}

/// What watchers answer; each of them holds a sender until it has.
struct Answers {
    sender: Sender<(ProgramId, Change)>,
    receiver: Receiver<(ProgramId, Change)>,
}

impl Answers {
    fn new() -> Answers {
        let (sender, receiver) = channel();
        Answers { sender, receiver }
    }

    /// Waits for all, and gives them in order of id.
    fn wait(self) -> Vec<Change> {
        drop(self.sender);
        let mut answers: Vec<_> = self.receiver.iter().collect();
        answers.sort_unstable_by_key(|(id, _)| *id);
        answers.into_iter().map(|(_, change)| change).collect()
    }
}

fn is_same(program: &Program, declaration: &Declaration) -> bool {
    program.definition == declaration.definition
        && program.declared.as_ref() == Some(&declaration.file)
}

/// Whether its process was started with another definition: a daemon that was to restart it died before.
fn is_outdated(snapshot: &Snapshot) -> bool {
    let fingerprint = snapshot.program.definition.fingerprint();
    snapshot
        .started_with
        .is_some_and(|earlier| earlier != fingerprint)
}

/// What is wrong where a program of the API has the name.
fn clash(declaration: &Declaration, program: &Program) -> String {
    let name = &declaration.definition.name;
    let what = format!(
        "{name:?} is the name of {}, which was created through the API: delete that one, or choose another name",
        program.id
    );
    declaration.mistake("name", &what)
}

/// What is wrong if nobody can run it.
fn unusable(declaration: &Declaration, settings: &Settings) -> Option<String> {
    match launch::identify(&declaration.definition, settings, true) {
        Err(Refusal::Invalid(invalid) | Refusal::Forbidden(invalid)) => {
            Some(declaration.mistake(invalid.field, &invalid.issue))
        }
        _ => None,
    }
}

/// What the store is to keep of a declaration, and under which id.
fn row(earlier: Option<&Program>, declaration: Declaration) -> (Option<ProgramId>, Program) {
    let id = earlier.map(|program| program.id);
    let created_at = earlier.map_or(declaration.modified, |program| program.created_at);
    let program = Program {
        // One that is new gets its id there.
        id: id.unwrap_or(ProgramId(0)),
        definition: declaration.definition,
        created_at,
        updated_at: declaration.modified.max(created_at),
        declared: Some(declaration.file),
    };
    (id, program)
}

fn describe(program: &Program) -> String {
    let file = program.declared.as_deref().unwrap_or_default();
    format!("{:?} of {file}", program.definition.name)
}
