//! What replicas know together of purges: in Redis, a hash of them for each account, and a mark that changes with it.
//!
//! The mark is never the same twice. So whoever sees the one that it saw last knows all that stands in the hash, whatever
//! happened in between, an emptied Redis included. A replica that knows more than Redis writes it there again: what was
//! purged is as well known as the best informed of all replicas. Plain commands, for scripts may be forbidden.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::broadcast::Confirmations;
use super::delete::PurgeDeleter;
use super::tombstones::{Tombstone, Tombstones, read_epoch};
use super::{Inner, PurgeDelivery, Purges};
use crate::cache::redis::encoded;
use crate::redis_client::{Command, ConnectionError, Mailbox, RedisClient, Reply};
use crate::telemetry;

/// The version of how purges stand in Redis.
const FORMAT: &str = "p1";
/// The field of the epoch before which purges are forgotten.
const FLOOR: &[u8] = b"floor";
/// So often others may write at the same moment before it is given up.
const TRIES: usize = 10;
/// The pauses between two attempts at what could not be done; the last one again and again.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(30)];

/// The purges of all replicas, and the way to them.
pub(super) struct PurgeReplicator {
    pub(super) post: Mailbox,
    pub(super) prefix: String,
    /// The accounts that are looked after.
    pub(super) accounts: Vec<Arc<str>>,
    /// Where replicas say that they have heard of one of our purges.
    pub(super) confirmations: Confirmations,
    /// Wakes who looks for news.
    pub(super) look: Notify,
    state: Mutex<HashMap<Arc<str>, State>>,
    /// Makes each mark another one, with the replica's name.
    marks: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The mark under which all that stands in Redis is known; empty if there was none, `None` before the first look.
    seen: Option<Bytes>,
    /// Purges of our own that do not stand in Redis yet, with how they stand here.
    unwritten: Vec<PurgeTicket>,
    /// Held while Redis is read and written, so that this replica does one thing after the other.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A purge of our own on its way to Redis. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(super) struct PurgeTicket(Arc<(Tombstone, Mutex<Progress>)>);

struct Progress {
    /// Raised if others have counted further by the time that it comes to Redis.
    epoch: u64,
    is_written: bool,
    /// A later one covers it, and is on the same way.
    is_needless: bool,
}

impl PurgeTicket {
    fn tomb(&self) -> &Tombstone {
        &self.0.0
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands in Redis of an account.
struct Standing {
    mark: Bytes,
    tombs: Tombstones,
}

impl PurgeReplicator {
    pub(super) fn new(prefix: &str, post: Mailbox, accounts: Vec<Arc<str>>) -> Self {
        let (prefix, state, confirmations) = (prefix.to_owned(), Mutex::default(), Confirmations::default());
        Self { post, prefix, accounts, confirmations, look: Notify::new(), state, marks: AtomicU64::default() }
    }

    pub(super) fn link(&self) -> &RedisClient {
        self.post.link()
    }

    /// Notes a purge that is to be written. It takes the place of those that it covers and that are still not written.
    pub(super) fn open(&self, account: &Arc<str>, epoch: u64, tomb: Tombstone) -> PurgeTicket {
        let progress = Progress { epoch, is_written: false, is_needless: false };
        let ticket = PurgeTicket(Arc::new((tomb, Mutex::new(progress))));
        self.state(account, |state| {
            // Whoever asks again and again while Redis is away does not make the list longer.
            let covered = state.unwritten.extract_if(.., |known| ticket.tomb().covers(known.tomb()));
            covered.for_each(|known| known.progress().is_needless = true);
            state.unwritten.push(ticket.clone());
        });
        ticket
    }

    /// Asks for the mark.
    pub(super) fn ask(&self, account: &str) -> Command {
        Command::new("GET").arg(self.name(account, "epoch"))
    }

    /// Asks for the marks of all accounts: at once, but in a Cluster one by one, for they lie on several nodes. The answer
    /// to each, in the order of the accounts.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub(super) async fn ask_all(&self) -> Result<Vec<Reply>, ConnectionError> {
        if self.link().is_cluster() {
            return self.link().run(self.accounts.iter().map(|account| self.ask(account)).collect()).await;
        }
        let names = self.accounts.iter().map(|account| self.name(account, "epoch"));
        match self.link().run(vec![Command::new("MGET").args(names)]).await?.pop() {
            Some(Reply::Array(marks)) => Ok(marks),
            other => Err(other.map_or(ConnectionError::Nonsense, |reply| reply.fault())),
        }
    }

    /// Whether nothing has changed since the last look, by the answer to [`PurgeReplicator::ask`].
    pub(super) fn is_known(&self, account: &str, answer: &Reply) -> bool {
        mark(answer).is_ok_and(|mark| self.state(account, |state| state.seen.as_ref() == Some(&mark)))
    }

    /// Both names lie in one slot of a Cluster.
    fn name(&self, account: &str, what: &str) -> String {
        format!("{}:{FORMAT}:{{{}}}:{what}", self.prefix, encoded(account))
    }

    fn state<T>(&self, account: &str, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.get_mut(account) {
            Some(state) => look(state),
            None => look(state.entry(account.into()).or_default()),
        }
    }

    async fn read(&self, account: &str) -> Result<Standing, ConnectionError> {
        let all = Command::new("HGETALL").arg(self.name(account, "purges"));
        let replies = self.link().run(vec![self.ask(account), all]).await?;
        let [answer, Reply::Array(fields)] = replies.as_slice() else {
            return Err(replies.get(1).map_or(ConnectionError::Nonsense, Reply::fault));
        };
        let mark = mark(answer)?;
        let mut tombs = Tombstones::default();
        for pair in fields.chunks(2) {
            let [Reply::Bytes(field), Reply::Bytes(value)] = pair else { return Err(ConnectionError::Nonsense) };
            let [field, value] = [field, value].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            match (field.as_bytes() == FLOOR, read_epoch(&field)) {
                (true, _) => tombs.raise(read_epoch(&value).unwrap_or_default()),
                (false, Some(epoch)) => tombs.add(epoch, Tombstone::read(&value)),
                (false, None) => {}
            }
        }
        // The last purge always stands in the hash. If it does not, the hash was lost, to a Redis that was full perhaps:
        // then what was purged is not known, and all may have been.
        let last = String::from_utf8_lossy(&mark).split('-').next().and_then(read_epoch).unwrap_or_default();
        if tombs.epoch() < last {
            tombs.add(last, Tombstone::EVERYTHING);
        }
        Ok(Standing { mark, tombs })
    }

    /// Writes what is known here and not there. `false` if somebody else wrote meanwhile, and it must be read again.
    async fn write(&self, account: &str, known: &Tombstones, there: &Tombstones) -> Result<bool, ConnectionError> {
        let hash = self.name(account, "purges");
        let mut commands = Vec::new();
        for (epoch, tomb) in known.iter().filter(|(epoch, tomb)| there.get(*epoch) != Some(tomb)) {
            // Where another stands, it is known here too, and this is both.
            let name = if there.get(epoch).is_some() { "HSET" } else { "HSETNX" };
            let field = Command::new(name).arg(hash.clone()).arg(epoch.to_string());
            commands.push((name == "HSETNX", field.arg(tomb.to_string())));
        }
        if known.floor() > there.floor() {
            let floor = Command::new("HSET").arg(hash.clone()).arg(FLOOR).arg(known.floor().to_string());
            commands.push((false, floor));
        }
        let gone: Vec<_> = there.iter().filter(|(epoch, _)| known.get(*epoch).is_none()).collect();
        if !gone.is_empty() {
            let fields = gone.iter().map(|(epoch, _)| epoch.to_string());
            commands.push((false, Command::new("HDEL").arg(hash).args(fields)));
        }
        let (must_be_new, commands): (Vec<bool>, Vec<Command>) = commands.into_iter().unzip();
        let replies = self.link().run(commands).await?;
        let mut is_ours = true;
        for (reply, must_be_new) in replies.iter().zip(must_be_new) {
            let Reply::Integer(new) = reply else { return Err(reply.fault()) };
            is_ours &= !must_be_new || *new == 1;
        }
        Ok(is_ours)
    }

    /// Tells that there is news; only when the news is there, or one might look too early and never again.
    async fn put_mark(&self, account: &str, epoch: u64) -> Result<Bytes, ConnectionError> {
        let number = self.marks.fetch_add(1, Ordering::Relaxed);
        let mark = Bytes::from(format!("{epoch}-{}-{number}", self.post.me()));
        let set = Command::new("SET").arg(self.name(account, "epoch")).arg(mark.clone());
        match self.link().run(vec![set]).await?.first() {
            Some(Reply::Status(_)) => Ok(mark),
            other => Err(other.map_or(ConnectionError::Nonsense, Reply::fault)),
        }
    }
}

/// What stands as a mark; empty if there is none.
fn mark(answer: &Reply) -> Result<Bytes, ConnectionError> {
    match answer {
        Reply::Nil => Ok(Bytes::new()),
        Reply::Bytes(mark) => Ok(mark.clone()),
        other => Err(other.fault()),
    }
}

impl Purges {
    /// Learns what is new since `answer` told so. `false` if Redis does not say.
    pub(super) async fn learn(&self, shared: &PurgeReplicator, account: &str, answer: &Reply) -> bool {
        let turn = shared.state(account, |state| state.turn.clone());
        let _turn = turn.lock().await;
        // Many hear of the same news at once; the first one learns it for all.
        shared.is_known(account, answer) || self.agree(shared, &account.into()).await.is_ok()
    }

