//! Errors of calls to Redis.

/// Why a call to Redis has no replies. An error that Redis replies is a [`super::Reply::Error`] instead.
///
/// After [`ConnectionError::TimedOut`] and [`ConnectionError::Broken`], Redis may have run the commands, or may run
/// them later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// `cache.redis.url` is not a URL. A configuration that was loaded never has one.
    #[error("cache.redis.url {0}")]
    Url(String),
    /// The call took longer than `cache.redis.timeout`.
    #[error("Redis did not answer in time")]
    TimedOut,
    /// No connection could be made.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke during the call.
    #[error("the connection to Redis broke: {0}")]
    Broken(String),
    /// Redis refuses the user or the password.
    #[error("Redis refuses the user or the password")]
    Credentials,
    /// No Sentinel names a server that is a master.
    #[error("no Sentinel names a master that can be reached")]
    NoMaster,
    /// Redis answers, but cannot serve: the code of its error, such as `LOADING`.
    #[error("Redis is not ready: {0}")]
    NotReady(String),
    /// The server does not speak Redis's protocol.
    #[error("what answers in place of Redis does not speak its protocol")]
    Nonsense,
    /// A reply was larger than four times `cache.redis.max_value`.
    #[error("a reply of Redis's is larger than {0} bytes")]
    TooLarge(u64),
    /// The circuit breaker is open.
    #[error("Redis has failed several times in a row and is left alone")]
    Open,
}

impl ConnectionError {
    /// The error of a connection that broke before a call was made on it.
    pub(super) fn before_a_call(self) -> Self {
        match self {
            Self::Broken(why) => Self::Unreachable(why),
            other => other,
        }
    }

    /// The label of the error in metrics.
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
