//! Compares hxe-api(7) with the tables and the text of this room: whoever adds an endpoint, a field, an error, a code or a
//! kind of event is told to describe it.

use super::definition::FIELDS;
use super::routes::ROUTES;

const PAGE: &str = include_str!("../../man/hxe-api.7");

/// The items of the lists in a section, without macros: `POST /auth/login`, `name`.
fn items(section: &str) -> Vec<String> {
    let begin = PAGE
        .find(&format!("\n.Ss {section}\n"))
        .unwrap_or_else(|| panic!("hxe-api(7) has no section {section}"));
    let rest = &PAGE[begin + 1..];
    let ends = ["\n.Ss ", "\n.Sh "].map(|next| rest.find(next).unwrap_or(rest.len()));
    let end = ends[0].min(ends[1]);
    rest[..end]
        .lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .map(|item| item.replace("Li ", ""))
        .collect()
}

/// The words between quotes behind each `mark`, up to `end`.
fn quoted(source: &str, mark: &str, end: char) -> Vec<String> {
    let parts = source.split(mark).skip(1);
    parts
        .filter_map(|part| part.split(end).next())
        .flat_map(|part| part.split('"').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// A source without its tests.
fn code(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn every_route_is_described_in_order() {
    let routes = ROUTES.iter();
    let routes: Vec<String> = routes
        .map(|route| format!("{} {}", route.method, route.pattern))
        .collect();
    assert_eq!(items("Endpoints"), routes);
}

#[test]
fn every_field_of_a_program_is_described() {
    let described: Vec<String> = items("Programs")
        .iter()
        .flat_map(|item| item.split(" , "))
        .map(str::to_owned)
        .collect();
    let mut missing: Vec<_> = FIELDS.to_vec();
    missing.retain(|field| !described.iter().any(|known| known == field));
    assert_eq!(missing, [""; 0]);
    assert_eq!(described.len(), FIELDS.len());
}

#[test]
fn every_error_is_described() {
    let source = code(include_str!("error/answer.rs"));
    // `(400, "validation_error", ...` however it is broken into lines.
    let source: String = source.split_whitespace().collect();
    let mut errors = Vec::new();
    for (at, _) in source.match_indices(",\"") {
        let status = source[..at].rsplit('(').next().unwrap_or_default();
        if status.len() == 3
            && status.bytes().all(|byte| byte.is_ascii_digit())
            && let Some(code) = source[at + 2..].split('"').next()
        {
            errors.push(format!("{status} {code}"));
        }
    }
    errors.sort();
    errors.dedup();
    assert!(errors.len() > 15, "{errors:?}");
    let mut described = items("Errors");
    described.sort();
    assert_eq!(described, errors);
}

#[test]
fn every_parameter_of_a_query_is_described() {
    let sources = [
        include_str!("control.rs"),
        include_str!("logs.rs"),
        include_str!("metrics.rs"),
        include_str!("output.rs"),
        include_str!("programs.rs"),
        include_str!("reload.rs"),
        include_str!("live.rs"),
    ];
    let endpoints = PAGE.split("\n.Ss Endpoints\n").nth(1).unwrap_or_default();
    let endpoints = endpoints.split("\n.Ss ").next().unwrap_or_default();
    let mut count = 0;
    for source in sources {
        for parameter in quoted(code(source), ".query(&[", ']') {
            count += 1;
            let is_described = endpoints
                .split(|c: char| c.is_whitespace() || c == '=')
                .any(|word| word == parameter);
            assert!(is_described, "hxe-api(7) lacks the parameter {parameter}");
        }
    }
    assert!(count >= 10, "only {count} parameters were found");
}

#[test]
fn every_event_and_every_code_of_a_close_is_described() {
    let described: Vec<String> = items("Events")
        .iter()
        .flat_map(|item| item.split(" , "))
        .map(str::to_owned)
        .collect();
    let live = code(include_str!("live.rs"));
    let mut expected: Vec<String> = live
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("pub const ")?
                .split(": u16 = ")
                .nth(1)
        })
        .map(|code| code.trim_end_matches(';').to_owned())
        .collect();
    assert!(expected.len() > 4, "{expected:?}");
    expected.extend(
        quoted(code(include_str!("live/message.rs")), "Topic::", ',')
            .into_iter()
            .filter(|name| name.contains('.') && !name.contains('*')),
    );
    expected.push("log.dropped".to_owned());
    assert!(expected.len() > 9, "{expected:?}");
    for word in expected {
        assert!(
            described.contains(&word),
            "hxe-api(7) lacks {word}: {described:?}"
        );
    }
}
