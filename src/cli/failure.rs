//! Why a command failed, and with which exit code: the one place where errors become exit codes.

use std::fmt;
use std::io;

use super::text::clean;
use crate::client::Error;

/// Exit codes, as hxe(1) lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    General = 1,
    /// The usage or the configuration is wrong.
    Usage = 2,
    Authentication = 3,
    /// There is no such program.
    NoProgram = 4,
    /// It exists already.
    Exists = 5,
    /// Running already, not running, declared in a file.
    State = 6,
    Network = 7,
    Permission = 8,
}

/// A command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    /// Said on standard error; empty: all has been said.
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl fmt::Display) -> Failure {
        Failure {
            code,
            message: message.to_string(),
        }
    }

    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    pub fn general(message: impl fmt::Display) -> Failure {
        Failure::new(Code::General, message)
    }

    /// The same, of this program.
    pub fn of(self, program: &str) -> Failure {
        let message = match program {
            // A variable of a script that is not set, mostly.
            "" => "the name of a program is empty".to_owned(),
            _ => format!("{}: {}", clean(program), self.message),
        };
        Failure { message, ..self }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (code, next) = match &error {
            Error::Invalid { .. } => (Code::Usage, ""),
            Error::CannotConnect { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => (
                    Code::Permission,
                    "\nRoot, the daemon's own user and [api] socket_group may use its socket.",
                ),
                _ => (
                    Code::Network,
                    "\nIs the daemon running, and is that where it listens?",
                ),
            },
            Error::Unauthorized(_) => (
                Code::Authentication,
                "\nLog in with 'hxe login', or set HXE_TOKEN, or HXE_USERNAME and HXE_PASSWORD.",
            ),
            Error::Closed { code: 4401, .. } => {
                (Code::Authentication, "\nLog in with 'hxe login'.")
            }
            Error::Forbidden(_) => (Code::Permission, ""),
            Error::NotFound(refusal) => match refusal.code.as_str() {
                "not_found" => (Code::NoProgram, ""),
                _ => (Code::Network, "\nIs that an hxe daemon?"),
            },
            Error::Conflict(refusal) => match refusal.field.as_deref() {
                Some("declared") => (Code::State, ""),
                _ => (Code::Exists, ""),
            },
            Error::InvalidState(_) => (Code::State, ""),
            Error::Refused(refusal) => match refusal.code.as_str() {
                "validation_error" => (Code::Usage, ""),
                // It is not the daemon that says so.
                "" => (Code::Network, ""),
                _ => (Code::General, ""),
            },
            Error::Timeout(_) => (Code::General, "\nWhat was asked for may go on."),
            Error::Lost(_) | Error::Protocol(_) | Error::Closed { .. } => (Code::Network, ""),
        };
        // What a daemon says may hold names that others chose.
        let lines: Vec<String> = error.to_string().lines().map(clean).collect();
        Failure::new(code, lines.join("\n") + next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Refusal;

    fn refused(status: u16, code: &str) -> Box<Refusal> {
        Box::new(Refusal {
            status,
            code: code.to_owned(),
            message: "a\x1b[2J".to_owned(),
            ..Refusal::default()
        })
    }

    #[test]
    fn the_manual_has_every_exit_code() {
        let manual = include_str!("../../man/hxe.1");
        let section = manual.split("\n.Sh EXIT STATUS\n").nth(1).unwrap();
        let section = section.split("\n.Sh ").next().unwrap();
        let items = section.lines().filter_map(|line| line.strip_prefix(".It "));
        let items: Vec<u8> = items.map(|item| item.parse().unwrap()).collect();
        let last = Code::Permission as u8;
        assert_eq!(items, (0..=last).collect::<Vec<u8>>());
    }

    #[test]
    fn each_error_has_its_exit_code() {
        let denied = || io::ErrorKind::PermissionDenied.into();
        let connect = |source| Error::CannotConnect {
            place: "x".to_owned(),
            source,
        };
        for (error, code) in [
            (Error::Refused(refused(400, "start_failed")), Code::General),
            (
                Error::Refused(refused(500, "internal_error")),
                Code::General,
            ),
            (
                Error::Refused(refused(400, "validation_error")),
                Code::Usage,
            ),
            (Error::Unauthorized(refused(401, "")), Code::Authentication),
            (Error::NotFound(refused(404, "not_found")), Code::NoProgram),
            (Error::NotFound(refused(404, "")), Code::Network),
            (Error::Conflict(refused(409, "conflict")), Code::Exists),
            (
                Error::InvalidState(refused(400, "invalid_state")),
                Code::State,
            ),
            (Error::Refused(refused(502, "")), Code::Network),
            (Error::Lost(denied()), Code::Network),
            (
                connect(io::ErrorKind::ConnectionRefused.into()),
                Code::Network,
            ),
            (connect(denied()), Code::Permission),
            (Error::Forbidden(refused(403, "")), Code::Permission),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.code, code, "{failure:?}");
            assert!(!failure.message.contains('\x1b'), "{failure:?}");
        }
    }
}
