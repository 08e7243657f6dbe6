//! `/api/metrics` and `/api/program/{id}/metrics`.

use std::time::Duration;

use serde::Serialize;

use super::error::{ApiError, Cause};
use super::{Api, Call, Outcome, reply};
use crate::clock::BootTime;
use crate::metrics::{ProgramUsage, SystemUsage};
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
    let up = match (snapshot.pid, snapshot.started_at) {
        (Some(_), Some(begin)) => BootTime::now().since(begin),
        _ => Duration::ZERO,
    };
    let usage = match snapshot.pid {
        Some(pid) => api.metrics.program(pid, up).map_err(failed)?,
        None => ProgramUsage::default(),
    };
    Ok(reply::json(200, &program_shape(&snapshot, usage, up)).into())
}

fn program_shape(snapshot: &Snapshot, usage: ProgramUsage, up: Duration) -> ProgramShape {
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
    Ok(reply::json(200, &system_shape(usage, programs)).into())
}

fn system_shape(usage: SystemUsage, programs: CountsShape) -> SystemShape {
    SystemShape {
        system: SystemMetricsShape {
            cpu_usage: two_decimals(usage.cpu_percent),
            memory_usage: mebibytes(usage.memory_bytes),
            memory_bytes: usage.memory_bytes,
            disk_usage: usage.disk_percent.map(two_decimals),
            uptime: usage.uptime.as_secs(),
        },
        programs,
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
        let shape = program_shape(&snapshot(1, "x"), usage, Duration::from_millis(3_600_900));
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
        assert_eq!(
            serde_json::to_string(&system_shape(usage, counts)).unwrap(),
            concat!(
                r#"{"system":{"cpu_usage":15.2,"memory_usage":8192.0,"memory_bytes":8589934592,"disk_usage":75.5,"#,
                r#""uptime":86400},"programs":{"total":10,"running":8,"stopped":2,"error":0}}"#,
            )
        );
    }
}
