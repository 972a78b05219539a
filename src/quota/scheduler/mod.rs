//! The queue of one account: who may call the upstream, and when.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::fair_share::{FairShare, VirtualTime};
use super::lease::{CallName, LeaseChannel, Pass, SharedQuota};
use super::limiter::Backoff;
use super::limiter::Pacer;
use super::limiter::{Ledger, LimitUsage, MonotonicTime, usable};
use super::role::Role;
use super::savings::Savings;
use super::state_file::StateFile;
use crate::config;
use crate::config::QuotaLimit;
use crate::replicas::ReplicaId;
use crate::request::{Priority, Requester, RunWaiters};

use self::lending::PermitLending;
pub use self::permit::{CallPermit, Refused};

/// The quota cannot serve a call within the queue's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// When it could, as far as is known now.
    pub retry_after: Duration,
}

/// Where nothing of a limit is left for this replica, whoever asks may come again after this: another may be there then.
const NO_SHARE: Duration = Duration::from_mins(1);

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// The quota has no room within the queue's deadline.
    Exhausted(Exhausted),
    /// Nobody wants the call any more, and its run has not begun.
    Abandoned,
    /// Another replica makes the calls of the account now.
    NotLeader,
}

/// The calls of one account: the most urgent first, then by the shares of the callers, then in the order in which they
/// asked.
#[derive(Debug)]
pub struct CallScheduler {
    account: Arc<str>,
    limits: Vec<QuotaLimit>,
    queue_timeout: Duration,
    max_concurrency: u32,
    /// The share of everything that background work leaves alone.
    reserve: f64,
    /// Monotonic time is counted from here, so no step of the wall clock can bend the ledger.
    epoch: Instant,
    /// The tick of the epoch: what an earlier process did lies before it.
    past: MonotonicTime,
    journal: Option<StateFile>,
    role: watch::Sender<Role>,
    /// Somebody waits for an exchange with the other replicas.
    exchange: Arc<Notify>,
    /// Where the other replicas are met; empty if there are none.
    meeting: OnceLock<LeaseChannel>,
    /// Held for bookkeeping only.
    loans: Mutex<PermitLending>,
    /// Calls that were spent and are not set against a saving yet.
    pub(super) savings: Savings,
    /// Held for arithmetic only, and for a line in the journal; never across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    pace: Option<Pacer>,
    /// Background work has a pace of its own, so that it takes none of the bursts that callers may make.
    background_pace: Option<Pacer>,
    shares: FairShare,
    /// When calls may go, by what the upstream said.
    backoff: Backoff,
    /// Those who wait, by ticket. The first by rank is the only one that may go.
    queue: BTreeMap<u64, InLine>,
    next_ticket: u64,
    /// All calls so far, by the caller who is charged for them.
    spent: HashMap<Arc<str>, u64>,
    /// This replica's part in the quota that all have in common; `None` if it shares it with nobody.
    common: Option<SharedQuota>,
    /// The one who calls, if what it brings cannot be read here: then this replica calls too, with turns of that one.
    apart: Option<ReplicaId>,
    /// Among how many the quota is divided, as was last told.
    divided_by: Option<usize>,
}

#[derive(Debug)]
struct InLine {
    called: Arc<Notify>,
    demand: Arc<RunWaiters>,
}

/// The order of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: Priority,
    mark: VirtualTime,
    ticket: u64,
}

impl State {
    fn rank(&self, ticket: u64, waiting: &InLine) -> Rank {
        let (mark, Requester { class, .. }) = waiting.demand.first(|asker| self.shares.mark(asker));
        Rank { class, mark, ticket }
    }

    fn ranks(&self) -> impl Iterator<Item = Rank> {
        self.queue.iter().map(|(ticket, waiting)| self.rank(*ticket, waiting))
    }

    fn pace(&mut self, class: Priority) -> Option<&mut Pacer> {
        match class {
            Priority::Interactive | Priority::Refresh => self.pace.as_mut(),
            Priority::Background => self.background_pace.as_mut(),
        }
    }

    fn wake_first(&self) {
        if let Some(first) = self.ranks().min() {
            self.queue[&first.ticket].called.notify_one();
        }
    }
}

