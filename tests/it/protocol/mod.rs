//! HTTP itself: conformance, HTTP/1.0, and a proxy in between.

mod conformance;
mod http_1_0;
mod nginx;
