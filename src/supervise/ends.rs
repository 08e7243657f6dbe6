//! How runs ended: the last ten of each program, for who asks later.
//!
//! They stand behind the program's run record, in the same page of the same file, and a run's end is written with the
//! record that says that it runs no more, in one write. So no end is lost and none is there twice, whenever the daemon
//! dies; it costs no memory and no further file; and a full `run_dir` does not keep it from being written. Each has a
//! checksum, so that a reader never takes half of one for whole, and one that goes with the boot. This file knows no
//! process and no file; `records` reads and writes it, for `watcher` and the API.

use super::{Exit, telling};
use crate::clock::{BootTime, Timestamp, boot_id};
use crate::program::{ProgramId, Signal};
use crate::sys::process::Usage;

/// Ends that are kept.
pub const KEPT: usize = 10;
/// Bytes of one.
pub(super) const SLOT: usize = 304;
/// Bytes of who asked, at most: all else has its place.
const LONGEST_USER: usize = 64;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// By itself, with success.
    Exit,
    /// By itself or by somebody else's signal, otherwise.
    Crash,
    /// It never began.
    StartFailed,
    Stop,
    Restart,
    Delete,
    Reload,
    /// The daemon stopped.
    Shutdown,
}

impl Reason {
    const ALL: [Reason; 8] = [
        Reason::Exit,
        Reason::Crash,
        Reason::StartFailed,
        Reason::Stop,
        Reason::Restart,
        Reason::Delete,
        Reason::Reload,
        Reason::Shutdown,
    ];

    /// As the API shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Exit => "exit",
            Reason::Crash => "crash",
            Reason::StartFailed => "start_failed",
            Reason::Stop => "stop",
            Reason::Restart => "restart",
            Reason::Delete => "delete",
            Reason::Reload => "reload",
            Reason::Shutdown => "shutdown",
        }
    }

    pub(super) fn from_word(text: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// By which way somebody asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Api,
    /// The command, or the Rust client.
    Hxe,
    Signal,
}

impl Via {
    /// As the API shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Via::Api => "api",
            Via::Hxe => "hxe",
            Via::Signal => "signal",
        }
    }

    fn from_word(text: &str) -> Option<Via> {
        [Via::Api, Via::Hxe, Via::Signal]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The user of a token, or the one at the other end of the Unix socket; empty for a signal.
    pub user: String,
    pub via: Via,
}

impl By {
    /// A signal to the daemon.
    pub const SIGNAL: By = By {
        user: String::new(),
        via: Via::Signal,
    };

    pub(super) fn encode(&self) -> String {
        let user = shortened(&self.user, LONGEST_USER);
        format!("{} {user}", self.via.as_str())
    }

    pub(super) fn decode(text: &str) -> Option<By> {
        let (via, user) = text.split_once(' ').unwrap_or((text, ""));
        Some(By {
            user: user.to_owned(),
            via: Via::from_word(via)?,
        })
    }
}

/// That a run was asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub reason: Reason,
    pub by: Option<By>,
}

/// How a run ended, or that it could not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub reason: Reason,
    /// `None` where nothing had begun.
    pub exit: Option<Exit>,
    pub pid: Option<i32>,
    /// When it began; `None` where it did not.
    pub started: Option<(BootTime, Timestamp)>,
    /// When its end was seen.
    pub ended: (BootTime, Timestamp),
    /// All that it wrote was in its log by then.
    pub logged: BootTime,
    pub usage: Option<Usage>,
    pub by: Option<By>,
    /// Why it could not begin: the step and the system's reason. As long as there is room.
    pub failure: String,
}

impl End {
    /// A sentence for people.
    pub fn message(&self) -> String {
        let done = match self.reason {
            Reason::StartFailed => return format!("Program failed to start: {}", self.failure),
            Reason::Exit | Reason::Crash => "",
            Reason::Stop => "stopped",
            Reason::Restart => "restarted",
            Reason::Delete => "deleted",
            Reason::Reload => "replaced by a reload",
            Reason::Shutdown => "stopped with hxe",
        };
        let how = telling::describe(self.exit.unwrap_or(Exit::Unknown));
        let by = match &self.by {
            Some(by) if !by.user.is_empty() => format!(" by {}", by.user),
            _ => String::new(),
        };
        match done {
            "" => format!("Program {how}"),
            done => format!("Program was {done}{by} ({how})"),
        }
    }