/// What one who waits does next.
enum Next {
    Go(CallPermit),
    Unwanted,
    Elsewhere,
    /// With a turn of this replica's.
    Borrow(ReplicaId),
    /// Not before this; `certain` if nothing can make it earlier.
    Wait {
        until: MonotonicTime,
        certain: bool,
    },
    /// Others are before it, or as many calls are under way as may be.
    Behind,
}

impl CallScheduler {
    /// An account that has spent nothing yet, but for what the journal knows.
    pub fn new(
        account: &Arc<str>,
        limits: Vec<QuotaLimit>,
        quota: &config::QuotaConfig,
        max_concurrency: u32,
        journal: Option<&StateFile>,
    ) -> Arc<Self> {
        let epoch = Instant::now();
        let past = limits.iter().map(|limit| limit.per).max().unwrap_or_default() * 2;
        let mut ledger = Ledger::new(limits.clone());
        let nobody = Arc::from("");
        let calls =
            journal.into_iter().flat_map(|journal| journal.restored(account).into_iter().chain(journal.lost(&limits)));
        for restored in calls {
            ledger.restore((past + restored.ahead).saturating_sub(restored.age), &nobody);
        }
        let reserve = quota.interactive_reserve;
        let (pace, background_pace) = Pacer::both(&limits, reserve, quota.queue_timeout);
        Arc::new(Self {
            account: account.clone(),
            queue_timeout: quota.queue_timeout,
            max_concurrency,
            reserve,
            epoch,
            past,
            journal: journal.cloned(),
            role: watch::Sender::new(Role::Leader),
            exchange: Arc::default(),
            meeting: OnceLock::new(),
            loans: Mutex::default(),
            savings: Savings::default(),
            state: Mutex::new(State {
                ledger,
                pace,
                background_pace,
                shares: FairShare::default(),
                backoff: Backoff::default(),
                queue: BTreeMap::new(),
                next_ticket: 0,
                spent: HashMap::new(),
                common: None,
                apart: None,
                divided_by: None,
            }),
            limits,
        })
    }

    /// From now on shares its quota with other replicas, as `me`. No call takes longer than `call`; until others have been
    /// heard of, `assumed` replicas are taken to be there.
    pub(super) fn share(&self, me: &ReplicaId, meeting: &LeaseChannel, assumed: usize, call: Duration) {
        let (mut state, now) = (self.lock(), self.now());
        let _ = self.meeting.set(meeting.clone());
        let past = state.ledger.stamps().collect();
        state.common = Some(SharedQuota::new(me.clone(), self.limits.clone(), assumed, call, now, past));
        self.role.send_replace(Role::Unknown);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loans(&self) -> MutexGuard<'_, PermitLending> {
        self.loans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> MonotonicTime {
        self.past + self.epoch.elapsed()
    }

    fn instant(&self, tick: MonotonicTime) -> Instant {
        self.epoch + tick.saturating_sub(self.past)
    }

    /// Waits for a turn for one call of a run, at most `queue_timeout`.
    ///
    /// # Errors
    /// [`AcquireError::Exhausted`] when the deadline has come, or at once when it is certain that the turn lies behind it;
    /// [`AcquireError::Abandoned`] when nobody waits for a run any more that has not begun.
    pub async fn acquire(self: &Arc<Self>, demand: &Arc<RunWaiters>) -> Result<CallPermit, AcquireError> {
        let asked = self.now();
        let deadline = asked + self.queue_timeout;
        let place = Place::join(self, demand);
        loop {
            let now = self.now();
            let until = match self.next_for(&place, asked, now) {
                Next::Go(turn) => return Ok(turn),
                Next::Unwanted => return Err(AcquireError::Abandoned),
                Next::Elsewhere => return Err(AcquireError::NotLeader),
                Next::Borrow(lender) => {
                    // Those behind it ask for turns of their own.
                    drop(place);
                    return self.borrow(lender, demand, asked).await;
                }
                Next::Wait { until, certain } if certain && until > deadline => {
                    return Err(AcquireError::Exhausted(Exhausted { retry_after: until.saturating_sub(now) }));
                }
                Next::Wait { until, .. } => until.min(deadline),
                Next::Behind => deadline,
            };
            if now >= deadline {
                return Err(AcquireError::Exhausted(Exhausted { retry_after: self.estimate(&place, now) }));
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.instant(until)) => {}
                () = place.called.notified() => {}
                () = demand.changed() => {}
            }
        }
    }

