//! How old a copy may be served, by the age of what it holds.

use std::time::Duration;

/// One rung of the ladder: a copy of what is younger than `younger_than` may be served until it is `max_age` old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Age of the data.
    pub younger_than: Duration,
    /// Age of the copy.
    pub max_age: Duration,
}
