//! Time: since boot for all decisions, of the wall only to be shown.
//!
//! The wall clock of a small board starts at 1970 and jumps; the boot clock does neither. So timers, deadlines and
//! the order of log lines use [`BootTime`], and [`Timestamp`] is for people. Used everywhere.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time since the machine booted, suspension included, in microseconds (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(u64);

impl BootTime {
    /// The present moment.
    pub fn now() -> BootTime {
        let now = clock_gettime(ClockId::Boottime);
        BootTime(now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000)
    }

    /// The moment `micros` microseconds after boot.
    pub const fn from_micros(micros: u64) -> BootTime {
        BootTime(micros)
    }

    /// Microseconds since boot.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: BootTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, span: Duration) -> BootTime {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        BootTime(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for BootTime {
    type Output = BootTime;

    fn sub(self, span: Duration) -> BootTime {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        BootTime(self.0.saturating_sub(micros))
    }
}

/// A moment of the wall clock, in microseconds since 1970, UTC. Shown as RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// What the wall clock says now. Not `SystemTime::now`, which panics after 2038 on 32-bit musl.
    pub fn now() -> Timestamp {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
        Timestamp(tv_sec * 1_000_000 + tv_nsec / 1_000 + shift())
    }

    /// The moment `micros` microseconds after 1970.
    pub const fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros)
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// `2026-11-23T21:57:00Z`: to the second, as programs and tokens show it.
    pub fn to_seconds_string(self) -> String {
        self.to_seconds().to_string()
    }

    /// The same, to be written somewhere.
    pub fn to_seconds(self) -> impl fmt::Display {
        humantime::format_rfc3339_seconds(self.system_time())
    }

    fn system_time(self) -> std::time::SystemTime {
        // RFC 3339 has years 0 to 9999 and humantime starts at 1970: what lies outside is shown as its nearest end.
        const LAST: i64 = 253_402_300_799_999_999;
        std::time::UNIX_EPOCH + Duration::from_micros(self.0.clamp(0, LAST) as u64)
    }
}

/// `2026-11-23T21:57:00.123Z`: to the millisecond, as log entries and events show it.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        humantime::format_rfc3339_millis(self.system_time()).fmt(f)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(micros))
    }
}

/// By how much a test has moved the wall clock, in microseconds: in a debug build, as the file says, in seconds, that
/// `HXE_CLOCK` names. Our system calls pass by libraries that tests of others preload.
#[cfg(debug_assertions)]
fn shift() -> i64 {
    static FILE: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("HXE_CLOCK"));
    let text = file
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok());
    let seconds: Option<i64> = text.and_then(|text| text.parse().ok());
    seconds.unwrap_or(0) * 1_000_000
}

/// Not at all.
#[cfg(not(debug_assertions))]
const fn shift() -> i64 {
    0
}

/// The kernel's name for this boot, a UUID; "unknown" where `/proc` does not tell.
/// Source: random(4), `/proc/sys/kernel/random/boot_id`.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(
        || match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            Ok(id) => id.trim().to_owned(),
            Err(_) => "unknown".to_owned(),
        },
    )
}

/// Reads a duration as people write it: `90s`, `5m`, `24h`, `500ms`, `1h 30m`.
///
/// # Errors
/// A sentence that says what is wrong, fit for an error answer.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration: write a number and a unit, such as \"500ms\", \"10s\" or \"5m\""))
}

/// Reads a moment as RFC 3339 has it; `None`: it is none.
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp(i64::try_from(since.as_micros()).ok()?))
}

/// Shows a duration as [`parse_duration`] reads it, units joined: `10s`, `1m30s`, `24h` (never days).
pub fn format_duration(span: Duration) -> String {
    show_duration(span).to_string()
}

/// The same, to be written somewhere.
pub fn show_duration(span: Duration) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        if span < Duration::from_micros(1) {
            return f.write_str("0s");
        }
        let total = span.as_secs();
        let parts = [
            (total / 3600, "h"),
            (total / 60 % 60, "m"),
            (total % 60, "s"),
            (u64::from(span.subsec_millis()), "ms"),
            (u64::from(span.subsec_micros() % 1000), "us"),
        ];
        for (n, unit) in parts.iter().filter(|(n, _)| *n > 0) {
            write!(f, "{n}{unit}")?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_they_are_read() {
        for (text, seconds) in [("10s", 10), ("1m30s", 90), ("24h", 86_400), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
            assert_eq!(format_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(format_duration(Duration::from_millis(1_500)), "1s500ms");
    }

    #[test]
    fn a_number_without_a_unit_is_no_duration() {
        assert!(parse_duration("10").unwrap_err().contains("unit"));
    }

    #[test]
    fn timestamps_are_rfc_3339_in_utc() {
        let moment = Timestamp::from_micros(1_735_689_600_123_456);
        assert_eq!(moment.to_string(), "2025-01-01T00:00:00.123Z");
        assert_eq!(moment.to_seconds_string(), "2025-01-01T00:00:00Z");
    }

    #[test]
    fn odd_years_are_right() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (2_147_483_648, "2038-01-19T03:14:08Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "9999-12-31T23:59:59Z"),
            (i64::MAX / 1_000_000, "9999-12-31T23:59:59Z"),
        ] {
            let moment = Timestamp::from_micros(seconds * 1_000_000);
            assert_eq!(moment.to_seconds_string(), text);
        }
    }

    #[test]
    fn a_clock_before_1970_is_shown_as_1970() {
        assert_eq!(
            Timestamp::from_micros(-5).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
    }
}
