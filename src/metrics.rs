//! CPU, memory, disk and uptime, measured when somebody asks.
//!
//! Owns the samples that CPU percentages are reckoned from, and those that plots are drawn from (`history`); runs no timer
//! and reads nothing on its own. Called by `api`.
//! Plain reads of `/proc` instead of the crate sysinfo: half the time a process (17 against 37 us, debug builds), no
//! memory kept a process, and CPU time of ended children counts.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::BootTime;
use crate::program::ProgramId;
use crate::sys::procfs::{self, Stat};

mod history;

pub use history::{Moment, Point};

use history::{History, Running};

/// How old a sample must be to reckon from it.
const SAMPLE_AGE: Duration = Duration::from_secs(1);

/// Usage of one program's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProgramUsage {
    /// Percent of one CPU since the last sample that is at least 1 s old; the first is the average since the start.
    pub cpu_percent: f64,
    /// Sum of RSS of the program's processes.
    pub memory_bytes: u64,
}

/// Usage of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SystemUsage {
    /// Percent of the whole machine since the last sample that is at least 1 s old; the first: since boot.
    pub cpu_percent: f64,
    /// MemTotal - MemAvailable.
    pub memory_bytes: u64,
    /// Percent of the file system that was asked about; `None` where it is not to be had.
    pub disk_percent: Option<f64>,
    pub uptime: Duration,
}

/// A run that is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: ProgramId,
    /// The main process.
    pub pid: i32,
    pub started_at: BootTime,
}

/// Samples shared by all who ask.
#[derive(Default)]
pub struct Metrics {
    samples: Mutex<Samples>,
}

#[derive(Default)]
struct Samples {
    system: Option<Track>,
    /// By main process: its pid and, as pids are used again, its start in clock ticks.
    programs: HashMap<(i32, u64), Track>,
    history: History,
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// What one of these runs, which are all that there are in order of id, uses; nothing, if it has ended.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn program(&self, runs: &[Run], id: ProgramId) -> io::Result<ProgramUsage> {
        let used = look(runs)?;
        let mut samples = self.lock();
        samples.keep(runs, &used)?;
        let run = runs.iter().find(|run| run.id == id);
        Ok(run.map_or_else(ProgramUsage::default, |run| samples.usage(run, &used)))
    }

    /// What each of these runs uses, which are all that there are in order of id: without those that have ended.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn programs(&self, runs: &[Run]) -> io::Result<HashMap<ProgramId, ProgramUsage>> {
        let used = look(runs)?;
        let mut samples = self.lock();
        samples.keep(runs, &used)?;
        let alive = runs.iter().filter(|run| used.contains_key(&run.pid));
        Ok(alive
            .map(|run| (run.id, samples.usage(run, &used)))
            .collect())
    }

    /// What each of these runs, which are all that there are in order of id, has used so far, by main process: without those
    /// that have ended.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn totals(&self, runs: &[Run]) -> io::Result<HashMap<i32, ProgramTotals>> {
        let used = look(runs)?;
        self.lock().keep(runs, &used)?;
        let total = |used: Used| ProgramTotals {
            cpu_seconds: used.ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            memory_bytes: used.memory_bytes(),
        };
        Ok(used
            .into_iter()
            .map(|(pid, used)| (pid, total(used)))
            .collect())
    }

    /// What the machine uses; the disk is that of `path`.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn system(&self, path: &Path) -> io::Result<SystemUsage> {
        let now = BootTime::now();
        let (present, memory_bytes) = machine()?;
        let mut samples = self.lock();
        if samples.history.is_due(now, false) {
            samples.history.keep(now, present, memory_bytes, None);
        }
        let track = samples
            .system
            .get_or_insert(Track::new(Sample { at: 0, used: 0 }));
        Ok(SystemUsage {
            cpu_percent: track.percent(present),
            memory_bytes,
            disk_percent: disk_percent(path),
            uptime: now.since(BootTime::default()),
        })
    }

    /// What was used at moments after this one, oldest first, as far as somebody asked then; and by how many microseconds the
    /// wall clock is ahead of the boot clock.
    pub fn since(&self, moment: BootTime) -> (Vec<Arc<Moment>>, i64) {
        self.lock().history.since(moment)
    }

    fn lock(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Samples {
    fn usage(&mut self, run: &Run, used: &HashMap<i32, Used>) -> ProgramUsage {
        let Some(found) = used.get(&run.pid) else {
            return ProgramUsage::default();
        };
        let start = Sample {
            at: run.started_at.as_micros(),
            used: 0,
        };
        let key = (run.pid, found.start_ticks);
        let track = self.programs.entry(key).or_insert(Track::new(start));
        ProgramUsage {
            cpu_percent: track.percent(Sample {
                at: BootTime::now().as_micros(),
                used: found.cpu_micros(),
            }),
            memory_bytes: found.memory_bytes(),
        }
    }

    /// Takes note of what was read: for plots, if that is due.
    fn keep(&mut self, runs: &[Run], used: &HashMap<i32, Used>) -> io::Result<()> {
        // What is kept is bounded by the programs that run.
        self.programs.retain(|(pid, start_ticks), _| {
            let same = |used: &Used| used.start_ticks == *start_ticks;
            used.get(pid).is_some_and(same)
        });
        let now = BootTime::now();
        if !self.history.is_due(now, true) {
            return Ok(());
        }
        let (present, memory_bytes) = machine()?;
        let running = runs.iter().filter_map(|run| {
            let used = used.get(&run.pid)?;
            Some(Running {
                id: run.id,
                started_at: run.started_at,
                cpu: used.cpu_micros(),
                memory_bytes: used.memory_bytes(),
            })
        });
        let running = Some(running.collect());
        self.history.keep(now, present, memory_bytes, running);
        Ok(())
    }
}

/// CPU time used so far (`used`) at a moment (`at`), both in the same unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    at: u64,
    used: u64,
}

