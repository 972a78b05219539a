//! A validator of the schemas in the OpenAPI document, as far as their keywords are used there.

use std::sync::LazyLock;

use serde_json::Value;

/// Keywords that do not restrict what is valid here, or that only concern requests.
const ANNOTATIONS: [&str; 7] =
    ["description", "example", "format", "default", "additionalProperties", "pattern", "examples"];

/// The document.
pub(super) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap());

/// What a reference refers to; any other value as it is.
pub(super) fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Checks a value against a schema. Panics at a keyword that it does not know, so that none is passed over.
pub(super) fn validate(schema: &'static Value, value: &Value) -> Result<(), String> {
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
        let path = "/agentassist/api/v1/public/{streamId}/v2/agentassistinteractions";
        let union = &DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(validate(union, &json!({"calls": 1})).is_err());
    }
}
