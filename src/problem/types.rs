//! The problem types: the table of names, statuses, titles and page texts.

use http::StatusCode;

/// The path of the list of the pages, and the beginning of the path of each.
pub(super) const PAGES_PATH: &str = "/koregate/v1/problems/";

/// Type of a problem: the last segment of its `type`, the label in logs and metrics, and the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemType {
    /// A part of the request is missing or malformed.
    BadRequest,
    /// Kore refuses the arguments of the request.
    InvalidArguments,
    /// An answer of unknown length cannot be sent over HTTP/1.0.
    WindowTooLarge,
    /// The key or the admin token is missing or unknown.
    Unauthorized,
    /// The account, the stream or the sender is not allowed.
    Forbidden,
    /// Kore refuses the stream, but accepts the credential for another one.
    StreamRefused,
    /// The path does not exist.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The body is too large.
    BodyTooLarge,
    /// The content of a QUERY is not JSON.
    UnsupportedMediaType,
    /// `Host` is not a name of the listener.
    Misdirected,
    /// The caller's own rate limit is exceeded.
    TooManyRequests,
    /// The caller has too many requests under way.
    TooManyConcurrentRequests,
    /// The caller's own limit of upstream calls is spent.
    UpstreamCallsSpent,
    /// A defect of the gateway.
    Internal,
    /// Kore did not answer with a page.
    UpstreamFailed,
    /// Kore's quota is spent.
    QuotaSpent,
    /// An operator has stopped calls for the account or the stream.
    Cordoned,
    /// A limit of the gateway's resources is reached.
    Overloaded,
    /// Replicas have different configurations.
    ReplicasDiffer,
    /// Kore did not answer in time.
    UpstreamTimeout,
    /// The caller wants nothing to be fetched, and not all is cached.
    NotCached,
    /// Admin listener: too many purges wait to be repeated.
    TooManyRepeats,
    /// Admin listener: a purge has not reached Redis and the other replicas.
    PurgedHereOnly,
}

/// The page of a type, and the example on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageText {
    /// The event.
    pub(super) meaning: &'static str,
    /// The advice to the sender of the request.
    pub(super) remedy: &'static str,
    /// The `detail` of the example.
    pub(super) detail: &'static str,
}

impl ProblemType {
    /// All types, in the order of their statuses; those of the admin listener last.
    pub(super) const ALL: [Self; 24] = [
        Self::BadRequest,
        Self::InvalidArguments,
        Self::WindowTooLarge,
        Self::Unauthorized,
        Self::Forbidden,
        Self::StreamRefused,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::Misdirected,
        Self::TooManyRequests,
        Self::TooManyConcurrentRequests,
        Self::UpstreamCallsSpent,
        Self::Internal,
        Self::UpstreamFailed,
        Self::QuotaSpent,
        Self::Cordoned,
        Self::Overloaded,
        Self::ReplicasDiffer,
        Self::UpstreamTimeout,
        Self::NotCached,
        Self::TooManyRepeats,
        Self::PurgedHereOnly,
    ];