    /// Makes what is known here and what stands in Redis the same, and sees to it that memory is clean of it. Only in
    /// one's turn.
    async fn agree(&self, shared: &PurgeReplicator, account: &Arc<str>) -> Result<(), ConnectionError> {
        for _ in 0..TRIES {
            let there = shared.read(account).await?;
            let (known, is_news, unwritten) = {
                let mut all = self.lock();
                let tombs = Arc::make_mut(all.entry(account.clone()).or_default());
                let before = tombs.clone();
                let unwritten = shared.state(account, |state| state.unwritten.clone());
                for ticket in &unwritten {
                    let mut progress = ticket.progress();
                    // Others have counted further since: a chunk of such an epoch may be older than this purge.
                    if progress.epoch <= there.tombs.epoch() {
                        tombs.take_back(progress.epoch);
                        let beyond = tombs.epoch().max(there.tombs.epoch()) + 1;
                        progress.epoch = tombs.next(self.0.clock.now()).max(beyond);
                        tombs.add(progress.epoch, ticket.tomb().clone());
                    }
                }
                tombs.merge(&there.tombs);
                (tombs.clone(), *tombs != before, unwritten)
            };
            if is_news {
                self.sweep(account).await;
            }
            let mark = if known == there.tombs && unwritten.is_empty() {
                there.mark
            } else if shared.write(account, &known, &there.tombs).await? {
                shared.put_mark(account, known.epoch()).await?
            } else {
                continue;
            };
            shared.state(account, |state| {
                state.seen = Some(mark);
                state.unwritten.retain(|open| !unwritten.iter().any(|done| Arc::ptr_eq(&open.0, &done.0)));
            });
            for ticket in unwritten {
                ticket.progress().is_written = true;
            }
            return Ok(());
        }
        Err(ConnectionError::NotReady("others write all the time".to_owned()))
    }

