//! Request bodies and messages: JSON objects whose fields are taken out one by one, so that each mistake names its field.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::error::ApiError;

/// A JSON value. Unlike `serde_json::Value` it keeps what an object says twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// A whole number that fits, however it is written: `3`, `3.0` and `3e0` are the same. Source: RFC 8259 6.
    Integer(i64),
    /// Any other number.
    Number,
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What it is, for a sentence: "a string".
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "true or false",
            Json::Integer(_) | Json::Number => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

/// The fields of a body: each known, and there once.
#[derive(Debug)]
pub struct Fields(Vec<(&'static str, Json)>);

impl Fields {
    /// Reads a body that must be an object with no other fields than `known`.
    ///
    /// # Errors
    /// Not JSON, not an object, an unknown field, a field that is there twice.
    pub fn parse(body: &[u8], known: &[&'static str]) -> Result<Fields, ApiError> {
        Fields::of(object("body", body)?, known)
    }

    /// Takes an object with no other fields than `known`.
    ///
    /// # Errors
    /// An unknown field, a field that is there twice.
    pub fn of(pairs: Vec<(String, Json)>, known: &[&'static str]) -> Result<Fields, ApiError> {
        let mut fields: Vec<(&'static str, Json)> = Vec::new();
        for (key, value) in pairs {
            let Some(name) = known.iter().find(|name| **name == key) else {
                let issue = format!("Unknown field: known here are {}", known.join(", "));
                return Err(ApiError::body(key, issue));
            };
            if fields.iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::body(*name, "Given more than once: give it once"));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }

    /// Takes a field out; `null` is the same as nothing.
    pub fn take(&mut self, name: &'static str) -> Option<Json> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        match self.0.swap_remove(at).1 {
            Json::Null => None,
            value => Some(value),
        }
    }

    /// Takes a string out.
    ///
    /// # Errors
    /// It is something else.
    pub fn string(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a string", &other)),
        }
    }

    /// Takes a string out that must be there and not be empty; `title` begins the sentence that says so.
    ///
    /// # Errors
    /// It is not there, empty, or something else.
    pub fn required(&mut self, name: &'static str, title: &str) -> Result<String, ApiError> {
        match self.string(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(ApiError::body(name, format!("{title} is required"))),
        }
    }

    /// Takes a boolean out.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong_type(name, "true or false", &other)),
        }
    }
}

/// A value of the wrong type: says what is wanted and what was given.
pub fn wrong_type(field: &'static str, wanted: &str, given: &Json) -> ApiError {
    let given = match given {
        Json::Bool(true) => "true",
        Json::Bool(false) => "false",
        other => other.kind(),
    };
    ApiError::body(field, format!("Must be {wanted}, not {given}"))
}

/// Reads what must be a JSON object; `whole` is what it is called, and the field that its mistakes name: "body".
///
/// # Errors
/// Not JSON, not an object.
pub fn object(whole: &'static str, text: &[u8]) -> Result<Vec<(String, Json)>, ApiError> {
    let mistake = |issue: String| ApiError::body(whole, format!("The {whole} {issue}"));
    if text.trim_ascii().is_empty() {
        return Err(mistake("is empty: a JSON object is required".to_owned()));
    }
    match parse_json(text) {
        Ok(Json::Object(pairs)) => Ok(pairs),
        Ok(value) => Err(mistake(format!(
            "must be a JSON object, not {}",
            value.kind()
        ))),
        Err(error) => Err(mistake(format!("is not valid JSON: {error}"))),
    }
}

/// Levels of nesting that are read: no field needs more than two, and serde_json's own limit of 128 takes more stack than
/// the threads that serve requests have.
const MAX_DEPTH: u8 = 8;

fn parse_json(body: &[u8]) -> serde_json::Result<Json> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Level(0).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads a value at this depth.
#[derive(Clone, Copy)]
struct Level(u8);

impl Level {
    fn below<E: Error>(self) -> Result<Level, E> {
        if self.0 >= MAX_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {MAX_DEPTH} levels"
            )));
        }
        Ok(Level(self.0 + 1))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Number, Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        /// Up to 2^53 no two whole numbers look alike.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let fits = value.fract() == 0.0 && value.abs() < EXACT;
        Ok(match fits {
            true => Json::Integer(value as i64),
            false => Json::Number,
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut object = Vec::new();
        while let Some(key) = pairs.next_key()? {
            object.push((key, pairs.next_value_seed(below)?));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    const KNOWN: &[&str] = &["username", "password", "flag"];

    fn refused(body: &[u8]) -> (String, String) {
        match Fields::parse(body, KNOWN) {
            Err(ApiError::Body(at)) => (at.field.into_owned(), at.issue),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_are_taken_out() {
        let body = br#" {"username": "a\u00e9", "password": null, "flag": true} "#;
        let mut fields = Fields::parse(body, KNOWN).unwrap();
        assert_eq!(fields.string("username").unwrap().as_deref(), Some("aé"));
        assert_eq!(fields.string("username").unwrap(), None);
        assert_eq!(fields.string("password").unwrap(), None);
        assert_eq!(fields.flag("flag").unwrap(), Some(true));
    }

    #[test]
    fn what_is_no_json_object_is_refused_with_the_position() {
        for body in [
            &b"{"[..],
            b"{\"username\"}",
            b"{\"username\":\"a\",}",
            b"{'username':'a'}",
            b"{\"username\":\"\xff\"}",
            b"{\"username\":\"\\ud800\"}",
            b"{} {}",
            b"username=a",
            b"\xef\xbb\xbf{}",
            b"{\"flag\":1e999}",
            b"{\"flag\":NaN}",
            b"\0",
        ] {
            let (field, issue) = refused(body);
            assert_eq!(field, "body");
            assert!(issue.contains("line 1 column"), "{issue}");
        }
        assert!(refused(b"").1.contains("empty"));
        assert!(refused(b" \n").1.contains("empty"));
        for body in [&b"[]"[..], b"\"a\"", b"1", b"null", b"true"] {
            assert!(refused(body).1.contains("must be a JSON object"));
        }
    }

    #[test]
    fn unknown_and_repeated_fields_are_named() {
        assert_eq!(refused(br#"{"user":"a"}"#).0, "user");
        assert_eq!(refused(br#"{"":1}"#).0, "");
        let (field, issue) = refused(br#"{"username":"a","username":"b"}"#);
        assert_eq!(field, "username");
        assert!(issue.contains("more than once"));
        assert_eq!(
            refused(br#"{"username":null,"username":null}"#).0,
            "username"
        );
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let parsed = |text: &str| parse_json(text.as_bytes()).unwrap();
        for (text, number) in [("3.0", 3), ("1e2", 100), ("-0", 0), ("-1.0", -1)] {
            assert_eq!(parsed(text), Json::Integer(number), "{text}");
        }
        for text in [
            "3.5",
            "1e-1",
            "9007199254740993.0",
            "1e300",
            "99999999999999999999",
        ] {
            assert_eq!(parsed(text), Json::Number, "{text}");
        }
    }

    #[test]
    fn a_wrong_type_is_told() {
        let mut fields = Fields::parse(br#"{"username":7,"flag":"yes"}"#, KNOWN).unwrap();
        let issue = |error| match error {
            ApiError::Body(at) => (at.field.into_owned(), at.issue),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            issue(fields.string("username").unwrap_err()),
            (
                "username".to_owned(),
                "Must be a string, not a number".to_owned()
            )
        );
        assert_eq!(
            issue(fields.flag("flag").unwrap_err()),
            (
                "flag".to_owned(),
                "Must be true or false, not a string".to_owned()
            )
        );
    }

    /// The stack of the threads that serve requests is 128 KiB; debug builds need more of it than release builds.
    #[test]
    fn a_body_100_000_levels_deep_is_refused_on_a_small_stack() {
        for open in ["[", "{\"a\":", "{\"flag\":[{\"a\":"] {
            let body = format!("{{\"flag\":{}", open.repeat(100_000)).into_bytes();
            let parse = move || refused(&body).1;
            let thread = thread::Builder::new().stack_size(64 * 1024).spawn(parse);
            let issue = thread.unwrap().join().unwrap();
            assert!(
                issue.contains("nested deeper than 8 levels at line 1"),
                "{issue}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in any::<Vec<u8>>()) {
            let _ = Fields::parse(&body, KNOWN);
        }

        #[test]
        fn no_body_of_likely_characters_panics(body in "[{}\\[\\]\":,a-f0-9.e+\\\\u-]{0,60}") {
            let _ = Fields::parse(body.as_bytes(), KNOWN);
        }
    }
}
