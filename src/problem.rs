//! Problem documents (RFC 9457): the body of every error response of both listeners.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::{Serialize, Serializer};

/// The media type of a problem document.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A problem document; `E` has the members that only this type of problem has. Members that are not set are left out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem<'a, E = ()> {
    r#type: String,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<[KoreError<'a>; 1]>,
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
    /// A problem of the type `urn:koregate:problem:{name}`.
    pub(crate) fn new(status: StatusCode, name: &str, detail: &'a str) -> Self {
        Self {
            r#type: format!("urn:koregate:problem:{name}"),
            title: status.canonical_reason().unwrap_or_default(),
            status,
            detail,
            request_id: None,
            errors: None,
            extension: None,
        }
    }

    /// Adds the id of the request.
    pub(crate) fn with_request_id(self, request_id: &'a str) -> Self {
        Self { request_id: Some(request_id), ..self }
    }

    /// Adds the member `errors`, with the detail and Kore's code.
    pub(crate) fn with_kore_code(self, code: u16) -> Self {
        Self { errors: Some([KoreError { msg: self.detail, code }]), ..self }
    }

    /// Adds the members of `extension`.
    pub(crate) fn with_extension<E>(self, extension: E) -> Problem<'a, E> {
        let Self { r#type, title, status, detail, request_id, errors, .. } = self;
        Problem { r#type, title, status, detail, request_id, errors, extension: Some(extension) }
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
        let problem = || Problem::new(StatusCode::NOT_FOUND, "not-found", "no \"such\" path");
        let prefix =
            r#"{"type":"urn:koregate:problem:not-found","title":"Not Found","status":404,"detail":"no \"such\" path""#;
        let json = |document: Vec<u8>| String::from_utf8(document).unwrap();
        for (document, members) in [
            (problem().to_json(), "}"),
            (
                problem().with_request_id("r-1").with_kore_code(4002).to_json(),
                r#","request_id":"r-1","errors":[{"msg":"no \"such\" path","code":4002}]}"#,
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
        let response = Problem::new(StatusCode::FORBIDDEN, "forbidden", "no").response();
        assert_eq!(response.status(), 403);
        let fields = ["content-type", "cache-control"].map(|field| response.headers()[field].to_str().unwrap());
        assert_eq!(fields, ["application/problem+json", "no-store"]);
    }
}
