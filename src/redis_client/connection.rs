//! One connection to Redis, and what becomes of it when Redis does not do as it should.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, Shared, ready};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::breaker::{Breaker, PAUSE};
use super::connector::{Connector, RawConnection};
use super::{Command, ConnectionError, Health, Reply};
use crate::telemetry;

/// A connection that is there, is being made, or could not be made.
type Connecting = Shared<BoxFuture<'static, Result<RawConnection, ConnectionError>>>;

/// One connection with a breaker of its own: what delays big values must not cut off the small ones.
///
/// It connects when it is asked first, and again when the connection is found to be broken or silent. Connecting goes
/// on by itself: a call waits for it no longer than it may, and the next one finds it further. Nothing is ever tried
/// again here: whoever asks knows whether that would do harm.
pub(super) struct Connection {
    name: &'static str,
    wire: Connector,
    timeout: Duration,
    /// What a probe asks for. A key, for a Cluster that is down still answers what needs none.
    probe: Command,
    /// Held to look and to note, never while anything is awaited.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    breaker: Breaker,
    /// Why the last call failed.
    why: Option<ConnectionError>,
    connecting: Option<Connecting>,
    /// Which connection that is, so that the failure of an older one is not taken for its own.
    number: u64,
    /// When another was last looked for while it was still there.
    renewed: Option<Instant>,
    /// What was last found about Redis's memory, so that it is told once.
    told: Option<&'static str>,
}

impl Connection {
    pub(super) fn new(name: &'static str, wire: Connector, timeout: Duration, prefix: &str) -> Arc<Self> {
        let probe = Command::new("EXISTS").arg(Bytes::from(format!("{prefix}:probe")));
        Arc::new(Self { name, wire, timeout, probe, state: Mutex::default() })
    }

    /// When a call that begins now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Runs all commands in one go; a reply for each, in their order.
    pub(super) async fn run(
        self: &Arc<Self>,
        commands: &[Command],
        deadline: Instant,
    ) -> Result<Vec<Reply>, ConnectionError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        if !self.state().breaker.is_closed() {
            telemetry::redis_call(ConnectionError::Open.result(), None);
            return Err(ConnectionError::Open);
        }
        let begun = Instant::now();
        let result = self.attempt(commands, deadline).await;
        self.settle(&result);
        let told = match &result {
            Ok(replies) if replies.iter().any(|reply| matches!(reply, Reply::Error(_))) => "error",
            Ok(_) => "ok",
            Err(error) => error.result(),
        };
        telemetry::redis_call(told, Some(begun.elapsed()));
        result
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state();
        match (state.breaker.down_since(), &state.why) {
            (Some(since), Some(why)) => Health::Down { since, why: why.clone() },
            _ => Health::Up,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this lock")
    }

    /// One attempt, past the breaker.
    async fn attempt(self: &Arc<Self>, commands: &[Command], deadline: Instant) -> Result<Vec<Reply>, ConnectionError> {
        let (number, connecting) = self.connecting();
        let connection = match timeout_at(deadline, connecting).await {
            Err(_) => return Err(ConnectionError::TimedOut),
            Ok(Err(error)) => {
                self.forget(number);
                return Err(error);
            }
            Ok(Ok(connection)) => connection,
        };
        let replies = match connection.run(commands, deadline).await {
            Ok(replies) => replies,
            Err(error) if connection.mends_itself() => {
                self.renew(number);
                return Err(error);
            }
            Err(error) => {
                self.forget(number);
                return Err(error);
            }
        };
        let all_not_ready = replies.iter().map(not_ready).collect::<Option<Vec<_>>>();
        // After a failover, the connection may still lead to what is a replica now, or the map to what is gone.
        let astray = |reply: &Reply| reply.is_error("READONLY") || reply.is_error("LINK");
        if all_not_ready.is_some() || replies.iter().any(astray) {
            self.renew(number);
        }
        match all_not_ready {
            Some(codes) => Err(ConnectionError::NotReady(codes[0].to_owned())),
            None => Ok(replies),
        }
    }

