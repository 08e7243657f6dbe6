//! Lifecycle events: what happens to programs, told to whoever listens.
//!
//! Watchers publish, once a snapshot shows the same; listeners take in their own time. Nobody waits for a listener: what
//! piles up beyond a bound is dropped, and the listener knows. Called by `watcher` and, through the [`Supervisor`], by `api`.
//!
//! [`Supervisor`]: super::Supervisor

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::machine::{Happening, Origin};
use super::{Exit, Status};
use crate::clock::{BootTime, Timestamp};
use crate::program::ProgramId;
use crate::sys::bell::Bell;

/// Events that may wait for a listener.
const WAITING: usize = 1024;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Started,
    /// By request, or ended by itself with success.
    Stopped,
    /// Again after a run that was ended for it, or that ended without being asked to.
    Restarted,
    /// It ended otherwise without being asked to, or could not be started.
    Error,
}

impl Kind {
    /// The status that the program has by it.
    pub const fn status(self) -> Status {
        match self {
            Kind::Started | Kind::Restarted => Status::Running,
            Kind::Stopped => Status::Stopped,
            Kind::Error => Status::Error,
        }
    }
}

/// Something that happened to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: Kind,
    pub id: ProgramId,
    /// The program's name at that time.
    pub name: String,
    /// All that a run writes comes after its start and before its end, by this clock.
    pub at: BootTime,
    pub timestamp: Timestamp,
    /// The process that was started.
    pub pid: Option<i32>,
    /// How the run ended.
    pub exit: Option<Exit>,
    /// As in the program's log.
    pub message: String,
    /// Why; `None` where a program ended by itself with success.
    pub reason: Option<Origin>,
}

/// What is told of a happening: its kind, how the run ended, and why. `None` for what changes no status.
pub(super) fn kind(
    happening: &Happening,
    cancelled_by_stop: bool,
) -> Option<(Kind, Option<Exit>, Option<Origin>)> {
    match happening {
        Happening::Started { origin } => Some((Kind::Started, None, Some(*origin))),
        Happening::Restarted { origin } => Some((Kind::Restarted, None, Some(*origin))),
        Happening::StartFailed { origin, .. } => Some((Kind::Error, None, Some(*origin))),
        Happening::Stopped { exit } => Some((Kind::Stopped, Some(*exit), Some(Origin::Requested))),
        Happening::Ended {
            exit,
            success: true,
            ..
        } => Some((Kind::Stopped, Some(*exit), None)),
        Happening::Ended { exit, .. } => Some((Kind::Error, Some(*exit), Some(Origin::Crash))),
        // A definition that takes restarts away leaves the status as it is.
        Happening::BackoffCancelled => {
            cancelled_by_stop.then_some((Kind::Stopped, None, Some(Origin::Requested)))
        }
        Happening::Killed => None,
    }
}

/// Where events go from watchers to listeners.
#[derive(Default)]
pub(super) struct Events {
    listeners: Mutex<Vec<Arc<Inbox>>>,
    /// Programs of which a run has begun since then that has not been told yet.
    beginning: Mutex<BTreeMap<ProgramId, BootTime>>,
}

struct Inbox {
    bell: Arc<Bell>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Event>>,
    overflowed: bool,
}

impl Events {
    /// Tells all events from now on to a listener, whose bell rings with each.
    pub(super) fn listen(self: &Arc<Self>, bell: Arc<Bell>) -> Listener {
        let inbox = Arc::new(Inbox {
            bell,
            state: Mutex::default(),
        });
        lock(&self.listeners).push(Arc::clone(&inbox));
        Listener {
            events: Arc::clone(self),
            inbox,
        }
    }

    /// A run begins that was not told yet: what the program writes from now on is to be told after it.
    pub(super) fn begin(&self, id: ProgramId, at: BootTime) {
        lock(&self.beginning).insert(id, at);
    }

