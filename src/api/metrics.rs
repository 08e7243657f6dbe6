//! `/api/metrics`, `/api/program/{id}/metrics`, and `/api/history`, which has both and what was before.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::error::{ApiError, Cause};
use super::{Api, Call, Outcome, reply};
use crate::clock::{BootTime, Timestamp};
use crate::http::{Body, Reply, Source};
use crate::metrics::{Moment, Point, ProgramUsage, Run, SystemUsage};
use crate::program::ProgramId;
use crate::supervise::{Snapshot, Status};

#[derive(Serialize)]
struct ProgramShape {
    program_id: String,
    metrics: ProgramMetricsShape,
}

#[derive(Serialize)]
struct ProgramMetricsShape {
    cpu_usage: f64,
    memory_usage: f64,
    memory_bytes: u64,
    uptime: u64,
    restart_count: u32,
    last_restart: Option<String>,
}

#[derive(Serialize)]
struct SystemShape {
    system: SystemMetricsShape,
    programs: CountsShape,
    /// Beside the reference's fields.
    written_bytes: WrittenShape,
}

/// Bytes that were written to hxe's directories on disk.
#[derive(Default, Serialize)]
pub struct WrittenShape {
    pub state_dir: usize,
    pub log_dir: usize,
}

/// What was written since the daemon started.
pub fn written(api: &Api) -> WrittenShape {
    WrittenShape {
        state_dir: api.store.written_bytes(),
        log_dir: api.logs.written_bytes(),
    }
}

#[derive(Serialize)]
struct SystemMetricsShape {
    cpu_usage: f64,
    memory_usage: f64,
    memory_bytes: u64,
    disk_usage: Option<f64>,
    uptime: u64,
}

#[derive(Default, Serialize)]
struct CountsShape {
    total: usize,
    running: usize,
    stopped: usize,
    error: usize,
}

/// `GET /program/{id}/metrics`: zeros for one that does not run.
pub fn program(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let snapshot = api.program(&call)?;
    let id = snapshot.program.id;
    let usage = match snapshot.pid {
        Some(_) => {
            let runs = runs(&api.supervisor.list());
            api.metrics.program(&runs, id).map_err(failed)?
        }
        None => ProgramUsage::default(),
    };
    Ok(reply::json(200, &program_shape(&snapshot, usage, BootTime::now())).into())
}

/// Those of these programs that run, as they are measured.
pub fn runs(programs: &[Arc<Snapshot>]) -> Vec<Run> {
    let runs = programs.iter().filter_map(|program| {
        Some(Run {
            id: program.program.id,
            pid: program.pid?,
            started_at: program.started_at?,
        })
    });
    runs.collect()
}

fn program_shape(snapshot: &Snapshot, usage: ProgramUsage, now: BootTime) -> ProgramShape {
    let up = match (snapshot.pid, snapshot.started_at) {
        (Some(_), Some(begin)) => now.since(begin),
        _ => Duration::ZERO,
    };
    ProgramShape {
        program_id: snapshot.program.id.to_string(),
        metrics: ProgramMetricsShape {
            cpu_usage: two_decimals(usage.cpu_percent),
            memory_usage: mebibytes(usage.memory_bytes),
            memory_bytes: usage.memory_bytes,
            uptime: up.as_secs(),
            restart_count: snapshot.restart_count,
            last_restart: snapshot.last_restart.map(|at| at.to_seconds_string()),
        },
    }
}

/// `GET /metrics`.
pub fn system(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let usage = api.metrics.system(&api.state_dir).map_err(failed)?;
    let mut programs = CountsShape::default();
    for snapshot in api.supervisor.list() {
        programs.total += 1;
        match snapshot.phase.status() {
            Status::Running => programs.running += 1,
            Status::Stopped => programs.stopped += 1,
            Status::Error => programs.error += 1,
        }
    }
    Ok(reply::json(200, &system_shape(usage, programs, written(api))).into())
}

fn system_shape(
    usage: SystemUsage,
    programs: CountsShape,
    written_bytes: WrittenShape,
) -> SystemShape {
    SystemShape {
        system: system_metrics(usage),
        programs,
        written_bytes,
    }
}

fn system_metrics(usage: SystemUsage) -> SystemMetricsShape {
    SystemMetricsShape {
        cpu_usage: two_decimals(usage.cpu_percent),
        memory_usage: mebibytes(usage.memory_bytes),
        memory_bytes: usage.memory_bytes,
        disk_usage: usage.disk_percent.map(two_decimals),
        uptime: usage.uptime.as_secs(),
    }
}

/// `GET /history`: `since`, the `next` of an earlier answer, or `now`; what was measured after that, of the machine and of all
/// programs, and what is measured now.
pub fn history(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    let query = call.query(&["since"])?;
    let since = match query.get("since") {
        Some("now") => None,
        _ => Some(query.count("since")?.unwrap_or(0) as u64),
    };
    let programs = api.supervisor.list();
    let used = api.metrics.programs(&runs(&programs)).map_err(failed)?;
    let system = api.metrics.system(&api.state_dir).map_err(failed)?;
    let now = BootTime::now();
    let since = since.map_or(now, |since| {
        let since = BootTime::from_micros(since.saturating_mul(1000).saturating_add(999));
        // What is not in the past is of another boot.
        Some(since).filter(|since| *since < now).unwrap_or_default()
    });
    let (moments, wall_offset) = api.metrics.since(since);
    let history = History {
        system: Some(system),
        programs: programs.into_iter(),
        used,
        moments,
        wall_offset,
        now,
        is_begun: false,
    };
    let reply = Reply {
        status: 200,
        headers: vec![("Content-Type", "application/json".to_owned())],
        body: Body::Source(Box::new(history)),
    };
    Ok(reply.into())
}

