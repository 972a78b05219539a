//! Chunks: all items of one interval, deflated in blocks, with an index that finds each item without parsing JSON.
//!
//! | file | holds |
//! | --- | --- |
//! | `layout` | [`Chunk`]: the index of rows and blocks, and where rows lie in the text |
//! | `builder` | construction from items; deflating |
//! | `reader` | text, lines and items of a range of rows |
//! | `deflate_splice` | gzip bodies from the bytes that are deflated already |
//! | `codec` | the bytes that are stored on disk and in Redis |
//! | `ids_codec` | the bytes of the filter of ids, in a chunk and beside it |
//! | `block_cache` | trait of the cache of hot blocks, which `store` implements |
//! | `access_counter` | how often something was read lately |
//! | `pinned` | bytes that answers hold though memory has evicted them |
//! | `page_range` | `offset` and `limit`, and the items that they select |
//! | `json_strip` | removal of one member from a JSON object |
//! | `fuzz` | fuzz targets |

mod access_counter;
mod block_cache;
mod builder;
mod codec;
mod deflate_splice;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(in crate::cache) mod ids_codec;
pub(in crate::cache) mod json_strip;
mod layout;
mod page_range;
mod pinned;
mod reader;
#[cfg(test)]
mod tests;

pub use self::access_counter::AccessCounter;
pub(in crate::cache) use self::block_cache::BlockCache;
pub use self::deflate_splice::DeflateSplice;
pub use self::layout::{Chunk, Damaged, Settled};
pub use self::page_range::{ItemSlice, PageRange, Slice};
pub(in crate::cache) use self::pinned::PinnedBytes;
