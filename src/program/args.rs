//! `args` to argv: split as a shell splits words; no shell runs, nothing is expanded.

/// Splits `args` into words: blanks separate, quotes and backslashes hold together, as in sh(1).
///
/// # Errors
/// A quote that is not closed.
pub fn split(args: &str) -> Result<Vec<String>, &'static str> {
    shell_words::split(args)
        .map_err(|_| "a quote is not closed: close it, or put a backslash in front of it")
}

/// Joins words so that [`split`] gives them again.
pub fn join(words: &[String]) -> String {
    shell_words::join(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(split("-g 'daemon off;'").unwrap(), ["-g", "daemon off;"]);
        assert_eq!(
            split(r#"a\ b "c \"d\"" '' $HOME *"#).unwrap(),
            ["a b", "c \"d\"", "", "$HOME", "*"]
        );
        assert!(split("").unwrap().is_empty());
        assert!(split(" \t\n ").unwrap().is_empty());
    }

    #[test]
    fn a_comment_sign_is_an_ordinary_character() {
        assert_eq!(split("a#b c").unwrap(), ["a#b", "c"]);
    }

    #[test]
    fn an_open_quote_is_an_error() {
        for args in ["'", "\"", "a 'b", "\"a\\\""] {
            assert!(split(args).is_err(), "{args}");
        }
    }

    proptest! {
        #[test]
        fn any_words_survive_quoting_and_splitting(words in proptest::collection::vec(any::<String>(), 0..8)) {
            let joined = shell_words::join(&words);
            prop_assert_eq!(split(&joined).unwrap(), words);
        }

        #[test]
        fn no_input_panics(args in any::<String>()) {
            let _ = split(&args);
        }
    }
}
