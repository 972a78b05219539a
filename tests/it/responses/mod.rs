//! Responses: encodings, validators, cache headers, problems, and the cache of whole responses.

mod cache_status;
mod encodings;
mod head;
mod next_link;
mod problems;
mod response_cache;
mod validators;
