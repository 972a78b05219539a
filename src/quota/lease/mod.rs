//! The quota that all replicas have in common. Pure: time is an argument, and what goes to Redis and comes from it are
//! values; `common/drive.rs` carries them.
//!
//! One replica makes all calls of an account, as long as it holds the lease. So its ledger, its queue and its pace are
//! those of the fleet, and need to ask nobody. What stands in Redis is there for those who come after it: each call is
//! entered there before it is made, and entered only if all rolling windows have room by what stands there. Whoever takes
//! the lease reads it. Whoever does not hold the lease makes no call; but if nobody can hold one because Redis cannot be
//! asked, each replica makes do with its share.

mod call_log;
mod driver;
mod members;
mod partition;
mod pulse;
mod sync;
mod sync_interval;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::call_log::CallLog;
pub(super) use self::call_log::CallName;
pub(super) use self::driver::{LeaseChannel, drive, leave, listen};
use self::members::Members;
use self::partition::Outage;
pub(super) use self::pulse::keep_pulse;
pub(super) use self::sync::{ExchangeReply, ExchangeRequest};
pub(super) use self::sync_interval::SyncSchedule;
use super::limiter::{GUARD, MonotonicTime};
use super::role::Role;
use crate::config::QuotaLimit;
use crate::redis_client::ReplicaId;

/// How long a lease lasts, which is as long as the session of its holder. Whoever dies with it holds up the others for so long; and whoever cannot reach Redis for so
/// long may be sure that nobody holds one, if nobody reaches it.
pub(super) const LEASE_DURATION: Duration = Duration::from_millis(1250);
/// Its holder lets go of it a little sooner: the clocks of two machines do not run quite alike.
const HELD: Duration = Duration::from_millis(1100);
/// Whoever takes the lease has been in touch for so long: after an outage, all have come back by then and have told of
/// their calls. Each looks for Redis once a second.
const SETTLED: Duration = Duration::from_millis(2500);
/// The same for a replica that has seen nobody else.
const SETTLED_ALONE: Duration = Duration::from_millis(1200);
/// Whoever has not tried an exchange for so long has stood still.
const STILL: Duration = Duration::from_secs(2);
/// Calls that have been granted must begin within this.
const HOLD: Duration = Duration::from_secs(2);
/// A call whose replica says no word of it any more has counted within this, if it ever does. So long a replica may stand
/// still with calls under way, or be cut off; and so long each that dies with it is missed by all.
const UNHEARD: Duration = Duration::from_secs(5);
/// Calls that are granted at once at the most: so many may be lost with a replica that dies.
const BATCH: u32 = 8;
/// When Redis grants nothing, it is left alone for so long.
const PAUSE: Duration = Duration::from_millis(50);
/// So much later than it was, a call's end may be told.
const LATE: Duration = Duration::from_secs(5);
/// Calls that one exchange tells of at the most.
const TOLD_AT_ONCE: usize = 2000;

/// How this replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LeaseState {
    /// Who makes the calls is being found out.
    Joining,
    /// This replica holds the lease: until then at least, and makes calls from then on.
    Leading { until: MonotonicTime, spends_from: MonotonicTime },
    /// Another holds it.
    Following(ReplicaId),
    /// Redis cannot be asked. Of each limit this replica has a share; of some perhaps nothing.
    Alone { shares: Vec<QuotaLimit>, replicas: usize },
}

/// Whether a call may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pass<N = CallName> {
    /// Yes, under this name.
    Go(N),
    /// Not before this, perhaps; something may make it earlier.
    Wait(MonotonicTime),
    /// Another replica makes the calls.
    Elsewhere,
    /// Redis is lost, and the limit is too small to be shared.
    NoShare,
}

/// What has changed for the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QuotaChange {
    /// Calls are known that were not, or the limits are others: the ledger is to be made anew.
    pub(super) ledger: bool,
    /// Those who wait are to look again.
    pub(super) queue: bool,
}

