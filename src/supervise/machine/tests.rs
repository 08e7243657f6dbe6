//! A table of steps for each rule, then many thousands of random lives against the invariants.

use proptest::prelude::*;

use super::*;
use crate::program::Signal;
use crate::supervise::Exit;

fn pid(number: i32) -> Pid {
    Pid::new(number).unwrap()
}

fn policy() -> Policy {
    Policy {
        auto_restart: true,
        max_restarts: MaxRestarts::AtMost(3),
        restart_policy: RestartPolicy::OnFailure,
        success_exit_codes: vec![0],
        stop_timeout: Duration::from_secs(10),
        restart_delay: Duration::from_secs(1),
    }
}

/// A program whose process starts and ends as the test says. Callers are numbered as they come.
struct World {
    machine: Machine<usize>,
    policy: Policy,
    now: BootTime,
    alive: Option<Pid>,
    pids: i32,
    callers: usize,
    /// Answers by caller.
    answers: Vec<Vec<Answer>>,
    told: Vec<Happening>,
    signals: Vec<(Pid, Signal)>,
    /// What the next starts come to; success once used up.
    starts: Vec<bool>,
    spawned: usize,
}

impl World {
    fn new(policy: Policy) -> World {
        World {
            machine: Machine::default(),
            policy,
            now: BootTime::from_micros(1_000_000_000),
            alive: None,
            pids: 100,
            callers: 0,
            answers: Vec::new(),
            told: Vec::new(),
            signals: Vec::new(),
            starts: Vec::new(),
            spawned: 0,
        }
    }

    fn caller(&mut self) -> usize {
        self.answers.push(Vec::new());
        self.callers += 1;
        self.callers - 1
    }

    fn step(&mut self, event: Event<usize>) {
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            for effect in self.machine.step(event, self.now, &self.policy) {
                match effect {
                    Effect::Spawn => {
                        assert_eq!(self.alive, None, "two processes");
                        self.spawned += 1;
                        if self.starts.pop().unwrap_or(true) {
                            self.pids += 1;
                            self.alive = Some(pid(self.pids));
                            events.push(Event::Spawned(pid(self.pids)));
                        } else {
                            events.push(Event::SpawnFailed("executing: refused".into()));
                        }
                    }
                    Effect::Terminate(to) => self.signal(to, Signal::TERM),
                    Effect::Kill(to) => self.signal(to, Signal::KILL),
                    Effect::Tell(happening) => self.told.push(happening),
                    Effect::Answer(caller, answer) => self.answers[caller].push(answer),
                }
            }
        }
    }

    fn signal(&mut self, to: Pid, signal: Signal) {
        assert_eq!(
            self.alive,
            Some(to),
            "a signal to a process that is not alive"
        );
        self.signals.push((to, signal));
    }

    fn start(&mut self) -> usize {
        let caller = self.caller();
        self.step(Event::Start(caller));
        caller
    }

    fn stop(&mut self, force: bool) -> usize {
        let caller = self.caller();
        self.step(Event::Stop { caller, force });
        caller
    }

    fn restart(&mut self) -> usize {
        let caller = self.caller();
        self.step(Event::Restart(caller));
        caller
    }

    fn exits_after(&mut self, ran: Duration, exit: Exit) {
        self.now = self.now + ran;
        self.exits(exit);
    }

    fn exits(&mut self, exit: Exit) {
        assert!(self.alive.take().is_some());
        self.step(Event::Exited(exit));
    }

    /// Lets the time go on to the next deadline, and returns how long that was.
    fn wait(&mut self) -> Duration {
        let at = self.machine.deadline().expect("something is due");
        let wait = at.since(self.now);
        self.now = at;
        self.step(Event::Tick);
        wait
    }

    fn answer(&self, caller: usize) -> Option<&Answer> {
        self.answers[caller].first()
    }
}

const FAST: Duration = Duration::from_millis(10);
const CRASH: Exit = Exit::Code(3);

#[test]
fn a_start_is_answered_when_the_process_runs_and_a_second_is_refused() {
    let mut world = World::new(policy());
    let first = world.start();
    assert_eq!(world.answer(first), Some(&Answer::Done));
    assert_eq!(world.machine.phase(), Phase::Running);
    let second = world.start();
    assert_eq!(world.answer(second), Some(&Answer::AlreadyRunning));
}