    fn next_for(self: &Arc<Self>, place: &Place<'_>, asked: MonotonicTime, now: MonotonicTime) -> Next {
        let mut state = self.lock();
        if place.demand.is_abandoned() {
            return Next::Unwanted;
        }
        if let Some(common) = &state.common
            && let Role::Follower(caller) = common.role(now)
        {
            return if state.apart.as_ref() == Some(&caller) { Next::Borrow(caller) } else { Next::Elsewhere };
        }
        let Some(first) = state.ranks().min() else { return Next::Behind };
        if first.ticket != place.ticket {
            // It may have become the first only now, by what has brought this one here.
            state.queue[&first.ticket].called.notify_one();
            // Whoever is first cannot go before this either.
            let opens = state.backoff.opens_at();
            return if opens > now { Next::Wait { until: opens, certain: true } } else { Next::Behind };
        }
        let reserve = self.reserve(first.class);
        if state.ledger.under_way() >= usable(self.max_concurrency, reserve) {
            return Next::Behind;
        }
        let opens = state.backoff.opens_at();
        let until = state.ledger.free_at(now, 0, reserve).max(opens);
        if until > now {
            let certain = state.ledger.is_exact(now) || until == opens;
            return Next::Wait { until, certain };
        }
        let outlook = state.ledger.outlook(now, reserve);
        let paced = state.pace(first.class).map_or(now, |pace| pace.admits_at(outlook));
        if paced > now {
            return Next::Wait { until: paced, certain: false };
        }
        let name = match self.pass(&mut state, now, &place.demand.cause().caller) {
            Pass::Go(name) => name,
            Pass::Wait(until) => return Next::Wait { until, certain: false },
            Pass::Elsewhere => return Next::Elsewhere,
            Pass::NoShare => return Next::Wait { until: now + NO_SHARE, certain: true },
        };
        let waited = now.saturating_sub(asked);
        let Some(turn) = self.begin(&mut state, place.demand, first.class, waited, now, name) else {
            return Next::Unwanted;
        };
        state.queue.remove(&place.ticket);
        state.wake_first();
        Next::Go(turn)
    }

