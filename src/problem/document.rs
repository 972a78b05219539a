//! Problem documents: the body of every error response of both listeners.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::{Serialize, Serializer};

use super::types::ProblemType;

/// The media type of a problem document.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A problem document; `E` has the members that only this type of problem has. Members that are not set are left out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem<'a, E = ()> {
    #[serde(skip)]
    kind: ProblemType,
    r#type: String,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<[KoreError<'a>; 1]>,
    /// The names of the rate-limit policies whose quota is used up.
    #[serde(rename = "violated-policies", skip_serializing_if = "<[_]>::is_empty")]
    violated_policies: &'a [&'a str],
    #[serde(flatten)]
    extension: Option<E>,
}

/// An error as Kore writes it, for clients that were written for Kore.
#[derive(Clone, Debug, Serialize)]
struct KoreError<'a> {
    msg: &'a str,
    code: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn as_number<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl<'a> Problem<'a> {
    /// A problem of this type.
    pub(crate) fn new(kind: ProblemType, detail: &'a str) -> Self {
        Self {
            kind,
            r#type: kind.uri(),
            title: kind.title(),
            status: kind.status(),
            detail,
            request_id: None,
            errors: None,
            violated_policies: &[],
            extension: None,
        }
    }

    /// Adds the id of the request.
    pub(crate) fn with_request_id(self, request_id: &'a str) -> Self {
        Self { request_id: Some(request_id), ..self }
    }

    /// Adds the member `errors`, with the detail and Kore's code for such a case.
    pub(crate) fn with_kore_code(self) -> Self {
        let detail = self.detail;
        self.with_kore_message(detail)
    }

    /// Adds the member `errors`, with Kore's own message.
    pub(crate) fn with_kore_message(self, msg: &'a str) -> Self {
        Self { errors: Some([KoreError { msg, code: self.kind.kore_code() }]), ..self }
    }

    /// Adds the member `violated-policies`, unless there are none.
    pub(crate) fn with_violated_policies(self, violated_policies: &'a [&'a str]) -> Self {
        Self { violated_policies, ..self }
    }

    /// Adds the members of `extension`.
    pub(crate) fn with_extension<E>(self, extension: E) -> Problem<'a, E> {
        let Self { kind, r#type, title, status, detail, request_id, errors, violated_policies, extension: _ } = self;
        let extension = Some(extension);
        Problem { kind, r#type, title, status, detail, request_id, errors, violated_policies, extension }
    }
}

impl<E: Serialize> Problem<'_, E> {
    /// The status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The document as JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The document as JSON, indented for people.
    pub(super) fn to_pretty_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The response, which must not be cached.
    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_its_members_in_order() {
        #[derive(Serialize)]
        struct Extension {
            left: Option<u8>,
            complete: bool,
        }
        let problem = || Problem::new(ProblemType::Unauthorized, "no \"such\" key");
        let prefix = concat!(
            r#"{"type":"/koregate/v1/problems/unauthorized","title":"A valid key is required","status":401,"#,
            r#""detail":"no \"such\" key""#
        );
        let json = |document: Vec<u8>| String::from_utf8(document).unwrap();
        for (document, members) in [
            (problem().to_json(), "}"),
            (
                problem().with_request_id("r-1").with_kore_code().to_json(),
                r#","request_id":"r-1","errors":[{"msg":"no \"such\" key","code":4002}]}"#,
            ),
            (
                problem().with_kore_message("Kore's").with_violated_policies(&["caller", "kore-hour"]).to_json(),
                r#","errors":[{"msg":"Kore's","code":4002}],"violated-policies":["caller","kore-hour"]}"#,
            ),
            (
                problem().with_extension(Extension { left: None, complete: false }).to_json(),
                r#","left":null,"complete":false}"#,
            ),
        ] {
            assert_eq!(json(document), format!("{prefix}{members}"));
        }
    }

    #[test]
    fn response_has_status_and_content_type() {
        let response = Problem::new(ProblemType::Forbidden, "no").response();
        assert_eq!(response.status(), 403);
        let fields = ["content-type", "cache-control"].map(|field| response.headers()[field].to_str().unwrap());
        assert_eq!(fields, ["application/problem+json", "no-store"]);
    }
}
