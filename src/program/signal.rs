//! [`Signal`]: a signal by number, read and shown by name.

use std::fmt;
use std::str::FromStr;

/// A signal that may be sent to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(i32);

/// Names without `SIG`, with their numbers on Linux. Source: signal(7).
const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

impl Signal {
    pub const TERM: Signal = Signal(libc::SIGTERM);
    pub const KILL: Signal = Signal(libc::SIGKILL);
    pub const CONT: Signal = Signal(libc::SIGCONT);
    pub const USR2: Signal = Signal(libc::SIGUSR2);

    /// The signal with this number, as the kernel reports it in a wait status; 1 to 64.
    pub const fn from_number(number: i32) -> Signal {
        Signal(number)
    }

    /// Its number, as kill(2) takes it.
    pub const fn number(self) -> i32 {
        self.0
    }
}

/// `TERM`; a real-time signal is shown as its number.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// The text names no signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a signal: write a name such as \"TERM\", \"INT\" or \"USR1\", or a number from 1 to 64"
)]
pub struct NotASignal;

/// Reads `TERM`, `SIGTERM`, `term` or a number from 1 to 64.
impl FromStr for Signal {
    type Err = NotASignal;

    fn from_str(text: &str) -> Result<Signal, NotASignal> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .ok()
                .filter(|n| (1..=64).contains(n))
                .map(Signal)
                .ok_or(NotASignal);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| Signal(*number))
            .ok_or(NotASignal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!(Signal::TERM.to_string(), "TERM");
        assert_eq!(Signal::from_number(40).to_string(), "40");
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "-1", "SIG", "TERMINATE", "99999999999", "+9"] {
            assert_eq!(text.parse::<Signal>(), Err(NotASignal), "{text}");
        }
    }
}
