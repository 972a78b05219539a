//! Whether Redis answers, by the last calls.

use tokio::time::Instant;

use super::ConnectionError;

/// Whether Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Redis answers, as far as is known.
    Up,
    /// Redis has failed several times in a row.
    Down {
        /// When the failures began.
        since: Instant,
        /// The last failure.
        why: ConnectionError,
    },
}