/// One replica's part in the quota of an account.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct SharedQuota {
    me: ReplicaId,
    limits: Vec<QuotaLimit>,
    /// Replicas that are taken to be there by one that has never heard of any.
    assumed: usize,
    /// How long a call may be under way.
    call: Duration,
    book: CallLog,
    members: Members,
    stance: LeaseState,
    /// Who was last seen to hold the lease.
    last_holder: Option<ReplicaId>,
    started: MonotonicTime,
    /// When the last exchange or pulse began.
    tried: Option<MonotonicTime>,
    /// This process has stood still for so long that others may take it for dead, and has not been in touch since.
    stood_still: bool,
    /// The last exchange has failed.
    is_failing: bool,
    /// When the last exchange or pulse began that was answered.
    answered: Option<MonotonicTime>,
    /// Since when all have been.
    steady: Option<MonotonicTime>,
    /// When the last reading of the calls of others began.
    read: Option<MonotonicTime>,
    outage: Option<Outage>,
    /// The calls that are entered in the name of who has not come back from an outage.
    ghosts: HashMap<ReplicaId, Vec<CallName>>,
    /// Granted calls that have not begun: the number of each, and until when it may.
    granted: VecDeque<(u64, MonotonicTime)>,
    next_number: u64,
    /// Calls that somebody waits for.
    wanted: u32,
    not_before: MonotonicTime,
    /// Calls that Redis knows of and that will not be made.
    not_made: Vec<CallName>,
    /// An exchange is under way: alone, nothing is begun meanwhile, so that it tells of everything.
    is_exchanging: bool,
    /// Nothing is missing in what Redis knows.
    is_known: bool,
    is_leaving: bool,
    /// It has been in touch for long enough to have seen all others.
    has_seen_all: bool,
    /// Calls of a process before this one: of use only where Redis does not know better.
    past: Vec<MonotonicTime>,
}

impl SharedQuota {
    /// A replica that begins at `now`. No call takes longer than `call`; `past` are calls of a process before this one.
    pub(super) fn new(
        me: ReplicaId,
        limits: Vec<QuotaLimit>,
        assumed: usize,
        call: Duration,
        now: MonotonicTime,
        past: Vec<MonotonicTime>,
    ) -> Self {
        let mut book = CallLog::default();
        for (number, at) in past.iter().enumerate() {
            // Redis may know them under their own names: the first reading takes their place.
            book.hear_of(format!("past:{number}").into(), *at, true);
        }
        Self {
            me,
            limits,
            assumed,
            call,
            book,
            members: Members::default(),
            stance: LeaseState::Joining,
            last_holder: None,
            started: now,
            tried: None,
            stood_still: false,
            is_failing: false,
            answered: None,
            steady: None,
            read: None,
            outage: None,
            ghosts: HashMap::new(),
            granted: VecDeque::new(),
            next_number: 0,
            wanted: 0,
            not_before: MonotonicTime::ZERO,
            not_made: Vec::new(),
            is_exchanging: false,
            is_known: false,
            is_leaving: false,
            has_seen_all: false,
            past,
        }
    }

    /// Who makes the calls.
    pub(super) fn role(&self, now: MonotonicTime) -> Role {
        match &self.stance {
            LeaseState::Leading { until, .. } if now < *until => Role::Leader,
            LeaseState::Alone { .. } => Role::Leader,
            LeaseState::Following(replica) => Role::Follower(replica.clone()),
            LeaseState::Joining | LeaseState::Leading { .. } => Role::Unknown,
        }
    }

    /// The replicas among which the quota is divided; `None` while it is shared by one ledger.
    pub(super) fn divided_by(&self) -> Option<usize> {
        match &self.stance {
            LeaseState::Alone { replicas, .. } => Some(*replicas),
            _ => None,
        }
    }