    /// Tells what happened to a program, in this order; nothing that began is untold after it.
    pub(super) fn publish(&self, id: ProgramId, events: Vec<Event>) {
        let began = lock(&self.beginning).contains_key(&id);
        if events.is_empty() && !began {
            return;
        }
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        let listeners = lock(&self.listeners);
        for inbox in listeners.iter() {
            lock(&inbox.state).add(&events);
        }
        // Only now: whoever does not find it here any more finds the event.
        lock(&self.beginning).remove(&id);
        for inbox in listeners.iter() {
            inbox.bell.ring();
        }
    }
}

impl State {
    fn add(&mut self, events: &[Arc<Event>]) {
        for event in events {
            if self.waiting.len() < WAITING {
                self.waiting.push_back(Arc::clone(event));
            } else {
                self.overflowed = true;
            }
        }
    }
}

/// The right to hear events. Dropped, it hears no more.
pub struct Listener {
    events: Arc<Events>,
    inbox: Arc<Inbox>,
}

impl Listener {
    /// The oldest event that waits, left where it is.
    pub fn peek(&self) -> Option<Arc<Event>> {
        lock(&self.inbox.state).waiting.front().cloned()
    }

    /// Takes the oldest event that waits.
    pub fn pop(&self) -> Option<Arc<Event>> {
        lock(&self.inbox.state).waiting.pop_front()
    }

    /// More events piled up than may wait: some are lost.
    pub fn has_overflowed(&self) -> bool {
        lock(&self.inbox.state).overflowed
    }

    /// Since when a run of this program has begun without being told. Asked once something of its log was found, and before
    /// the next [`Listener::peek`], it says whether an event that belongs before that is still to come.
    pub fn untold_since(&self, id: ProgramId) -> Option<BootTime> {
        lock(&self.events.beginning).get(&id).copied()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        lock(&self.events.listeners).retain(|inbox| !Arc::ptr_eq(inbox, &self.inbox));
    }
}

/// Every change under these locks is whole at each step, also where a panic left it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ProgramId = ProgramId(1);

    fn event(message: &str) -> Event {
        Event {
            kind: Kind::Started,
            id: ID,
            name: "a".to_owned(),
            at: BootTime::default(),
            timestamp: Timestamp::from_micros(0),
            pid: Some(1),
            exit: None,
            message: message.to_owned(),
            reason: Some(Origin::Requested),
        }
    }

    fn listener(events: &Arc<Events>) -> Listener {
        events.listen(Arc::new(Bell::new().unwrap()))
    }

    #[test]
    fn every_listener_hears_all_in_order() {
        let events = Arc::new(Events::default());
        events.publish(ID, vec![event("before")]);
        let listeners = [listener(&events), listener(&events)];
        events.publish(ID, vec![event("a"), event("b")]);
        events.publish(ID, vec![event("c")]);
        for listener in listeners {
            let heard: Vec<_> = std::iter::from_fn(|| listener.pop())
                .map(|event| event.message.clone())
                .collect();
            assert_eq!(heard, ["a", "b", "c"]);
        }
    }

    #[test]
    fn a_listener_that_does_not_take_loses_the_newest_and_knows_it() {
        let events = Arc::new(Events::default());
        let listener = listener(&events);
        for number in 0..WAITING {
            events.publish(ID, vec![event(&number.to_string())]);
        }
        assert!(!listener.has_overflowed());
        events.publish(ID, vec![event("beyond")]);
        assert!(listener.has_overflowed());
        assert_eq!(std::iter::from_fn(|| listener.pop()).count(), WAITING);
    }

    #[test]
    fn what_is_dropped_hears_nothing() {
        let events = Arc::new(Events::default());
        drop(listener(&events));
        assert!(lock(&events.listeners).is_empty());
    }

    #[test]
    fn a_run_is_untold_from_its_begin_until_it_is_published() {
        let events = Arc::new(Events::default());
        let listener = listener(&events);
        let at = BootTime::from_micros(5);
        events.begin(ID, at);
        assert_eq!(listener.untold_since(ID), Some(at));
        events.publish(ID, Vec::new());
        assert_eq!(listener.untold_since(ID), None);
    }
}
