//! [`Outcome`]: how an upgrade went, for who asked for it.

use std::fmt;

/// Characters of a reason that are kept: it goes into one message.
const LONGEST_REASON: usize = 1000;

/// The last upgrade that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Counts up from 1 as long as the guardian lives, so that who asks for an upgrade can tell its outcome from that of
    /// an earlier one.
    pub number: u32,
    pub progress: Progress,
}

/// How far an upgrade has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    UnderWay,
    /// The new binary serves.
    Done,
    /// The old one goes on, for this reason.
    GivenUp(String),
}

impl Outcome {
    /// Reads what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Outcome> {
        let (number, rest) = text.split_once(' ')?;
        let progress = match rest.split_once(' ').unwrap_or((rest, "")) {
            ("under-way", "") => Progress::UnderWay,
            ("done", "") => Progress::Done,
            ("given-up", reason) => Progress::GivenUp(reason.to_owned()),
            _ => return None,
        };
        Some(Outcome {
            number: number.parse().ok()?,
            progress,
        })
    }
}

impl fmt::Display for Outcome {
    /// On one line.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = self.number;
        match &self.progress {
            Progress::UnderWay => write!(f, "{number} under-way"),
            Progress::Done => write!(f, "{number} done"),
            Progress::GivenUp(reason) => {
                let reason: String = reason.chars().take(LONGEST_REASON).collect();
                write!(f, "{number} given-up {}", reason.replace('\n', " "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        for progress in [
            Progress::UnderWay,
            Progress::Done,
            Progress::GivenUp("/usr/sbin/hxe: Exec format error".to_owned()),
            Progress::GivenUp(String::new()),
        ] {
            let outcome = Outcome {
                number: 7,
                progress,
            };
            assert_eq!(Outcome::parse(&outcome.to_string()), Some(outcome));
        }
        for wrong in ["", "7", "x done", "7 done so", "7 forgotten"] {
            assert_eq!(Outcome::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_reason_stays_on_its_line() {
        let outcome = Outcome {
            number: 1,
            progress: Progress::GivenUp("one\ntwo".repeat(1000)),
        };
        let text = outcome.to_string();
        assert!(!text.contains('\n') && text.len() < 1100);
    }
}
