//! `GET /metrics`, outside of `/api`: what Prometheus and its like scrape.
//!
//! Owns names, types and both formats. Everything is read when somebody asks, from snapshots, counters and one look at
//! `/proc`, and leaves one family at a time: what is kept is the numbers, never the whole text.
//! Sources: Prometheus' text format 0.0.4; OpenMetrics 1.0.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::{ApiError, Cause};
use super::metrics::{WrittenShape, written};
use super::{Api, Call, Outcome};
use crate::http::{Body, Reply, Source};
use crate::logs::{Stream, Volume};
use crate::metrics::{OwnUsage, ProgramTotals};
use crate::supervise::{Phase, Snapshot};

/// What all samples of one name have in common.
struct Family {
    /// As in the text format: of a counter with `_total`.
    name: &'static str,
    help: &'static str,
    write: fn(&Scrape, &mut Samples),
}

const fn family(
    name: &'static str,
    help: &'static str,
    write: fn(&Scrape, &mut Samples),
) -> Family {
    Family { name, help, write }
}

#[rustfmt::skip]
static FAMILIES: &[Family] = &[
    family("hxe_build_info", "Which hxe serves; always 1.", |_, to| {
        to.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    }),
    family("hxe_disk_written_bytes_total", "Bytes handed to the file systems of state_dir and log_dir since the daemon started.", |scrape, to| {
        to.add(&[("dir", "state_dir")], scrape.written.state_dir as f64);
        to.add(&[("dir", "log_dir")], scrape.written.log_dir as f64);
    }),
    family("hxe_http_requests_total", "Requests answered since the daemon started, by class of status.", |scrape, to| {
        for (class, count) in CLASSES.iter().zip(scrape.requests) {
            to.add(&[("code", class)], count as f64);
        }
    }),
    family("hxe_log_bytes_total", "Output written to log files since the daemon started.", |scrape, to| {
        scrape.each_stream(to, |volume| volume.written);
    }),
    family("hxe_log_dropped_bytes_total", "Output that log files did not take since the daemon started.", |scrape, to| {
        scrape.each_stream(to, |volume| volume.dropped);
    }),
    family("hxe_program_cpu_seconds_total", "CPU time of the processes of the present run.", |scrape, to| {
        scrape.each_use(to, |used| used.cpu_seconds);
    }),
    family("hxe_program_exit_code", "How the last run ended, 128 + n by signal n; absent while one runs.", |scrape, to| {
        scrape.each(to, |snapshot| snapshot.exit.and_then(|exit| exit.code()).map(f64::from));
    }),
    family("hxe_program_info", "The id of each program; always 1.", |scrape, to| {
        for program in &scrape.programs {
            let program = &program.program;
            to.add(&[("program", &program.definition.name), ("id", &program.id.to_string())], 1.0);
        }
    }),
    family("hxe_program_memory_bytes", "Resident memory of all processes of the present run.", |scrape, to| {
        scrape.each_use(to, |used| used.memory_bytes as f64);
    }),
    family("hxe_program_restarts_total", "Automatic restarts since the last manual start.", |scrape, to| {
        scrape.each(to, |snapshot| Some(f64::from(snapshot.restart_count)));
    }),
    family("hxe_program_start_time_seconds", "When the present run began, since 1970; absent where none is.", |scrape, to| {
        scrape.each(to, |snapshot| {
            let start = snapshot.start_time.filter(|_| snapshot.pid.is_some());
            start.map(|at| at.as_micros() as f64 / 1e6)
        });
    }),
    family("hxe_program_state", "The state that each program is in, and only that; always 1.", |scrape, to| {
        for program in &scrape.programs {
            let name = &program.program.definition.name;
            to.add(&[("program", name), ("state", program.phase.as_str())], 1.0);
        }
    }),
    family("hxe_program_up", "Whether it runs and is not being stopped.", |scrape, to| {
        scrape.each(to, |snapshot| Some(f64::from(u8::from(snapshot.phase == Phase::Running))));
    }),
    family("hxe_start_time_seconds", "Since when the daemon serves, since 1970.", |scrape, to| {
        to.add(&[], scrape.start_time);
    }),
    family("process_cpu_seconds_total", "CPU time of the daemon.", |scrape, to| {
        to.add(&[], scrape.own.cpu_seconds);
    }),
    family("process_max_fds", "Descriptors that the daemon may have.", |scrape, to| {
        // Without a limit there is nothing to compare with.
        if let Some(most) = scrape.own.max_fds {
            to.add(&[], most as f64);
        }
    }),
    family("process_open_fds", "Descriptors that the daemon has.", |scrape, to| {
        to.add(&[], scrape.own.open_fds as f64);
    }),
    family("process_resident_memory_bytes", "Resident memory of the daemon.", |scrape, to| {
        to.add(&[], scrape.own.memory_bytes as f64);
    }),
];

/// Classes of status, as `code` has them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// All numbers of one answer, and how far it has come.
struct Scrape {
    format: Format,
    /// The family that is next.
    next: usize,
    programs: Vec<Arc<Snapshot>>,
    /// By main process.
    used: HashMap<i32, ProgramTotals>,
    /// Of each program: stdout, stderr.
    volumes: Vec<[Volume; 2]>,
    requests: [usize; CLASSES.len()],
    own: OwnUsage,
    written: WrittenShape,
    /// Seconds since 1970.
    start_time: f64,
}

impl Scrape {
    fn each(&self, to: &mut Samples, value: fn(&Snapshot) -> Option<f64>) {
        for program in &self.programs {
            if let Some(value) = value(program) {
                to.add(&[("program", &program.program.definition.name)], value);
            }
        }
    }

