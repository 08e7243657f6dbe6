//! A look at all processes, shared by all who want one meanwhile: when hundreds of runs have ended at the same time, each
//! to be cleared up after by several looks, they would else hold up the whole machine.
//!
//! Called by `leftovers`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::sys::procfs::{self, Stat};

/// The last look, and who waits for one.
#[derive(Default)]
pub(super) struct Looks {
    last: Mutex<Option<(Instant, Arc<Vec<Stat>>)>>,
    waiting: AtomicUsize,
}

impl Looks {
    /// All processes, as they were at some moment after this was asked for. Where `/proc` cannot be read, none.
    pub(super) fn look(&self) -> Arc<Vec<Stat>> {
        self.look_by(|| procfs::scan().unwrap_or_default())
    }

    fn look_by(&self, scan: impl FnOnce() -> Vec<Stat>) -> Arc<Vec<Stat>> {
        let asked = Instant::now();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = match last.take() {
            Some((began, seen)) if began > asked => (began, seen),
            _ => {
                let began = Instant::now();
                (began, Arc::new(scan()))
            }
        };
        let all = Arc::clone(&seen.1);
        // Kept for those that have asked before it began, no longer.
        let is_last = self.waiting.fetch_sub(1, Ordering::Relaxed) == 1;
        *last = (!is_last).then_some(seen);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn who_asks_during_a_look_shares_the_next_one_and_nothing_is_kept() {
        let looks = Looks::default();
        let scans = AtomicUsize::new(0);
        let scan = || {
            scans.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        };
        let (begun, first) = channel();
        let (go, gone) = channel::<()>();
        std::thread::scope(|scope| {
            let slow = move || {
                begun.send(()).unwrap();
                gone.recv().unwrap();
                scan()
            };
            let shared = &looks;
            scope.spawn(move || shared.look_by(slow));
            first.recv().unwrap();
            let many: Vec<_> = (0..10)
                .map(|_| scope.spawn(|| looks.look_by(scan)))
                .collect();
            // All of them wait for the first.
            while looks.waiting.load(Ordering::Relaxed) < 11 {
                std::thread::yield_now();
            }
            go.send(()).unwrap();
            for one in many {
                one.join().unwrap();
            }
        });
        assert_eq!(scans.load(Ordering::Relaxed), 2);
        assert!(looks.last.lock().unwrap().is_none());
        looks.look_by(scan);
        assert_eq!(scans.load(Ordering::Relaxed), 3);
    }
}
