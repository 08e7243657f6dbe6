//! What was used when: the samples that plots are drawn from.
//!
//! No timer takes them. Whoever asks for usage in any way has all of it kept that was read for the answer, if the sample
//! before is old enough: so a dashboard that is opened shows what a scraper or another dashboard asked for before, and a
//! daemon that nobody asks does nothing and keeps nothing. The first sample of a program is the average since its start.
//!
//! Bounded twice: by time (the last ten minutes as they came, the hour before thinned), and by size, in that with many
//! programs samples are further apart. Whoever asks after an hour in which nobody did finds it empty. Called by `metrics`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Sample as Used;
use crate::clock::{BootTime, Timestamp};
use crate::program::ProgramId;

/// Samples are at least so far apart.
const FINE: Duration = Duration::from_secs(2);
/// The same of those that are older than [`RECENT`].
const COARSE: Duration = Duration::from_secs(30);
const RECENT: Duration = Duration::from_secs(600);
/// Older ones are forgotten.
const KEPT: Duration = Duration::from_secs(3600);
/// Samples that there are at most, as follows from these.
const MOST: usize = 400;
/// Bytes that all of them may take: with more programs than fit they are further apart.
const BUDGET: usize = 2 * 1024 * 1024;

/// Change of the wall clock against the boot clock, in microseconds, from which on it is a jump and no adjustment.
const JUMP: u64 = 100_000;

/// What was used at one moment.
#[derive(Debug)]
pub struct Moment {
    pub at: BootTime,
    pub system: Point,
    /// Those that ran, in order of id; `None` where only the machine was asked about.
    pub programs: Option<Box<[(ProgramId, Point)]>>,
}

impl Moment {
    /// What this program used; `None` where that is not known.
    pub fn program(&self, id: ProgramId) -> Option<Point> {
        let programs = self.programs.as_ref()?;
        let at = programs.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(programs[at].1)
    }

    fn bytes(&self) -> usize {
        let programs = self.programs.as_ref().map_or(0, |programs| programs.len());
        size_of::<Moment>() + programs * size_of::<(ProgramId, Point)>()
    }
}

/// CPU and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Percent, on average since the sample before or, if that is the first one, since the start.
    pub cpu_percent: f32,
    pub memory_kib: u32,
}

/// What a program that runs has used since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub id: ProgramId,
    /// Which run.
    pub started_at: BootTime,
    /// Microseconds.
    pub cpu: u64,
    pub memory_bytes: u64,
}

/// All samples.
#[derive(Default)]
pub struct History {
    /// Oldest first.
    moments: VecDeque<Arc<Moment>>,
    /// What CPU percentages are reckoned from.
    machine: Option<Used>,
    programs: Vec<(BootTime, Running)>,
    /// Wall clock minus boot clock, in microseconds.
    wall_offset: i64,
}

impl History {
    /// Whether a sample that is taken now would be kept. `whole`: with all programs.
    pub fn is_due(&self, now: BootTime, whole: bool) -> bool {
        self.moments.back().is_none_or(|last| {
            now.since(last.at) >= FINE || whole && last.programs.is_none() && now > last.at
        })
    }

    /// Keeps what is used now. `programs` are those that run, in order of id, where they were looked at: such a sample
    /// takes the place of one without that is too close.
    pub fn keep(
        &mut self,
        now: BootTime,
        machine: Used,
        memory_bytes: u64,
        programs: Option<Vec<Running>>,
    ) {
        let first = Used { at: 0, used: 0 };
        let before = self.machine.replace(machine).unwrap_or(first);
        let system = point(
            machine.used.saturating_sub(before.used),
            machine.at.saturating_sub(before.at),
            memory_bytes,
        );
        let programs = programs.map(|programs| {
            let points = programs.iter().map(|running| {
                let place = self
                    .programs
                    .binary_search_by_key(&running.id, |(_, earlier)| earlier.id);
                let (since, cpu) = match place.map(|place| self.programs[place]) {
                    Ok((at, earlier)) if earlier.started_at == running.started_at => {
                        (at, earlier.cpu)
                    }
                    _ => (running.started_at, 0),
                };
                // What an ended process had used can vanish from the sum: that is not negative use.
                let used = running.cpu.saturating_sub(cpu);
                let span = now.as_micros().saturating_sub(since.as_micros());
                (running.id, point(used, span, running.memory_bytes))
            });
            let points = points.collect();
            self.programs = programs.into_iter().map(|running| (now, running)).collect();
            points
        });
        if let Some(last) = self.moments.back()
            && programs.is_some()
            && last.programs.is_none()
            && now.since(last.at) < FINE
        {
            self.moments.pop_back();
        }
        self.moments.push_back(Arc::new(Moment {
            at: now,
            system,
            programs,
        }));
        self.thin(now);
    }

    /// The samples that were taken after this moment, oldest first, and by how many microseconds the wall clock is ahead of
    /// theirs: the same in all answers unless it jumps, so that a sample has the same time in each.
    pub fn since(&mut self, since: BootTime) -> (Vec<Arc<Moment>>, i64) {
        let boot = BootTime::now().as_micros() as i64;
        let offset = Timestamp::now().as_micros().saturating_sub(boot);
        if offset.abs_diff(self.wall_offset) >= JUMP {
            self.wall_offset = offset;
        }
        let newer = self.moments.iter().filter(|moment| moment.at > since);
        (newer.cloned().collect(), self.wall_offset)
    }