    fn each_use(&self, to: &mut Samples, value: fn(&ProgramTotals) -> f64) {
        for program in &self.programs {
            if let Some(used) = program.pid.and_then(|pid| self.used.get(&pid)) {
                let name = &program.program.definition.name;
                to.add(&[("program", name)], value(used));
            }
        }
    }

    fn each_stream(&self, to: &mut Samples, value: fn(&Volume) -> u64) {
        for (program, volumes) in self.programs.iter().zip(&self.volumes) {
            let name = &program.program.definition.name;
            for (stream, volume) in STREAMS.iter().zip(volumes) {
                let labels = [("program", name.as_str()), ("stream", stream.as_str())];
                to.add(&labels, value(volume) as f64);
            }
        }
    }
}

impl Source for Scrape {
    fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(family) = FAMILIES.get(self.next) else {
            return Ok(false);
        };
        self.next += 1;
        head(out, family, self.format);
        let mut samples = Samples {
            out,
            name: family.name,
        };
        (family.write)(self, &mut samples);
        let more = self.next < FAMILIES.len();
        if !more && self.format == Format::OpenMetrics {
            out.extend_from_slice(b"# EOF\n");
        }
        Ok(more)
    }

    fn held_bytes(&self) -> usize {
        let one = size_of::<Arc<Snapshot>>()
            + size_of::<[Volume; 2]>()
            + size_of::<(i32, ProgramTotals)>();
        self.programs.len() * one
    }
}

/// Name, type and unit of a family.
fn head(out: &mut Vec<u8>, family: &Family, format: Format) {
    let (stem, kind) = match family.name.strip_suffix("_total") {
        Some(stem) => (stem, "counter"),
        None => (family.name, "gauge"),
    };
    let name = match format {
        Format::Text => family.name,
        Format::OpenMetrics => stem,
    };
    put(out, format_args!("# HELP {name} {}\n", family.help));
    put(out, format_args!("# TYPE {name} {kind}\n"));
    if format == Format::OpenMetrics
        && let Some((_, unit @ ("bytes" | "seconds"))) = stem.rsplit_once('_')
    {
        put(out, format_args!("# UNIT {name} {unit}\n"));
    }
}

/// Where samples of one name go.
struct Samples<'a> {
    out: &'a mut Vec<u8>,
    name: &'static str,
}

impl Samples<'_> {
    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        self.out.extend_from_slice(self.name.as_bytes());
        for (at, (label, text)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { b'{' } else { b',' });
            self.out.extend_from_slice(label.as_bytes());
            self.out.extend_from_slice(b"=\"");
            escape(self.out, text);
            self.out.push(b'"');
        }
        if !labels.is_empty() {
            self.out.push(b'}');
        }
        put(self.out, format_args!(" {value}\n"));
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

/// Appends the value of a label: three signs do not stand for themselves, in both formats.
fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            other => out.push(other),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a client wants: OpenMetrics only where it says so, and not less than text. Source: RFC 9110 12.5.1.
    fn wanted(accept: &str) -> Format {
        let (mut text, mut open) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut weight, mut version) = (1.0, "1.0.0");
            for part in parts {
                match part.split_once('=') {
                    Some(("q" | "Q", value)) => weight = value.trim().parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    _ => {}
                }
            }
            let best = match kind.eq_ignore_ascii_case("application/openmetrics-text") {
                true if version == "1.0.0" => &mut open,
                true => continue,
                false if kind.eq_ignore_ascii_case("text/plain") => &mut text,
                false => continue,
            };
            *best = f64::max(*best, weight);
        }
        match open > 0.0 && open >= text {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }
}

/// `GET /metrics`.
pub fn scrape(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let failed = |error| ApiError::Internal(Cause::Metrics(error));
    let format = Format::wanted(call.head.header("accept").unwrap_or_default());
    let programs = api.supervisor.list();
    let runs = super::metrics::runs(&programs);
    let volume =
        |program: &Arc<Snapshot>| STREAMS.map(|stream| api.logs.volume(program.program.id, stream));
    let scrape = Scrape {
        format,
        next: 0,
        used: api.metrics.totals(&runs).map_err(failed)?,
        volumes: programs.iter().map(volume).collect(),
        programs,
        requests: api
            .requests
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed)),
        own: crate::metrics::own().map_err(failed)?,
        written: written(api),
        start_time: api.start_time.as_micros() as f64 / 1e6,
    };
    let reply = Reply {
        status: 200,
        headers: vec![
            ("Content-Type", format.content_type().to_owned()),
            ("Vary", "Accept".to_owned()),
        ],
        body: Body::Source(Box::new(scrape)),
    };
    Ok(reply.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_label_cannot_break_out() {
        let mut out = Vec::new();
        let mut samples = Samples {
            out: &mut out,
            name: "a_b",
        };
        samples.add(&[("x", "q\" b\\ n\nü {}"), ("y", "")], 1.5);
        samples.add(&[], 3_000_000_000.0);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a_b{x=\"q\\\" b\\\\ n\\nü {}\",y=\"\"} 1.5\na_b 3000000000\n"
        );
    }

    #[test]
    fn openmetrics_is_given_to_who_wants_it() {
        let new = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for accept in [
            new,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=\"1.0.0\"",
        ] {
            assert_eq!(Format::wanted(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,*/*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=x",
            "text/plain;version=0.0.4,application/openmetrics-text;q=0.5",
        ] {
            assert_eq!(Format::wanted(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn families_are_sorted_and_each_is_there_once() {
        assert!(FAMILIES.is_sorted_by(|a, b| a.name < b.name));
        let page = include_str!("../../man/hxe-api.7");
        for family in FAMILIES {
            let item = format!("\n.It Li {}", family.name);
            assert!(page.contains(&item), "hxe-api(7) lacks {}", family.name);
        }
    }
}
