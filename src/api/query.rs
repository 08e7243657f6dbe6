//! Query strings and percent-encoding.

use super::error::ApiError;

/// The parameters of a request: each key known, and there once.
#[derive(Debug, PartialEq, Eq)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads `a=b&c=d`, as sent.
    ///
    /// # Errors
    /// A key that is not in `known` or is there twice, or an encoding that is wrong.
    pub fn parse(text: Option<&str>, known: &[&'static str]) -> Result<Query, ApiError> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        for pair in text
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty())
        {
            let (raw_key, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode_form(raw_key).unwrap_or_else(|| raw_key.to_owned());
            let Some(name) = known.iter().find(|name| **name == key) else {
                let issue = if known.is_empty() {
                    "Unknown parameter: this path takes none".to_owned()
                } else {
                    format!("Unknown parameter: known here are {}", known.join(", "))
                };
                return Err(ApiError::query(key, issue));
            };
            if pairs.iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::query(*name, "Given more than once: give it once"));
            }
            let value = decode_form(raw_value).ok_or_else(|| {
                ApiError::query(*name, "Not valid percent-encoded UTF-8: write % as %25")
            })?;
            pairs.push((name, value));
        }
        Ok(Query(pairs))
    }

    /// The value of a parameter, decoded.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number from 0 up; what is too large for our counters is the largest.
    ///
    /// # Errors
    /// Anything but digits.
    pub fn count(&self, name: &'static str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ApiError::query(name, "Must be a whole number, 0 or more"));
        }
        Ok(Some(text.parse().unwrap_or(usize::MAX)))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(&self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(ApiError::query(name, "Must be true or false")),
        }
    }
}

/// Decodes `%41`. `None` where an escape is broken or the result is not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// As [`decode`], with `+` for a blank, as forms and many clients encode queries.
fn decode_form(text: &str) -> Option<String> {
    decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[&str] = &["lines", "level", "follow"];

    fn parse(text: &str) -> Result<Query, ApiError> {
        Query::parse(Some(text), KNOWN)
    }

    fn refused_field(text: &str) -> String {
        match parse(text) {
            Err(ApiError::Query(at)) => at.field.into_owned(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = parse("lines=10&level=warn%2Cerror&&").unwrap();
        assert_eq!(query.get("lines"), Some("10"));
        assert_eq!(query.get("level"), Some("warn,error"));
        assert_eq!(query.get("follow"), None);
        assert_eq!(Query::parse(None, KNOWN).unwrap(), parse("").unwrap());
        assert_eq!(parse("level=a+b").unwrap().get("level"), Some("a b"));
        assert_eq!(parse("level").unwrap().get("level"), Some(""));
        assert_eq!(parse("level=a=b").unwrap().get("level"), Some("a=b"));
        assert_eq!(parse("%6Cines=1").unwrap().get("lines"), Some("1"));
    }

    #[test]
    fn unknown_repeated_and_broken_ones_are_named() {
        assert_eq!(refused_field("lines=1&x=2"), "x");
        assert_eq!(refused_field("LINES=1"), "LINES");
        assert_eq!(refused_field("lines=1&lines=1"), "lines");
        assert_eq!(refused_field("lines=1&%6cines=2"), "lines");
        assert_eq!(refused_field("level=%"), "level");
        assert_eq!(refused_field("level=%f"), "level");
        assert_eq!(refused_field("level=%zz"), "level");
        assert_eq!(refused_field("level=%ff"), "level");
        assert_eq!(refused_field("%ff=1"), "%ff");
        assert_eq!(refused_field("=1"), "");
    }

    #[test]
    fn numbers_are_digits_and_have_no_upper_bound() {
        let count = |text: &str| parse(text).unwrap().count("lines");
        assert_eq!(count("lines=0").unwrap(), Some(0));
        assert_eq!(count("level=x").unwrap(), None);
        assert_eq!(
            count("lines=99999999999999999999999").unwrap(),
            Some(usize::MAX)
        );
        for bad in [
            "lines=",
            "lines=-1",
            "lines=+1",
            "lines=1.5",
            "lines=1e3",
            "lines=٣",
            "lines=0x1",
        ] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_are_true_or_false() {
        let flag = |text: &str| parse(text).unwrap().flag("follow");
        assert_eq!(flag("follow=true").unwrap(), Some(true));
        assert_eq!(flag("follow=false").unwrap(), Some(false));
        assert_eq!(flag("lines=1").unwrap(), None);
        for bad in ["follow", "follow=1", "follow=TRUE", "follow=yes"] {
            assert!(flag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_s_plus_is_a_plus() {
        assert_eq!(decode("a+b%20c%2F%C3%A9").as_deref(), Some("a+b c/é"));
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_is_decoded(text in any::<String>()) {
            let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(decode(&encoded), Some(text));
        }

        #[test]
        fn what_a_form_encodes_is_read_back(
            values in prop::collection::vec(any::<String>(), 3),
            plain in prop::collection::vec(any::<bool>(), 50),
        ) {
            let mut plain = plain.into_iter().cycle();
            let mut encode = |byte: u8| match byte {
                b' ' if plain.next() == Some(true) => "+".to_owned(),
                b'a'..=b'z' if plain.next() == Some(true) => char::from(byte).to_string(),
                _ if plain.next() == Some(true) => format!("%{byte:02x}"),
                _ => format!("%{byte:02X}"),
            };
            let pairs: Vec<String> = KNOWN
                .iter()
                .zip(&values)
                .map(|(key, value)| {
                    let value: String = value.bytes().map(&mut encode).collect();
                    let key: String = key.bytes().map(&mut encode).collect();
                    format!("{key}={value}")
                })
                .collect();
            let query = parse(&pairs.join("&")).unwrap();
            for (key, value) in KNOWN.iter().zip(&values) {
                prop_assert_eq!(query.get(key), Some(value.as_str()));
            }
        }

        #[test]
        fn what_is_decoded_is_no_longer_than_what_was_sent(text in "[%0-9a-fA-FzZ+é]{0,40}") {
            if let Some(decoded) = decode(&text) {
                prop_assert!(decoded.len() <= text.len());
                prop_assert_eq!(decoded == text, !text.contains('%'));
            }
        }

        #[test]
        fn no_query_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn no_query_of_likely_characters_panics(text in "[a-f%=&+0-9]{0,40}") {
            if let Ok(query) = parse(&text) {
                let _ = query.count("lines");
                let _ = query.flag("follow");
            }
        }
    }
}
