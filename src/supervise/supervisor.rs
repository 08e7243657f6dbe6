//! [`Supervisor`]: all programs by id; creates, changes and removes them, starts and stops them all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use rustix::process::Rlimit;

use super::adopted::Adoptions;
use super::cgroups::Cgroups;
use super::ends::{Asked, By, Reason};
use super::events::{Events, Listener};
use super::launch::{self, Base};
use super::outputs::Outputs;
use super::record::Record;
use super::records::Records;
use super::signals::Children;
use super::watcher::{MAILBOX, Mail, Published, Watcher};
use super::{Caller, Command, Done, Refusal, STACK_SIZE, Snapshot};
use crate::clock::{BootTime, Timestamp};
use crate::guardian::Link;
use crate::logs::Logs;
use crate::program::{Defaults, Definition, Program, ProgramId};
use crate::report;
use crate::store::{self, Store};
use crate::sys::bell::Bell;
use crate::sys::directory::Directory;
use crate::sys::fault;
use crate::sys::process;

mod autostart;
mod declared;
mod ending;
mod recording;
mod taking_up;

use taking_up::as_recorded;

pub use declared::{Change, Pending, Reloaded, check};

/// How long the start of one program may hold up the next at autostart.
const AUTOSTART_PATIENCE: Duration = Duration::from_secs(2);
/// How long programs that an earlier daemon left may hold up the start, all together.
const RESUME_PATIENCE: Duration = Duration::from_millis(500);

const MAILBOX_FULL: Refusal =
    Refusal::Busy("Too many requests are waiting for this program: try again");
const NO_DESCRIPTORS: Refusal = Refusal::Busy(
    "There is no room for the pipes of another program: delete one, or raise hxe's limit of open files (ulimit -n)",
);

/// What every watcher needs to know and that a reload may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub defaults: Defaults,
    /// The password is not the default one: programs may run as any user.
    pub any_user: bool,
}

/// What others hold of a program.
struct Handle {
    mailbox: SyncSender<Mail>,
    published: Arc<Published>,
}

/// All programs.
pub struct Supervisor {
    store: Arc<Store>,
    pub(super) logs: Arc<Logs>,
    pub(super) children: Arc<Children>,
    pub(super) events: Arc<Events>,
    pub(super) adoptions: Adoptions,
    pub(super) link: Arc<Link>,
    pub(super) records: Arc<Records>,
    outputs: Arc<Outputs>,
    /// `None` where runs cannot have cgroups of their own.
    pub(super) cgroups: Option<Cgroups>,
    pub(super) base: Base,
    settings: RwLock<Arc<Settings>>,
    programs: RwLock<BTreeMap<ProgramId, Handle>>,
    /// Held over a change of the store and its publication, so that both have the same order.
    changes: Mutex<()>,
    /// Nothing is changed any more: why not.
    closed: OnceLock<&'static str>,
}

impl Supervisor {
    /// Takes up all programs of the store; starts nothing yet. `open_files` is the limit that programs get.
    ///
    /// # Errors
    /// The store cannot be read, or `/dev/null` not be opened.
    pub fn open(
        store: Arc<Store>,
        logs: Arc<Logs>,
        children: Arc<Children>,
        link: Arc<Link>,
        run_dir: Arc<Directory>,
        open_files: Rlimit,
        settings: Settings,
    ) -> Result<Arc<Supervisor>, store::Error> {
        let null = File::open("/dev/null").map_err(store::Error::Disk)?;
        let programs = store.programs()?;
        logs.finish_removals(|id| store.has(id));
        // A database that was lost or moved aside knows nothing of programs whose logs are still there.
        store.keep_off(logs.last_id());
        let records = Arc::new(Records::new(Arc::clone(&run_dir)));
        let outputs = Outputs::new(Arc::clone(&records), Arc::clone(&run_dir));
        let outputs = Arc::new(outputs);
        let keeper = Arc::clone(&outputs);
        logs.before_rotation(move |id, read| keeper.keep(id, read));
        let supervisor = Arc::new(Supervisor {
            store,
            logs,
            children,
            events: Arc::default(),
            adoptions: Adoptions::default(),
            link,
            cgroups: run_dir.get().ok().and_then(Cgroups::find),
            records,
            outputs,
            base: Base {
                null: OwnedFd::from(null),
                open_files,
            },
            settings: RwLock::new(Arc::new(settings)),
            programs: RwLock::default(),
            changes: Mutex::default(),
            closed: OnceLock::new(),
        });
        let waker = Arc::downgrade(&supervisor);
        run_dir.on_another(move || {
            if let Some(supervisor) = waker.upgrade() {
                supervisor.wake_all();
            }
        });
        let resumed = supervisor.take_up(programs);
        // Who asks is to see them as they are; until then, as they were.
        let until = BootTime::now() + RESUME_PATIENCE;
        for id in resumed {
            if let Some(mailbox) = supervisor.mailbox(id) {
                wait_until_reached(&mailbox, until.since(BootTime::now()));
            }
        }
        Ok(supervisor)
    }

