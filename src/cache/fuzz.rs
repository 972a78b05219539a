//! The fuzz targets of the modules in this folder.

pub use super::chunk::fuzz::{chunk, json_strip};
pub(crate) use super::purge::fuzz::purges;
pub(crate) use super::redis::fuzz::values;
