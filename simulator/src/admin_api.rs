//! The HTTP interface for controlling the simulator, under `/simulator/`. Its requests are not counted as calls.

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use crate::control::Control;
use crate::faults::FaultRequest;
use crate::response::{self, JSON};
use crate::scripted_body::ScriptedBody;

pub(crate) const PATH_PREFIX: &str = "/simulator/";

const MAX_BODY_BYTES: usize = 4_096;

/// Handles one request under [`PATH_PREFIX`].
pub(crate) async fn handle(control: Control, request: Request<Incoming>) -> Response<ScriptedBody> {
    let (parts, body) = request.into_parts();
    let resource = parts.uri.path().strip_prefix(PATH_PREFIX).unwrap_or_default();
    let done = || respond(StatusCode::OK, json!({"done": true}));
    match (&parts.method, resource) {
        (&Method::GET, "counts") => match serde_json::to_value(control.counts()) {
            Ok(counts) => respond(StatusCode::OK, counts),
            Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, json!({"error": error.to_string()})),
        },
        (&Method::POST, "reset") => {
            control.reset_counts();
            done()
        }
        (&Method::POST, "faults") => match read_fault_request(body).await {
            Ok(request) => {
                match request.into_plan() {
                    Some(plan) => control.set_faults(plan),
                    None => control.clear_faults(),
                }
                done()
            }
            Err(error) => respond(StatusCode::BAD_REQUEST, json!({"error": error})),
        },
        (_, "counts" | "reset" | "faults") => {
            respond(StatusCode::METHOD_NOT_ALLOWED, json!({"error": "GET counts; POST reset and faults"}))
        }
        _ => respond(StatusCode::NOT_FOUND, json!({"error": "there are counts, reset and faults"})),
    }
}

async fn read_fault_request(body: Incoming) -> Result<FaultRequest, String> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}

fn respond(status: StatusCode, mut body: serde_json::Value) -> Response<ScriptedBody> {
    body.sort_all_objects();
    response::with_body(status, JSON, format!("{body}\n"))
}
