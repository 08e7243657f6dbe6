//! What a client says on a WebSocket, parsed. Pure: who it is and what happens then is `live`'s affair.

use crate::api::body::{Fields, Json, object, wrong_type};
use crate::api::error::ApiError;

/// A message from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A peer that is trusted may leave the token out.
    Auth {
        token: Option<String>,
    },
    Subscribe(Filter),
}

/// Which events a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `None`: all kinds.
    events: Option<Vec<Topic>>,
    /// Ids or names; `None`: all programs.
    programs: Option<Vec<String>>,
}

/// A kind of event, as clients name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Started,
    Stopped,
    Restarted,
    Error,
    /// `log.new`, and `log.dropped` in its place.
    Log,
}

impl Topic {
    const PROGRAM: [Topic; 4] = [
        Topic::Started,
        Topic::Stopped,
        Topic::Restarted,
        Topic::Error,
    ];
    const ALL: [Topic; 5] = [
        Topic::Started,
        Topic::Stopped,
        Topic::Restarted,
        Topic::Error,
        Topic::Log,
    ];

    /// As events bear it.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Started => "program.started",
            Topic::Stopped => "program.stopped",
            Topic::Restarted => "program.restarted",
            Topic::Error => "program.error",
            Topic::Log => "log.new",
        }
    }

    /// What a client means by `name`: one, or a group of them.
    fn named(name: &str) -> Option<Vec<Topic>> {
        match name {
            "*" => Some(Topic::ALL.into()),
            "program.*" => Some(Topic::PROGRAM.into()),
            "log.*" => Some(vec![Topic::Log]),
            _ => {
                let one = Topic::ALL.into_iter().find(|topic| topic.name() == name)?;
                Some(vec![one])
            }
        }
    }
}

impl Filter {
    /// Whether events of this kind are wanted, of whichever program.
    pub fn wants(&self, topic: Topic) -> bool {
        self.events
            .as_ref()
            .is_none_or(|events| events.contains(&topic))
    }

    /// Whether this program's are wanted. An id is of a form that no name has.
    pub fn selects(&self, id: &str, name: &str) -> bool {
        self.programs.as_ref().is_none_or(|programs| {
            programs
                .iter()
                .any(|program| program == id || program == name)
        })
    }

    /// The ids and names of the programs that are wanted, where not all are.
    pub fn programs(&self) -> Option<&[String]> {
        self.programs.as_deref()
    }
}

/// Reads a message.
///
/// # Errors
/// What is wrong with it, and in which field.
pub fn parse(text: &str) -> Result<Message, ApiError> {
    let pairs = object("message", text.as_bytes())?;
    // The type decides which fields are known; where it is given twice, that is told then.
    match pairs.iter().find(|(name, _)| name == "type") {
        Some((_, Json::String(kind))) => match kind.as_str() {
            "auth" => auth(Fields::of(pairs, &["type", "token"])?),
            "subscribe" => subscribe(Fields::of(pairs, &["type", "events", "programs"])?),
            _ => Err(ApiError::body(
                "type",
                "Unknown type: known here are auth, subscribe",
            )),
        },
        Some((_, other)) => Err(wrong_type("type", "a string", other)),
        None => Err(ApiError::body(
            "type",
            "A type is required: auth or subscribe",
        )),
    }
}

fn auth(mut fields: Fields) -> Result<Message, ApiError> {
    let token = fields.string("token")?;
    Ok(Message::Auth { token })
}

fn subscribe(mut fields: Fields) -> Result<Message, ApiError> {
    let mut filter = Filter::default();
    if let Some(names) = strings(&mut fields, "events")? {
        let mut events = Vec::new();
        for name in names {
            let topics = Topic::named(&name).ok_or_else(|| unknown_event(&name))?;
            for topic in topics {
                if !events.contains(&topic) {
                    events.push(topic);
                }
            }
        }
        filter.events = Some(events);
    }
    filter.programs = strings(&mut fields, "programs")?;
    Ok(Message::Subscribe(filter))
}