/// Two samples are enough to have one that is at least [`SAMPLE_AGE`] old whenever somebody asks.
#[derive(Clone, Copy)]
struct Track {
    /// The one to reckon from.
    base: Sample,
    /// The last one taken, and when: it becomes the base once it is old enough.
    latest: Option<(BootTime, Sample)>,
}

impl Track {
    fn new(base: Sample) -> Track {
        Track { base, latest: None }
    }

    fn percent(&mut self, present: Sample) -> f64 {
        self.percent_at(present, BootTime::now())
    }

    fn percent_at(&mut self, present: Sample, now: BootTime) -> f64 {
        match self.latest {
            Some((taken, _)) if now.since(taken) < SAMPLE_AGE => {}
            Some((_, sample)) => {
                self.base = sample;
                self.latest = Some((now, present));
            }
            None => self.latest = Some((now, present)),
        }
        let span = present.at.saturating_sub(self.base.at);
        // What an ended process had used can vanish from the sum: that is not negative use.
        let used = present.used.saturating_sub(self.base.used);
        if span == 0 {
            0.0
        } else {
            used as f64 * 100.0 / span as f64
        }
    }
}

/// CPU time and memory of one program's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProgramTotals {
    /// Of the processes that there are, and of ended ones that a living one has waited for.
    pub cpu_seconds: f64,
    /// Sum of RSS.
    pub memory_bytes: u64,
}

/// What a program's processes have used.
#[derive(Clone, Copy, Default)]
struct Used {
    /// When its main process started.
    start_ticks: u64,
    ticks: u64,
    pages: u64,
}

impl Used {
    fn cpu_micros(&self) -> u64 {
        self.ticks * 1_000_000 / rustix::param::clock_ticks_per_second()
    }

    fn memory_bytes(&self) -> u64 {
        self.pages * rustix::param::page_size() as u64
    }
}

/// What runs have used, by main process, from one look at all processes; without those that have ended.
fn look(runs: &[Run]) -> io::Result<HashMap<i32, Used>> {
    let all = procfs::scan()?;
    let mains = runs.iter().map(|run| run.pid).collect();
    let mut found: HashMap<i32, Used> = HashMap::new();
    for (process, main) in all.iter().zip(owners(&all, &mains)) {
        if let Some(main) = main {
            let used = found.entry(main).or_default();
            used.ticks += process.cpu_ticks;
            used.pages += process.rss_pages;
            if process.pid == main {
                used.start_ticks = process.start_ticks;
            }
        }
    }
    // Of one that has ended something may be left for a moment.
    found.retain(|_, used| used.start_ticks > 0);
    Ok(found)
}