/// Bytes of a piece of a long answer.
const PIECE_BYTES: usize = 32 * 1024;

/// An answer to who asks for all, and how far it has come: one program at a time.
struct History {
    /// Until it is written.
    system: Option<SystemUsage>,
    programs: std::vec::IntoIter<Arc<Snapshot>>,
    used: HashMap<ProgramId, ProgramUsage>,
    moments: Vec<Arc<Moment>>,
    wall_offset: i64,
    now: BootTime,
    /// A program was written.
    is_begun: bool,
}

impl History {
    fn begin(&self, system: SystemUsage, out: &mut Vec<u8>) -> io::Result<()> {
        let time = Timestamp::from_micros(self.now.as_micros() as i64 + self.wall_offset);
        let next = self.moments.last().map_or(self.now, |moment| moment.at);
        let next = next.as_micros() / 1000;
        write!(out, r#"{{"time":"{time}","next":{next},"times":"#)?;
        // By the wall clock as it is now: whatever that did meanwhile, they are in order.
        let seconds = |moment: &Moment| {
            let millis = (moment.at.as_micros() as i64 + self.wall_offset) / 1000;
            Some(millis as f64 / 1000.0)
        };
        self.column(out, seconds)?;
        out.extend_from_slice(br#","system":{"metrics":"#);
        serde_json::to_writer(&mut *out, &system_metrics(system))?;
        self.points(out, |moment| Some(moment.system))?;
        out.extend_from_slice(br#"},"programs":["#);
        Ok(())
    }

    fn program(&mut self, program: &Snapshot, out: &mut Vec<u8>) -> io::Result<()> {
        if std::mem::replace(&mut self.is_begun, true) {
            out.push(b',');
        }
        let id = program.program.id;
        let used = self.used.get(&id).copied().unwrap_or_default();
        serde_json::to_writer(&mut *out, &program_shape(program, used, self.now))?;
        // What follows is in the same object.
        out.pop();
        self.points(out, |moment| moment.program(id))?;
        out.push(b'}');
        Ok(())
    }

    /// CPU and memory, as long as `times`.
    fn points(
        &self,
        out: &mut Vec<u8>,
        point: impl Fn(&Moment) -> Option<Point>,
    ) -> io::Result<()> {
        out.extend_from_slice(br#","cpu_usage":"#);
        self.column(out, |moment| {
            point(moment).map(|point| two_decimals(point.cpu_percent.into()))
        })?;
        out.extend_from_slice(br#","memory_bytes":"#);
        self.column(out, |moment| {
            point(moment).map(|point| u64::from(point.memory_kib) * 1024)
        })
    }

    fn column<T: Serialize>(
        &self,
        out: &mut Vec<u8>,
        value: impl Fn(&Moment) -> Option<T>,
    ) -> io::Result<()> {
        out.push(b'[');
        for (at, moment) in self.moments.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut *out, &value(moment))?;
        }
        out.push(b']');
        Ok(())
    }
}

impl Source for History {
    fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let from = out.len();
        if let Some(system) = self.system.take() {
            self.begin(system, out)?;
        }
        while out.len() - from < PIECE_BYTES {
            let Some(program) = self.programs.next() else {
                out.extend_from_slice(b"]}");
                return Ok(false);
            };
            self.program(&program, out)?;
        }
        Ok(true)
    }

    fn held_bytes(&self) -> usize {
        let moments = self.moments.len() * size_of::<Arc<Moment>>();
        let program = size_of::<Arc<Snapshot>>() + size_of::<(ProgramId, ProgramUsage)>();
        moments + self.programs.len() * program
    }
}

fn failed(error: std::io::Error) -> ApiError {
    ApiError::Internal(Cause::Metrics(error))
}

fn mebibytes(bytes: u64) -> f64 {
    two_decimals(bytes as f64 / (1024.0 * 1024.0))
}

fn two_decimals(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shapes::tests::snapshot;

    #[test]
    fn a_program_s_metrics_have_the_reference_s_fields() {
        let usage = ProgramUsage {
            cpu_percent: 2.499_9,
            memory_bytes: 1_600_000,
        };
        let mut running = snapshot(1, "x");
        running.pid = Some(1);
        running.started_at = Some(BootTime::from_micros(1_000_000));
        let now = BootTime::from_micros(3_601_900_000);
        let shape = program_shape(&running, usage, now);
        assert_eq!(
            serde_json::to_string(&shape).unwrap(),
            r#"{"program_id":"program-1","metrics":{"cpu_usage":2.5,"memory_usage":1.53,"memory_bytes":1600000,"uptime":3600,"restart_count":0,"last_restart":null}}"#
        );
    }

    #[test]
    fn the_machine_s_metrics_have_the_reference_s_fields() {
        let usage = SystemUsage {
            cpu_percent: 15.2,
            memory_bytes: 8192 * 1024 * 1024,
            disk_percent: Some(75.5),
            uptime: Duration::from_secs(86_400),
        };
        let counts = CountsShape {
            total: 10,
            running: 8,
            stopped: 2,
            error: 0,
        };
        let written = WrittenShape {
            state_dir: 20_480,
            log_dir: 7,
        };
        assert_eq!(
            serde_json::to_string(&system_shape(usage, counts, written)).unwrap(),
            concat!(
                r#"{"system":{"cpu_usage":15.2,"memory_usage":8192.0,"memory_bytes":8589934592,"disk_usage":75.5,"#,
                r#""uptime":86400},"programs":{"total":10,"running":8,"stopped":2,"error":0},"#,
                r#""written_bytes":{"state_dir":20480,"log_dir":7}}"#,
            )
        );
    }
}
