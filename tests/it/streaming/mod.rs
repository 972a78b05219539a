//! Streaming of long windows, from the upstream and from Redis.

mod redis_stream;
mod windows;
