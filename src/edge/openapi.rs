//! The OpenAPI document: a description of the data plane, which anyone may read. `openapi.json` beside this file is the
//! document; `docs/openapi.json` is a copy of it.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;

/// The path of the document.
pub(super) const PATH: &str = "/koregate/v1/openapi.json";

const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub(super) fn document() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(DOCUMENT));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn document_is_that_of_docs_and_of_this_version() {
        let docs = std::fs::read_to_string("docs/openapi.json").unwrap();
        assert!(docs == DOCUMENT, "copy src/edge/openapi.json to docs/openapi.json");
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(document["paths"].as_object().unwrap().contains_key(PATH));
    }

    #[test]
    fn references_resolve_and_operations_have_distinct_names() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let (mut references, mut names) = (Vec::new(), Vec::new());
        collect(&document, &mut references, &mut names);
        assert!(references.len() > 100 && names.len() > 10, "{} and {}", references.len(), names.len());
        for reference in references {
            let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
            assert!(target.is_some(), "{reference}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// The values of all `$ref` and `operationId`.
    fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>, names: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), value.as_str()) {
                        ("$ref", Some(reference)) => references.push(reference),
                        ("operationId", Some(name)) => names.push(name),
                        _ => collect(value, references, names),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, references, names)),
            _ => {}
        }
    }
}
