//! From a request's body to a [`Definition`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::body::{Fields, Json, wrong_type};
use super::error::ApiError;
use crate::clock;
use crate::program::{Definition, LogDisk, MaxRestarts, ProgramId, RestartPolicy, Signal};

/// Fields of a body: first those that are taken, then those that answers add, which are let through so that an answer,
/// edited, can be sent back.
pub const FIELDS: &[&str] = &[
    "name",
    "description",
    "command",
    "args",
    "directory",
    "user",
    "group",
    "enabled",
    "auto_restart",
    "max_restarts",
    "environment",
    "umask",
    "stop_signal",
    "stop_timeout",
    "restart_delay",
    "restart_policy",
    "success_exit_codes",
    "log_disk",
    "id",
    "status",
    "state",
    "pid",
    "exit_code",
    "exit_signal",
    "start_time",
    "created_at",
    "updated_at",
    "declared",
    "exits",
];
/// Those that are taken: what a file that declares a program may say.
pub const TAKEN: &[&str] = FIELDS.split_at(18).0;

/// The definition in a body, with every rule checked that needs no look at the system. `id` is that of the program which
/// is to be changed, if there is one: a body that names another is for another program.
///
/// # Errors
/// The first mistake, with its field.
pub fn parse(body: &[u8], id: Option<ProgramId>) -> Result<Definition, ApiError> {
    let mut fields = Fields::parse(body, FIELDS)?;
    if let Some(id) = id {
        check_id(&mut fields, id)?;
    }
    take(fields)
}

/// The definition in a file, whose fields are those of a body that can be taken.
///
/// # Errors
/// As [`parse`].
pub fn of_file(fields: Vec<(String, Json)>) -> Result<Definition, ApiError> {
    take(Fields::of(fields, TAKEN)?)
}

fn take(mut fields: Fields) -> Result<Definition, ApiError> {
    let name = fields.required("name", "Name")?;
    let command = fields.required("command", "Command")?;
    let mut definition = Definition::new(name, command);
    definition.description = fields.string("description")?.unwrap_or_default();
    definition.args = fields.string("args")?.unwrap_or_default();
    definition.directory = fields.string("directory")?;
    definition.user = fields.string("user")?;
    definition.group = fields.string("group")?;
    definition.enabled = fields.flag("enabled")?.unwrap_or_default();
    definition.auto_restart = fields.flag("auto_restart")?.unwrap_or_default();
    definition.max_restarts = max_restarts(&mut fields)?;
    definition.environment = environment(&mut fields)?;
    if let Some(umask) = umask(&mut fields)? {
        definition.umask = umask;
    }
    if let Some(name) = fields.string("stop_signal")? {
        let signal: Result<Signal, _> = name.parse();
        definition.stop_signal = signal
            .map_err(|error| ApiError::body("stop_signal", format!("{name:?} is {error}")))?;
    }
    definition.stop_timeout = duration(&mut fields, "stop_timeout")?;
    definition.restart_delay = duration(&mut fields, "restart_delay")?;
    if let Some(name) = fields.string("restart_policy")? {
        definition.restart_policy = RestartPolicy::from_name(&name).ok_or_else(|| {
            ApiError::body("restart_policy", "Must be \"on-failure\" or \"always\"")
        })?;
    }
    if let Some(codes) = success_exit_codes(&mut fields)? {
        definition.success_exit_codes = codes;
    }
    definition.log_disk = log_disk(&mut fields)?;
    definition.check()?;
    Ok(definition)
}

fn check_id(fields: &mut Fields, id: ProgramId) -> Result<(), ApiError> {
    match fields.string("id")? {
        Some(other) if other != id.to_string() => {
            let issue = format!("This is {id}: its id cannot be changed");
            Err(ApiError::body("id", issue))
        }
        _ => Ok(()),
    }
}

fn max_restarts(fields: &mut Fields) -> Result<Option<MaxRestarts>, ApiError> {
    const FIELD: &str = "max_restarts";
    let number = match fields.take(FIELD) {
        None => return Ok(None),
        Some(Json::Integer(number)) => MaxRestarts::from_number(number),
        Some(Json::Number) => None,
        Some(other) => return Err(wrong_type(FIELD, "a number", &other)),
    };
    let issue = "Must be a whole number from 0 to 1000000, or -1 for no limit";
    number.map(Some).ok_or_else(|| ApiError::body(FIELD, issue))
}

fn log_disk(fields: &mut Fields) -> Result<Option<LogDisk>, ApiError> {
    const FIELD: &str = "log_disk";
    let Some(name) = fields.string(FIELD)? else {
        return Ok(None);
    };
    let issue = "Must be \"all\", \"errors\" or \"memory\"";
    let disk = LogDisk::from_name(&name);
    disk.map(Some).ok_or_else(|| ApiError::body(FIELD, issue))
}