/// What the daemon itself uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnUsage {
    pub cpu_seconds: f64,
    /// RSS.
    pub memory_bytes: u64,
    pub open_fds: usize,
    /// `None`: there is no limit.
    pub max_fds: Option<u64>,
}

/// What the daemon itself uses.
///
/// # Errors
/// `/proc` cannot be read.
pub fn own() -> io::Result<OwnUsage> {
    let stat = procfs::stat(rustix::process::getpid().as_raw_nonzero().get())?;
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Ok(OwnUsage {
        cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        memory_bytes: stat.rss_pages * rustix::param::page_size() as u64,
        // But for the one that this very look takes.
        open_fds: fs::read_dir("/proc/self/fd")?.count().saturating_sub(1),
        max_fds: limit.current,
    })
}

/// Of each process the main process of its program: its own session's, else that of what it descends from.
fn owners(all: &[Stat], mains: &HashSet<i32>) -> Vec<Option<i32>> {
    let is_main = |pid: &i32| mains.contains(pid);
    let mut owners: Vec<Option<i32>> = all
        .iter()
        .map(|process| [process.pid, process.session].into_iter().find(is_main))
        .collect();
    let index: HashMap<i32, usize> = all
        .iter()
        .enumerate()
        .map(|(at, process)| (process.pid, at))
        .collect();
    // A child mostly has a higher pid and comes later, so that one round is enough; another where pids have wrapped.
    let mut grown = true;
    while grown {
        grown = false;
        for (at, process) in all.iter().enumerate() {
            let parent = index.get(&process.ppid).and_then(|at| owners[*at]);
            if owners[at].is_none() && parent.is_some() {
                owners[at] = parent;
                grown = true;
            }
        }
    }
    owners
}

/// CPU time and used memory of the machine.
fn machine() -> io::Result<(Sample, u64)> {
    let cpu = machine_cpu(&fs::read_to_string("/proc/stat")?)?;
    Ok((cpu, memory_used(&fs::read_to_string("/proc/meminfo")?)?))
}

/// Busy and total time of all CPUs. Source: proc_stat(5), the line `cpu`; guest time is in user time already.
fn machine_cpu(stat: &str) -> io::Result<Sample> {
    let times: Vec<u64> = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .ok_or(io::ErrorKind::InvalidData)?
        .split_ascii_whitespace()
        .take(8)
        .map(|time| time.parse().unwrap_or(0))
        .collect();
    let total: u64 = times.iter().sum();
    // The fourth and fifth are idle and iowait.
    let idle: u64 = times.iter().skip(3).take(2).sum();
    Ok(Sample {
        at: total,
        used: total - idle,
    })
}

/// MemTotal - MemAvailable, in bytes. Source: proc_meminfo(5). Before Linux 3.14 what is free and cached stands for it.
fn memory_used(meminfo: &str) -> io::Result<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(':'))
        })?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let total = kib("MemTotal").ok_or(io::ErrorKind::InvalidData)?;
    let available = kib("MemAvailable").unwrap_or_else(|| {
        ["MemFree", "Buffers", "Cached"]
            .into_iter()
            .filter_map(kib)
            .sum()
    });
    Ok(total.saturating_sub(available) * 1024)
}