#[test]
fn a_stop_is_answered_at_the_end_and_a_second_joins_it() {
    let mut world = World::new(policy());
    world.start();
    let first = world.stop(false);
    let second = world.stop(false);
    assert_eq!((world.answer(first), world.answer(second)), (None, None));
    assert_eq!(world.signals.len(), 1);
    world.exits(Exit::Signal(Signal::TERM));
    assert_eq!(world.answer(first), Some(&Answer::Done));
    assert_eq!(world.answer(second), Some(&Answer::Done));
    assert_eq!(world.machine.phase(), Phase::Stopped);
    let third = world.stop(false);
    assert_eq!(world.answer(third), Some(&Answer::NotRunning));
}

#[test]
fn kill_follows_after_stop_timeout_and_not_before() {
    let mut world = World::new(policy());
    world.start();
    let caller = world.stop(false);
    world.step(Event::Tick);
    assert_eq!(world.signals.len(), 1);
    assert_eq!(world.wait(), Duration::from_secs(10));
    assert_eq!(world.signals.last(), Some(&(pid(101), Signal::KILL)));
    assert_eq!(world.answer(caller), None);
    world.exits(Exit::Signal(Signal::KILL));
    assert_eq!(world.answer(caller), Some(&Answer::Done));
}

#[test]
fn a_forced_stop_kills_at_once_also_when_a_stop_is_under_way() {
    let mut world = World::new(policy());
    world.start();
    world.stop(false);
    world.stop(true);
    world.stop(true);
    let kills = world
        .signals
        .iter()
        .filter(|(_, signal)| *signal == Signal::KILL)
        .count();
    assert_eq!(kills, 1);
}

#[test]
fn callers_are_let_go_when_a_process_does_not_end_after_kill() {
    let mut world = World::new(policy());
    world.start();
    let caller = world.stop(true);
    world.wait();
    assert_eq!(world.answer(caller), Some(&Answer::WillNotEnd(pid(101))));
    assert_eq!(world.machine.deadline(), None);
    world.exits(Exit::Signal(Signal::KILL));
    assert_eq!(world.machine.phase(), Phase::Stopped);
}

#[test]
fn a_restart_ends_the_process_and_is_answered_by_the_next() {
    let mut world = World::new(policy());
    world.start();
    let caller = world.restart();
    world.exits(Exit::Signal(Signal::TERM));
    assert_eq!(world.answer(caller), Some(&Answer::Done));
    assert_eq!(world.alive, Some(pid(102)));
    assert_eq!(
        world.told.last(),
        Some(&Happening::Restarted {
            origin: Origin::Requested
        })
    );
}

#[test]
fn a_restart_of_what_is_stopped_starts_it() {
    let mut world = World::new(policy());
    let caller = world.restart();
    assert_eq!(world.answer(caller), Some(&Answer::Done));
    assert_eq!(
        world.told,
        [Happening::Started {
            origin: Origin::Requested
        }]
    );
}

#[test]
fn a_stop_during_a_restart_wins_and_the_restart_is_told() {
    let mut world = World::new(policy());
    world.start();
    let restart = world.restart();
    let stop = world.stop(false);
    assert_eq!(world.answer(restart), Some(&Answer::Superseded));
    world.exits(Exit::Signal(Signal::TERM));
    assert_eq!(world.answer(stop), Some(&Answer::Done));
    assert_eq!(world.machine.phase(), Phase::Stopped);
}

#[test]
fn a_start_during_a_stop_follows_it() {
    let mut world = World::new(policy());
    world.start();
    let stop = world.stop(false);
    let start = world.start();
    world.exits(Exit::Signal(Signal::TERM));
    assert_eq!(world.answer(stop), Some(&Answer::Done));
    assert_eq!(world.answer(start), Some(&Answer::Done));
    assert_eq!(world.machine.phase(), Phase::Running);
}