    /// The connection that is there or under way, or else a new one.
    fn connecting(self: &Arc<Self>) -> (u64, Connecting) {
        let mut state = self.state();
        if let Some(connecting) = &state.connecting {
            return (state.number, connecting.clone());
        }
        let connecting = self.connect().shared();
        state.number += 1;
        state.connecting = Some(connecting.clone());
        (state.number, connecting)
    }

    /// Connects in a task of its own, which nobody who gives up can stop.
    fn connect(self: &Arc<Self>) -> BoxFuture<'static, Result<RawConnection, ConnectionError>> {
        let lane = self.clone();
        let task = tokio::spawn(async move {
            let connection = lane.wire.connect().await?;
            tokio::spawn(look_at_memory(Arc::downgrade(&lane), connection.clone()));
            Ok(connection)
        });
        task.map(|ended| ended.unwrap_or_else(|_| Err(ConnectionError::Unreachable("connecting has ended".to_owned()))))
            .boxed()
    }

    /// Lets go of a connection; calls under way on it go on.
    fn forget(&self, number: u64) {
        let mut state = self.state();
        if state.number == number {
            state.connecting = None;
        }
    }

    /// Puts a new connection in the place of one that still answers, or does in part: once there is one, and not too
    /// often.
    fn renew(self: &Arc<Self>, number: u64) {
        let now = Instant::now();
        let mut state = self.state();
        if state.number != number || state.renewed.is_some_and(|renewed| now < renewed + PAUSE) {
            return;
        }
        state.renewed = Some(now);
        drop(state);
        let (lane, connecting) = (Arc::downgrade(self), self.connect());
        tokio::spawn(async move {
            let Ok(connection) = connecting.await else { return };
            let Some(lane) = lane.upgrade() else { return };
            let mut state = lane.state();
            if state.number == number {
                state.number += 1;
                state.connecting = Some(ready(Ok(connection)).boxed().shared());
            }
        });
    }

    /// Notes how a call or a probe ended.
    fn settle(self: &Arc<Self>, result: &Result<Vec<Reply>, ConnectionError>) {
        let mut state = self.state();
        match result {
            Ok(_) => {
                state.why = None;
                let again = state.breaker.succeeded();
                drop(state);
                telemetry::redis_up(self.name, again);
            }
            Err(error) => {
                state.why = Some(error.clone());
                if state.breaker.failed(Instant::now()) {
                    drop(state);
                    telemetry::redis_down(self.name, error);
                    tokio::spawn(probe(Arc::downgrade(self)));
                }
            }
        }
    }
}

/// The code of an error that every other command would get too, as if Redis were not there.
fn not_ready(reply: &Reply) -> Option<&str> {
    let Reply::Error(text) = reply else { return None };
    let code = text.split(' ').next()?;
    ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"].contains(&code).then_some(code)
}

/// Asks again and again, until something has answered.
async fn probe(lane: Weak<Connection>) {
    loop {
        let Some(at) = lane.upgrade().and_then(|lane| lane.state().breaker.probe_at(Instant::now())) else { return };
        sleep_until(at).await;
        let Some(lane) = lane.upgrade() else { return };
        // Another task may probe too, if this one has not noticed yet that the breaker was closed in between.
        if lane.state().breaker.take_probe(Instant::now()) {
            let result = lane.attempt(std::slice::from_ref(&lane.probe), lane.deadline()).await;
            lane.settle(&result);
        }
    }
}

/// Warns if Redis is set to grow without end, or to refuse writes.
async fn look_at_memory(lane: Weak<Connection>, connection: RawConnection) {
    let Some(deadline) = lane.upgrade().map(|lane| lane.deadline()) else { return };
    // Where it is forbidden to ask, nothing is known, and nothing said.
    let Some((limit, policy)) = connection.memory(deadline).await else { return };
    let told = match (limit, policy.as_str()) {
        (0, _) => Some("no maxmemory is set, so it grows until the machine has none left: set maxmemory"),
        (_, "noeviction") => {
            Some("maxmemory-policy is noeviction, so it refuses writes once it is full: set it to volatile-lru")
        }
        _ => None,
    };
    let Some(lane) = lane.upgrade() else { return };
    let news = std::mem::replace(&mut lane.state().told, told) != told;
    if let (true, Some(told)) = (news, told) {
        telemetry::redis_memory(told);
    }
}
