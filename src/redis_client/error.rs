//! Why Redis could not be asked.

/// Why a call to Redis has no replies. A reply that is an error is none of these: it is a [`super::Reply::Error`].
///
/// After [`ConnectionError::TimedOut`] and [`ConnectionError::Broken`], Redis may have done what it was asked, or may do it yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// `cache.redis.url` is none. A configuration that was loaded never has one.
    #[error("cache.redis.url {0}")]
    Url(String),
    /// The time that a call may take has passed.
    #[error("Redis did not answer in time")]
    TimedOut,
    /// There is no connection, and none could be made.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke while a call was under way.
    #[error("the connection to Redis broke: {0}")]
    Broken(String),
    /// User or password are wrong.
    #[error("Redis refuses the user or the password")]
    Credentials,
    /// No Sentinel names a master that is one.
    #[error("no Sentinel names a master that can be reached")]
    NoMaster,
    /// It answers, but cannot serve now, or not us: the code of its error, such as `LOADING`.
    #[error("Redis is not ready: {0}")]
    NotReady(String),
    /// What answers does not speak Redis's protocol.
    #[error("what answers in place of Redis does not speak its protocol")]
    Nonsense,
    /// A reply was larger than all replies may be, which is four times `cache.redis.max_value`.
    #[error("a reply of Redis's is larger than {0} bytes")]
    TooLarge(u64),
    /// It has failed several times in a row, and is not asked before it answers again.
    #[error("Redis has failed several times in a row and is left alone")]
    Open,
}

impl ConnectionError {
    /// One word for the metric.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::TimedOut => "timeout",
            Self::Unreachable(_) | Self::NoMaster => "unreachable",
            Self::Broken(_) => "broken",
            Self::Credentials => "credentials",
            Self::NotReady(_) => "not_ready",
            Self::Nonsense => "nonsense",
            Self::TooLarge(_) => "too_large",
            Self::Open => "open",
        }
    }
}
