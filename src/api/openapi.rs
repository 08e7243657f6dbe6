//! `GET /api/openapi.json`: all of this, described for machines in `src/api/openapi.json`, which is kept by hand.
//!
//! That it says what is so is tested: below, that it has the routes that there are; and by `tests/it`, whose HTTP client
//! holds every answer against it.

use super::assets::OPENAPI;
use super::error::ApiError;
use super::{Api, Call, Outcome};

/// `GET /openapi.json`: for all, as it holds no secret.
pub fn get(_: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    Ok(OPENAPI.reply(&call.head, &[]).into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use crate::api::routes::{Access, PAGE, ROUTES, Route, SCRAPE};

    const TEXT: &str = include_str!("openapi.json");

    fn document() -> Value {
        serde_json::from_str(TEXT).unwrap()
    }

    /// Every path that the daemon answers on, with its route.
    fn paths() -> Vec<(String, &'static Route)> {
        let below = ROUTES
            .iter()
            .map(|route| (format!("/api{}", route.pattern), route));
        let beside = [&SCRAPE, &PAGE].map(|route| (route.pattern.to_owned(), route));
        let mut all: Vec<_> = below.chain(beside).collect();
        all.push(("/dashboard/{file}".to_owned(), &PAGE));
        all
    }

    fn method(route: &Route) -> String {
        route.method.as_str().to_lowercase()
    }

    #[test]
    fn it_has_every_route_and_no_other() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let methods = item.as_object().unwrap().keys();
            let methods = methods.filter(|key| !["parameters", "summary"].contains(&key.as_str()));
            described.extend(methods.map(|method| (path.clone(), method.clone())));
        }
        let there: BTreeSet<_> = paths()
            .into_iter()
            .map(|(path, route)| (path, method(route)))
            .collect();
        let lacks: Vec<_> = there.difference(&described).collect();
        assert!(
            lacks.is_empty(),
            "describe in src/api/openapi.json: {lacks:?}"
        );
        let more: Vec<_> = described.difference(&there).collect();
        assert!(more.is_empty(), "there is no longer: {more:?}");
    }

    #[test]
    fn it_says_of_each_route_what_a_request_must_bring() {
        let document = document();
        for (path, route) in paths() {
            let operation = &document["paths"][&path][method(route)];
            let expected = match route.access {
                Access::Open => json!([]),
                Access::Known | Access::Token => json!([{"bearer": []}]),
                Access::Scrape => json!([{"bearer": []}, {"metricsToken": []}]),
            };
            assert_eq!(operation["security"], expected, "{path}");
            let refused = !operation["responses"]["401"].is_null();
            let may_be = route.access != Access::Open || path == "/api/auth/login";
            assert_eq!(refused, may_be, "{path}");
        }
    }

    #[test]
    fn each_operation_has_a_name_of_its_own() {
        let document = document();
        let names: Vec<_> = paths()
            .iter()
            .map(|(path, route)| document["paths"][path][method(route)]["operationId"].clone())
            .collect();
        for name in &names {
            assert!(name.is_string());
            assert_eq!(
                names.iter().filter(|other| *other == name).count(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn it_is_of_this_version() {
        assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_definition_has_the_fields_that_are_taken_and_those_that_answers_add() {
        let document = document();
        let schema = &document["components"]["schemas"]["Definition"]["properties"];
        let described: BTreeSet<&str> = schema
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let taken: BTreeSet<&str> = crate::api::definition::FIELDS.iter().copied().collect();
        assert_eq!(described, taken);
    }

    /// All references in it.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(pairs) => {
                for (key, value) in pairs {
                    match value.as_str().filter(|_| key == "$ref") {
                        Some(place) => drop(found.insert(place.to_owned())),
                        None => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn all_that_it_refers_to_is_there_and_all_that_is_there_is_referred_to() {
        let document = document();
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        let mut there = BTreeSet::new();
        for kind in ["schemas", "responses", "parameters", "headers"] {
            let names = document["components"][kind].as_object().unwrap().keys();
            there.extend(names.map(|name| format!("#/components/{kind}/{name}")));
        }
        // No operation is answered so: it is the answer to those that there are not.
        used.insert("#/components/responses/MethodNotAllowed".to_owned());
        assert_eq!(used, there);
    }
}
