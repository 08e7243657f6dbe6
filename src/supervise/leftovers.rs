//! What an ended run left behind: found and killed, whatever groups and sessions it made, before the run counts as over.
//!
//! Where it has a cgroup, all of that is killed first: nothing of it can hide, but what root has moved out can be left.
//! The daemon is a subreaper, so all that a run leaves becomes its child or descends from one: where it has no
//! strange children, nothing was left. Otherwise a process belongs to the run if it is in its session or group,
//! was seen to descend from it, carries its mark `HXE_RUN_ID`, holds one of its pipes, or has such a parent.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::cgroups::{self, Cgroup};
use super::signals::Children;
use super::{LeftBehind, RUN_ID};
use crate::program::Signal;
use crate::sys::process::{self, Pid};
use crate::sys::procfs::{self, Environment, Stat, close_over};

/// How long to go on killing; what is still there then is named, not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before looking again, doubled as long as there is something to kill.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// How often nothing must be found in a row: one that forks and ends while we look is missed, and so is its
/// child.
const EMPTY_LOOKS: usize = 5;

/// How to recognise a run's processes.
#[derive(Clone, Debug)]
pub(super) struct Traces {
    /// The run's first process, not reaped yet: its pid, session and group are nobody else's.
    pub main: Pid,
    /// When that started: nothing of the run is older.
    pub start_ticks: u64,
    /// `HXE_RUN_ID=...`.
    pub mark: Vec<u8>,
    /// Device and inode of its pipes.
    pub pipes: Vec<(u64, u64)>,
    /// Processes that were seen to descend from `main`, by pid and start.
    pub descendants: HashSet<(i32, u64)>,
    pub origin: Origin,
    pub cgroup: Option<Cgroup>,
}

/// Who started a run, and so what can be known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// We: what it left is our child, or descends from one.
    Own,
    /// An earlier daemon: what it left can be anybody's child.
    Earlier,
    /// The same, and it was gone when we came: its pid, session and group may be somebody else's by now.
    EarlierGone,
}

/// What a sweep came to.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub killed: usize,
    pub left_behind: Vec<LeftBehind>,
}

impl Traces {
    /// Notes what descends from the main process now, while parents still tell.
    pub(super) fn note_descendants(&mut self) {
        let found = procfs::descendants(self.main);
        self.descendants.extend(found.iter().map(key));
    }

    /// Kills all that the ended run left behind, until nothing is left.
    pub(super) fn sweep(&self, children: &Children, guardian: Option<Pid>) -> Sweep {
        let mut sweep = Sweep::default();
        if let Some(cgroup) = &self.cgroup {
            sweep.killed = cgroup.kill();
        }
        self.sweep_by_traces(&mut sweep, children, guardian);
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        // Nor do zombies stay for somebody to see.
        let _ = children.reap_strangers();
        sweep
    }

