//! Those who are told when programs' logs grow.
//!
//! The log thread tells and must not be held up: a list is locked only to add to it, and what a listener was told is
//! written down without waiting for the one who reads it, who may have been stopped anywhere. One who does not look is
//! told once and costs no memory: at most a set of all programs. Without listeners telling is one load. Called by
//! `growth` (which tells), `follow` and `tails` (which listen).

use std::collections::BTreeSet;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::program::ProgramId;
use crate::sys::bell::Bell;

/// Who is told. Those that are gone are forgotten when they would be told: they need no lock to go.
#[derive(Default)]
pub struct Listeners {
    /// Length of the list: without listeners telling looks at no more.
    count: AtomicUsize,
    list: Mutex<Vec<Weak<Listener>>>,
}

impl Listeners {
    /// Adds one.
    pub fn add(&self, listener: &Arc<Listener>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|listener| listener.strong_count() > 0);
        list.push(Arc::downgrade(listener));
        self.count.store(list.len(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Tells all of them that a program has grown.
    pub fn tell(&self, id: ProgramId) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|listener| match listener.upgrade() {
            Some(listener) => {
                listener.tell(id);
                true
            }
            None => false,
        });
        self.count.store(list.len(), Ordering::SeqCst);
    }
}

/// One who is told. Dropped, it is told no more.
pub struct Listener {
    bell: Arc<Bell>,
    /// For one who listens to all programs: which have grown since it looked.
    grown: Option<Grown>,
}

#[derive(Default)]
struct Grown {
    ids: Mutex<BTreeSet<ProgramId>>,
    /// There is something in `ids` that was not seen.
    some: AtomicBool,
    /// It could not be written down which: all may have.
    all: AtomicBool,
}

/// What has grown since the last look.
#[derive(Debug, PartialEq, Eq)]
pub enum Since {
    These(BTreeSet<ProgramId>),
    All,
}

impl Listener {
    /// One for a single program.
    pub fn to_one(bell: Arc<Bell>) -> Arc<Listener> {
        Arc::new(Listener { bell, grown: None })
    }

    /// One for all programs.
    pub fn to_all(bell: Arc<Bell>) -> Arc<Listener> {
        Arc::new(Listener {
            bell,
            grown: Some(Grown::default()),
        })
    }

    fn tell(&self, id: ProgramId) {
        if let Some(grown) = &self.grown {
            match grown.ids.try_lock() {
                Ok(mut ids) => {
                    if !ids.insert(id) {
                        // Told before, and not looked at since.
                        return;
                    }
                    grown.some.store(true, Ordering::SeqCst);
                }
                // The reader is there, and may have been stopped there: it is not waited for.
                Err(_) => grown.all.store(true, Ordering::SeqCst),
            }
        }
        self.bell.ring();
    }

    /// Which programs have grown since the last call. Those that are not `wanted` are not told again until
    /// [`Listener::forget`].
    pub fn grown(&self, wanted: impl Fn(ProgramId) -> bool) -> Since {
        let mut found = BTreeSet::new();
        let Some(grown) = &self.grown else {
            return Since::These(found);
        };
        if grown.some.swap(false, Ordering::SeqCst) {
            found = mem::take(&mut *grown.ids());
            let unwanted = found.extract_if(.., |id| !wanted(*id)).collect::<Vec<_>>();
            if !unwanted.is_empty() {
                grown.ids().extend(unwanted);
            }
        }
        if grown.all.swap(false, Ordering::SeqCst) {
            return Since::All;
        }
        Since::These(found)
    }

    /// Forgets what was told, and gives it: all programs are told again from now on.
    pub fn forget(&self) -> Since {
        let Some(grown) = &self.grown else {
            return Since::These(BTreeSet::new());
        };
        let ids = mem::take(&mut *grown.ids());
        if grown.all.swap(false, Ordering::SeqCst) {
            return Since::All;
        }
        Since::These(ids)
    }
}

impl Grown {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<ProgramId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    const A: ProgramId = ProgramId(1);
    const B: ProgramId = ProgramId(2);

    fn rings(bell: &Bell) -> bool {
        const AT_ONCE: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let rung = poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&AT_ONCE)).unwrap() == 1;
        bell.hush();
        rung
    }

    fn these(ids: &[ProgramId]) -> Since {
        Since::These(ids.iter().copied().collect())
    }

    #[test]
    fn one_who_listens_hears_once_which_programs_have_grown() {
        let (list, bell) = (Listeners::default(), Arc::new(Bell::new().unwrap()));
        list.tell(A);
        let listener = Listener::to_all(bell.clone());
        list.add(&listener);
        assert!(!rings(&bell));
        for id in [B, A, B] {
            list.tell(id);
        }
        assert!(rings(&bell));
        assert_eq!(listener.grown(|_| true), these(&[A, B]));
        assert_eq!(listener.grown(|_| true), these(&[]));
    }

    #[test]
    fn what_is_not_wanted_rings_once_and_no_more_until_it_is_forgotten() {
        let (list, bell) = (Listeners::default(), Arc::new(Bell::new().unwrap()));
        let listener = Listener::to_all(bell.clone());
        list.add(&listener);
        list.tell(A);
        assert!(rings(&bell));
        assert_eq!(listener.grown(|_| false), these(&[]));
        list.tell(A);
        assert!(!rings(&bell));
        assert_eq!(listener.forget(), these(&[A]));
        list.tell(A);
        assert!(rings(&bell));
        assert_eq!(listener.grown(|_| true), these(&[A]));
    }

    #[test]
    fn a_reader_that_was_stopped_anywhere_is_not_waited_for() {
        let (list, bell) = (Listeners::default(), Arc::new(Bell::new().unwrap()));
        let listener = Listener::to_all(bell.clone());
        list.add(&listener);
        let reading = listener.grown.as_ref().unwrap().ids();
        list.tell(A);
        drop(reading);
        assert!(rings(&bell));
        assert_eq!(listener.grown(|_| true), Since::All);
    }

    #[test]
    fn one_who_is_gone_is_forgotten() {
        let (list, bell) = (Listeners::default(), Arc::new(Bell::new().unwrap()));
        list.add(&Listener::to_one(bell.clone()));
        list.tell(A);
        assert!(!rings(&bell));
        assert_eq!(list.count.load(Ordering::SeqCst), 0);
    }
}