    /// The limits that count for this replica now.
    pub(super) fn limits(&self) -> Vec<QuotaLimit> {
        match &self.stance {
            LeaseState::Alone { shares, .. } => shares.clone(),
            _ => self.limits.clone(),
        }
    }

    /// The calls that count against them, but for those that are under way here.
    pub(super) fn stamps(&self) -> Vec<(MonotonicTime, Arc<str>)> {
        match &self.stance {
            LeaseState::Alone { replicas, .. } => self.book.share(*replicas),
            _ => self.book.stamps(),
        }
    }

    fn longest(&self) -> Duration {
        self.limits.iter().map(|limit| limit.per).max().unwrap_or_default() + GUARD
    }

    /// A call is about to be made for `by`; as far as is known here, there is room for so many.
    pub(super) fn pass(&mut self, now: MonotonicTime, by: &Arc<str>, room: u32) -> Pass {
        match &self.stance {
            LeaseState::Following(_) => Pass::Elsewhere,
            LeaseState::Joining => Pass::Wait(now + PAUSE),
            LeaseState::Alone { shares, .. } if shares.iter().any(|limit| limit.requests == 0) => Pass::NoShare,
            // Soon over, one way or the other.
            LeaseState::Alone { .. } if self.is_exchanging => Pass::Wait(now + PAUSE),
            LeaseState::Alone { .. } => {
                let number = self.number(1);
                Pass::Go(self.begin(now, number, by, true))
            }
            LeaseState::Leading { until, spends_from } => {
                if now >= *until {
                    return Pass::Wait(now + PAUSE);
                }
                if now < *spends_from {
                    return Pass::Wait(*spends_from);
                }
                self.let_lapse(now);
                if let Some((number, _)) = self.granted.pop_front() {
                    return Pass::Go(self.begin(now, number, by, false));
                }
                if now < self.not_before {
                    return Pass::Wait(self.not_before);
                }
                // The less is left, the fewer are taken at once: each that dies with this replica is missed by all.
                self.wanted = (room / BATCH).clamp(1, BATCH);
                Pass::Wait(now + LEASE_DURATION)
            }
        }
    }

    fn number(&mut self, count: u32) -> u64 {
        let number = self.next_number;
        self.next_number += u64::from(count);
        number
    }

    fn name(&self, number: u64) -> CallName {
        format!("{}:{number}", self.me).into()
    }

    fn begin(&mut self, now: MonotonicTime, number: u64, by: &Arc<str>, is_alone: bool) -> CallName {
        let name = self.name(number);
        self.book.begin(name.clone(), by.clone(), now + self.latest(), is_alone);
        name
    }

    /// A call begins with a turn of another replica, which has entered it.
    pub(super) fn borrow(&mut self, now: MonotonicTime, name: CallName, by: Arc<str>) {
        self.book.begin(name, by, now + self.latest(), false);
    }

    /// When a call that may begin until [`HOLD`] from now counts at the latest, unless more is heard of it.
    fn latest(&self) -> Duration {
        HOLD + UNHEARD.min(self.call)
    }

    /// How long a call may be under way.
    pub(super) fn longest_call(&self) -> Duration {
        self.call
    }

    /// A call has ended.
    pub(super) fn end(&mut self, now: MonotonicTime, name: &str) {
        self.book.end(name, now);
    }

    /// A call has never left.
    pub(super) fn refund(&mut self, name: &CallName) {
        self.book.take_back(name);
        self.not_made.push(name.clone());
    }

    /// Granted calls that have not begun in time will not.
    fn let_lapse(&mut self, now: MonotonicTime) {
        while let Some((number, _)) = self.granted.pop_front_if(|(_, until)| *until <= now) {
            let name = self.name(number);
            self.not_made.push(name);
        }
    }

    /// Whether somebody waits for an exchange.
    pub(super) fn is_waited_for(&self, now: MonotonicTime) -> bool {
        self.wanted > 0 && self.role(now) == Role::Leader
    }