    /// Brings a purge of our own to all others; its epoch, and what has become of it.
    pub(super) async fn share(
        &self,
        shared: &PurgeReplicator,
        account: &Arc<str>,
        ticket: PurgeTicket,
    ) -> (u64, Result<PurgeDelivery, ConnectionError>) {
        let told = match self.write(shared, account, &ticket).await {
            Ok(()) => Ok(self.finish(shared, account, &ticket).await),
            Err(why) => {
                tokio::spawn(make_up_for(Arc::downgrade(&self.0), account.clone(), ticket.clone()));
                Err(why)
            }
        };
        (ticket.progress().epoch, told)
    }

    /// Tells the others of a purge that stands in Redis, and deletes there what was purged.
    async fn finish(&self, shared: &PurgeReplicator, account: &Arc<str>, ticket: &PurgeTicket) -> PurgeDelivery {
        let epoch = ticket.progress().epoch;
        let (confirmed, expected) = shared.tell(account, epoch, ticket.tomb()).await;
        let eraser = PurgeDeleter::new(shared, account, epoch, ticket.tomb());
        PurgeDelivery { confirmed, expected, erased: eraser.begin(pauses()).await }
    }

    /// Writes a purge of our own, unless that was done along with another.
    async fn write(
        &self,
        shared: &PurgeReplicator,
        account: &Arc<str>,
        ticket: &PurgeTicket,
    ) -> Result<(), ConnectionError> {
        let turn = shared.state(account, |state| state.turn.clone());
        let _turn = turn.lock().await;
        let is_written = ticket.progress().is_written;
        if is_written { Ok(()) } else { self.agree(shared, account).await }
    }
}

/// Does what could not be done as soon as it can be, if there is still somebody for whom.
async fn make_up_for(purges: Weak<Inner>, account: Arc<str>, ticket: PurgeTicket) {
    for pause in pauses() {
        sleep(pause).await;
        let Some(purges) = purges.upgrade().map(Purges) else { return };
        let Some(shared) = purges.0.shared.as_ref().filter(|_| !ticket.progress().is_needless) else { return };
        if purges.write(shared, &account, &ticket).await.is_ok() {
            let told = purges.finish(shared, &account, &ticket).await;
            telemetry::purge_replicated_late(&account, ticket.progress().epoch, told.confirmed);
            return;
        }
    }
}

/// Longer and longer, for ever.
fn pauses() -> impl Iterator<Item = Duration> + Send {
    PAUSES.into_iter().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]))
}
