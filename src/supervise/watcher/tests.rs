//! A watcher without its thread, so that what happens at the same moment can be put in order.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::*;
use crate::guardian::Link;
use crate::logs::{self, Logs, OnFull};
use crate::program::{Defaults, Definition, LogDisk, Signal};
use crate::store::Store;
use crate::supervise::signals::Children;
use crate::supervise::{Phase, Settings};
use crate::sys::directory::Directory;
use crate::sys::{process, users};

struct World {
    watcher: Watcher,
    _home: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        let dir = || Arc::new(Directory::at(home.path()));
        let settings = logs::Settings {
            max_size: 1024,
            max_files: 1,
            pipe_size: 4096,
            on_full: OnFull::Drop,
            disk: LogDisk::All,
            ring_size: 65_536,
        };
        let store = Arc::new(Store::open(home.path()).unwrap());
        let definition = Definition {
            user: Some(users::own().user_name),
            args: "1000".to_owned(),
            // Which ends nothing: the test says when the process ends.
            stop_signal: Signal::CONT,
            ..Definition::new("a", "/bin/sleep")
        };
        let program = store.create(definition, Timestamp::now()).unwrap();
        let id = program.id;
        let link = Arc::new(Link::none());
        let supervisor = Supervisor::open(
            store,
            Arc::new(
                Logs::start(
                    dir(),
                    dir(),
                    settings,
                    Arc::clone(&link),
                    Default::default(),
                )
                .unwrap(),
            ),
            Arc::new(Children::default()),
            link,
            dir(),
            getrlimit(Resource::Nofile),
            Settings {
                defaults: Defaults {
                    user: users::own().user_name,
                    directory: "/".to_owned(),
                    stop_timeout: Duration::from_secs(10),
                    restart_delay: Duration::from_secs(1),
                    max_restarts: MaxRestarts::AtMost(3),
                },
                any_user: true,
            },
        )
        .unwrap();
        // A watcher of our own in the place of the one that has a thread.
        let published = Arc::new(Published::new(Snapshot::clone(&supervisor.list()[0])));
        let (mailbox, inbox) = std::sync::mpsc::sync_channel(MAILBOX);
        World {
            watcher: Watcher::new(
                id,
                supervisor,
                published,
                (mailbox, inbox),
                Record::never_run(true, None),
            ),
            _home: home,
        }
    }

    fn command(&mut self, command: Command) -> Receiver<Result<Done, Refusal>> {
        let (caller, answer) = channel();
        let caller = Box::new(move |result| caller.send(result).unwrap());
        self.watcher
            .handle(Some(Mail::Command(Box::new((command, By::SIGNAL)), caller)));
        answer
    }

    fn delete(&mut self) -> Receiver<Result<(), Refusal>> {
        let (caller, answer) = channel();
        let caller = Box::new(move |result| caller.send(result).unwrap());
        self.watcher.handle(Some(Mail::Delete(
            Box::new(Asked {
                reason: Reason::Delete,
                by: None,
            }),
            caller,
        )));
        answer
    }

    fn pid(&self) -> Pid {
        self.watcher.run.as_ref().unwrap().pid
    }

    /// Ends the process, which the watcher does not know yet.
    fn end(&self) {
        process::kill(self.pid(), Signal::KILL.number()).unwrap();
        let raw = rustix::process::Pid::from_raw(self.pid().number()).unwrap();
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(raw), options).unwrap();
    }
}

#[test]
fn nothing_is_started_of_a_program_whose_removal_its_end_completes() {
    let mut world = World::new();
    world.command(Command::Start).recv().unwrap().unwrap();
    let deleted = world.delete();
    world.end();
    let started = world.command(Command::Start);
    assert!(deleted.try_recv().unwrap().is_ok());
    assert!(matches!(
        started.try_recv().unwrap(),
        Err(Refusal::NotFound)
    ));
    assert!(world.watcher.run.is_none());
}

#[test]
fn a_stop_that_a_restart_follows_speaks_of_the_stopped_program() {
    let mut world = World::new();
    world.command(Command::Start).recv().unwrap().unwrap();
    let first = world.pid();
    let stopped = world.command(Command::Stop { force: false });
    let restarted = world.command(Command::Restart);
    world.end();
    world.watcher.handle(None);
    let seen = stopped.try_recv().unwrap().unwrap().snapshot;
    assert_eq!((seen.phase, seen.pid), (Phase::Stopped, None));
    assert_eq!(seen.exit, Some(Exit::Signal(Signal::KILL)));
    let seen = restarted.try_recv().unwrap().unwrap().snapshot;
    assert_eq!(
        (seen.phase, seen.pid),
        (Phase::Running, Some(world.pid().number()))
    );
    assert_ne!(world.pid(), first);
    let _answer = world.command(Command::Stop { force: false });
    world.end();
    world.watcher.handle(None);
}

#[test]
fn what_is_stopped_before_its_turn_to_start_with_the_daemon_is_not_started() {
    for asked in [false, true] {
        let mut world = World::new();
        if asked {
            let refused = world.command(Command::Stop { force: false });
            assert!(matches!(
                refused.try_recv().unwrap(),
                Err(Refusal::NotRunning)
            ));
        }
        world.watcher.handle(Some(Mail::Autostart(None)));
        assert_eq!(world.watcher.run.is_none(), asked);
        if !asked {
            let _answer = world.command(Command::Stop { force: false });
            world.end();
            world.watcher.handle(None);
        }
    }
}