    /// How long until the next exchange, if nobody waits for one and it is not at rest.
    fn interval(&self) -> Duration {
        match self.stance {
            LeaseState::Leading { .. } => LEASE_DURATION / 4,
            LeaseState::Following(_) => LEASE_DURATION / 3,
            LeaseState::Joining | LeaseState::Alone { .. } => LEASE_DURATION / 5,
        }
    }

    /// The next exchange. It must be answered or failed before there is another.
    pub(super) fn begin_exchange(&mut self, now: MonotonicTime) -> ExchangeRequest {
        self.is_exchanging = true;
        self.let_lapse(now);
        self.note_attempt(now);
        self.book.forget_before(now.saturating_sub(self.longest()));
        self.book.stand_by_open(now + UNHEARD.min(self.call), now + self.latest());
        let (is_leading, spends) = match &self.stance {
            LeaseState::Leading { until, spends_from } => (now < *until, *spends_from <= now),
            _ => (false, false),
        };
        // A steady past does not say that this one will be answered.
        let in_touch = self.steady.zip(self.answered).map(|(since, last)| last.saturating_sub(since));
        let is_settled = in_touch.is_some_and(|time| time >= self.settling());
        self.has_seen_all |= in_touch.is_some_and(|time| time >= SETTLED);
        let tell = self.book.untold(TOLD_AT_ONCE);
        let vouches = is_leading && spends && !self.is_known && tell.len() < TOLD_AT_ONCE;
        let wants = if is_leading && spends { std::mem::take(&mut self.wanted) } else { 0 };
        let first = self.number(wants);
        let look_back = match (&self.stance, self.read) {
            // Those who called before tell of the end of what they had under way.
            (LeaseState::Leading { .. }, Some(_)) if is_leading && !self.book.expects(now) => None,
            // All that may have changed; a call's end may be told a little late.
            (LeaseState::Leading { .. } | LeaseState::Following(_), Some(read)) if is_leading || !self.is_lead() => {
                Some(now.saturating_sub(read) + LATE)
            }
            _ => Some(self.longest()),
        };
        ExchangeRequest {
            sent: now,
            me: self.me.clone(),
            lease: if self.is_leaving { Duration::ZERO } else { LEASE_DURATION },
            last_holder: self.last_holder.as_ref().unwrap_or(&self.me).clone(),
            may_lead: (is_settled || is_leading) && !self.is_leaving,
            vouches,
            wants,
            first,
            latest: self.latest(),
            look_back,
            keep: self.longest(),
            limits: self.limits.clone(),
            tell,
            take_out: std::mem::take(&mut self.not_made),
        }
    }

    fn settling(&self) -> Duration {
        if self.outage.is_none() && self.members.there().len() <= 1 { SETTLED_ALONE } else { SETTLED }
    }

