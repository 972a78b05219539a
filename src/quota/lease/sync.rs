//! The arguments of `sync.lua`, which runs an exchange in Redis, and its reply. Times travel as ages in milliseconds,
//! because no two machines have the same monotonic clock.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::call_log::CallName;
use crate::config::QuotaLimit;
use crate::quota::limiter::{GUARD, MonotonicTime};
use crate::redis_client::{Reply, Script};
use crate::replicas::ReplicaId;

/// The script of an exchange.
pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sync.lua")));

/// The request of one exchange.
#[derive(Clone, Debug)]
pub(in crate::quota) struct ExchangeRequest {
    /// When the request was made.
    pub(super) sent: MonotonicTime,
    pub(super) me: ReplicaId,
    pub(super) lease: LeaseRequest,
    pub(super) grants: GrantRequest,
    /// Whether no call is missing in Redis once these are recorded, if this replica has held the lease until then.
    pub(super) declares_complete: bool,
    /// The calls of others that count at this age or less are read; `None` reads none.
    pub(super) look_back: Option<Duration>,
    /// How long calls are kept in Redis.
    pub(super) retention: Duration,
    pub(super) limits: Vec<QuotaLimit>,
    /// Calls to be recorded, with the time at which each counts.
    pub(super) recorded: Vec<(CallName, MonotonicTime)>,
    /// Calls to be removed.
    pub(super) removed: Vec<CallName>,
}

/// The part of a request that is about the lease.
#[derive(Clone, Debug)]
pub(super) struct LeaseRequest {
    /// How long the lease is to last; zero returns it.
    pub(super) duration: Duration,
    /// The last known holder, perhaps this replica: the script checks whether its session has ended.
    pub(super) last_holder: ReplicaId,
    /// Whether this replica acquires the lease if no other holds it.
    pub(super) may_acquire: bool,
}

/// The part of a request that asks for calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrantRequest {
    /// How many calls are asked for.
    pub(super) calls: u32,
    /// The number of the first.
    pub(super) first: u64,
    /// How long after it is granted each call counts at the latest.
    pub(super) latest: Duration,
}

impl GrantRequest {
    /// The numbers of the first `calls` that were asked for.
    pub(super) fn numbers(self, calls: u32) -> impl Iterator<Item = u64> {
        (self.first..).take(calls as usize)
    }
}

/// The time since a call counted, in milliseconds; negative if it counts in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age(pub(super) i64);

impl Age {
    /// The time at which a call of this age counts, where the age was true not long before `now`: never too early.
    pub(super) fn before(self, now: MonotonicTime) -> MonotonicTime {
        let age = Duration::from_millis(self.0.unsigned_abs());
        if self.0 >= 0 { now.saturating_sub(age) } else { now + age }
    }
}

/// The reply to an exchange.
#[derive(Clone, Debug)]
pub(in crate::quota) struct ExchangeReply {
    pub(super) holder: Option<ReplicaId>,
    /// Whether this exchange acquired the lease.
    pub(super) is_acquired: bool,
    /// Whether no call is missing in Redis.
    pub(super) is_complete: bool,
    /// How many calls are granted.
    pub(super) granted: u32,
    /// The calls that were to be read, with their ages.
    pub(super) calls: Option<Vec<(CallName, Age)>>,
}

impl ExchangeRequest {
    /// The script's arguments. It announces granted calls on `channel`, in messages that begin with `message_head`.
    pub(super) fn arguments(&self, channel: &str, message_head: Vec<u8>) -> Vec<Bytes> {
        let flag = |flag: bool| Bytes::from_static(if flag { b"1" } else { b"0" });
        let number = |number: u64| Bytes::from(number.to_string());
        let ms = |time: Duration| number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let mut arguments = vec![
            Bytes::from(self.me.as_str().to_owned()),
            ms(self.lease.duration),
            flag(self.lease.may_acquire),
            flag(self.declares_complete),
            number(self.grants.calls.into()),
            number(self.grants.first),
            ms(self.grants.latest),
            self.look_back.map_or(Bytes::from_static(b"-1"), ms),
            ms(self.retention),
            Bytes::from(channel.to_owned()),
            Bytes::from(message_head),
            Bytes::from(self.lease.last_holder.as_str().to_owned()),
        ];
        arguments.push(number(self.limits.len() as u64));
        for limit in &self.limits {
            arguments.extend([number(limit.requests.into()), ms(limit.per + GUARD)]);
        }
        arguments.push(number(self.recorded.len() as u64));
        for (name, at) in &self.recorded {
            let age = self.age(*at);
            arguments.extend([Bytes::copy_from_slice(name.as_bytes()), Bytes::from(age.0.to_string())]);
        }
        arguments.push(number(self.removed.len() as u64));
        arguments.extend(self.removed.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())));
        arguments
    }

    /// The age of a call when the request was made, rounded down, so that no call is taken for older than it is.
    pub(super) fn age(&self, at: MonotonicTime) -> Age {
        let whole = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        match self.sent.checked_sub(at) {
            Some(past) => Age(whole(past)),
            None => Age(-whole(at.saturating_sub(self.sent) + Duration::from_millis(1))),
        }
    }
}

impl ExchangeReply {
    /// Reads the reply of the script; `None` if it is not one to this request.
    pub(super) fn read(request: &ExchangeRequest, reply: &Reply) -> Option<Self> {
        let Reply::Array(parts) = reply else { return None };
        let [
            Reply::Bytes(holder),
            Reply::Integer(is_acquired),
            Reply::Integer(is_complete),
            now,
            granted,
            Reply::Array(calls),
        ] = &parts[..]
        else {
            return None;
        };
        let holder = if holder.is_empty() { None } else { Some(ReplicaId::parse(holder)?) };
        let (now, granted) = (number(now)?, u32::try_from(number(granted)?).ok()?);
        // The script never grants more than was asked for.
        if granted > request.grants.calls {
            return None;
        }
        let read = |call: &[Reply]| {
            let [Reply::Bytes(name), at] = call else { return None };
            Some((CallName::from(std::str::from_utf8(name).ok()?), Age(now.checked_sub(number(at)?)?)))
        };
        let calls = calls.chunks(2).map(read).collect::<Option<Vec<_>>>()?;
        let calls = request.look_back.map(|_| calls);
        Some(Self { holder, is_acquired: *is_acquired == 1, is_complete: *is_complete == 1, granted, calls })
    }
}

fn number(reply: &Reply) -> Option<i64> {
    match reply {
        Reply::Integer(number) => Some(*number),
        Reply::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}
