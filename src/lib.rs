//! koregate
