//! Responses: encodings, validators, cache headers, problems, and the cache of whole responses.

mod cache_status;
mod encodings;
mod problems;
mod response_cache;
mod validators;
