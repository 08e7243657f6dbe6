//! [`ProgramId`]: `program-N`, N counts up from 1 and is never used again.

use std::fmt;
use std::str::FromStr;

/// The id of a program, shown and read as `program-N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramId(pub u32);

impl fmt::Display for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "program-{}", self.0)
    }
}

/// The text was not `program-N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form program-N")]
pub struct NotAnId;

impl FromStr for ProgramId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<ProgramId, NotAnId> {
        let digits = text.strip_prefix("program-").ok_or(NotAnId)?;
        // One spelling an id: no sign, no leading zero.
        if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotAnId);
        }
        digits.parse().map(ProgramId).map_err(|_| NotAnId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        assert_eq!("program-7".parse(), Ok(ProgramId(7)));
        assert_eq!(ProgramId(7).to_string(), "program-7");
    }

    #[test]
    fn only_one_spelling_is_an_id() {
        for text in [
            "program-",
            "program-0",
            "program-07",
            "program-+7",
            "program-7 ",
            "Program-7",
            "7",
            "program-99999999999",
        ] {
            assert_eq!(text.parse::<ProgramId>(), Err(NotAnId), "{text}");
        }
    }
}