    /// As its slot has it: [`SLOT`] bytes.
    pub(super) fn encode(&self, number: u32, id: ProgramId) -> [u8; SLOT] {
        let exit = match self.exit {
            None => "-".to_owned(),
            Some(Exit::Code(code)) => format!("c{code}"),
            Some(Exit::Signal(signal)) => format!("s{}", signal.number()),
            Some(Exit::Unknown) => "u".to_owned(),
        };
        let mut text = format!(
            "{number}\t{}\t{exit}\t{}",
            self.reason.as_str(),
            or_dash(self.pid)
        );
        let mut put = |value: String| {
            text.push('\t');
            text += &value;
        };
        let (began, start) = self.started.unzip();
        put(or_dash(began.map(BootTime::as_micros)));
        put(or_dash(start.map(Timestamp::as_micros)));
        put(self.ended.0.as_micros().to_string());
        put(self.ended.1.as_micros().to_string());
        put(self.logged.as_micros().to_string());
        put(or_dash(self.usage.map(|usage| usage.cpu_micros)));
        put(or_dash(self.usage.and_then(|usage| usage.max_rss_kib)));
        put(self.by.as_ref().map_or("-".to_owned(), By::encode));
        text.push('\t');
        // The checksum, and what ends all.
        let room = SLOT - "01234567\t\t\n".len() - text.len();
        text.push_str(&shortened(&self.failure, room));
        let mut slot = [b' '; SLOT];
        slot[SLOT - 1] = b'\n';
        let text = format!("{:08x}\t{text}\t", checksum(&text, id));
        slot[..text.len()].copy_from_slice(text.as_bytes());
        slot
    }

    /// Reads what [`encode`](End::encode) wrote in this boot for this program, with its number; `None`: it is not that.
    pub(super) fn decode(slot: &[u8], id: ProgramId) -> Option<(u32, End)> {
        let text = std::str::from_utf8(slot).ok()?;
        let text = text.trim_end_matches([' ', '\n']).strip_suffix('\t')?;
        let (sum, text) = text.split_once('\t')?;
        if u32::from_str_radix(sum, 16).ok()? != checksum(text, id) {
            return None;
        }
        let fields: Vec<&str> = text.split('\t').collect();
        let [
            number,
            reason,
            exit,
            pid,
            began,
            start,
            ended,
            end,
            logged,
            cpu,
            rss,
            by,
            failure,
        ] = fields[..]
        else {
            return None;
        };
        let started = match (optional(began)?, optional(start)?) {
            (Some(began), Some(start)) => {
                Some((BootTime::from_micros(began), Timestamp::from_micros(start)))
            }
            _ => None,
        };
        let usage = match (optional(cpu)?, optional(rss)?) {
            (Some(cpu_micros), max_rss_kib) => Some(Usage {
                cpu_micros,
                max_rss_kib,
            }),
            (None, _) => None,
        };
        let end = End {
            reason: Reason::from_word(reason)?,
            exit: match exit.split_at_checked(1)? {
                ("c", code) => Some(Exit::Code(code.parse().ok()?)),
                ("s", signal) => Some(Exit::Signal(Signal::from_number(signal.parse().ok()?))),
                ("u", "") => Some(Exit::Unknown),
                _ => None,
            },
            pid: optional(pid)?,
            started,
            ended: (
                BootTime::from_micros(ended.parse().ok()?),
                Timestamp::from_micros(end.parse().ok()?),
            ),
            logged: BootTime::from_micros(logged.parse().ok()?),
            usage,
            by: By::decode(by),
            failure: failure.to_owned(),
        };
        Some((number.parse().ok()?, end))
    }
}

/// Of what is in the slot and of whose it is, in this boot.
fn checksum(text: &str, id: ProgramId) -> u32 {
    let sum = crate::program::hash([boot_id(), &id.to_string(), text]);
    (sum ^ sum >> 32) as u32
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `Some(None)` where there is none; `None` where it is none of that type.
fn optional<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    match text {
        "-" => Some(None),
        text => text.parse().ok().map(Some),
    }
}