    /// Forgets what is too old or too close to others.
    fn thin(&mut self, now: BootTime) {
        let largest = self.moments.iter().map(|moment| moment.bytes()).max();
        let factor = (MOST * largest.unwrap_or(0)).div_ceil(BUDGET).max(1) as u32;
        let mut last = None;
        self.moments.retain(|moment| {
            let age = now.since(moment.at);
            let apart = match age {
                // The newest is always kept.
                Duration::ZERO => return true,
                age if age > KEPT => return false,
                age if age > RECENT => COARSE * factor,
                _ => FINE * factor,
            };
            let keep = last.is_none_or(|last| moment.at.since(last) >= apart);
            if keep {
                last = Some(moment.at);
            }
            keep
        });
        self.moments.shrink_to(self.moments.len() * 2);
    }
}

fn point(used: u64, span: u64, memory_bytes: u64) -> Point {
    let percent = match span {
        0 => 0.0,
        span => used as f64 * 100.0 / span as f64,
    };
    Point {
        cpu_percent: percent as f32,
        memory_kib: u32::try_from(memory_bytes / 1024).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_micros(seconds * SECOND)
    }

    /// CPU times of a machine with one CPU, in seconds.
    fn machine(at: u64, used: u64) -> Used {
        Used { at, used }
    }

    fn running(id: u32, started: u64, cpu_seconds: u64) -> Running {
        Running {
            id: ProgramId(id),
            started_at: at(started),
            cpu: cpu_seconds * SECOND,
            memory_bytes: 4096,
        }
    }

    /// Asks for all programs, if that is due.
    fn ask(history: &mut History, second: u64, programs: Vec<Running>) {
        if history.is_due(at(second), true) {
            history.keep(
                at(second),
                machine(second, second / 4),
                1 << 20,
                Some(programs),
            );
        }
    }

    fn cpu(history: &mut History, id: u32) -> Vec<Option<f32>> {
        let (moments, _) = history.since(BootTime::default());
        let programs = moments.iter().map(|moment| moment.program(ProgramId(id)));
        programs.map(|point| Some(point?.cpu_percent)).collect()
    }

    #[test]
    fn the_first_is_the_average_since_the_start_and_each_other_since_the_one_before() {
        let mut history = History::default();
        ask(
            &mut history,
            100,
            vec![running(1, 0, 10), running(3, 99, 1)],
        );
        ask(
            &mut history,
            104,
            vec![running(1, 0, 12), running(2, 103, 1), running(3, 99, 1)],
        );
        // Another run, which has used less than the one before; and one that lost what an ended process had used.
        ask(
            &mut history,
            108,
            vec![running(1, 106, 1), running(2, 103, 0)],
        );
        assert_eq!(cpu(&mut history, 1), [Some(10.0), Some(50.0), Some(50.0)]);
        assert_eq!(cpu(&mut history, 2), [None, Some(100.0), Some(0.0)]);
        assert_eq!(cpu(&mut history, 3), [Some(100.0), Some(0.0), None]);
        let (moments, _) = history.since(at(100));
        assert_eq!(moments.len(), 2);
        assert_eq!(moments[0].system.cpu_percent, 25.0);
        assert_eq!(moments[0].system.memory_kib, 1024);
    }

    #[test]
    fn who_asks_for_all_is_not_kept_from_it_by_who_asks_for_the_machine() {
        let mut history = History::default();
        for second in 0..40 {
            let now = at(second);
            if history.is_due(now, false) {
                history.keep(now, machine(second, 0), 0, None);
            }
            let now = now + Duration::from_millis(500);
            if history.is_due(now, true) {
                history.keep(now, machine(second, 0), 0, Some(vec![running(1, 0, 0)]));
            }
        }
        let points = cpu(&mut history, 1);
        assert!(points.iter().flatten().count() >= 19, "{points:?}");
    }

    #[test]
    fn recent_samples_are_close_older_ones_thinned_and_those_of_long_ago_gone() {
        let mut history = History::default();
        let mut most = 0;
        for second in 0..10_000 {
            ask(&mut history, second, vec![running(1, 0, 0)]);
            most = most.max(history.moments.len());
        }
        assert!(most <= MOST + 2, "{most}");
        let now = history.moments.back().unwrap().at;
        let ages: Vec<u64> = history
            .moments
            .iter()
            .map(|moment| now.since(moment.at).as_secs())
            .collect();
        assert!(ages.is_sorted_by(|a, b| a > b));
        assert!((3570..=3600).contains(&ages[0]), "{}", ages[0]);
        for pair in ages.windows(2) {
            let apart = pair[0] - pair[1];
            let expected = match pair[1] > RECENT.as_secs() {
                true => 30,
                false => 2,
            };
            assert!(
                apart == expected || pair[0] > 598 && pair[1] <= 600,
                "{pair:?}"
            );
        }
        // Nobody asks for a day.
        ask(&mut history, 100_000, Vec::new());
        assert_eq!(history.moments.len(), 1);
        assert!(history.moments.capacity() <= 16);
    }

    #[test]
    fn many_programs_take_no_more_than_is_allowed() {
        let mut history = History::default();
        for second in 0..600 {
            if history.is_due(at(second), true) {
                let programs = (0..3_000).map(|id| running(id, 0, 0)).collect();
                ask(&mut history, second, programs);
            }
            let bytes: usize = history.moments.iter().map(|moment| moment.bytes()).sum();
            // And the one that came just now.
            assert!(bytes <= BUDGET + 50_000, "{bytes}");
        }
        assert!(history.moments.len() > 20);
    }
}