    /// Redis has answered an exchange, at `now`.
    pub(super) fn finish_exchange(
        &mut self,
        now: MonotonicTime,
        exchange: &ExchangeRequest,
        answer: ExchangeReply,
    ) -> QuotaChange {
        self.is_exchanging = false;
        let sent = exchange.sent;
        let before = (self.stance.clone(), self.role(now));
        self.answered = self.answered.max(Some(sent));
        (self.stood_still, self.is_failing) = (false, false);
        self.steady.get_or_insert(sent);
        self.book.told(&exchange.tell);
        let is_news = !answer.is_known && (self.is_known || answer.took);
        self.is_known = answer.is_known;
        let mut change = QuotaChange::default();
        if let (Some(calls), Some(back)) = (answer.calls, exchange.look_back) {
            let others = calls.into_iter().filter(|(name, _)| !self.is_mine(name));
            let others: Vec<_> = others.map(|(name, age)| (name, age.before(now))).collect();
            // What Redis has lost still counts.
            let since = if answer.is_known { sent.saturating_sub(back) } else { MonotonicTime::MAX };
            self.book.read(since, others);
            self.read = Some(sent);
            change.ledger = true;
        }
        for number in (exchange.first..).take(answer.granted as usize) {
            self.granted.push_back((number, sent + HOLD));
        }
        if answer.granted > 0 {
            change.queue = true;
        } else if exchange.wants > 0 {
            // It knows of calls that are not known here.
            self.not_before = now + PAUSE;
            self.read = None;
            change.queue = true;
        }
        if !answer.is_known && answer.holder.as_ref() != Some(&self.me) {
            // Whoever comes to hold the lease gathers what is known.
            self.book.tell_again(false);
        }
        if answer.holder.is_some() {
            self.last_holder.clone_from(&answer.holder);
        }
        match answer.holder {
            // There is more to tell of what was done alone.
            _ if matches!(self.stance, LeaseState::Alone { .. }) && exchange.tell.len() >= TOLD_AT_ONCE => {}
            Some(holder) if holder == self.me => {
                if is_news {
                    self.tell_all_again();
                }
                self.lead(now, sent, answer.took);
            }
            Some(holder) => {
                self.let_go();
                self.book.gather();
                self.outage = None;
                self.stance = LeaseState::Following(holder);
            }
            None => {
                self.let_go();
                self.stance = LeaseState::Joining;
            }
        }
        let divided = |stance: &LeaseState| matches!(stance, LeaseState::Alone { .. });
        change.ledger |= divided(&before.0) != divided(&self.stance);
        change.queue |= self.role(now) != before.1 || before.0 != self.stance && self.is_new_lead(&before.0);
        change
    }

    /// Redis has lost what it knew, or never knew it.
    fn tell_all_again(&mut self) {
        self.book.tell_again(true);
        for (number, at) in std::mem::take(&mut self.past).into_iter().enumerate() {
            self.book.hear_of(format!("past:{}:{number}", self.me).into(), at, false);
        }
    }

    /// Letters may have been lost, and Redis may be another than before.
    pub(super) fn note_reconnected(&mut self, now: MonotonicTime) {
        let is_leading = matches!(self.stance, LeaseState::Leading { until, .. } if now < until);
        self.book.tell_again(is_leading);
    }

    fn is_lead(&self) -> bool {
        matches!(self.stance, LeaseState::Leading { .. })
    }

    fn is_new_lead(&self, before: &LeaseState) -> bool {
        matches!(self.stance, LeaseState::Leading { .. }) && !matches!(before, LeaseState::Leading { .. })
    }

    fn is_mine(&self, name: &str) -> bool {
        name.strip_prefix(self.me.as_str()).is_some_and(|rest| rest.starts_with(':'))
    }

    fn lead(&mut self, now: MonotonicTime, sent: MonotonicTime, took: bool) {
        let until = sent + HELD;
        let spends_from = match self.stance {
            LeaseState::Leading { until: before, spends_from } if !took || sent < before => spends_from,
            // All that has been spent stands there.
            _ if self.is_known => now,
            // Those who have been deposed by what Redis has lost tell of their calls first.
            _ => now + LEASE_DURATION,
        };
        self.stance = LeaseState::Leading { until, spends_from };
        self.book.gather();
        if let Some(outage) = self.outage.take() {
            self.enter_ghosts(now, &outage);
        }
    }

    /// What was granted will not be used.
    fn let_go(&mut self) {
        self.let_lapse(MonotonicTime::MAX);
        self.wanted = 0;
    }

    /// Another replica was granted calls just now.
    pub(super) fn note_granted(
        &mut self,
        now: MonotonicTime,
        from: &ReplicaId,
        first: u64,
        granted: u32,
    ) -> QuotaChange {
        if *from == self.me {
            return QuotaChange::default();
        }
        for number in (first..).take(granted as usize) {
            self.book.hear_of(format!("{from}:{number}").into(), now + self.latest(), true);
        }
        QuotaChange { ledger: true, queue: false }
    }

    /// From now on this replica does not take the lease any more, and gives it back.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
        self.let_go();
    }
}
