//! The limit of open files (`RLIMIT_NOFILE`), and the connections that it allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside connections: listeners, timers, the state file, connections to Redis, DNS lookups, a pipe for each
/// thread.
const OTHER_FILES: u64 = 64;

/// Raises the limit to the maximum that this process may set, and returns it; `None` if there is no limit.
pub(super) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// The number of caller connections, at most `wanted`, that fit into `limit` beside `reserved` files for the admin
/// listener and the upstream and [`OTHER_FILES`]. Callers get at least half of the limit.
pub(super) fn connections_within(limit: Option<u64>, wanted: usize, reserved: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let left = limit.saturating_sub(reserved as u64 + OTHER_FILES).max(limit / 2);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_limit_of_open_files() {
        for (limit, wanted, reserved, expected) in [
            (None, 4096, 136, 4096),
            (Some(20_000), 4096, 136, 4096),
            (Some(1024), 4096, 136, 824),
            (Some(256), 4096, 136, 128),
            (Some(256), 100, 136, 100),
            (Some(0), 100, 136, 1),
        ] {
            assert_eq!(connections_within(limit, wanted, reserved), expected, "{limit:?} {wanted} {reserved}");
        }
    }
}
