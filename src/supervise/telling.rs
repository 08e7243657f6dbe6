//! What happened to a program, in the words of its log.

use std::time::Duration;

use super::Exit;
use super::machine::{Happening, Next, Origin};
use crate::clock::format_duration;
use crate::logs::Level;

/// The line for the program's log. `stop_timeout` is the program's, for the line that says that it was too short.
pub(super) fn line(happening: &Happening, stop_timeout: Duration) -> (Level, String) {
    match happening {
        Happening::Started {
            origin: Origin::Requested | Origin::Autostart,
        } => (Level::Info, "Program started successfully".to_owned()),
        Happening::Started {
            origin: Origin::Crash,
        }
        | Happening::Restarted { .. } => (Level::Info, "Program restarted successfully".to_owned()),
        Happening::StartFailed { reason, next, .. } => (
            Level::Error,
            format!("Program failed to start: {reason}{}", follow_up(*next)),
        ),
        Happening::Stopped { exit } => (
            Level::Info,
            format!("Program stopped successfully ({})", describe(*exit)),
        ),
        Happening::Ended {
            exit,
            success,
            next,
        } => {
            let level = if *success { Level::Info } else { Level::Error };
            (
                level,
                format!("Program {}{}", describe(*exit), follow_up(*next)),
            )
        }
        Happening::BackoffCancelled => (Level::Info, "Automatic restart cancelled".to_owned()),
        Happening::Killed => (
            Level::Warn,
            format!(
                "Program did not stop within {}: killed",
                format_duration(stop_timeout)
            ),
        ),
    }
}

/// "exited with code 3", "was ended by signal KILL".
pub(super) fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        Exit::Unknown => "ended, and nobody saw how".to_owned(),
    }
}

fn follow_up(next: Next) -> String {
    match next {
        Next::Nothing => String::new(),
        Next::Restart(Duration::ZERO) => "; restarting at once".to_owned(),
        Next::Restart(wait) => format!("; restarting in {}", format_duration(wait)),
        Next::GaveUp(failures) => format!("; given up after {failures} failures in a row"),
    }
}
