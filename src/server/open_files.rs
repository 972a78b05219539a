//! The limit of open files, and how many connections it leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside connections: listeners, timers, the state file, connections to Redis, names being looked up, a pipe for
/// each thread.
const OTHER_FILES: u64 = 64;

/// Raises the limit of open files as far as this process may. Returns the limit; `None` if there is none.
pub(super) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// The most connections of callers of `wanted` that `limit` leaves room for, when `kept` files are kept for the admin
/// listener and the upstream, and some for all else. At least half of the limit is for callers.
pub(super) fn connections_within(limit: Option<u64>, wanted: usize, kept: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let left = limit.saturating_sub(kept as u64 + OTHER_FILES).max(limit / 2);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_below_the_limit_of_files() {
        for (limit, wanted, kept, expected) in [
            (None, 4096, 136, 4096),
            (Some(20_000), 4096, 136, 4096),
            (Some(1024), 4096, 136, 824),
            (Some(256), 4096, 136, 128),
            (Some(256), 100, 136, 100),
            (Some(0), 100, 136, 1),
        ] {
            assert_eq!(connections_within(limit, wanted, kept), expected, "{limit:?} {wanted} {kept}");
        }
    }
}
