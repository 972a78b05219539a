//! Which moments a pair of `from` and `to` encloses.

/// Whether the upstream counts an item exactly at `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpperBound {
    /// It does.
    Inclusive,
    /// It does not.
    Exclusive,
}
