//! The head of an answer: status line and headers, as bytes.
//!
//! Owns what every answer carries (Date, Server, Connection, the length) and that no value breaks out of its line. It
//! never decides whether a connection stays open: it is told. Called by `answer.rs`.

use std::fmt;
use std::io::Write;

use tiny_http::StatusCode;

use crate::clock::Timestamp;

/// A header as a reply has it.
pub type Field = (&'static str, String);

/// How the client learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Content-Length, in bytes.
    Length(usize),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// The connection closes behind it (HTTP/1.0).
    UntilClose,
    /// There is none and there may be none (204, 304).
    Empty,
}

/// Headers that an answer gets unless it has its own.
const DEFAULTS: [(&str, &str); 2] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
];

/// Renders status line and headers. Of one name, `own` wins over `gates`, and both over the defaults.
///
/// `connection` is the value of that header; without one it is left out.
pub fn render(
    status: u16,
    own: &[Field],
    gates: &[Field],
    framing: Framing,
    connection: Option<&str>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let reason = StatusCode(status).default_reason_phrase();
    line(&mut out, format_args!("HTTP/1.1 {status} {reason}"));
    line(&mut out, format_args!("Date: {}", date(Timestamp::now())));
    line(
        &mut out,
        format_args!(concat!("Server: hxe/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in own {
        field(&mut out, name, value);
    }
    for (name, value) in gates {
        if !has(own, name) {
            field(&mut out, name, value);
        }
    }
    for (name, value) in DEFAULTS {
        if !has(own, name) && !has(gates, name) {
            field(&mut out, name, value);
        }
    }
    match framing {
        Framing::Length(bytes) => line(&mut out, format_args!("Content-Length: {bytes}")),
        Framing::Chunked => line(&mut out, format_args!("Transfer-Encoding: chunked")),
        Framing::UntilClose | Framing::Empty => {}
    }
    if let Some(value) = connection {
        field(&mut out, "Connection", value);
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn has(fields: &[Field], name: &str) -> bool {
    fields
        .iter()
        .any(|(known, _)| known.eq_ignore_ascii_case(name))
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
    out.extend_from_slice(b"\r\n");
}

/// One header. Control characters in the value become spaces: with a line end in it a value could add headers, or an
/// answer, of its own.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|byte| match byte.is_ascii_control() {
        true => b' ',
        false => byte,
    }));
    out.extend_from_slice(b"\r\n");
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`. Source: RFC 9110, 5.6.7; days to date as in Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn date(moment: Timestamp) -> impl fmt::Display {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
    ];
    let days = moment.as_secs().div_euclid(86_400);
    let second = moment.as_secs().rem_euclid(86_400);
    let weekday = WEEKDAYS[days.rem_euclid(7) as usize];

    // Eras of 400 years and years that begin in March, so that the leap day is the last of each.
    let from_march_0000 = days + 719_468;
    let era = from_march_0000.div_euclid(146_097);
    let day_of_era = from_march_0000.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    fmt::from_fn(move |f| {
        write!(
            f,
            "{weekday}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
            MONTHS[month as usize],
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(own: &[Field], gates: &[Field], framing: Framing) -> String {
        String::from_utf8(render(200, own, gates, framing, None)).unwrap()
    }

    #[test]
    fn dates_are_as_rfc_9110_writes_them() {
        for (seconds, shown) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        ] {
            let moment = Timestamp::from_micros(seconds * 1_000_000);
            assert_eq!(date(moment).to_string(), shown);
        }
    }

    #[test]
    fn a_value_cannot_add_a_header() {
        let evil = [("Location", "a\r\nX-Evil: b\0".to_owned())];
        let text = text(&evil, &[], Framing::Empty);
        assert!(text.contains("\r\nLocation: a  X-Evil: b \r\n"), "{text}");
    }

    #[test]
    fn the_reply_wins_over_the_gates_and_both_over_the_defaults() {
        let own = [("Vary", "reply".to_owned())];
        let gates = [
            ("vary", "gate".to_owned()),
            ("cache-control", "max-age=1".to_owned()),
        ];
        let text = text(&own, &gates, Framing::Length(3));
        assert!(text.contains("Vary: reply\r\n"));
        assert!(!text.contains("gate"));
        assert!(!text.contains("no-store"));
        assert!(text.contains("X-Content-Type-Options: nosniff\r\n"));
        assert!(text.ends_with("Content-Length: 3\r\n\r\n"));
    }
}