/// How full the file system of `path` is, as df(1) reckons it: of what ordinary users may fill.
fn disk_percent(path: &Path) -> Option<f64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let size = used.saturating_add(disk.f_bavail);
    (size > 0).then(|| used as f64 * 100.0 / size as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, ppid: i32, session: i32) -> Stat {
        Stat {
            pid,
            ppid,
            session,
            pgrp: session,
            comm: String::new(),
            state: b'S',
            cpu_ticks: 0,
            start_ticks: 0,
            rss_pages: 0,
            exit_code: 0,
        }
    }

    fn pids(all: &[Stat], main: i32) -> Vec<i32> {
        let owners = owners(all, &HashSet::from([main]));
        let family = all.iter().zip(owners).filter(|(_, owner)| owner.is_some());
        family.map(|(process, _)| process.pid).collect()
    }

    #[test]
    fn a_family_is_the_session_and_all_descendants() {
        let all = [
            process(5, 30, 5),
            process(10, 1, 10),
            process(11, 10, 10),
            process(20, 11, 20),
            process(30, 20, 30),
            process(40, 1, 10),
            process(50, 1, 50),
        ];
        assert_eq!(pids(&all, 10), [5, 10, 11, 20, 30, 40]);
        assert_eq!(pids(&all, 50), [50]);
        assert!(pids(&all, 99).is_empty());
    }

    #[test]
    fn each_process_is_one_program_s() {
        let all = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12),
        ];
        let mains = HashSet::from([10, 12]);
        assert_eq!(owners(&all, &mains), [None, Some(10), Some(10), Some(12)]);
    }

    fn sample(at: u64, used: u64) -> Sample {
        Sample { at, used }
    }

    #[test]
    fn the_first_answer_is_the_average_since_the_start() {
        let mut track = Track::new(sample(0, 0));
        assert_eq!(
            track.percent_at(sample(1000, 250), BootTime::from_micros(0)),
            25.0
        );
    }

    #[test]
    fn a_sample_younger_than_a_second_is_not_reckoned_from() {
        let at = |millis: u64| BootTime::from_micros(millis * 1000);
        let mut track = Track::new(sample(0, 0));
        track.percent_at(sample(10_000, 0), at(10_000));
        // Still against the start: the only sample is 500 ms old.
        assert_eq!(track.percent_at(sample(10_500, 105), at(10_500)), 1.0);
        // Now against the sample taken at 10 s.
        assert_eq!(track.percent_at(sample(11_000, 500), at(11_000)), 50.0);
        // Half a second later: that sample still is the youngest that is old enough.
        assert_eq!(track.percent_at(sample(11_500, 750), at(11_500)), 50.0);
        // And then the one taken at 11 s.
        assert_eq!(track.percent_at(sample(12_000, 600), at(12_000)), 10.0);
    }

    #[test]
    fn use_is_never_negative_and_no_time_is_no_use() {
        let mut track = Track::new(sample(0, 100));
        assert_eq!(
            track.percent_at(sample(10, 50), BootTime::from_micros(1)),
            0.0
        );
        let mut track = Track::new(sample(10, 0));
        assert_eq!(
            track.percent_at(sample(10, 50), BootTime::from_micros(1)),
            0.0
        );
    }

    #[test]
    fn the_machine_is_busy_when_it_is_neither_idle_nor_waiting() {
        let stat = "cpu  10 20 30 400 50 1 2 3 7 7\ncpu0 1 1 1 1\n";
        assert_eq!(machine_cpu(stat).unwrap(), sample(516, 66));
        assert!(machine_cpu("intr 1\n").is_err());
    }

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        let meminfo = "MemTotal:  1000 kB\nMemFree: 100 kB\nMemAvailable:   400 kB\n";
        assert_eq!(memory_used(meminfo).unwrap(), 600 * 1024);
        let old = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 250 kB\n";
        assert_eq!(memory_used(old).unwrap(), 600 * 1024);
        assert!(memory_used("").is_err());
    }

    #[test]
    fn the_machine_can_be_measured() {
        let metrics = Metrics::new();
        let usage = metrics.system(Path::new("/")).unwrap();
        assert!(usage.memory_bytes > 0 && usage.uptime > Duration::ZERO);
        assert!((0.0..=100.0).contains(&usage.cpu_percent));
        assert!((0.0..=100.0).contains(&usage.disk_percent.unwrap()));
        assert_eq!(
            metrics.system(Path::new("/no/such")).unwrap().disk_percent,
            None
        );
    }

    #[test]
    fn a_process_that_is_gone_uses_nothing() {
        let run = Run {
            id: ProgramId(1),
            pid: i32::MAX,
            started_at: BootTime::now(),
        };
        let usage = Metrics::new().program(&[run], run.id).unwrap();
        assert_eq!(usage, ProgramUsage::default());
    }
}
