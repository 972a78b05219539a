//! Problem documents (RFC 9457), their types, and the page of each type.
//!
//! | file | contents |
//! | --- | --- |
//! | `types.rs` | [`ProblemType`]: every type that is sent, with its status, title and page text |
//! | `document.rs` | [`Problem`]: a document, the body of every error response of both listeners |
//! | `page.rs` | [`page`]: the pages to which the `type` of a document resolves |
//!
//! A `type` is a relative reference, `/koregate/v1/problems/NAME`, which resolves at the listener that sent the
//! document; both listeners serve the pages.
//!
//! No type is one of IANA's registry of HTTP problem types. Those that are registered (`#date`, `#ohttp-key`) concern
//! other failures, and `about:blank` says nothing beyond the status. `#quota-exceeded` of
//! draft-ietf-httpapi-ratelimit-headers-11 would fit the caller's own limit, but it is registered only when the draft
//! becomes an RFC, and clients could not tell the caller's own limit from Kore's by it. So `too-many-requests` and
//! `quota-spent` are types of koregate, and have the draft's member `violated-policies` with the draft's meaning: the
//! names of the policies in `RateLimit-Policy` whose quota is used up.

mod document;
mod page;
mod types;

pub(crate) use self::document::{MEDIA_TYPE, Problem};
pub(crate) use self::page::{escape_html, is_page_path, page};
pub(crate) use self::types::ProblemType;