#[test]
fn the_first_restart_after_a_second_is_immediate_and_the_next_ones_wait_twice_as_long_each() {
    let mut world = World::new(Policy {
        max_restarts: MaxRestarts::Unlimited,
        ..policy()
    });
    world.start();
    world.exits_after(Duration::from_secs(1), CRASH);
    assert_eq!(world.machine.phase(), Phase::Running);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        world.exits_after(Duration::from_secs(2), CRASH);
        assert_eq!(world.machine.phase(), Phase::Backoff);
        assert_eq!(world.wait(), Duration::from_secs(seconds));
        assert_eq!(world.machine.phase(), Phase::Running);
    }
    assert_eq!(world.machine.restarts(), 9);
}

#[test]
fn a_start_that_fails_at_once_waits_before_its_first_restart() {
    let mut world = World::new(policy());
    world.start();
    world.exits_after(FAST, CRASH);
    assert_eq!(world.wait(), Duration::from_secs(1));
}

#[test]
fn after_max_restarts_in_a_row_it_has_failed_and_a_start_clears_that() {
    let mut world = World::new(policy());
    world.start();
    for _ in 0..3 {
        world.exits_after(FAST, CRASH);
        world.wait();
    }
    world.exits_after(FAST, CRASH);
    assert_eq!(world.machine.phase(), Phase::Failed);
    assert_eq!(world.machine.restarts(), 3);
    let Some(Happening::Ended {
        next: Next::GaveUp(4),
        ..
    }) = world.told.last()
    else {
        panic!("{:?}", world.told.last());
    };
    world.start();
    assert_eq!(
        (world.machine.phase(), world.machine.restarts()),
        (Phase::Running, 0)
    );
    world.exits_after(FAST, CRASH);
    assert_eq!(world.machine.phase(), Phase::Backoff);
}

#[test]
fn a_minute_of_running_clears_the_row() {
    let mut world = World::new(policy());
    world.start();
    for _ in 0..10 {
        world.exits_after(Duration::from_secs(60), CRASH);
        assert_eq!(world.machine.phase(), Phase::Running);
    }
}

#[test]
fn success_is_the_end_unless_the_policy_is_always() {
    let mut world = World::new(policy());
    world.start();
    world.exits_after(FAST, Exit::Code(0));
    assert_eq!(world.machine.phase(), Phase::Exited);

    let mut world = World::new(Policy {
        restart_policy: RestartPolicy::Always,
        ..policy()
    });
    world.start();
    world.exits_after(FAST, Exit::Code(0));
    assert_eq!(world.machine.phase(), Phase::Backoff);
}

#[test]
fn without_auto_restart_or_with_none_allowed_a_crash_is_the_end() {
    for policy in [
        Policy {
            auto_restart: false,
            ..policy()
        },
        Policy {
            max_restarts: MaxRestarts::AtMost(0),
            ..policy()
        },
    ] {
        let mut world = World::new(policy);
        world.start();
        world.exits_after(FAST, Exit::Unknown);
        assert_eq!(world.machine.phase(), Phase::Failed);
        world.start();
        world.exits_after(FAST, Exit::Code(0));
        assert_eq!(world.machine.phase(), Phase::Exited);
    }
}

#[test]
fn a_start_that_is_asked_for_and_fails_is_not_tried_again() {
    let mut world = World::new(policy());
    world.starts = vec![false];
    let caller = world.start();
    assert_eq!(
        world.answer(caller),
        Some(&Answer::StartFailed("executing: refused".into()))
    );
    assert_eq!(world.machine.phase(), Phase::Failed);
}

#[test]
fn an_autostart_that_fails_is_tried_again() {
    let mut world = World::new(policy());
    world.starts = vec![true, false, false];
    world.step(Event::Autostart);
    assert_eq!(world.machine.phase(), Phase::Backoff);
    assert_eq!(world.wait(), Duration::from_secs(1));
    assert_eq!(world.wait(), Duration::from_secs(2));
    assert_eq!(world.machine.phase(), Phase::Running);
}

#[test]
fn a_definition_without_restarts_cancels_the_one_that_is_due() {
    let mut world = World::new(policy());
    world.start();
    world.exits_after(FAST, CRASH);
    world.policy.auto_restart = false;
    world.step(Event::Tick);
    assert_eq!(world.machine.phase(), Phase::Failed);
}

#[test]
fn a_stop_of_what_did_not_end_after_kill_kills_again() {
    let mut world = World::new(policy());
    world.start();
    world.stop(true);
    world.wait();
    let second = world.stop(false);
    assert_eq!(world.signals.len(), 2);
    world.wait();
    assert_eq!(world.answer(second), Some(&Answer::WillNotEnd(pid(101))));
}

