//! Pulses: one round trip to Redis renews or checks the leases of all idle accounts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::lease::{LEASE_DURATION, LeaseChannel, PULSE_INTERVAL};
use super::limiter::MonotonicTime;
use super::scheduler::CallScheduler;
use super::shared_accounts::SharedAccounts;
use crate::redis_client::{Command, Reply};
use crate::replicas::ReplicaId;

/// A pulse of one account, which is idle.
struct Pulse<'a> {
    channel: &'a LeaseChannel,
    scheduler: Arc<CallScheduler>,
    /// The replica whose lease is renewed, if it is this one, or checked.
    holder: ReplicaId,
    sent: MonotonicTime,
}

/// Sends pulses for all idle accounts, as long as there is a scheduler.
pub(super) async fn keep_pulse(accounts: SharedAccounts) {
    loop {
        tokio::time::sleep(PULSE_INTERVAL).await;
        let accounts = accounts.load();
        let alive: Vec<_> =
            accounts.iter().filter_map(|(channel, scheduler)| Some((channel, scheduler.upgrade()?))).collect();
        if alive.is_empty() {
            return;
        }
        let pulse = |(channel, scheduler): (_, Arc<CallScheduler>)| {
            let (holder, sent) = scheduler.begin_pulse()?;
            Some(Pulse { channel, scheduler, holder, sent })
        };
        let pulses: Vec<_> = alive.into_iter().filter_map(pulse).collect();
        let Some(first) = pulses.first() else { continue };
        // In a Cluster the keys of each account lie on a node of their own.
        let batch_size = if first.channel.mailbox().redis().is_cluster() { 1 } else { pulses.len() };
        let batches = pulses.chunks(batch_size).map(send);
        let is_held = futures_util::future::join_all(batches).await.concat();
        for (Pulse { scheduler, sent, .. }, is_held) in pulses.iter().zip(is_held) {
            scheduler.end_pulse(*sent, is_held);
        }
    }
}

/// Sends pulses. Returns for each one whether its lease is held by its holder; `false` if Redis does not say.
async fn send(pulses: &[Pulse<'_>]) -> Vec<bool> {
    let Some(Pulse { channel: first, .. }) = pulses.first() else { return Vec::new() };
    let (mailbox, me) = (first.mailbox(), first.mailbox().me());
    let is_leading = pulses.iter().any(|pulse| pulse.holder == *me);
    let followed: Vec<_> = pulses.iter().filter(|pulse| pulse.holder != *me).collect();
    let mut commands = Vec::new();
    if is_leading {
        commands.push(renew(first.session_key(me), LEASE_DURATION));
    }
    if !followed.is_empty() {
        let leases = followed.iter().map(|pulse| pulse.channel.lease_key());
        let sessions = followed.iter().map(|pulse| pulse.channel.session_key(&pulse.holder));
        commands.push(Command::new("MGET").args(leases.chain(sessions)));
    }
    // A replica that receives no messages is of no use to the others: it lets its lease expire.
    let replies =
        if mailbox.is_listening() { mailbox.redis().run(commands).await.unwrap_or_default() } else { Vec::new() };
    let is_renewed = is_leading && matches!(replies.first(), Some(Reply::Status(_)));
    let values = match replies.last() {
        Some(Reply::Array(values)) if values.len() == 2 * followed.len() => values.as_slice(),
        _ => &[],
    };
    let (leases, sessions) = values.split_at(values.len() / 2);
    let mut pairs = leases.iter().zip(sessions);
    let is_held = |pulse: &Pulse<'_>| {
        if pulse.holder == *me {
            return is_renewed;
        }
        let holder = Reply::Bytes(Bytes::from(pulse.holder.as_str().to_owned()));
        pairs.next().is_some_and(|(lease, session)| *lease == holder && matches!(session, Reply::Bytes(_)))
    };
    pulses.iter().map(is_held).collect()
}

/// Renews a session that has not expired.
fn renew(session: Bytes, duration: Duration) -> Command {
    Command::new("SET").arg(session).arg("1").arg("XX").arg("PX").arg(duration.as_millis().to_string())
}
