//! Where a log file ends when the next line would make it too large. Pure; called by `channel`.

/// How far before a full file's end a line end is looked for.
pub const BEFORE: u64 = 32 * 1024;
/// How far beyond it: a line that is longer is cut.
pub const BEYOND: u64 = 16 * 1024;

/// What to do with the bytes that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Move so many, then rotate.
    After(usize),
    /// Rotate, then look again.
    Before,
    /// Move so many: there is room yet, for these and for a line to end.
    NotYet(usize),
}

/// Decides by `waiting`, the bytes that come next. `room` bytes fit into the file, `most` are allowed to (`room` plus
/// [`BEYOND`], less where that is used up already, at least 1). `at_line_end`: the file is not empty and ends with a
/// whole line.
pub fn decide(waiting: &[u8], room: usize, most: usize, at_line_end: bool) -> Cut {
    if waiting.len() <= room {
        return Cut::NotYet(waiting.len());
    }
    if let Some(last) = waiting[..room].iter().rposition(|&b| b == b'\n') {
        return Cut::After(last + 1);
    }
    if at_line_end {
        return Cut::Before;
    }
    let allowed = &waiting[..most.min(waiting.len())];
    match allowed.iter().position(|&b| b == b'\n') {
        Some(first) => Cut::After(first + 1),
        None if waiting.len() >= most => Cut::After(most),
        None => Cut::NotYet(waiting.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_ends_with_the_last_line_that_fits() {
        assert_eq!(decide(b"ab\ncd\nef\n", 7, 99, false), Cut::After(6));
        assert_eq!(decide(b"ab\ncd\nef\n", 6, 99, false), Cut::After(6));
    }

    #[test]
    fn what_fits_as_a_whole_is_moved_wherever_lines_end() {
        assert_eq!(decide(b"ab\ncd", 5, 99, true), Cut::NotYet(5));
    }

    #[test]
    fn a_line_that_does_not_fit_begins_the_next_file() {
        assert_eq!(decide(b"abcdef\n", 4, 99, true), Cut::Before);
    }

    #[test]
    fn the_rest_of_a_line_may_go_a_little_beyond() {
        assert_eq!(decide(b"abcdef\ngh\n", 4, 99, false), Cut::After(7));
        assert_eq!(decide(b"abcdef", 4, 99, false), Cut::NotYet(6));
    }

    #[test]
    fn a_line_without_end_is_cut() {
        assert_eq!(decide(b"abcdefgh", 2, 6, false), Cut::After(6));
        assert_eq!(decide(b"abcdefgh", 0, 1, false), Cut::After(1));
    }

    proptest! {
        #[test]
        fn every_step_moves_bytes_or_rotates(
            waiting in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'x')], 1..50),
            room in 0_usize..40, beyond in 1_usize..20, at_line_end: bool
        ) {
            match decide(&waiting, room, room + beyond, at_line_end) {
                Cut::After(n) | Cut::NotYet(n) => prop_assert!(n > 0 && n <= waiting.len().min(room + beyond)),
                Cut::Before => prop_assert!(at_line_end),
            }
        }
    }
}
