//! The request field `Cache-Control` (RFC 9111, 5.2.1): what it demands of cached data, as far as the caller is granted
//! that. What is not granted is ignored, and `Cache-Status` says so.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use crate::api::prefer::list_members;
use crate::config::{CacheControlGrants, CacheDirective};
use crate::window::FreshnessDemand;

/// The longest age that is told apart from none, in seconds (RFC 9111, 1.2.2).
const LONGEST_AGE: u64 = 1 << 31;

/// The directives of a request. Of a directive that stands twice, the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CacheControl {
    no_cache: bool,
    only_if_cached: bool,
    max_age: Option<Duration>,
    max_stale: Option<Duration>,
    /// Known directives that are never followed.
    unsupported: Vec<&'static str>,
}

/// The directives of a request that are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct AppliedCacheControl {
    pub(super) freshness: FreshnessDemand,
    /// Whether nothing may be fetched.
    pub(super) only_cached: bool,
    /// Whether data is fetched that would be served without the field.
    is_stricter: bool,
    /// The directives that are ignored.
    ignored: Vec<&'static str>,
}

impl CacheControl {
    /// The directives in the `Cache-Control` fields of a request. Those that are not known, or have no valid argument,
    /// are left out.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let mut found = Self::default();
        for (name, value) in fields.flat_map(list_members) {
            match name.to_ascii_lowercase().as_str() {
                "no-cache" => found.no_cache = true,
                "only-if-cached" => found.only_if_cached = true,
                "no-store" => found.unsupported.push("no-store"),
                "min-fresh" => found.unsupported.push("min-fresh"),
                "max-age" => found.max_age = found.max_age.or(value.and_then(seconds)),
                // Without an argument: however stale.
                "max-stale" => {
                    found.max_stale = found.max_stale.or(value.map_or(Some(Duration::MAX), seconds));
                }
                _ => {}
            }
        }
        found
    }

    /// What is followed of the directives with these grants, where an entry of open data in the window may be as old as
    /// `longest_age` without them.
    pub(super) fn apply(self, grants: CacheControlGrants, longest_age: Duration) -> AppliedCacheControl {
        let mut ignored = Vec::new();
        let mut grant = |is_there: bool, directive: CacheDirective| {
            let is_granted = grants.allow(directive);
            if is_there && !is_granted {
                ignored.push(directive.name());
            }
            is_there && is_granted
        };
        let refetch = grant(self.no_cache, CacheDirective::NoCache);
        let only_cached = grant(self.only_if_cached, CacheDirective::OnlyIfCached);
        // One that is as long as that of the policy is satisfied without anybody's quota.
        let shorter = self.max_age.filter(|max_age| *max_age < longest_age);
        let max_age = shorter.filter(|_| grant(true, CacheDirective::MaxAge));
        let max_stale = self.max_stale.filter(|_| grant(true, CacheDirective::MaxStale));
        ignored.extend(self.unsupported);
        let freshness = if refetch {
            FreshnessDemand::Refetch
        } else {
            FreshnessDemand::Bounded {
                max_age: max_age.unwrap_or(Duration::MAX),
                max_stale: max_stale.unwrap_or_default(),
            }
        };
        AppliedCacheControl { freshness, only_cached, is_stricter: refetch || max_age.is_some(), ignored }
    }
}

impl AppliedCacheControl {
    /// Completes `Cache-Status` (RFC 9211) of an answer: what the request did not accept was not stale, but forwarded
    /// because of the request; and which directives were ignored.
    pub(in crate::api) fn complete_status(&self, headers: &mut HeaderMap) {
        if !self.is_stricter && self.ignored.is_empty() {
            return;
        }
        let Some(status) = headers.get(header::CACHE_STATUS).and_then(|status| status.to_str().ok()) else { return };
        let mut status = status.to_owned();
        if self.is_stricter {
            status = status.replace("fwd=stale", "fwd=request");
        }
        if !self.ignored.is_empty()
            && let Some(text) = status.find("detail=\"").map(|start| start + "detail=\"".len())
            && let Some(end) = status[text..].find('"')
        {
            status.insert_str(text + end, &format!(" ignored={}", self.ignored.join(",")));
        }
        if let Ok(status) = HeaderValue::try_from(status) {
            headers.insert(header::CACHE_STATUS, status);
        }
    }
}

