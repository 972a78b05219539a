//! The fuzz targets. Each is a function of the bytes of an input, and panics where a property does not hold.
//!
//! The crate in `fuzz/` runs them under libFuzzer, and a test replays the inputs that are kept in `fuzz/corpus`. A
//! target stands beside the code that it tests, in a module `fuzz`, or here if it needs nothing private. See
//! `fuzz/README.md`.

mod input;
mod items;
mod json;
mod redis_reply;
#[cfg(test)]
mod tests;
mod time;

pub(crate) use self::input::{Input, header_fields as header_fields_of, lines_and_body};
pub(crate) use self::items::{chunk as chunk_of, items};
pub(crate) use self::json::members;
pub use self::redis_reply::redis_reply;
pub use self::time::time;
pub(crate) use self::time::timestamp_of;
pub use crate::api::fuzz::{gzip_splice, header_fields, request};
pub use crate::cache::fuzz::{chunk, json_strip};
pub use crate::config::fuzz::config;
pub use crate::quota::fuzz::state_file;
pub use crate::replicas::fuzz::replica_message;
pub use crate::segment_log::fuzz::disk_record;
pub use crate::upstream::fuzz::{page, upstream_error};

/// A target: a function of the bytes of an input.
pub type FuzzTarget = fn(&[u8]);

/// All targets by their names, which are those of the functions, of the files in `fuzz/fuzz_targets`, and of the folders
/// in `fuzz/corpus`.
pub const TARGETS: [(&str, FuzzTarget); 13] = [
    ("chunk", chunk),
    ("config", config),
    ("disk_record", disk_record),
    ("gzip_splice", gzip_splice),
    ("header_fields", header_fields),
    ("json_strip", json_strip),
    ("page", page),
    ("redis_reply", redis_reply),
    ("replica_message", replica_message),
    ("request", request),
    ("state_file", state_file),
    ("time", time),
    ("upstream_error", upstream_error),
];