fn environment(fields: &mut Fields) -> Result<BTreeMap<String, String>, ApiError> {
    const FIELD: &str = "environment";
    let pairs = match fields.take(FIELD) {
        None => return Ok(BTreeMap::new()),
        Some(Json::Object(pairs)) => pairs,
        Some(other) => {
            return Err(wrong_type(FIELD, "an object of names and strings", &other));
        }
    };
    let mut environment = BTreeMap::new();
    for (name, value) in pairs {
        let Json::String(value) = value else {
            let issue = format!("{name:?} must be a string, not {}", value.kind());
            return Err(ApiError::body(FIELD, issue));
        };
        if environment.contains_key(&name) {
            let issue = format!("{name:?} is given more than once: give it once");
            return Err(ApiError::body(FIELD, issue));
        }
        environment.insert(name, value);
    }
    Ok(environment)
}

fn umask(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    const FIELD: &str = "umask";
    let text = match fields.take(FIELD) {
        None => return Ok(None),
        Some(Json::String(text)) => text,
        Some(other) => {
            return Err(wrong_type(FIELD, "a string such as \"022\"", &other));
        }
    };
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mask = u32::from_str_radix(&text, 8)
        .ok()
        .filter(|mask| digits && *mask <= 0o777);
    let issue = "Must be an octal number from \"000\" to \"777\"";
    mask.map(Some).ok_or_else(|| ApiError::body(FIELD, issue))
}

fn duration(fields: &mut Fields, name: &'static str) -> Result<Option<Duration>, ApiError> {
    let text = match fields.take(name) {
        None => return Ok(None),
        Some(Json::String(text)) => text,
        Some(other) => {
            return Err(wrong_type(name, "a string such as \"10s\"", &other));
        }
    };
    clock::parse_duration(&text)
        .map(Some)
        .map_err(|issue| ApiError::body(name, issue))
}

