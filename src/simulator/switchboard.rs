//! The control for a person with curl: the paths under `/simulator/`. They are not calls, and are not counted.

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::answer;
use super::answer::JSON;
use super::body::Script;
use super::control::Control;
use super::faults::FaultOrder;

pub(super) const PREFIX: &str = "/simulator/";

/// Answers one request to the switchboard.
pub(super) async fn serve(control: Control, request: Request<Incoming>) -> Response<Script> {
    let (parts, body) = request.into_parts();
    let name = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let done = || reply(StatusCode::OK, json!({"done": true}));
    match (&parts.method, name) {
        (&Method::GET, "counts") => match serde_json::to_value(control.counts()) {
            Ok(counts) => reply(StatusCode::OK, counts),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, json!({"error": error.to_string()})),
        },
        (&Method::POST, "reset") => {
            control.reset_counts();
            done()
        }
        (&Method::POST, "faults") => match faults(body).await {
            Ok(order) => {
                match order.plan() {
                    Some(plan) => control.set_faults(plan),
                    None => control.clear_faults(),
                }
                done()
            }
            Err(error) => reply(StatusCode::BAD_REQUEST, json!({"error": error})),
        },
        (_, "counts" | "reset" | "faults") => {
            reply(StatusCode::METHOD_NOT_ALLOWED, json!({"error": "GET counts; POST reset and faults"}))
        }
        _ => reply(StatusCode::NOT_FOUND, json!({"error": "there are counts, reset and faults"})),
    }
}

async fn faults(body: Incoming) -> Result<FaultOrder, String> {
    let body = Limited::new(body, 4_096).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}

fn reply(status: StatusCode, mut body: serde_json::Value) -> Response<Script> {
    body.sort_all_objects();
    answer::page(status, JSON, format!("{body}\n"))
}
