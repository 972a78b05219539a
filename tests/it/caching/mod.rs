//! The window cache: call counts, freshness, density, identity of entries, wrong clocks and wrong settings.

mod cache_control;
mod cache_key;
mod clock_skew;
mod density;
mod freshness;
mod replay;
mod stream_settings;
mod upstream_calls;
mod window_field;
