//! Whether the disk tier works.

/// The state of the disk tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// The directory is being opened.
    Opening,
    /// The directory is open, and Redis does not tell which purges were confirmed: nothing is served from disk.
    AwaitingPurges,
    /// The index is being made.
    Loading,
    /// Chunks are read and written.
    Ready,
    /// Chunks are read, and cannot be written for this reason.
    ReadOnly(String),
    /// The directory cannot be used for this reason.
    Unavailable(String),
}

impl DiskState {
    /// Whether requests wait for the index.
    pub(super) fn is_loading(&self) -> bool {
        matches!(self, Self::Opening | Self::Loading)
    }

    /// Whether it is known what is on disk.
    pub(super) fn is_loaded(&self) -> bool {
        matches!(self, Self::Ready | Self::ReadOnly(_))
    }

    /// The reason why the tier does not work; `None` if it does, or will in a moment.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Opening | Self::Loading | Self::Ready => None,
            Self::AwaitingPurges => {
                Some("cache.disk: nothing is served from disk before Redis has told what was purged".to_owned())
            }
            Self::ReadOnly(why) => Some(format!("cache.disk: nothing is written to disk ({why})")),
            Self::Unavailable(why) => Some(format!("cache.disk: there is no disk tier ({why})")),
        }
    }

    /// The value of the metric: 1 if chunks are read and written.
    pub(super) fn is_working(&self) -> bool {
        *self == Self::Ready
    }
}
