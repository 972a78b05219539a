//! Pulses: one look at Redis for all accounts at rest.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::driver::LeaseChannel;
use super::sync_interval::PULSE_INTERVAL;
use super::{LEASE_DURATION, MonotonicTime};
use crate::quota::scheduler::CallScheduler;
use crate::redis_client::{Command, Reply};
use crate::replicas::ReplicaId;

/// An account at rest.
struct Resting<'a> {
    meeting: &'a LeaseChannel,
    turns: Arc<CallScheduler>,
    holder: ReplicaId,
    sent: MonotonicTime,
}

/// Keeps the leases of all accounts that are at rest, or sees that others keep them, as long as there are accounts.
pub(in crate::quota) async fn keep_pulse(accounts: Vec<(LeaseChannel, Weak<CallScheduler>)>) {
    loop {
        tokio::time::sleep(PULSE_INTERVAL).await;
        let mut resting = Vec::with_capacity(accounts.len());
        for (meeting, turns) in &accounts {
            let Some(turns) = turns.upgrade() else { return };
            if let Some((holder, sent)) = turns.begin_pulse() {
                resting.push(Resting { meeting, turns, holder, sent });
            }
        }
        let Some(first) = resting.first() else { continue };
        // In a Cluster the keys of each account lie on a node of their own.
        let together = if first.meeting.post().redis().is_cluster() { 1 } else { resting.len() };
        let asked = resting.chunks(together).map(ask);
        let held = futures_util::future::join_all(asked).await.concat();
        for (Resting { turns, sent, .. }, is_held) in resting.iter().zip(held) {
            turns.end_pulse(*sent, is_held);
        }
    }
}

/// Whether each lease is held by whom it should be; not if Redis does not say.
async fn ask(accounts: &[Resting<'_>]) -> Vec<bool> {
    let Some(Resting { meeting: first, .. }) = accounts.first() else { return Vec::new() };
    let (post, me) = (first.post(), first.post().me());
    let is_led = accounts.iter().any(|account| account.holder == *me);
    let followed: Vec<_> = accounts.iter().filter(|account| account.holder != *me).collect();
    let mut commands = Vec::new();
    if is_led {
        commands.push(renew(first.session(me), LEASE_DURATION));
    }
    if !followed.is_empty() {
        let leases = followed.iter().map(|account| account.meeting.lease());
        let sessions = followed.iter().map(|account| account.meeting.session(&account.holder));
        commands.push(Command::new("MGET").args(leases.chain(sessions)));
    }
    // Whoever hears nobody is no use to the others.
    let replies = if post.is_listening() { post.redis().run(commands).await.unwrap_or_default() } else { Vec::new() };
    let is_kept = is_led && matches!(replies.first(), Some(Reply::Status(_)));
    let values = match replies.last() {
        Some(Reply::Array(values)) if values.len() == 2 * followed.len() => values.as_slice(),
        _ => &[],
    };
    let (leases, sessions) = values.split_at(values.len() / 2);
    let mut pairs = leases.iter().zip(sessions);
    let is_held = |account: &Resting<'_>| {
        if account.holder == *me {
            return is_kept;
        }
        let holder = Reply::Bytes(Bytes::from(account.holder.as_str().to_owned()));
        pairs.next().is_some_and(|(lease, session)| *lease == holder && matches!(session, Reply::Bytes(_)))
    };
    accounts.iter().map(is_held).collect()
}

/// Lets a session go on that has not ended.
fn renew(session: Bytes, time: Duration) -> Command {
    Command::new("SET").arg(session).arg("1").arg("XX").arg("PX").arg(time.as_millis().to_string())
}