    /// The label in logs and metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::InvalidArguments => "invalid_arguments",
            Self::WindowTooLarge => "window_too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::StreamRefused => "stream_refused",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Misdirected => "misdirected_request",
            Self::TooManyRequests => "too_many_requests",
            Self::TooManyConcurrentRequests => "too_many_concurrent_requests",
            Self::UpstreamCallsSpent => "upstream_calls_spent",
            Self::Internal => "internal",
            Self::UpstreamFailed => "upstream_failed",
            Self::QuotaSpent => "quota_spent",
            Self::Cordoned => "cordoned",
            Self::Overloaded => "overloaded",
            Self::ReplicasDiffer => "replicas_differ",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::NotCached => "not_cached",
            Self::TooManyRepeats => "too_many_repeats",
            Self::PurgedHereOnly => "purged_here_only",
        }
    }

    /// The last segment of the `type`.
    pub(super) fn name(self) -> String {
        self.label().replace('_', "-")
    }

    /// The `type` of the documents: the path of the page.
    pub(super) fn uri(self) -> String {
        format!("{PAGES_PATH}{}", self.name())
    }

    /// The status.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::InvalidArguments | Self::WindowTooLarge => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::StreamRefused => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooManyRequests | Self::TooManyConcurrentRequests | Self::UpstreamCallsSpent => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::QuotaSpent
            | Self::Cordoned
            | Self::Overloaded
            | Self::ReplicasDiffer
            | Self::TooManyRepeats
            | Self::PurgedHereOnly => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Kore's `code` for such a case, where Kore has one; otherwise the status.
    pub(crate) const fn kore_code(self) -> u16 {
        match self {
            Self::BadRequest | Self::InvalidArguments | Self::WindowTooLarge => 412,
            Self::Unauthorized | Self::StreamRefused => 4002,
            other => other.status().as_u16(),
        }
    }

    /// The title, which is the same for every problem of the type.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed",
            Self::InvalidArguments => "Kore refuses the arguments",
            Self::WindowTooLarge => "The window is too large for HTTP/1.0",
            Self::Unauthorized => "A valid key is required",
            Self::Forbidden => "The request is not allowed",
            Self::StreamRefused => "Kore refuses the stream",
            Self::NotFound => "Nothing is served under this name",
            Self::MethodNotAllowed => "The method is not served here",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The content is not JSON",
            Self::Misdirected => "The host is not a name of this listener",
            Self::TooManyRequests => "The caller's own limit is exceeded",
            Self::TooManyConcurrentRequests => "The caller has too many requests under way",
            Self::UpstreamCallsSpent => "The caller's own upstream calls are spent",
            Self::Internal => "koregate has failed",
            Self::UpstreamFailed => "Kore did not answer with a page",
            Self::QuotaSpent => "Kore's quota is spent",
            Self::Cordoned => "Calls to Kore are stopped by an operator",
            Self::Overloaded => "koregate is overloaded",
            Self::ReplicasDiffer => "The replicas are configured differently",
            Self::UpstreamTimeout => "Kore did not answer in time",
            Self::NotCached => "Not all of the window is cached",
            Self::TooManyRepeats => "Too many purges wait to be repeated",
            Self::PurgedHereOnly => "Only this replica has purged",
        }
    }

    /// The text of the page.
    #[expect(clippy::too_many_lines, reason = "a table: one entry for each type")]
    pub(super) const fn page_text(self) -> PageText {
        let (meaning, remedy, detail) = match self {
            Self::BadRequest => (
                "A part of the request is missing, malformed, given twice or out of bounds: a parameter, a header, or \
                 the body. The member detail names it. No upstream call was made.",
                "Correct the request. The same request will fail again.",
                "from: it is missing",
            ),
            Self::InvalidArguments => (
                "Kore has read the request and refuses its arguments. The members detail and errors have Kore's own \
                 words. The call counts against Kore's quota.",
                "Correct the parameter or the filter that Kore names. The same request will fail again.",
                "the upstream refused the arguments with 412 Precondition Failed: \"Validation errors/ Invalid \
                 arguments\"",
            ),
            Self::WindowTooLarge => (
                "The answer is larger than what can be kept until its length is known, and HTTP/1.0 has no way to send \
                 an answer of unknown length.",
                "Send the request over HTTP/1.1, or with a limit.",
                "the window is larger than 268435456 bytes, the most that can be kept until its length is known: ask \
                 over HTTP/1.1, or for a limit",
            ),
            Self::Unauthorized => (
                "The request carries no key, or one that is not known or has ended, and comes with no certificate of a \
                 caller; or the client certificate of the connection has expired. On the admin listener, the key is the \
                 admin token.",
                "Send the key as x-api-key or as authorization: Bearer. The operator of koregate gives out the keys. With \
                 an expired certificate, connect anew with a renewed one.",
                "an API key is required, as x-api-key or as authorization: Bearer",
            ),
            Self::Forbidden => (
                "The account or the stream is not configured, or not allowed to this caller; which of these is not \
                 said. Or a web page of another site has sent the request.",
                "Check accountId and the stream in the path. If both are right, ask the operator of koregate for \
                 access.",
                "this account or stream is not allowed",
            ),
            Self::StreamRefused => (
                "Kore refuses the calls for this stream, but has accepted the same credential for another stream of \
                 the account within the last hour. Kore does not say whether the stream does not exist, or whether the \
                 app of the credential has no access to it.",
                "Check the stream in the path. If it is right, ask the operator of koregate to give the app access to \
                 the stream in Kore's console.",
                "the upstream refused this stream with 401 Unauthorized: \"Invalid SDK credentials\", but accepts the \
                 same credential for another stream",
            ),
            Self::NotFound => (
                "The path is not served. koregate passes on no path that it does not know.",
                "Check the path. That of a window is \
                 /agentassist/api/v1/public/{streamId}/v2/agentassistinteractions.",
                "no such path",
            ),
            Self::MethodNotAllowed => (
                "The path is served, but not with this method.",
                "Use one of the methods in the header Allow.",
                "nothing but GET and POST is served here",
            ),
            Self::BodyTooLarge => (
                "The body is larger than filters can be.",
                "Divide the filter among several requests.",
                "the body is larger than 262144 bytes",
            ),
            Self::UnsupportedMediaType => (
                "The content of a QUERY has a Content-Type other than application/json.",
                "Send the filter as JSON, with Content-Type: application/json.",
                "the content of a QUERY must be application/json",
            ),
            Self::Misdirected => (
                "The header Host, or the target of the request, names a host that this listener does not serve.",
                "Use localhost or an IP address; or have the operator add the name to server.hosts or admin.hosts.",
                "Host is no name of this listener; its names are set in server.hosts or admin.hosts",
            ),
            Self::TooManyRequests => (
                "The caller has made more requests than its requests_per_minute allows. This is not Kore's quota. No \
                 upstream call was made.",
                "Wait for as many seconds as Retry-After says. The header RateLimit says how many requests are left.",
                "your own limit of requests is hit",
            ),
            Self::TooManyConcurrentRequests => (
                "As many requests of the caller are under way as its max_concurrent_requests allows. A request is under \
                 way until the last byte of its answer. No upstream call was made.",
                "Send the request again when another one has ended.",
                "your own limit of requests at the same time is hit",
            ),
            Self::UpstreamCallsSpent => (
                "The window needs calls to Kore, and as many calls have been charged to the caller as its \
                 upstream_calls_per_hour or upstream_calls_per_day allows. This is not Kore's quota. What is cached is \
                 still served.",
                "Wait for as many seconds as Retry-After says, and send the same request again. A fetch that has begun \
                 goes on then.",
                "your own limit of upstream calls in 3600 s is spent for another 41 s",
            ),
            Self::Internal => (
                "A defect of koregate, or a damaged piece of its cache.",
                "Try again once, and report the failure with its request_id to the operator of koregate.",
                "an internal error",
            ),
            Self::UpstreamFailed => (
                "Kore cannot be reached, refuses the credential, has answered with something that is not a page, or its \
                 rows changed while they were read. koregate has tried again already.",
                "Try again later. If it lasts, give detail and request_id to the operator of koregate.",
                "the upstream answered 500 Internal Server Error",
            ),
            Self::QuotaSpent => (
                "The window needs calls to Kore, and Kore's quota, which all callers share, has had no room for them \
                 for as long as a request may wait. A fetch that has begun goes on.",
                "Wait for as many seconds as Retry-After says, and send the same request again. The header RateLimit \
                 says what is left of Kore's limits.",
                "the quota is spent for another 41 s",
            ),
            Self::Cordoned => (
                "The window needs calls to Kore, and an operator of koregate has stopped those for the account or the \
                 stream. What is cached is still served.",
                "Wait for as many seconds as Retry-After says. If it lasts, ask the operator of koregate.",
                "an operator has stopped the upstream calls for this account or stream; only what is cached is served",
            ),
            Self::Overloaded => (
                "A limit of koregate's connections, requests, fetches or memory is reached.",
                "Wait for as many seconds as Retry-After says, and send fewer requests at the same time.",
                "too many requests are under way",
            ),
            Self::ReplicasDiffer => (
                "The replica of koregate that makes the calls to Kore has another configuration than this one. That is \
                 usual for a moment while a new configuration is rolled out.",
                "Wait for as many seconds as Retry-After says. If it lasts, tell the operator of koregate.",
                "the replica that makes the calls of this account is configured otherwise than this one",
            ),
            Self::UpstreamTimeout => (
                "Kore did not answer a call within upstream.timeout. koregate has tried again already.",
                "Try again later.",
                "the upstream did not answer in time",
            ),
            Self::NotCached => (
                "The request has Cache-Control: only-if-cached, and a part of the window is not cached. No upstream \
                 call was made.",
                "Send the request without only-if-cached if the window may cost calls.",
                "not all of the window is cached, and the request allows no call",
            ),
            Self::TooManyRepeats => (
                "As many purges as koregate keeps wait for their repetition. Nothing was purged.",
                "Leave repeat_after out, and repeat the purge yourself.",
                "too many purges wait to be repeated; nothing was purged. Leave repeat_after out, and repeat it \
                 yourself",
            ),
            Self::PurgedHereOnly => (
                "The purge has reached the memory of this replica, but not Redis, the disk or the other replicas.",
                "Repeat the purge when Redis is reachable again. The members of the document say what is left.",
                "it has left the memory of this replica, and no more: Redis cannot be written",
            ),
        };
        PageText { meaning, remedy, detail }
    }

    /// Whether documents of the type may have the member `violated-policies`, and the policy of the example.
    pub(super) const fn example_policy(self) -> Option<&'static str> {
        match self {
            Self::TooManyRequests => Some("caller"),
            Self::QuotaSpent => Some("kore-minute"),
            _ => None,
        }
    }
}
