//! `POST /api/v1/window-field/trust?account=ID`: trusts `window.field` again, after the operator has removed the cause.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::response::json;
use super::state::Admin;
use crate::problem::{Problem, ProblemType};
use crate::telemetry;

/// Path of the call.
pub(super) const PATH: &str = "/api/v1/window-field/trust";

#[derive(Serialize)]
struct Trusted {
    account: String,
    /// Whether this replica had found the field to be wrong.
    was_wrong: bool,
}

impl Admin {
    /// Discards the finding about an account: its windows are cut into chunks again, until another item contradicts.
    pub(super) fn trust<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let query = request.uri().query().unwrap_or_default();
        let parameter = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "account");
        let Some((_, name)) = parameter else {
            let detail = "the parameter account is missing";
            return Problem::new(ProblemType::BadRequest, detail).response();
        };
        let Some((account, _)) = self.0.handles.quotas.iter().find(|(account, _)| **account == *name) else {
            return Problem::new(ProblemType::NotFound, "this account is not configured").response();
        };
        let was_wrong = self.0.handles.cache.window_fields.clear(&account);
        telemetry::window_field_right(&account, None, true);
        json(StatusCode::OK, &Trusted { account: account.to_string(), was_wrong })
    }
}
