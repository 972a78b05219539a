//! What goes to Redis in one exchange, and what comes back.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::MonotonicTime;
use super::call_log::CallName;
use crate::config::QuotaLimit;
use crate::quota::limiter::GUARD;
use crate::redis_client::{ReplicaId, Reply, Script};

/// The script of an exchange.
pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sync.lua")));

/// What one replica says and asks.
#[derive(Clone, Debug)]
pub(in crate::quota) struct ExchangeRequest {
    /// When it was put together.
    pub(super) sent: MonotonicTime,
    pub(super) me: ReplicaId,
    /// How long the lease is to last; zero gives it back.
    pub(super) lease: Duration,
    /// Who was last seen to hold the lease, perhaps this replica: it is looked whether the session of that one goes on.
    pub(super) last_holder: ReplicaId,
    /// Whether it may take the lease if nobody holds it.
    pub(super) may_lead: bool,
    /// Whether nothing is missing once this is entered, if it holds the lease.
    pub(super) vouches: bool,
    /// Calls that it wants to be granted,
    pub(super) wants: u32,
    /// the number of the first,
    pub(super) first: u64,
    /// and how long after they were granted they count at the latest.
    pub(super) latest: Duration,
    /// The calls of others that count at this age or less are to be told of.
    pub(super) look_back: Option<Duration>,
    /// How long calls are kept.
    pub(super) keep: Duration,
    pub(super) limits: Vec<QuotaLimit>,
    /// Calls to be entered, with the time at which each counts.
    pub(super) tell: Vec<(CallName, MonotonicTime)>,
    /// Calls to be taken out.
    pub(super) take_out: Vec<CallName>,
}

/// How far in the past a call counts, or how far in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age(pub(super) i64);

impl Age {
    /// When that is, if it was true not long before `now`: never too early.
    pub(super) fn before(self, now: MonotonicTime) -> MonotonicTime {
        let age = Duration::from_millis(self.0.unsigned_abs());
        if self.0 >= 0 { now.saturating_sub(age) } else { now + age }
    }
}

/// What Redis answers.
#[derive(Clone, Debug)]
pub(in crate::quota) struct ExchangeReply {
    pub(super) holder: Option<ReplicaId>,
    /// Whether the lease was taken just now.
    pub(super) took: bool,
    /// Whether nothing is missing in what Redis knows.
    pub(super) is_known: bool,
    pub(super) granted: u32,
    /// The calls that were asked for, with how long ago they count.
    pub(super) calls: Option<Vec<(CallName, Age)>>,
}

impl ExchangeRequest {
    /// The script's arguments. Letters that tell of granted calls go to `channel`, and begin with `head`.
    pub(super) fn arguments(&self, channel: &str, head: Vec<u8>) -> Vec<Bytes> {
        let flag = |flag: bool| Bytes::from_static(if flag { b"1" } else { b"0" });
        let number = |number: u64| Bytes::from(number.to_string());
        let ms = |time: Duration| number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let mut arguments = vec![
            Bytes::from(self.me.as_str().to_owned()),
            ms(self.lease),
            flag(self.may_lead),
            flag(self.vouches),
            number(self.wants.into()),
            number(self.first),
            ms(self.latest),
            self.look_back.map_or(Bytes::from_static(b"-1"), ms),
            ms(self.keep),
            Bytes::from(channel.to_owned()),
            Bytes::from(head),
            Bytes::from(self.last_holder.as_str().to_owned()),
        ];
        arguments.push(number(self.limits.len() as u64));
        for limit in &self.limits {
            arguments.extend([number(limit.requests.into()), ms(limit.per + GUARD)]);
        }
        arguments.push(number(self.tell.len() as u64));
        for (name, at) in &self.tell {
            let age = self.age(*at);
            arguments.extend([Bytes::copy_from_slice(name.as_bytes()), Bytes::from(age.0.to_string())]);
        }
        arguments.push(number(self.take_out.len() as u64));
        arguments.extend(self.take_out.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())));
        arguments
    }

    /// How long before this exchange something counts, rounded down, so that nothing is taken for older than it is.
    pub(super) fn age(&self, at: MonotonicTime) -> Age {
        let whole = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        match self.sent.checked_sub(at) {
            Some(past) => Age(whole(past)),
            None => Age(-whole(at.saturating_sub(self.sent) + Duration::from_millis(1))),
        }
    }
}

impl ExchangeReply {
    /// Reads what the script returned; `None` if that is nonsense.
    pub(super) fn read(exchange: &ExchangeRequest, reply: &Reply) -> Option<Self> {
        let Reply::Array(parts) = reply else { return None };
        let [Reply::Bytes(holder), Reply::Integer(took), Reply::Integer(known), now, granted, Reply::Array(calls)] =
            &parts[..]
        else {
            return None;
        };
        let holder = if holder.is_empty() { None } else { Some(ReplicaId::read(holder)?) };
        let (now, granted) = (number(now)?, u32::try_from(number(granted)?).ok()?);
        // More than was wanted cannot be: whatever answers is not the script.
        if granted > exchange.wants {
            return None;
        }
        let read = |call: &[Reply]| {
            let [Reply::Bytes(name), at] = call else { return None };
            Some((CallName::from(std::str::from_utf8(name).ok()?), Age(now.checked_sub(number(at)?)?)))
        };
        let calls = calls.chunks(2).map(read).collect::<Option<Vec<_>>>()?;
        let calls = exchange.look_back.map(|_| calls);
        Some(Self { holder, took: *took == 1, is_known: *known == 1, granted, calls })
    }
}

fn number(reply: &Reply) -> Option<i64> {
    match reply {
        Reply::Integer(number) => Some(*number),
        Reply::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}
