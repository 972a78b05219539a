//! Compares responses with the OpenAPI document: path, method, status, headers, media type and body.

mod schema;

use std::collections::HashSet;

use serde_json::Value;

use self::schema::{DOCUMENT, resolve, validate};
use super::{TestRequest, TestResponse};

/// Larger bodies are not parsed, since tests have many of them.
const LONGEST_PARSED: usize = 64 * 1024;

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
    let status = response.status.as_u16();
    // OpenAPI 3.1 cannot describe QUERY, which is a POST here; only its conditions are those of GET.
    let method = match method {
        "QUERY" if status == 304 => "get".to_owned(),
        "QUERY" => "post".to_owned(),
        _ => method.to_lowercase(),
    };
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

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[test]
    fn response_that_is_not_described_is_found() {
        let window = TestRequest::get("from=2026-02-25&to=2026-02-25");
        let json = r#"{"numResults":0,"hasMore":false,"data":[]}"#;
        let problem = r#"{"type":"/koregate/v1/problems/forbidden","title":"t","status":403,"detail":"d"}"#;
        for (status, header, body, is_described) in [
            (200, ("content-type", "application/json"), json, true),
            (200, ("content-type", "text/plain"), json, false),
            (200, ("content-type", "application/json"), "{}", false),
            (200, ("retry-after", "1"), "", false),
            (304, ("etag", "\"a\""), "", true),
            (403, ("content-type", "application/problem+json"), problem, true),
            (403, ("content-type", "application/problem+json"), json, false),
            (418, ("content-type", "application/json"), json, false),
        ] {
            let (head, ()) =
                Response::builder().status(status).header(header.0, header.1).body(()).unwrap().into_parts();
            let response = TestResponse::new(head, body);
            assert_eq!(compare(&window, &response).is_ok(), is_described, "{status} {header:?} {body}");
        }
    }
}
