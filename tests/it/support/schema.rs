//! JSON Schema, as much of it as `src/api/openapi.json` uses of answers: whether a value fits a schema, and where it does not.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// The description of the API.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../src/api/openapi.json");
    serde_json::from_str(text).expect("src/api/openapi.json is JSON")
});

/// What a reference stands for; anything else stands for itself.
pub fn resolved(value: &'static Value) -> &'static Value {
    let Some(place) = value.get("$ref") else {
        return value;
    };
    let place = place.as_str().and_then(|place| place.strip_prefix('#'));
    let found = place.and_then(|place| DOCUMENT.pointer(place));
    resolved(found.unwrap_or_else(|| panic!("src/api/openapi.json lacks {value}")))
}

/// Holds a value against the schema of this name.
#[track_caller]
pub fn check(name: &str, value: &Value) {
    let schema = &DOCUMENT["components"]["schemas"][name];
    if let Err(problem) = fits(schema, value, name) {
        panic!("{problem}: change hxe, or src/api/openapi.json\n{value}");
    }
}

/// Whether a value fits a schema. `at` is where the value is.
///
/// # Errors
/// The first place where it does not, and why.
pub fn fits(schema: &'static Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolved(schema);
    let Some(keywords) = schema.as_object() else {
        return match schema.as_bool() {
            Some(true) => Ok(()),
            _ => Err(format!("{at} is not described")),
        };
    };
    for (keyword, wanted) in keywords {
        let holds = match keyword.as_str() {
            "type" => alternatives(wanted).any(|kind| is_of(kind, value)),
            "enum" => alternatives(wanted).any(|one| one == value),
            "const" => wanted == value,
            "minimum" => value.as_f64().is_none_or(|n| Some(n) >= wanted.as_f64()),
            "maximum" => value.as_f64().is_none_or(|n| Some(n) <= wanted.as_f64()),
            "minLength" => length(value).is_none_or(|n| Some(n) >= wanted.as_u64()),
            "maxLength" => length(value).is_none_or(|n| Some(n) <= wanted.as_u64()),
            "minItems" => {
                (value.as_array()).is_none_or(|it| Some(it.len() as u64) >= wanted.as_u64())
            }
            "format" => value.as_str().is_none_or(|text| has_format(wanted, text)),
            "required" => {
                for name in alternatives(wanted).filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        return Err(format!("{at} lacks {name}, which is required"));
                    }
                }
                true
            }
            "properties" | "additionalProperties" => fields(keywords, value, at).map(|()| true)?,
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(wanted, item, &format!("{at}[{index}]"))?;
                }
                true
            }
            "anyOf" | "oneOf" => {
                let (mut fitting, mut problems) = (0, Vec::new());
                for one in alternatives(wanted) {
                    match fits(one, value, at) {
                        Ok(()) => fitting += 1,
                        Err(problem) if may_be_meant(one, value) => problems.push(problem),
                        Err(_) => {}
                    }
                }
                if fitting == 0 {
                    let problems = problems.join("; or else: ");
                    return Err(format!("{at} fits none of {keyword:?}: {problems}"));
                }
                keyword == "anyOf" || fitting == 1
            }
            // Said to people, or to validators with regular expressions: scripts/test-openapi.sh has one.
            "description" | "default" | "pattern" | "propertyNames" => true,
            other => panic!("tests/it/support/schema.rs does not know {other:?} of JSON Schema"),
        };
        if !holds {
            return Err(format!("{at} is {value}, but {keyword:?} is {wanted}"));
        }
    }
    Ok(())
}

/// Holds what is in an object against what is said of it.
fn fields(keywords: &'static Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
    for (name, value) in value.as_object().into_iter().flatten() {
        let known = keywords.get("properties").and_then(|known| known.get(name));
        if let Some(schema) = known.or_else(|| keywords.get("additionalProperties")) {
            fits(schema, value, &format!("{at}.{name}"))?;
        }
    }
    Ok(())
}

/// One, or several in an array.
fn alternatives(wanted: &'static Value) -> impl Iterator<Item = &'static Value> {
    match wanted {
        Value::Array(several) => several.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// Whether a value is of the type that this alternative is for, where both say so.
fn may_be_meant(schema: &'static Value, value: &Value) -> bool {
    let wanted = resolved(schema).pointer("/properties/type");
    let given = value.get("type");
    wanted
        .zip(given)
        .is_none_or(|(wanted, given)| fits(wanted, given, "").is_ok())
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("array") => value.is_array(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        Some("number") => value.is_number(),
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        _ => panic!("{kind} is no type of JSON Schema"),
    }
}

/// In characters.
fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn has_format(format: &Value, text: &str) -> bool {
    match format.as_str() {
        Some("date-time") => humantime::parse_rfc3339(text).is_ok(),
        Some("binary" | "password") => true,
        _ => panic!("tests/it/support/schema.rs does not know the format {format}"),
    }
}

#[test]
fn what_does_not_fit_a_schema_is_found() {
    use serde_json::json;

    let with = |field: &str, value: Value| {
        let mut stopped = json!({
            "id": "program-1", "status": "stopped", "pid": null, "exit_code": 0, "message": "x",
            "left_behind": [{"pid": 7, "name": "x"}]
        });
        stopped[field] = value;
        fits(
            &DOCUMENT["components"]["schemas"]["Stopped"],
            &stopped,
            "it",
        )
    };
    assert_eq!(with("exit_code", json!(255)), Ok(()));
    for (expected, field, value) in [
        ("it.new is not described", "new", json!(1)),
        (
            "it.status is \"gone\", but \"enum\"",
            "status",
            json!("gone"),
        ),
        ("it.status is null, but \"enum\"", "status", json!(null)),
        ("it.pid is 1.5, but \"type\"", "pid", json!(1.5)),
        ("it.pid is 0, but \"minimum\" is 1", "pid", json!(0)),
        (
            "it.exit_code is 256, but \"maximum\"",
            "exit_code",
            json!(256),
        ),
        (
            "it.left_behind is [], but \"minItems\"",
            "left_behind",
            json!([]),
        ),
        (
            "it.left_behind[0] lacks name",
            "left_behind",
            json!([{"pid": 1}]),
        ),
        (
            "it.left_behind[0].x is not",
            "left_behind",
            json!([{"pid": 1, "name": "", "x": 1}]),
        ),
    ] {
        let problem = with(field, value).expect_err(expected);
        assert!(problem.starts_with(expected), "{problem}");
    }
}
