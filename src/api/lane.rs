//! [`Lane`]: work that takes long, off the threads that serve requests.
//!
//! Threads are started when there is work and end when there is none: an idle daemon has none of them. How many work at
//! a time, and how much waits, is bounded. Called by `api` for password checks and log searches.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::report;

/// As that of the threads that serve requests. Enough for bcrypt (4 KiB of state on the stack) and for reading logs; see the test in `password.rs`.
const STACK_BYTES: usize = 256 * 1024;
/// Enough for the configuration: TOML may be nested 80 levels deep. What is not touched takes no memory.
pub const DEEP_STACK_BYTES: usize = 4 << 20;

/// A bounded queue and the threads that work it off; clones share them.
#[derive(Clone)]
pub struct Lane(Arc<Shared>);

struct Shared {
    name: &'static str,
    /// Threads at a time.
    parallel: usize,
    /// Jobs that may wait.
    queue: usize,
    stack: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    threads: usize,
    waiting: VecDeque<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Lane {
    /// A lane whose threads bear `name` (at most 15 characters, as the kernel shows it).
    pub fn new(name: &'static str, parallel: usize, queue: usize) -> Lane {
        Lane::with_stack(STACK_BYTES, name, parallel, queue)
    }

    /// The same with a stack of this many bytes a thread.
    pub fn with_stack(stack: usize, name: &'static str, parallel: usize, queue: usize) -> Lane {
        Lane(Arc::new(Shared {
            stack,
            name,
            parallel,
            queue,
            state: Mutex::default(),
        }))
    }

    /// Has `work` done with what it is given, soon; where no thread can be had, before this returns, if it needs no
    /// deeper stack. If it panics, `given` is dropped.
    ///
    /// # Errors
    /// There is no room, or no thread for what needs one: `given` comes back.
    pub fn run<T, F>(&self, given: T, work: F) -> Result<(), T>
    where
        T: Send + 'static,
        F: FnOnce(T) + Send + 'static,
    {
        let mut state = self.0.state();
        if state.waiting.len() >= self.0.queue {
            return Err(given);
        }
        if state.threads < self.0.parallel {
            // The new thread waits for the lock, and so finds the job.
            match self.start() {
                Ok(()) => state.threads += 1,
                // The caller's has as much stack: rather one that is held up than nobody who can log in and look.
                Err(_) if state.threads == 0 && self.0.stack <= STACK_BYTES => {
                    drop(state);
                    self.0.work_at(Box::new(move || work(given)));
                    return Ok(());
                }
                Err(error) if state.threads == 0 => {
                    let name = self.0.name;
                    report::warn(format_args!("no thread for {name} can be started: {error}"));
                    return Err(given);
                }
                // Those that run will come to it.
                Err(_) => {}
            }
        }
        state.waiting.push_back(Box::new(move || work(given)));
        Ok(())
    }

    fn start(&self) -> std::io::Result<()> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new()
            .name(shared.name.to_owned())
            .stack_size(self.0.stack)
            .spawn(move || shared.work_off())
            .map(drop)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, the counts would still be right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_off(&self) {
        loop {
            let job = {
                let mut state = self.state();
                match state.waiting.pop_front() {
                    Some(job) => job,
                    None => {
                        state.threads -= 1;
                        return;
                    }
                }
            };
            self.work_at(job);
        }
    }

    fn work_at(&self, job: Job) {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            report::error(format_args!("{}: a job panicked", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn all_work_is_done() {
        let lane = Lane::new("test", 2, 100);
        let (done, results) = mpsc::channel();
        for number in 0..100 {
            let sent = lane.run(done.clone(), move |done| done.send(number).unwrap());
            assert!(sent.is_ok());
        }
        drop(done);
        let mut seen: Vec<i32> = results.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_does_not_fit_comes_back() {
        let lane = Lane::new("test", 1, 2);
        let (release, gate) = mpsc::channel::<()>();
        let (began, beginning) = mpsc::channel();
        let block = move |()| {
            began.send(()).unwrap();
            gate.recv().unwrap();
        };
        assert!(lane.run((), block).is_ok());
        beginning.recv().unwrap();
        assert_eq!(lane.run("a", |_| {}), Ok(()));
        assert_eq!(lane.run("b", |_| {}), Ok(()));
        assert_eq!(lane.run("c", |_| {}), Err("c"));
        release.send(()).unwrap();
    }

    #[test]
    fn a_panic_drops_what_was_given_and_the_lane_lives_on() {
        let lane = Lane::new("test", 1, 10);
        let (done, results) = mpsc::channel::<i32>();
        assert!(lane.run(done, |_done| panic!("as the test wants")).is_ok());
        assert!(results.recv().is_err());
        let (done, results) = mpsc::channel();
        assert!(lane.run(done, |done| done.send(1).unwrap()).is_ok());
        assert_eq!(results.recv(), Ok(1));
    }

    #[test]
    fn an_idle_lane_has_no_thread() {
        let lane = Lane::new("test", 2, 10);
        let (done, results) = mpsc::channel();
        assert!(lane.run(done, |done| done.send(1).unwrap()).is_ok());
        assert_eq!(results.recv(), Ok(1));
        // The thread lets go of the lane as it ends.
        while Arc::strong_count(&lane.0) > 1 {
            thread::yield_now();
        }
        assert_eq!(lane.0.state().threads, 0);
    }
}