/// A number of seconds (RFC 9111, 1.2.2).
fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(LONGEST_AGE).min(LONGEST_AGE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::CACHE_CONTROL, field.parse().unwrap());
        }
        headers
    }

    fn applied(field: &str, grants: CacheControlGrants) -> AppliedCacheControl {
        CacheControl::of(&headers(&[field])).apply(grants, Duration::from_secs(30))
    }

    fn bounded(max_age: Option<u64>, max_stale: u64) -> FreshnessDemand {
        FreshnessDemand::Bounded {
            max_age: max_age.map_or(Duration::MAX, Duration::from_secs),
            max_stale: Duration::from_secs(max_stale),
        }
    }

    #[test]
    fn directive_is_followed_only_where_it_is_granted() {
        let (all, some) = (CacheControlGrants::new(&CacheDirective::ALL), CacheControlGrants::default());
        let none = CacheControlGrants::new(&[]);
        for (field, grants, freshness, only_cached, ignored) in [
            ("no-cache", all, FreshnessDemand::Refetch, false, ""),
            ("no-cache", some, FreshnessDemand::POLICY, false, "no-cache"),
            ("max-age=10", all, bounded(Some(10), 0), false, ""),
            ("max-age=10", some, FreshnessDemand::POLICY, false, "max-age"),
            ("max-age=30", all, FreshnessDemand::POLICY, false, ""),
            ("max-age=30", none, FreshnessDemand::POLICY, false, ""),
            ("max-stale=60", some, bounded(None, 60), false, ""),
            ("max-stale=60", none, FreshnessDemand::POLICY, false, "max-stale"),
            ("only-if-cached, max-stale=5", some, bounded(None, 5), true, ""),
            ("only-if-cached", none, FreshnessDemand::POLICY, false, "only-if-cached"),
            (
                "max-age=0, max-stale=1, min-fresh=3, no-store, no-transform",
                some,
                bounded(None, 1),
                false,
                "max-age min-fresh no-store",
            ),
        ] {
            let found = applied(field, grants);
            let ignored: Vec<&str> = ignored.split_whitespace().collect();
            assert_eq!((found.freshness, found.only_cached), (freshness, only_cached), "{field}");
            assert_eq!(found.ignored, ignored, "{field}");
        }
    }

    #[test]
    fn argument_is_read_in_each_form() {
        let seconds = Duration::from_secs;
        for (fields, max_age, max_stale) in [
            (vec!["Max-Age=5"], Some(seconds(5)), None),
            (vec!["max-age=\"7\" , max-stale"], Some(seconds(7)), Some(Duration::MAX)),
            (vec!["max-age=5", "max-age=6"], Some(seconds(5)), None),
            (vec!["max-age=99999999999999999999"], Some(seconds(LONGEST_AGE)), None),
            (vec!["max-age", "max-stale=x"], None, None),
            (vec!["max-age=-1, max-age=1.5"], None, None),
            (vec!["x=\"max-age=5\""], None, None),
        ] {
            let found = CacheControl::of(&headers(&fields));
            assert_eq!((found.max_age, found.max_stale), (max_age, max_stale), "{fields:?}");
        }
    }

    #[test]
    fn cache_status_names_the_request_and_what_was_ignored() {
        let complete = |field: &str, grants, status: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("cache-status", HeaderValue::from_static(status));
            applied(field, grants).complete_status(&mut headers);
            headers["cache-status"].to_str().unwrap().to_owned()
        };
        let (all, some) = (CacheControlGrants::new(&CacheDirective::ALL), CacheControlGrants::default());
        let stale = "koregate; fwd=stale; detail=\"chunks=1 hits=0 calls=1\"";
        assert_eq!(complete("no-cache", all, stale), stale.replace("stale", "request"));
        assert_eq!(complete("max-stale=1", all, stale), stale);
        assert_eq!(
            complete("no-cache, max-age=1", some, "koregate; hit; detail=\"chunks=1\"; x"),
            "koregate; hit; detail=\"chunks=1 ignored=no-cache,max-age\"; x"
        );
    }
}
