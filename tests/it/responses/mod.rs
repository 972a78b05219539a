//! Responses: encodings, validators, cache headers, and the cache of whole responses.

mod cache_status;
mod encodings;
mod head;
mod next_link;
mod response_cache;
mod validators;