    /// Takes new settings for all programs.
    pub fn set(&self, settings: Settings) {
        let _change = self.change();
        if *self.settings() == settings {
            return;
        }
        let settings = Arc::new(settings);
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&settings);
        for handle in self.programs().values() {
            handle.published.update(|snapshot| {
                let definition = &snapshot.program.definition;
                snapshot.effective = Arc::new(launch::effective(definition, &settings));
            });
            let _ = handle.mailbox.try_send(Mail::Wake);
        }
    }

    /// Snapshots of all programs, in order of id.
    pub fn list(&self) -> Vec<Arc<Snapshot>> {
        self.programs()
            .values()
            .map(|handle| handle.published.get())
            .collect()
    }

    /// The program with this id or, if it is not of the form of an id, of this name.
    pub fn find(&self, id_or_name: &str) -> Option<Arc<Snapshot>> {
        let programs = self.programs();
        match id_or_name.parse::<ProgramId>() {
            Ok(id) => programs.get(&id).map(|handle| handle.published.get()),
            Err(_) => programs
                .values()
                .map(|handle| handle.published.get())
                .find(|snapshot| snapshot.program.definition.name == id_or_name),
        }
    }

    /// Hears what happens to all programs from now on; `bell` rings with each event.
    pub fn listen(&self, bell: Arc<Bell>) -> Listener {
        self.events.listen(bell)
    }

    /// Adds a program, stopped; it is on disk when this returns.
    ///
    /// # Errors
    /// The definition breaks a rule, its name is taken, or it cannot be kept.
    pub fn create(self: &Arc<Self>, definition: Definition) -> Result<Arc<Snapshot>, Refusal> {
        let _change = self.admit(&definition)?;
        if !self.has_descriptors() {
            return Err(NO_DESCRIPTORS);
        }
        let program = self.store.create(definition, Timestamp::now())?;
        let id = program.id;
        self.logs
            .add(id, program.definition.log_disk)
            .map_err(|error| store::Error::Disk(error).into())
            .and_then(|()| self.write_first(id, Record::never_run(false, None)))
            .and_then(|record| self.adopt(program, record))
            .inspect_err(|_| {
                // Nothing is kept of what was refused.
                if let Err(error) = self
                    .store
                    .delete(id)
                    .and_then(|()| self.logs.remove(id).map_err(store::Error::Disk))
                {
                    report::warn(format_args!("{id} cannot be cleared away: {error}"));
                }
            })
    }

    /// Replaces a definition: restart and stop settings hold at once, the rest from the next start.
    ///
    /// # Errors
    /// As `create`, or there is no such program.
    pub fn update(&self, id: ProgramId, definition: Definition) -> Result<Arc<Snapshot>, Refusal> {
        self.refuse_declared(id)?;
        let change = self.admit(&definition)?;
        self.replace(id, definition, &change)
    }

    /// Switches autostart; on disk when this returns.
    ///
    /// # Errors
    /// There is no such program, or the change cannot be kept.
    pub fn set_enabled(&self, id: ProgramId, enabled: bool) -> Result<Arc<Snapshot>, Refusal> {
        self.refuse_when_closed()?;
        self.refuse_declared(id)?;
        let change = self.change();
        let snapshot = self.published(id).ok_or(Refusal::NotFound)?.get();
        if snapshot.program.definition.enabled == enabled {
            return Ok(snapshot);
        }
        let definition = Definition {
            enabled,
            ..snapshot.program.definition.clone()
        };
        self.replace(id, definition, &change)
    }

    /// Stops the program if it runs, then removes its definition and its logs, then answers.
    pub fn delete(&self, id: ProgramId, by: By, caller: Caller<()>) {
        if let Err(refusal) = self.refuse_declared(id) {
            return caller(Err(refusal));
        }
        let (reason, by) = (Reason::Delete, Some(by));
        self.post(id, Mail::Delete(Box::new(Asked { reason, by }), caller));
    }

    /// Sends a command to the program's watcher, which answers when it is done.
    pub fn send(&self, id: ProgramId, command: Command, by: By, caller: Caller<Done>) {
        self.post(id, Mail::Command(Box::new((command, by)), caller));
    }

    pub(super) fn is_ending(&self) -> bool {
        self.closed.get() == Some(&ending::STOPPING)
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes a program of which nothing runs; called by its watcher.
    pub(super) fn remove(&self, id: ProgramId) -> Result<(), Refusal> {
        let _change = self.change();
        let published = self.published(id).ok_or(Refusal::NotFound)?;
        // Declared ones are forgotten all at once by the reload that removes them.
        if published.get().program.declared.is_none() {
            // A daemon that dies behind the commit leaves word for the next one.
            self.logs.mark_removal(id);
            self.store
                .delete(id)
                .inspect_err(|_| self.logs.unmark_removal(id))?;
            fault::point("deleted");
        }
        self.programs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Err(error) = self.logs.remove(id) {
            report::warn(format_args!(
                "{id} is deleted, but its logs cannot be: {error}"
            ));
        }
        Ok(())
    }

    /// Checks a definition before it is kept, and takes the right to change something.
    fn admit(&self, definition: &Definition) -> Result<MutexGuard<'_, ()>, Refusal> {
        self.refuse_when_closed()?;
        definition.check()?;
        launch::identify(definition, &self.settings(), false)?;
        Ok(self.change())
    }

    /// Whether one more program's pipes, which are open as long as it exists, leave the last descriptors free.
    fn has_descriptors(&self) -> bool {
        // A directory and two pipes: each copy has the lowest number that is free.
        let copies: io::Result<Vec<_>> = (0..3).map(|_| self.base.null.try_clone()).collect();
        copies.is_ok_and(|copies| !copies.into_iter().any(process::is_of_the_last))
    }

    fn replace(
        &self,
        id: ProgramId,
        definition: Definition,
        _change: &MutexGuard<()>,
    ) -> Result<Arc<Snapshot>, Refusal> {
        let published = self.published(id).ok_or(Refusal::NotFound)?;
        let program = self
            .store
            .update(id, definition, Timestamp::now())
            .map_err(not_found)?;
        self.logs.set_disk(id, program.definition.log_disk);
        let effective = launch::effective(&program.definition, &self.settings());
        let snapshot = published.update(|snapshot| {
            snapshot.program = Arc::new(program);
            snapshot.effective = Arc::new(effective);
        });
        // A restart that was due may be so no longer. Who finds the mailbox full is awake anyway.
        if let Some(handle) = self.programs().get(&id) {
            let _ = handle.mailbox.try_send(Mail::Wake);
        }
        Ok(snapshot)
    }

    /// Gives a program its logs and its watcher, which goes on where `found` stands.
    fn adopt(self: &Arc<Self>, program: Program, found: Record) -> Result<Arc<Snapshot>, Refusal> {
        let id = program.id;
        // Its watcher may come to ask only after others.
        if let Some(run) = &found.run {
            self.link.expect(run.pid);
        }
        let effective = launch::effective(&program.definition, &self.settings());
        let snapshot = as_recorded(Snapshot::never_run(program, effective), &found);
        let published = Arc::new(Published::new(snapshot));
        let (mailbox, inbox) = sync_channel(MAILBOX);
        let mail = (mailbox.clone(), inbox);
        // On the heap: each frame that it were moved through would take its size of the stack.
        let mut watcher = Box::new(Watcher::new(
            id,
            Arc::clone(self),
            Arc::clone(&published),
            mail,
            found,
        ));
        std::thread::Builder::new()
            .name(format!("hxe-w-{id}"))
            .stack_size(STACK_SIZE)
            .spawn(move || watcher.watch())
            .map_err(|_| {
                Refusal::Busy("The system has no room for another thread: try again later")
            })?;
        let snapshot = published.get();
        let handle = Handle { mailbox, published };
        self.programs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, handle);
        Ok(snapshot)
    }

    fn post(&self, id: ProgramId, mail: Mail) {
        // Sent under the lock: a watcher that removes its program takes it first, and so sees all that was sent.
        let programs = self.programs();
        let refused = match (self.refuse_when_closed(), programs.get(&id)) {
            (Err(refusal), _) => Some((mail, refusal)),
            (Ok(()), None) => Some((mail, Refusal::NotFound)),
            (Ok(()), Some(handle)) => match handle.mailbox.try_send(mail) {
                Ok(()) => None,
                Err(TrySendError::Full(mail)) => Some((mail, MAILBOX_FULL)),
                Err(TrySendError::Disconnected(mail)) => Some((mail, Refusal::NotFound)),
            },
        };
        drop(programs);
        match refused {
            Some((Mail::Command(_, caller) | Mail::Renew(_, caller), refusal)) => {
                caller(Err(refusal));
            }
            Some((Mail::Delete(_, caller), refusal)) => caller(Err(refusal)),
            Some((
                Mail::Autostart(_) | Mail::Due | Mail::Leave(_) | Mail::Reached(_) | Mail::Wake,
                _,
            ))
            | None => {}
        }
    }

    /// Has all watchers look what is to be done. Who finds the mailbox full is awake anyway.
    fn wake_all(&self) {
        for handle in self.programs().values() {
            let _ = handle.mailbox.try_send(Mail::Wake);
        }
    }

    fn mailbox(&self, id: ProgramId) -> Option<SyncSender<Mail>> {
        self.programs()
            .get(&id)
            .map(|handle| handle.mailbox.clone())
    }

    fn published(&self, id: ProgramId) -> Option<Arc<Published>> {
        self.programs()
            .get(&id)
            .map(|handle| Arc::clone(&handle.published))
    }

    fn programs(&self) -> RwLockReadGuard<'_, BTreeMap<ProgramId, Handle>> {
        self.programs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse_declared(&self, id: ProgramId) -> Result<(), Refusal> {
        let declared = |published: Arc<Published>| published.get().program.declared.clone();
        match self.published(id).and_then(declared) {
            Some(file) => Err(Refusal::Declared(file)),
            None => Ok(()),
        }
    }

    fn refuse_when_closed(&self) -> Result<(), Refusal> {
        match self.closed.get() {
            Some(reason) => Err(Refusal::Busy(reason)),
            None => Ok(()),
        }
    }
}

/// Waits until a watcher has acted on its mail. One that hangs does not hang the others.
fn wait_until_reached(mailbox: &SyncSender<Mail>, patience: Duration) {
    let (sender, reached) = sync_channel(0);
    if mailbox.try_send(Mail::Reached(sender)).is_ok() {
        // Ends when the watcher drops its end.
        let _ = reached.recv_timeout(patience);
    }
}

fn not_found(error: store::Error) -> Refusal {
    match error {
        store::Error::NotFound { .. } => Refusal::NotFound,
        other => Refusal::Store(other),
    }
}
