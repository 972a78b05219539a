//! The directives of a request's `Cache-Control` that are followed for a caller.

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

impl CacheDirective {
    /// All directives.
    pub const ALL: [Self; 4] = [Self::OnlyIfCached, Self::NoCache, Self::MaxAge, Self::MaxStale];

    /// The name of the directive, in requests and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnlyIfCached => "only-if-cached",
            Self::NoCache => "no-cache",
            Self::MaxAge => "max-age",
            Self::MaxStale => "max-stale",
        }
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

    /// The names of the directives, in the order of [`CacheDirective::ALL`].
    pub(in crate::config) fn names(self) -> impl Iterator<Item = &'static str> {
        CacheDirective::ALL.into_iter().filter(move |directive| self.allow(*directive)).map(CacheDirective::name)
    }
}