#[test]
fn a_stop_in_backoff_cancels_it_and_a_start_does_not_wait() {
    let mut world = World::new(policy());
    world.start();
    world.exits_after(FAST, CRASH);
    let stop = world.stop(false);
    assert_eq!(world.answer(stop), Some(&Answer::Done));
    assert_eq!(world.machine.phase(), Phase::Stopped);

    world.start();
    world.exits_after(FAST, CRASH);
    let start = world.start();
    assert_eq!(world.answer(start), Some(&Answer::Done));
}

#[derive(Clone, Debug)]
enum Act {
    Start,
    Stop {
        force: bool,
    },
    Restart,
    Autostart,
    /// The process, if there is one, ends this way.
    Exit(Exit),
    Pass(Duration),
    /// A tick out of turn.
    Tick,
    /// The next start fails.
    FailNext,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Start),
        3 => any::<bool>().prop_map(|force| Act::Stop { force }),
        3 => Just(Act::Restart),
        1 => Just(Act::Autostart),
        6 => prop_oneof![
            (0..3u8).prop_map(Exit::Code),
            Just(Exit::Signal(Signal::KILL)),
            Just(Exit::Unknown)
        ].prop_map(Act::Exit),
        4 => (0..90_000u64).prop_map(|millis| Act::Pass(Duration::from_millis(millis))),
        2 => Just(Act::Tick),
        1 => Just(Act::FailNext),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), -1..4i64, any::<bool>(), 0..20u64, 0..100u64).prop_map(
        |(auto_restart, max, always, stop, delay)| Policy {
            auto_restart,
            max_restarts: MaxRestarts::from_number(max).unwrap(),
            restart_policy: if always {
                RestartPolicy::Always
            } else {
                RestartPolicy::OnFailure
            },
            success_exit_codes: vec![0],
            stop_timeout: Duration::from_secs(stop),
            restart_delay: Duration::from_secs(delay),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// `World` itself asserts: never two processes, no signal to a process that is not alive.
    #[test]
    fn no_order_of_events_breaks_a_life(policy in any_policy(), acts in proptest::collection::vec(act(), 1..60)) {
        let mut world = World::new(policy);
        for act in acts {
            match act {
                Act::Start => drop(world.start()),
                Act::Stop { force } => drop(world.stop(force)),
                Act::Restart => drop(world.restart()),
                Act::Autostart => world.step(Event::Autostart),
                Act::Exit(exit) => if world.alive.is_some() { world.exits(exit) },
                Act::FailNext => world.starts.push(false),
                Act::Pass(span) => {
                    // The watcher never sleeps past a deadline by much; it may wake long before one.
                    world.now = world.now + span;
                    world.step(Event::Tick);
                }
                Act::Tick => {
                    let early = world.machine.deadline().is_none_or(|at| world.now < at);
                    let before = (world.machine.state(), world.signals.len(), world.told.len(), world.spawned);
                    world.step(Event::Tick);
                    let after = (world.machine.state(), world.signals.len(), world.told.len(), world.spawned);
                    prop_assert!(!early || before == after, "an early tick did something");
                }
            }
            let state = world.machine.state();
            let has_process = matches!(state, State::Running { .. } | State::Stopping { .. });
            prop_assert_eq!(has_process, world.alive.is_some());
            let is_starting = matches!(state, State::Starting { .. });
            prop_assert!(!is_starting, "a start is over when its result is known");
            if let MaxRestarts::AtMost(limit) = world.policy.max_restarts {
                prop_assert!(world.machine.failures <= limit);
            }
        }

        // Whatever the state: one stop, and the end of the process, bring it to rest, with every caller answered once.
        world.stop(false);
        if world.alive.is_some() {
            world.exits(Exit::Signal(Signal::KILL));
        }
        prop_assert_eq!(world.machine.deadline(), None);
        let rests = matches!(world.machine.state(), State::Stopped | State::Exited | State::Failed);
        prop_assert!(rests);
        for answers in &world.answers {
            prop_assert_eq!(answers.len(), 1, "a caller answered {} times", answers.len());
        }
    }
}