fn success_exit_codes(fields: &mut Fields) -> Result<Option<Vec<u8>>, ApiError> {
    const FIELD: &str = "success_exit_codes";
    let items = match fields.take(FIELD) {
        None => return Ok(None),
        Some(Json::Array(items)) => items,
        Some(other) => return Err(wrong_type(FIELD, "an array of numbers", &other)),
    };
    let mut codes = Vec::new();
    for item in items {
        let code = match item {
            Json::Integer(number) => u8::try_from(number).ok(),
            _ => None,
        };
        let issue = "Must be an array of whole numbers from 0 to 255";
        let code = code.ok_or_else(|| ApiError::body(FIELD, issue))?;
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    Ok(Some(codes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of the reference with `more` added.
    fn parse_with(more: &str) -> Result<Definition, ApiError> {
        let body = format!(r#"{{"name":"web","command":"/bin/true"{more}}}"#);
        parse(body.as_bytes(), Some(ProgramId(7)))
    }

    fn refused(result: Result<Definition, ApiError>) -> (String, String) {
        match result {
            Err(ApiError::Body(at)) => (at.field.into_owned(), at.issue),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_reference_s_body_is_understood() {
        let body = br#"{"name": "My Program", "description": "A test program", "command": "/usr/bin/python3",
            "args": "script.py", "directory": "/tmp", "user": "nobody", "group": "nobody", "enabled": true,
            "auto_restart": true, "max_restarts": 3}"#;
        let mut expected = Definition::new("My Program", "/usr/bin/python3");
        expected.description = "A test program".to_owned();
        expected.args = "script.py".to_owned();
        expected.directory = Some("/tmp".to_owned());
        expected.user = Some("nobody".to_owned());
        expected.group = Some("nobody".to_owned());
        expected.enabled = true;
        expected.auto_restart = true;
        expected.max_restarts = Some(MaxRestarts::AtMost(3));
        assert_eq!(parse(body, None).unwrap(), expected);
    }

    #[test]
    fn further_fields_are_understood() {
        let definition = parse_with(
            r#","environment":{"A":"1","B":""},"umask":"0027","stop_signal":"SIGINT","stop_timeout":"90s",
               "restart_delay":"500ms","restart_policy":"always","success_exit_codes":[0,3,3,255],"max_restarts":-1,
               "log_disk":"errors""#,
        )
        .unwrap();
        assert_eq!(definition.environment.len(), 2);
        assert_eq!(definition.umask, 0o027);
        assert_eq!(definition.stop_signal.to_string(), "INT");
        assert_eq!(definition.stop_timeout, Some(Duration::from_secs(90)));
        assert_eq!(definition.restart_delay, Some(Duration::from_millis(500)));
        assert_eq!(definition.restart_policy, RestartPolicy::Always);
        assert_eq!(definition.success_exit_codes, [0, 3, 255]);
        assert_eq!(definition.max_restarts, Some(MaxRestarts::Unlimited));
        assert_eq!(definition.log_disk, Some(LogDisk::Errors));
    }

    #[test]
    fn what_is_left_out_or_null_has_its_default() {
        let bare = Definition::new("web", "/bin/true");
        assert_eq!(parse_with("").unwrap(), bare);
        let nulls: String = FIELDS
            .iter()
            .filter(|name| !["name", "command"].contains(*name))
            .map(|name| format!(",\"{name}\":null"))
            .collect();
        assert_eq!(parse_with(&nulls).unwrap(), bare);
    }

    #[test]
    fn an_answer_can_be_sent_back() {
        let added = r#","id":"program-7","status":"running","state":"running","pid":12,"exit_code":null,
            "exit_signal":"TERM","start_time":"x","created_at":1,"updated_at":{},"exits":[]"#;
        assert_eq!(
            parse_with(added).unwrap(),
            Definition::new("web", "/bin/true")
        );
    }

    #[test]
    fn an_id_that_differs_is_refused_where_one_is_due() {
        assert_eq!(refused(parse_with(r#","id":"program-8""#)).0, "id");
        assert_eq!(refused(parse_with(r#","id":7"#)).0, "id");
        let body = br#"{"name":"web","command":"/bin/true","id":"program-8"}"#;
        assert!(parse(body, None).is_ok());
    }

    #[test]
    fn name_and_command_are_required() {
        for body in [
            r#"{"command":"x"}"#,
            r#"{"name":null,"command":"x"}"#,
            r#"{"name":"","command":"x"}"#,
            "{}",
        ] {
            let expected = ("name".to_owned(), "Name is required".to_owned());
            assert_eq!(refused(parse(body.as_bytes(), None)), expected, "{body}");
        }
        for body in [r#"{"name":"x"}"#, r#"{"name":"x","command":null}"#] {
            let expected = ("command".to_owned(), "Command is required".to_owned());
            assert_eq!(refused(parse(body.as_bytes(), None)), expected, "{body}");
        }
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (field, value) in [
            ("description", "1"),
            ("args", "[]"),
            ("args", r#""'""#),
            ("directory", "true"),
            ("directory", r#""tmp""#),
            ("user", "0"),
            ("user", r#""""#),
            ("group", "{}"),
            ("enabled", r#""true""#),
            ("enabled", "1"),
            ("auto_restart", "0"),
            ("max_restarts", r#""3""#),
            ("max_restarts", "1.5"),
            ("max_restarts", "-2"),
            ("max_restarts", "1e7"),
            ("max_restarts", "0.5e0"),
            ("max_restarts", "1000001"),
            ("max_restarts", "99999999999999999999999"),
            ("environment", r#"["A=1"]"#),
            ("environment", r#"{"A":1}"#),
            ("environment", r#"{"A":null}"#),
            ("environment", r#"{"A":"1","A":"2"}"#),
            ("environment", r#"{"HXE_RUN_ID":"1"}"#),
            ("environment", r#"{"A=B":"1"}"#),
            ("umask", "22"),
            ("umask", r#""1777""#),
            ("umask", r#""0o22""#),
            ("umask", r#""+22""#),
            ("umask", r#""089""#),
            ("umask", r#""00022""#),
            ("stop_signal", r#""TERMINATE""#),
            ("stop_signal", "15"),
            ("stop_timeout", "10"),
            ("stop_timeout", r#""10""#),
            ("stop_timeout", r#""-1s""#),
            ("stop_timeout", r#""25h""#),
            ("restart_delay", r#""soon""#),
            ("restart_delay", r#""99999999999999999999s""#),
            ("restart_policy", r#""never""#),
            ("restart_policy", "true"),
            ("log_disk", r#""none""#),
            ("log_disk", "false"),
            ("success_exit_codes", "0"),
            ("success_exit_codes", "[256]"),
            ("success_exit_codes", "[-1]"),
            ("success_exit_codes", "[0.5]"),
            ("success_exit_codes", r#"["0"]"#),
            ("success_exit_codes", "[[0]]"),
            ("commandd", "1"),
            ("left_behind", "[]"),
        ] {
            let (named, issue) = refused(parse_with(&format!(",\"{field}\":{value}")));
            assert_eq!(named, field, "{value}: {issue}");
            assert!(!issue.is_empty());
        }
    }
}
