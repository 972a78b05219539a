//! Compares responses with the OpenAPI document: path, method, status, headers, media type and body.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::Value;

use super::{TestRequest, TestResponse};

/// Larger bodies are not parsed, since tests have many of them.
const LONGEST_PARSED: usize = 64 * 1024;
/// Keywords that do not restrict what is valid here, or that only concern requests.
const ANNOTATIONS: [&str; 7] =
    ["description", "example", "format", "default", "additionalProperties", "pattern", "examples"];

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap());

/// Asserts that a response of a data plane is described. Only these have an `X-Request-Id`: neither the admin plane nor
/// the simulator sends one.
#[track_caller]
pub(crate) fn check(request: &TestRequest, response: &TestResponse) {
    if response.header("x-request-id").is_none() {
        return;
    }
    if let Err(problem) = compare(request, response) {
        panic!("the OpenAPI document does not describe this response: {problem}\n{request:?}\n{response:?}");
    }
}

fn compare(request: &TestRequest, response: &TestResponse) -> Result<(), String> {
    let (method, path) = request.endpoint();
    let Some(operations) = operations(path) else { return Ok(()) };
    // OpenAPI 3.1 cannot describe QUERY, which is a POST here.
    let method = if method == "QUERY" { "post".to_owned() } else { method.to_lowercase() };
    let status = response.status.as_u16();
    let responses = match (&operations[&method]["responses"], status) {
        // Of a method that is not served, or whose content has a type of its own rules.
        (_, 405) => &operations["get"]["responses"],
        (_, 415) | (Value::Null, 400..500) => return Ok(()),
        (Value::Null, _) if method == "head" => &operations["get"]["responses"],
        (responses, _) => responses,
    };
    let described = resolve(&responses[status.to_string()]);
    if described.is_null() {
        return Err(format!("{method} has no {status}"));
    }
    compare_headers(described, response)?;
    compare_body(described, response)
}

/// Headers that the document knows must be described for each response that has them.
fn compare_headers(described: &Value, response: &TestResponse) -> Result<(), String> {
    let names = |headers: &Value| -> HashSet<String> {
        headers.as_object().into_iter().flatten().map(|(name, _)| name.to_lowercase()).collect()
    };
    let (known, here) = (names(&DOCUMENT["components"]["headers"]), names(&described["headers"]));
    let undescribed: Vec<_> =
        response.headers.keys().filter(|name| known.contains(name.as_str()) && !here.contains(name.as_str())).collect();
    if undescribed.is_empty() { Ok(()) } else { Err(format!("headers {undescribed:?}")) }
}

fn compare_body(described: &'static Value, response: &TestResponse) -> Result<(), String> {
    if response.body.is_empty() {
        return Ok(());
    }
    let media_type = response.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    let content = &described["content"][media_type];
    if content.is_null() {
        return Err(format!("a body of the type {media_type:?}"));
    }
    let is_json = media_type.ends_with("json") && !media_type.ends_with("ndjson");
    if !is_json || response.header("content-encoding").is_some() || response.body.len() > LONGEST_PARSED {
        return Ok(());
    }
    validate(&content["schema"], &response.json())
}

/// The operations at a path; `None` if the document has no such path.
fn operations(path: &str) -> Option<&'static Value> {
    let matches = |template: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template.zip(path).all(|(part, text)| part == text || part.starts_with('{') && !text.is_empty())
    };
    let paths = DOCUMENT["paths"].as_object()?;
    paths.get(path).or_else(|| paths.iter().find(|(template, _)| matches(template)).map(|(_, found)| found))
}

fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Checks a value against a schema. Panics at a keyword that it does not know, so that none is passed over.
fn validate(schema: &'static Value, value: &Value) -> Result<(), String> {
    let fail = |what: String| Err(format!("{what} in {value}"));
    for (keyword, argument) in schema.as_object().into_iter().flatten() {
        match keyword.as_str() {
            "$ref" => validate(resolve(schema), value)?,
            "type" if !has_type(argument, value) => return fail(format!("no {argument}")),
            "enum" if !argument.as_array().unwrap().contains(value) => return fail(format!("none of {argument}")),
            "const" if argument != value => return fail(format!("not {argument}")),
            "minimum" if value.as_f64() < argument.as_f64() && value.is_number() => {
                return fail(format!("less than {argument}"));
            }
            "maximum" if value.as_f64() > argument.as_f64() && value.is_number() => {
                return fail(format!("more than {argument}"));
            }
            "required" => {
                for name in argument.as_array().unwrap() {
                    if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                        return fail(format!("no member {name}"));
                    }
                }
            }
            "properties" => {
                for (name, schema) in argument.as_object().unwrap() {
                    value.get(name).map_or(Ok(()), |member| validate(schema, member))?;
                }
            }
            "items" => value.as_array().into_iter().flatten().try_for_each(|item| validate(argument, item))?,
            "anyOf" => {
                let tried: Vec<_> = argument.as_array().unwrap().iter().map(|one| validate(one, value)).collect();
                if tried.iter().all(Result::is_err) {
                    return fail(format!("none of {tried:?}"));
                }
            }
            "type" | "enum" | "const" | "minimum" | "maximum" => {}
            other => assert!(ANNOTATIONS.contains(&other), "the keyword {other} is not known here"),
        }
    }
    Ok(())
}

/// Whether a value has one of the types.
fn has_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known here"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schema_tells_described_bodies_from_others() {
        let schema = &DOCUMENT["components"]["schemas"]["Window"];
        let item = json!({"segmentID": "ac-1", "agent": null, "more": 1e2});
        assert_eq!(validate(schema, &json!({"numResults": 1, "hasMore": false, "data": [item]})), Ok(()));
        for other in [
            json!({"numResults": 1, "hasMore": false}),
            json!({"numResults": -1, "hasMore": false, "data": []}),
            json!({"numResults": 1.5, "hasMore": false, "data": []}),
            json!({"numResults": 0, "hasMore": null, "data": []}),
            json!({"numResults": 1, "hasMore": false, "data": [{"segmentID": 7}]}),
            json!([]),
        ] {
            assert!(validate(schema, &other).is_err(), "{other}");
        }
        let union = &operations("/agentassist/api/v1/public/st-1/v2/agentassistinteractions").unwrap()["get"]["responses"]
            ["200"]["content"]["application/json"]["schema"];
        assert!(validate(union, &json!({"calls": 1})).is_err());
    }
}
