//! `POST /sign-in` and `POST /sign-out`: exchange the admin token for a session, and end it.

use std::error::Error as StdError;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;

use super::access::AdminRequester;
use super::page;
use super::purge::read_body;
use super::response::{html, to_status_page};
use super::same_origin::{is_from_browser, is_same_origin};
use super::state::Admin;

/// Path that opens a session.
pub(super) const SIGN_IN_PATH: &str = "/sign-in";
/// Path that ends a session.
pub(super) const SIGN_OUT_PATH: &str = "/sign-out";

/// The value of a field of a form.
pub(super) fn form_field(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

impl Admin {
    /// Opens a session for a browser that sends the admin token.
    pub(super) async fn sign_in<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        if !self.0.access.has_token() {
            return to_status_page(None);
        }
        if is_from_browser(&head.headers) && !is_same_origin(&head.headers) {
            return html(StatusCode::FORBIDDEN, page::purge_refused("another page has asked to sign in"));
        }
        let Ok(body) = read_body(body).await else { return html(StatusCode::UNAUTHORIZED, page::sign_in(true)) };
        let token = form_field(&body, "token").unwrap_or_default();
        match self.0.access.sign_in(token.trim().as_bytes(), self.0.clock.now()) {
            Some(cookie) => to_status_page(Some(cookie)),
            None => html(StatusCode::UNAUTHORIZED, page::sign_in(true)),
        }
    }

    /// Ends the session of a browser.
    pub(super) async fn sign_out<B>(&self, request: Request<B>, requester: AdminRequester) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let csrf = read_body(body).await.ok().and_then(|body| form_field(&body, "csrf"));
        match self.0.access.check_change(requester, &head.headers, csrf.as_deref()) {
            Ok(()) => to_status_page(Some(self.0.access.sign_out(&head.headers))),
            Err(error) => html(StatusCode::FORBIDDEN, page::purge_refused(&error.to_string())),
        }
    }
}