fn unknown_event(name: &str) -> ApiError {
    /// Characters of a name that are repeated to the client.
    const SHOWN: usize = 100;
    let name: String = name.chars().take(SHOWN).collect();
    let known = Topic::ALL.map(Topic::name).join(", ");
    ApiError::body(
        "events",
        format!("{name:?} is unknown: known here are {known}, program.*, log.*, *"),
    )
}

/// Takes an array of strings out.
fn strings(fields: &mut Fields, name: &'static str) -> Result<Option<Vec<String>>, ApiError> {
    let items = match fields.take(name) {
        None => return Ok(None),
        Some(Json::Array(items)) => items,
        Some(other) => return Err(wrong_type(name, "an array of strings", &other)),
    };
    let mut strings = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Json::String(text) => strings.push(text),
            other => {
                let issue = format!(
                    "Must be an array of strings, not with {} in it",
                    other.kind()
                );
                return Err(ApiError::body(name, issue));
            }
        }
    }
    Ok(Some(strings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> Filter {
        match parse(text) {
            Ok(Message::Subscribe(filter)) => filter,
            other => panic!("{other:?}"),
        }
    }

    /// Field and issue.
    fn refused(text: &str) -> (String, String) {
        match parse(text) {
            Err(ApiError::Body(at)) => (at.field.into_owned(), at.issue),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn auth_has_a_token_or_none() {
        for (text, expected) in [
            (r#"{"type":"auth","token":"a.b.c"}"#, Some("a.b.c")),
            (
                r#" { "token" : "a.b.c" , "type" : "auth" } "#,
                Some("a.b.c"),
            ),
            (r#"{"type":"auth","token":""}"#, Some("")),
            (r#"{"type":"auth","token":null}"#, None),
            (r#"{"type":"auth"}"#, None),
        ] {
            let token = expected.map(str::to_owned);
            assert_eq!(parse(text).unwrap(), Message::Auth { token }, "{text}");
        }
    }

    #[test]
    fn a_subscription_without_fields_is_to_all() {
        for text in [
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","events":null,"programs":null}"#,
            r#"{"type":"subscribe","events":["*"]}"#,
            r#"{"type":"subscribe","events":["log.*","program.*"]}"#,
        ] {
            let filter = filter(text);
            assert!(
                Topic::ALL.iter().all(|topic| filter.wants(*topic)),
                "{text}"
            );
            assert!(filter.selects("program-1", "a"));
        }
    }

    #[test]
    fn events_are_selected_by_name_and_by_group() {
        use Topic::{Error, Log, Restarted, Started, Stopped};
        for (events, wanted) in [
            (r#"["program.started"]"#, &[Started][..]),
            (r#"["program.stopped","program.error"]"#, &[Stopped, Error]),
            (r#"["program.restarted","program.restarted"]"#, &[Restarted]),
            (r#"["program.*"]"#, &[Started, Stopped, Restarted, Error]),
            (r#"["log.new"]"#, &[Log]),
            (r#"["log.*"]"#, &[Log]),
            ("[]", &[]),
        ] {
            let filter = filter(&format!(r#"{{"type":"subscribe","events":{events}}}"#));
            let wants: Vec<_> = Topic::ALL
                .into_iter()
                .filter(|topic| filter.wants(*topic))
                .collect();
            assert_eq!(wants, wanted, "{events}");
        }
    }

    #[test]
    fn programs_are_selected_by_id_or_name() {
        let filter = filter(r#"{"type":"subscribe","programs":["program-1","web"]}"#);
        assert!(filter.selects("program-1", "a"));
        assert!(filter.selects("program-2", "web"));
        assert!(!filter.selects("program-2", "a"));
        assert!(!filter.selects("program-11", "we"));
        let none = super::tests::filter(r#"{"type":"subscribe","programs":[]}"#);
        assert!(!none.selects("program-1", "a"));
    }

    #[test]
    fn mistakes_name_their_field() {
        for (text, field, said) in [
            ("", "message", "is empty"),
            ("auth", "message", "not valid JSON"),
            ("[]", "message", "must be a JSON object, not an array"),
            ("{}", "type", "required"),
            (r#"{"token":"a"}"#, "type", "required"),
            (r#"{"type":null}"#, "type", "Must be a string, not null"),
            (r#"{"type":1}"#, "type", "Must be a string, not a number"),
            (
                r#"{"type":"ping"}"#,
                "type",
                "known here are auth, subscribe",
            ),
            (r#"{"type":"auth","type":"auth"}"#, "type", "more than once"),
            (r#"{"type":"auth","token":1}"#, "token", "Must be a string"),
            (
                r#"{"type":"auth","events":[]}"#,
                "events",
                "known here are type, token",
            ),
            (
                r#"{"type":"subscribe","token":"a"}"#,
                "token",
                "Unknown field",
            ),
            (
                r#"{"type":"subscribe","event":[]}"#,
                "event",
                "Unknown field",
            ),
            (
                r#"{"type":"subscribe","events":"*"}"#,
                "events",
                "an array of strings",
            ),
            (
                r#"{"type":"subscribe","events":[1]}"#,
                "events",
                "a number in it",
            ),
            (
                r#"{"type":"subscribe","events":["log"]}"#,
                "events",
                "\"log\" is unknown",
            ),
            (
                r#"{"type":"subscribe","events":["log.dropped"]}"#,
                "events",
                "known here are",
            ),
            (
                r#"{"type":"subscribe","programs":{}}"#,
                "programs",
                "not an object",
            ),
            (
                r#"{"type":"subscribe","programs":["a",null]}"#,
                "programs",
                "null in it",
            ),
            (
                r#"{"type":"subscribe","programs":[],"programs":[]}"#,
                "programs",
                "more than once",
            ),
        ] {
            let (at, issue) = refused(text);
            assert_eq!(at, field, "{text}");
            assert!(issue.contains(said), "{text}: {issue}");
        }
    }

    #[test]
    fn a_long_name_is_not_repeated_whole() {
        let text = format!(
            r#"{{"type":"subscribe","events":["{}"]}}"#,
            "x".repeat(10_000)
        );
        assert!(refused(&text).1.len() < 1000);
    }

    const GOOD: [&str; 3] = [
        r#"{"type":"auth","token":"a.b.c"}"#,
        r#"{"type":"subscribe","events":["program.*","log.new"],"programs":["program-1","web"]}"#,
        r#"{"type":"subscribe"}"#,
    ];

    /// Whatever it is, it is understood, or a field of it is named, or the message as a whole.
    fn holds(text: &str) -> Result<(), TestCaseError> {
        match parse(text) {
            Ok(_) => Ok(()),
            Err(ApiError::Body(at)) => {
                let is_field = at.field == "message"
                    || at.field == "type"
                    || text.contains(&*at.field)
                    // Written with escapes.
                    || text.contains('\\');
                prop_assert!(is_field, "{text}: {at:?}");
                prop_assert!(!at.issue.is_empty());
                Ok(())
            }
            Err(other) => Err(TestCaseError::fail(format!("{text}: {other:?}"))),
        }
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in any::<String>()) {
            holds(&text)?;
        }

        #[test]
        fn any_text_of_likely_characters_is_understood_or_refused(
            text in r#"\{("(type|token|events|programs)":("auth"|"subscribe"|\["(log|program)\.(\*|new)"\]|null|[0-9]),?){0,4}\}?"#
        ) {
            holds(&text)?;
        }

        #[test]
        fn a_good_message_that_was_changed_is_understood_or_refused(
            which in 0..GOOD.len(),
            at in any::<prop::sample::Index>(),
            length in 0..8_usize,
            other in any::<Vec<u8>>(),
        ) {
            let mut bytes = GOOD[which].as_bytes().to_vec();
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, other.into_iter().take(8));
            holds(&String::from_utf8_lossy(&bytes))?;
        }
    }
}