/// A text on one line of at most so many bytes: of a longer one, begin and end, as the reason is at the end.
fn shortened(text: &str, most: usize) -> String {
    const LEFT_OUT: &str = "...";
    let text = text.trim().replace(char::is_control, " ");
    if text.len() <= most {
        return text;
    }
    let half = most.saturating_sub(LEFT_OUT.len()) / 2;
    let begin = text.floor_char_boundary(half);
    let end = text.ceil_char_boundary(text.len() - half);
    format!("{}{LEFT_OUT}{}", &text[..begin], &text[end..])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: ProgramId = ProgramId(7);

    fn exits() -> impl Strategy<Value = Option<Exit>> {
        let exits = prop_oneof![
            any::<u8>().prop_map(Exit::Code),
            (1..=64).prop_map(|number| Exit::Signal(Signal::from_number(number))),
            Just(Exit::Unknown),
        ];
        prop::option::of(exits)
    }

    prop_compose! {
        fn ends()(
            reason in prop::sample::select(Reason::ALL.to_vec()),
            exit in exits(),
            pid in prop::option::of(1..=i32::MAX),
            started in prop::option::of(any::<(u32, i64)>()),
            ended in any::<(u32, i64)>(),
            logged: u32,
            usage in prop::option::of((0..=u64::MAX / 1000, prop::option::of(0..=u64::MAX / 1000))),
            user in "[^\\pC\\s]{0,16}",
            via in prop::option::of(prop::sample::select(vec![Via::Api, Via::Hxe, Via::Signal])),
        ) -> End {
            let moment = |(boot, wall): (u32, i64)| {
                (BootTime::from_micros(u64::from(boot) << 20), Timestamp::from_micros(wall >> 8))
            };
            let begins = reason != Reason::StartFailed;
            End {
                reason,
                exit: exit.filter(|_| begins),
                pid: pid.filter(|_| begins),
                started: started.filter(|_| begins).map(moment),
                ended: moment(ended),
                logged: BootTime::from_micros(u64::from(logged)),
                usage: usage
                    .filter(|_| begins)
                    .map(|(cpu_micros, max_rss_kib)| Usage { cpu_micros, max_rss_kib }),
                by: via.filter(|_| begins).map(|via| By { user, via }),
                failure: match begins {
                    true => String::new(),
                    false => "changing directory to /x: No such file or directory".to_owned(),
                },
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(end in ends(), number: u32) {
            prop_assert_eq!(End::decode(&end.encode(number, ID), ID), Some((number, end)));
        }

        #[test]
        fn half_of_one_is_none(old in ends(), new in ends(), at in 0..SLOT) {
            let (old, new) = (old.encode(1, ID), new.encode(11, ID));
            let torn = [&new[..at], &old[at..]].concat();
            let whole = torn == old || torn == new;
            prop_assert_eq!(End::decode(&torn, ID).is_some(), whole);
        }

        #[test]
        fn any_bytes_are_no_harm(bytes in prop::collection::vec(any::<u8>(), SLOT)) {
            prop_assert_eq!(End::decode(&bytes, ID), None);
        }

        #[test]
        fn a_failure_of_any_length_keeps_begin_and_end(path in "/[a-zé ]{0,600}") {
            let end = End {
                failure: format!("changing directory to {path}: No such file or directory"),
                ..failed()
            };
            let (_, read) = End::decode(&end.encode(u32::MAX, ID), ID).unwrap();
            prop_assert!(read.failure.starts_with("changing directory to /"));
            prop_assert!(read.failure.ends_with(": No such file or directory"));
            prop_assert_eq!(read.failure.contains("..."), read.failure != end.failure);
        }
    }

    /// A start that failed.
    pub(in crate::supervise) fn failed() -> End {
        End {
            reason: Reason::StartFailed,
            exit: None,
            pid: None,
            started: None,
            ended: (BootTime::now(), Timestamp::now()),
            logged: BootTime::now(),
            usage: None,
            by: None,
            failure: "preparing the start: no".to_owned(),
        }
    }

    #[test]
    fn another_program_and_another_boot_have_none_of_it() {
        let slot = failed().encode(1, ID);
        assert!(End::decode(&slot, ID).is_some());
        assert_eq!(End::decode(&slot, ProgramId(8)), None);
    }

    #[test]
    fn messages_say_how_and_by_whom() {
        let end = |reason, exit, by| End {
            reason,
            exit: Some(exit),
            by,
            ..failed()
        };
        let admin = By {
            user: "admin".to_owned(),
            via: Via::Api,
        };
        for (end, message) in [
            (failed(), "Program failed to start: preparing the start: no"),
            (
                end(Reason::Crash, Exit::Code(3), None),
                "Program exited with code 3",
            ),
            (
                end(Reason::Stop, Exit::Signal(Signal::TERM), Some(admin)),
                "Program was stopped by admin (was ended by signal TERM)",
            ),
            (
                end(Reason::Shutdown, Exit::Unknown, Some(By::SIGNAL)),
                "Program was stopped with hxe (ended, and nobody saw how)",
            ),
        ] {
            assert_eq!(end.message(), message);
        }
    }
}
