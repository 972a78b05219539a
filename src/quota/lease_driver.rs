//! The tasks that carry exchanges, heartbeats and messages between a scheduler and Redis.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::lease::{Heartbeats, LeaseChannel, QuotaChange};
use super::scheduler::CallScheduler;
use super::shared_accounts::SharedAccounts;
use crate::replicas::{Incoming, Mailbox, Message, MessageKind, QuotaMessage, Recipient, ReplicaId};
use crate::telemetry;

/// Runs exchanges and heartbeats as the lease schedules them, until the scheduler is dropped.
pub(super) async fn drive(scheduler: Weak<CallScheduler>, channel: LeaseChannel) {
    let [mut exchanged, mut counted, mut members_read] = [None; 3];
    let mut has_announced = false;
    loop {
        let Some((schedule, exchange_wanted)) = scheduler.upgrade().map(|scheduler| scheduler.schedule()) else {
            return;
        };
        let exchange_at = due(exchanged, schedule.exchange_interval);
        let is_wanted = tokio::select! {
            biased;
            () = sleep_until(exchange_at.min(due(counted, schedule.heartbeat_interval))) => false,
            () = exchange_wanted.notified() => true,
        };
        let Some(scheduler) = scheduler.upgrade() else { return };
        if is_wanted || !schedule.is_idle || exchange_at <= Instant::now() {
            exchanged = Some(Instant::now());
            exchange(&scheduler, &channel).await;
        }
        let has_new_limits = scheduler.has_new_limits();
        let is_heartbeat_wanted = scheduler.take_members_wanted() || has_new_limits;
        if is_heartbeat_wanted || due(counted, schedule.heartbeat_interval) <= Instant::now() {
            scheduler.expire_lent_permits();
            counted = Some(Instant::now());
            let reads_members = is_heartbeat_wanted || due(members_read, schedule.members_interval) <= Instant::now();
            members_read = if reads_members { counted } else { members_read };
            // After the exchange: a replica that is seen again after an outage has recorded its calls by then.
            let is_counted = heartbeat(&scheduler, &channel, reads_members).await;
            if is_counted && (has_new_limits || !has_announced) {
                has_announced = true;
                channel.write(&Recipient::All, QuotaMessage::Joined).await;
            }
            if !is_counted && schedule.is_idle {
                // An idle replica writes nothing else, so only this shows that Redis refuses writes.
                scheduler.exchange_soon();
            }
        }
    }
}

fn due(last: Option<Instant>, interval: Duration) -> Instant {
    last.map_or_else(Instant::now, |last| last + interval)
}

/// Increments the counter of this replica, and perhaps writes its limits and reads counters and limits of all. Returns whether Redis has accepted it.
async fn heartbeat(scheduler: &Arc<CallScheduler>, channel: &LeaseChannel, reads_members: bool) -> bool {
    let limits = reads_members.then(|| scheduler.take_limits());
    let Ok(heartbeats) = channel.heartbeat(limits.as_deref()).await else { return false };
    if let Some(Heartbeats { counts, limits }) = heartbeats {
        let gone = scheduler.update_lease(|quota, now| {
            let (gone, shares) = quota.note_heartbeats(now, counts);
            let agreed = quota.note_limits(limits);
            (gone, QuotaChange { ledger: shares.ledger || agreed.ledger, queue: shares.queue || agreed.queue })
        });
        channel.remove_members(gone.unwrap_or_default()).await;
    }
    true
}

/// Runs one exchange.
async fn exchange(scheduler: &Arc<CallScheduler>, channel: &LeaseChannel) {
    let Some(request) = scheduler.begin_exchange() else { return };
    let result = channel.exchange(&request).await;
    scheduler.update_lease(|quota, now| match result {
        Ok(reply) => ((), quota.finish_exchange(now, &request, &reply)),
        Err(error) => {
            telemetry::lease_sync_failed(&error.to_string());
            ((), quota.fail_exchange(now, &request))
        }
    });
}

/// Returns the lease, if this replica holds it, and removes its counter.
pub(super) async fn leave(scheduler: &Arc<CallScheduler>, channel: &LeaseChannel) {
    scheduler.update_lease(|quota, _| (quota.leave(), QuotaChange::default()));
    exchange(scheduler, channel).await;
    channel.remove_members(vec![channel.mailbox().me().clone()]).await;
}

/// Receives the messages about the quota, and hands each one to the scheduler of its account.
pub(super) async fn listen(mailbox: Mailbox, accounts: SharedAccounts) {
    let mut inbox = mailbox.receive(MessageKind::Quota);
    while let Some(incoming) = inbox.next().await {
        let accounts = accounts.load();
        match incoming {
            Incoming::Reconnected => {
                for scheduler in accounts.iter().filter_map(|(_, scheduler)| scheduler.upgrade()) {
                    scheduler.update_lease(|quota, now| (quota.note_reconnected(now), QuotaChange::default()));
                    scheduler.exchange_soon();
                }
            }
            Incoming::Message { from, message: Message::Quota { account, message } } => {
                let is_of_account = |(channel, _): &&(LeaseChannel, _)| account == *channel.account();
                let scheduler = accounts.iter().find(is_of_account).and_then(|(_, scheduler)| scheduler.upgrade());
                if let Some(scheduler) = scheduler {
                    receive(&scheduler, &from, message);
                }
            }
            Incoming::Message { .. } | Incoming::Unreadable { .. } => {}
        }
    }
}

fn receive(scheduler: &Arc<CallScheduler>, from: &ReplicaId, message: QuotaMessage) {
    match message {
        QuotaMessage::Joined => {
            scheduler.update_lease(|quota, now| ((), quota.note_joined(now, from)));
            scheduler.read_members_soon(from);
        }
        QuotaMessage::Granted { first, count } => {
            scheduler.update_lease(|quota, now| ((), quota.note_granted(now, from, first, count)));
        }
        QuotaMessage::Permit { number, message } => scheduler.on_permit_message(from, number, message),
        QuotaMessage::LeaseChanged => scheduler.exchange_soon(),
    }
}