    /// Kills what is known by its traces to be the run's.
    fn sweep_by_traces(&self, sweep: &mut Sweep, children: &Children, guardian: Option<Pid>) {
        let strangers = children.reap_strangers();
        if self.origin == Origin::Own && matches!(strangers, Ok(false)) {
            return;
        }
        if self.origin != Origin::EarlierGone {
            // At once for all of the group: no fork escapes this.
            let _ = process::kill_group(self.main, Signal::KILL.number());
        }
        let mut killed: HashSet<(i32, u64)> = HashSet::new();
        let mut immune: HashSet<(i32, u64)> = HashSet::new();
        let end = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let mut empty_looks = 0;
        let remaining = loop {
            let all = self.suspects(children);
            let mut victims = self.find(&all, children, guardian);
            victims.retain(|stat| !immune.contains(&key(stat)));
            if victims.is_empty() {
                empty_looks += 1;
                let nothing_is_left =
                    self.origin == Origin::Own && matches!(children.reap_strangers(), Ok(false));
                if nothing_is_left || empty_looks == EMPTY_LOOKS {
                    break victims;
                }
                pause = FIRST_PAUSE;
            } else {
                empty_looks = 0;
            }
            if Instant::now() >= end {
                break victims;
            }
            for victim in &victims {
                match kill_exactly(victim) {
                    Ok(()) => drop(killed.insert(key(victim))),
                    Err(_) => drop(immune.insert(key(victim))),
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        sweep.killed += killed.len();
        let strangers = self.suspects(children);
        sweep.left_behind =
            remaining
                .iter()
                .chain(strangers.iter().filter(|stat| {
                    immune.contains(&key(stat)) || self.is_traceless(stat, children)
                }))
                .filter(|stat| !stat.is_zombie())
                .map(|stat| LeftBehind {
                    pid: stat.pid,
                    name: stat.comm.clone(),
                })
                .collect();
    }

    /// All processes that may be the run's. What is our child or descends from one is found by the kernel's lists, quickly:
    /// reading all of `/proc` takes as long as some take to fork and end.
    fn suspects(&self, children: &Children) -> Arc<Vec<Stat>> {
        if self.origin != Origin::Own {
            return children.looks.look();
        }
        let ours = procfs::adopted().unwrap_or_default().into_iter();
        let strangers = ours.filter(|pid| !children.contains(pid.number()));
        let mut all = Vec::new();
        for pid in strangers {
            // Its children first: they are ours once it has ended.
            let below = procfs::descendants(pid);
            all.extend(procfs::stat(pid.number()));
            all.extend(below);
        }
        Arc::new(all)
    }

    /// The living processes of the run, but for `main`.
    fn find(&self, all: &[Stat], children: &Children, guardian: Option<Pid>) -> Vec<Stat> {
        let guardian = guardian.map(Pid::number);
        let strange = match self.origin {
            Origin::Own => {
                let mut strange = pids(all.iter().filter(|stat| is_stranger(stat, children)));
                close_over(all, &mut strange);
                strange
            }
            // Anybody but those that hold its pipes for the sake of its log.
            Origin::Earlier | Origin::EarlierGone => pids(all.iter().filter(|stat| {
                stat.pid != Pid::own().number()
                    && Some(stat.pid) != guardian
                    && !children.contains(stat.pid)
            })),
        };
        let mut found = pids(
            all.iter()
                .filter(|stat| strange.contains(&stat.pid) && self.owns(stat, guardian)),
        );
        close_over(all, &mut found);
        all.iter()
            .filter(|stat| found.contains(&stat.pid) && !stat.is_zombie())
            .cloned()
            .collect()
    }

    fn owns(&self, stat: &Stat, guardian: Option<i32>) -> bool {
        let main = self.main.number();
        // Pids go round, starts do not: nothing that is older than the run is the run's.
        if stat.start_ticks < self.start_ticks || stat.is_zombie() {
            return false;
        }
        let Some(pid) = Pid::new(stat.pid) else {
            return false;
        };
        let in_its_groups = stat.session == main || stat.pgrp == main;
        (in_its_groups && self.origin != Origin::EarlierGone)
            || self.descendants.contains(&key(stat))
            || Environment::of(pid).is_some_and(|environment| environment.has(&self.mark))
            || (is_orphan(stat, guardian)
                && !is_being_started(stat)
                && self.pipes.iter().any(|pipe| procfs::holds_file(pid, *pipe)))
    }

    /// A child of ours that is nobody's: it came from some program that hid every trace, perhaps from this one.
    fn is_traceless(&self, stat: &Stat, children: &Children) -> bool {
        is_stranger(stat, children)
            && stat.start_ticks >= self.start_ticks
            && !stat.is_zombie()
            && !children.contains(stat.session)
            && !children.contains(stat.pgrp)
            && !is_being_started(stat)
            && !cgroups::is_of_a_run(stat.pid)
            && !Pid::new(stat.pid)
                .and_then(Environment::of)
                .is_some_and(|environment| environment.names(RUN_ID.as_bytes()))
            && is_still_there(stat)
    }
}

fn key(stat: &Stat) -> (i32, u64) {
    (stat.pid, stat.start_ticks)
}

/// Whether a process that was seen lives on: one that no watcher knows may have had one that reaped it since.
fn is_still_there(stat: &Stat) -> bool {
    procfs::lives(stat.pid, stat.start_ticks)
}

fn pids<'a>(stats: impl Iterator<Item = &'a Stat>) -> HashSet<i32> {
    stats.map(|stat| stat.pid).collect()
}

/// Whether it is a child of ours that no watcher knows.
fn is_stranger(stat: &Stat, children: &Children) -> bool {
    stat.ppid == Pid::own().number() && !children.contains(stat.pid)
}

/// Whether it may have lost its parent: to us, to the guardian or to init. Others may hold a program's pipe, to look what
/// comes.
fn is_orphan(stat: &Stat, guardian: Option<i32>) -> bool {
    const INIT: i32 = 1;
    stat.ppid == Pid::own().number() || stat.ppid == INIT || Some(stat.ppid) == guardian
}

/// Whether a child of ours has not become its program yet: it still has our descriptors, all of them.
fn is_being_started(stat: &Stat) -> bool {
    stat.ppid == Pid::own().number() && Pid::new(stat.pid).is_some_and(procfs::shares_our_memory)
}

/// Kills this very process, not one that has its number by now.
pub(super) fn kill_exactly(victim: &Stat) -> io::Result<()> {
    let Some(pid) = Pid::new(victim.pid) else {
        return Ok(());
    };
    let gone = |error: io::Error| {
        if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) {
            Ok(())
        } else {
            Err(error)
        }
    };
    // Where there is none, be it that no descriptor is left, the number has to do.
    let pidfd = process::open_pidfd(pid).ok().flatten();
    // The descriptor names whoever has the number now: is it still the one that was found?
    if !is_still_there(victim) {
        return Ok(());
    }
    match pidfd {
        Some(pidfd) => process::kill_pidfd(pidfd).or_else(gone),
        None => process::kill(pid, Signal::KILL.number()).or_else(gone),
    }
}
