//! `callers.cache_control`: the directives of a request's `Cache-Control` that are followed for a caller.

use super::parse::{self, Keyword};
use super::value_tree::{ConfigNode, Value};

/// A directive of a request's `Cache-Control` (RFC 9111, 5.2.1) that a caller may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheDirective {
    /// `only-if-cached`: nothing is fetched for the request.
    OnlyIfCached,
    /// `no-cache`: all of the window is fetched again.
    NoCache,
    /// `max-age` below what the freshness policy allows: open data is fetched again sooner.
    MaxAge,
    /// `max-stale`: open data is served for longer.
    MaxStale,
}

impl Keyword for CacheDirective {
    const KEYWORDS: &'static [(&'static str, Self)] = &[
        ("only-if-cached", Self::OnlyIfCached),
        ("no-cache", Self::NoCache),
        ("max-age", Self::MaxAge),
        ("max-stale", Self::MaxStale),
    ];
}

impl CacheDirective {
    /// The name of the directive, in requests and in the configuration.
    pub fn name(self) -> &'static str {
        self.keyword()
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The directives that are followed for a caller. By default those that cost no calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheControlGrants(u8);

impl Default for CacheControlGrants {
    fn default() -> Self {
        Self::new(&[CacheDirective::OnlyIfCached, CacheDirective::MaxStale])
    }
}

impl CacheControlGrants {
    /// These directives and no others.
    pub fn new(directives: &[CacheDirective]) -> Self {
        Self(directives.iter().fold(0, |bits, directive| bits | directive.bit()))
    }

    /// Whether a directive is followed.
    pub fn allow(self, directive: CacheDirective) -> bool {
        self.0 & directive.bit() != 0
    }

    /// The names of the directives, in the order of [`CacheDirective`].
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        CacheDirective::KEYWORDS.iter().filter(move |(_, directive)| self.allow(*directive)).map(|(name, _)| *name)
    }

    /// Parses a list of directives, which may be empty.
    pub(super) fn parse(node: &ConfigNode) -> Result<Self, String> {
        const EXPECTED: &str = "write a list of \"only-if-cached\", \"no-cache\", \"max-age\" and \"max-stale\"";
        let node = node.clone().structured().map_err(|message| format!("{message}; {EXPECTED}"))?;
        let Value::Array(items) = &node.value else { return Err(format!("is {}; {EXPECTED}", node.kind())) };
        let directives = items.iter().map(parse::keyword).collect::<Result<Vec<CacheDirective>, _>>();
        directives.map(|directives| Self::new(&directives)).map_err(|message| format!("a directive {message}"))
    }
}