    /// Begins a call that may go now, under its `name` among replicas; `None` if nobody wants it any more.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        demand: &Arc<RunWaiters>,
        class: Priority,
        waited: Duration,
        now: MonotonicTime,
        name: Option<CallName>,
    ) -> Option<CallPermit> {
        if !demand.begin(waited) {
            if let Some((common, name)) = state.common.as_mut().zip(name) {
                common.refund(&name);
            }
            return None;
        }
        state.ledger.begin();
        state.backoff.begin(now);
        let outlook = state.ledger.outlook(now, self.reserve(class));
        if let Some(pace) = state.pace(class) {
            pace.begin(now, outlook);
        }
        let cause = demand.cause().clone();
        // Whoever it is served for moves on in the line, even where another is charged: else one who only ever joins what
        // others have caused would always be the first.
        let (_, served) = demand.first(|asker| state.shares.mark(asker));
        state.shares.charge(&served);
        *state.spent.entry(cause.caller.clone()).or_default() += 1;
        // Written down before the call is made: whatever happens to this process, the next one knows of it.
        let slot = self.journal.as_ref().map(|journal| journal.begin(&self.account));
        Some(CallPermit::new(self, cause, served, now, slot, name))
    }

    /// Whether the other replicas leave room for a call; under which name, if there are any.
    fn pass(&self, state: &mut State, now: MonotonicTime, by: &Arc<str>) -> Pass<Option<CallName>> {
        let room = state.ledger.remaining(now).map(|standing| standing.remaining).min().unwrap_or(u32::MAX);
        let Some(common) = &mut state.common else { return Pass::Go(None) };
        let pass = common.pass(now, by, room);
        if common.is_waited_for(now) {
            self.exchange.notify_one();
        }
        match pass {
            Pass::Go(name) => Pass::Go(Some(name)),
            Pass::Wait(until) => Pass::Wait(until),
            Pass::Elsewhere => Pass::Elsewhere,
            Pass::NoShare => Pass::NoShare,
        }
    }

    /// The share of everything that a class leaves alone.
    fn reserve(&self, class: Priority) -> f64 {
        match class {
            Priority::Interactive | Priority::Refresh => 0.0,
            Priority::Background => self.reserve,
        }
    }

    /// When a turn could come for one who gives up now.
    fn estimate(&self, place: &Place<'_>, now: MonotonicTime) -> Duration {
        let state = self.lock();
        let Some(mine) = state.queue.get(&place.ticket).map(|waiting| state.rank(place.ticket, waiting)) else {
            return Duration::ZERO;
        };
        let ahead = u32::try_from(state.ranks().filter(|rank| *rank < mine).count()).unwrap_or(u32::MAX);
        let free = state.ledger.free_at(now, ahead, self.reserve(mine.class)).max(state.backoff.opens_at());
        // Those ahead go at the pace of the shortest limit even where the ledger has room.
        let paced = self.limits.iter().map(|limit| limit.per / limit.requests).min().unwrap_or_default();
        free.saturating_sub(now).max(paced.saturating_mul(ahead))
    }

    /// What each limit leaves now; nothing while the account is closed.
    pub fn limit_usage(&self) -> Vec<LimitUsage> {
        let (state, now) = (self.lock(), self.now());
        let closed = state.backoff.until() > now;
        let standing =
            |standing: LimitUsage| LimitUsage { remaining: if closed { 0 } else { standing.remaining }, ..standing };
        state.ledger.remaining(now).map(standing).collect()
    }

    /// How much longer the upstream refuses calls, if it asked for a pause that nobody waits for in the queue.
    pub fn closed_for(&self) -> Option<Duration> {
        let (state, now) = (self.lock(), self.now());
        let (_, left) = state.backoff.pause(now).filter(|(pause, _)| *pause > self.queue_timeout)?;
        Some(left)
    }

    /// How many calls were made and charged to `caller`, in all and in each limit's window.
    pub fn spent_by(&self, caller: &str) -> (u64, Vec<(QuotaLimit, u32)>) {
        let (state, now) = (self.lock(), self.now());
        (state.spent.get(caller).copied().unwrap_or_default(), state.ledger.spent_by(now, caller))
    }

    /// How long so many calls of this class would take from now on, if nobody asked for more than waits already.
    pub fn forecast(&self, calls: u32, class: Priority) -> Duration {
        if calls == 0 {
            return Duration::ZERO;
        }
        let mut state = self.lock();
        let now = self.now();
        let before = u32::try_from(state.ranks().filter(|rank| rank.class <= class).count()).unwrap_or(u32::MAX);
        let reserve = self.reserve(class);
        let (outlook, pace) = (state.ledger.outlook(now, reserve), state.pace(class).copied());
        let (ledger, closed_until) = (state.ledger.clone(), state.backoff.until());
        // Playing thousands of calls takes longer than those who wait for a turn should wait for this lock.
        drop(state);
        let paced = |nth| pace.map_or(Duration::ZERO, |pace| pace.offset(nth, outlook));
        let forecast = ledger.forecast(now, calls.saturating_add(before), reserve, paced);
        forecast.max(closed_until.saturating_sub(now))
    }

    /// Whether callers compete: a call that asked now would not go at once.
    pub fn is_contended(&self) -> bool {
        let mut state = self.lock();
        let now = self.now();
        let outlook = state.ledger.outlook(now, 0.0);
        let paced = state.pace(Priority::Interactive).map_or(now, |pace| pace.admits_at(outlook));
        !state.queue.is_empty() || state.ledger.free_at(now, 0, 0.0).max(state.backoff.until()).max(paced) > now
    }

    /// Who makes the calls of the account, now and from now on.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// How many wait.
    pub fn queue_length(&self) -> usize {
        self.lock().queue.len()
    }
}

/// A place in the queue; given back when dropped, by one who gives up or hangs up.
struct Place<'a> {
    turns: &'a CallScheduler,
    ticket: u64,
    called: Arc<Notify>,
    demand: &'a Arc<RunWaiters>,
}

impl<'a> Place<'a> {
    fn join(turns: &'a CallScheduler, demand: &'a Arc<RunWaiters>) -> Self {
        let called = Arc::new(Notify::new());
        let mut state = turns.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.insert(ticket, InLine { called: called.clone(), demand: demand.clone() });
        Self { turns, ticket, called, demand }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        if state.queue.remove(&self.ticket).is_some() {
            state.wake_first();
        }
    }
}

mod fair_share;
mod lease_sync;
mod lending;
mod permit;
mod spare_calls;
#[cfg(test)]
mod tests;
