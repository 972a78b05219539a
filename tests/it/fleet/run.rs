//! One run: a fleet, its faults, its callers, and the checks.

use std::fmt::Write as _;
use std::time::Duration;

use koregate::blocking::run_in_place;
use koregate::quota::Role;
use koregate::telemetry::init_metrics;
use xxhash_rust::xxh3::xxh3_64;

use super::client::{Outcome, Record, WindowRequest};
use super::faults::{Event, FaultClass, documented_overrun, draw};
use super::oracle::{AnsweredWindow, Line};
use super::randomness;
use super::world::World;
use super::{FAULTS_END, GATEWAYS, LIMITS, MAX_AGE, MAX_FIRST_SKEW, SETTLE_AFTER, START, STREAMS, gateways};
use crate::support::{ACCOUNT, Metrics};

/// Time between two requests of the callers together, at most.
const REQUEST_INTERVAL: Duration = Duration::from_millis(600);
/// Time after the last fault without requests, in which the longest limit is free again.
const REST: Duration = Duration::from_secs(10);
/// Within this, everything is served again after the rest. Rows in no order of time cost many calls, which have to wait
/// for the quota.
const RECOVERY: Duration = Duration::from_secs(30);
/// The longest that any request may take: it has many pages, each of which may wait for the quota and be repeated.
const MAX_DURATION: Duration = Duration::from_mins(1);

/// How often a run has reached states that are rare. Runs together must reach all, so that what they prove is not
/// empty.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    /// Gateways that lost Redis, and that found it again.
    degraded: u64,
    recovered: u64,
    /// Leaders that lost the lease and were not killed.
    deposed: u64,
    /// Runs whose rows moved twice, so that their interval was halved.
    torn: u64,
    /// Budgets that refusals of the upstream have reduced.
    reduced: u64,
    /// Rows in answers, and answers that are none.
    rows: u64,
    problems: u64,
}

/// What came of a run.
#[derive(Debug)]
pub(super) struct Report {
    trace: String,
    /// Calls beyond each limit in its busiest window.
    overruns: [u32; 2],
    violations: Vec<String>,
    reached: Reached,
}

impl Report {
    /// The lines of the report, each of which begins with its kind.
    pub(super) fn render(&self) -> String {
        let Self { trace, overruns, violations, reached } = self;
        let mut text = String::new();
        for line in trace.lines() {
            writeln!(text, "trace {line}").unwrap();
        }
        for violation in violations {
            writeln!(text, "violation {violation}").unwrap();
        }
        let Reached { degraded, recovered, deposed, torn, reduced, rows, problems } = reached;
        for (name, number) in [
            ("degraded", degraded),
            ("recovered", recovered),
            ("deposed", deposed),
            ("torn", torn),
            ("reduced", reduced),
            ("rows", rows),
            ("problems", problems),
        ] {
            writeln!(text, "reached {name} {number}").unwrap();
        }
        writeln!(text, "result {:016x} {overruns:?}", xxh3_64(trace.as_bytes())).unwrap();
        text
    }
}

/// Runs one seed.
pub(super) fn run(seed: u64) -> Report {
    let class = if seed.is_multiple_of(2) { FaultClass::Exact } else { FaultClass::All };
    randomness::follow(seed);
    run_in_place();
    init_metrics();
    let mut world = World::new(seed);
    let events = draw(&mut fastrand::Rng::with_seed(seed ^ 0x6576), class, gateways(seed));
    let mut run = Run {
        reached: Reached::default(),
        observed: [ObservedGateway::default(); GATEWAYS],
        skews: (-MAX_FIRST_SKEW, MAX_FIRST_SKEW),
        violations: Vec::new(),
    };
    run.storm(&mut world, &events);
    run.recover(&mut world);
    run.check(&mut world);
    run.violations
        .extend(world.redis.unknown_commands().into_iter().map(|command| format!("the model lacks {command}")));
    let overruns = LIMITS
        .map(|(requests, per)| u32::try_from(world.control.max_in_any_window(per)).unwrap().saturating_sub(requests));
    for ((requests, per), overrun) in LIMITS.into_iter().zip(overruns) {
        let allowed = documented_overrun(&events, requests);
        if overrun > allowed {
            run.violations.push(format!("{overrun} calls over {requests} in {per:?}, where {allowed} are documented"));
        }
    }
    run.reached.torn = Metrics::new(init_metrics().render()).count("koregate_runs_torn_total", &[]);
    for call in world.control.calls() {
        let at = Duration::try_from(call.at.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap().saturating_sub(START);
        world.trace.add(at, "call", &(call.stream, call.query, call.outcome));
    }
    for (at, from, to, bytes) in world.net.sent() {
        world.trace.add(at, "sent", &(from, to, bytes));
    }
    Report { trace: world.trace.text().to_owned(), overruns, violations: run.violations, reached: run.reached }
}

/// What was last seen of a gateway.
#[derive(Clone, Copy, Default)]
struct ObservedGateway {
    is_leader: bool,
    is_degraded: bool,
    is_reduced: bool,
}

struct Run {
    reached: Reached,
    observed: [ObservedGateway; GATEWAYS],
    /// The least and the greatest lead of a clock, in milliseconds.
    skews: (i64, i64),
    violations: Vec<String>,
}

impl Run {
    /// Faults and requests, until the faults end.
    fn storm(&mut self, world: &mut World, events: &[(Duration, Event)]) {
        let mut events = events.iter().peekable();
        while world.now < FAULTS_END {
            let wait =
                Duration::from_millis(world.random.u64(10..u64::try_from(REQUEST_INTERVAL.as_millis()).unwrap()));
            let until = world.now + wait;
            while let Some((at, event)) = events.next_if(|(at, _)| *at <= until) {
                world.run_until(*at);
                if let Event::ClockStep(_, skew) = event {
                    self.skews = (self.skews.0.min(*skew), self.skews.1.max(*skew));
                }
                world.happen(event);
            }
            world.run_until(until);
            self.observe(world);
            let gateway = world.random.usize(0..world.machines.len());
            let request = draw_request(world);
            if world.is_running(gateway) {
                world.ask(gateway, request);
            }
        }
    }

    /// All faults are over: after a rest, one gateway leads, and each answers.
    fn recover(&mut self, world: &mut World) {
        world.control.clear_faults();
        let end = world.now + REST;
        while world.now < end {
            world.run_until(world.now + Duration::from_millis(250));
            self.observe(world);
        }
        self.check_roles(world);
        self.check_service(world);
    }

    fn check_roles(&mut self, world: &World) {
        let roles: Vec<_> = (0..world.machines.len()).filter_map(|number| role(world, number)).collect();
        let leaders = roles.iter().filter(|role| **role == Role::Leader).count();
        let followers = roles.iter().filter(|role| matches!(role, Role::Follower(_))).count();
        if (leaders, followers) != (1, world.machines.len() - 1) {
            self.violations.push(format!("after all faults, the roles are {roles:?}"));
        }
    }

    /// Asks each gateway for open windows until it has served them.
    fn check_service(&mut self, world: &mut World) {
        let present = START + world.now;
        let window = |stream| {
            let from = present.saturating_sub(Duration::from_hours(9));
            WindowRequest { stream, from, to: present, is_background: false }
        };
        let targets = (0..world.machines.len()).flat_map(|gateway| STREAMS.map(|stream| (gateway, stream)));
        let mut open: Vec<_> =
            targets.map(|(gateway, stream)| (gateway, stream, world.ask(gateway, window(stream)))).collect();
        let end = world.now + RECOVERY;
        while !open.is_empty() && world.now < end {
            world.run_until(world.now + Duration::from_millis(250));
            // A refusal is asked again, as clients do.
            for (gateway, stream, number) in std::mem::take(&mut open) {
                let is_served = number.map(|number| world.records.with(|records| records[number].is_served()));
                match is_served {
                    Some(Some(true)) => {}
                    Some(None) => open.push((gateway, stream, number)),
                    Some(Some(false)) | None => open.push((gateway, stream, world.ask(gateway, window(stream)))),
                }
            }
        }
        for (gateway, stream, _) in open {
            self.violations.push(format!("gateway {gateway} does not serve {stream} after all faults"));
        }
    }

    /// Notes rare states.
    fn observe(&mut self, world: &World) {
        for number in 0..world.machines.len() {
            let before = std::mem::take(&mut self.observed[number]);
            let Some(gateway) = &world.machines[number].gateway else { continue };
            let scheduler = gateway.stack.handles.quotas.scheduler(ACCOUNT).unwrap();
            let is_degraded = scheduler.quota_share().is_some();
            let is_leader = *scheduler.role().borrow() == Role::Leader && !is_degraded;
            let is_reduced = scheduler.limit_usage().iter().any(|usage| usage.budget < usage.limit.requests);
            self.reached.degraded += u64::from(is_degraded && !before.is_degraded);
            self.reached.recovered += u64::from(!is_degraded && before.is_degraded);
            self.reached.deposed += u64::from(!is_leader && before.is_leader);
            self.reached.reduced += u64::from(is_reduced && is_leader && !before.is_reduced);
            self.observed[number] = ObservedGateway { is_leader, is_degraded, is_reduced };
        }
    }

    /// Checks every answer, and that every request ended in time.
    fn check(&mut self, world: &mut World) {
        let slack = Duration::from_millis((self.skews.1 - self.skews.0).unsigned_abs());
        let records = world.records.clone();
        records.with(|records| {
            for (number, record) in records.iter().enumerate() {
                world.trace.add(record.asked_at, "request", &summary(record));
                let Some((ended_at, outcome)) = &record.ended else {
                    if record.asked_at + MAX_DURATION < world.now && is_still_there(world, record) {
                        self.violations.push(format!("request {number} hangs: {:?}", summary(record)));
                    }
                    continue;
                };
                match outcome {
                    Outcome::Rows(rows) => {
                        self.reached.rows += rows.len() as u64;
                        if let Err(why) = Self::check_rows(world, record, *ended_at, rows, slack) {
                            self.violations.push(format!("request {number}: {why}: {:?}", summary(record)));
                        }
                    }
                    Outcome::Problem(500, _) => {
                        self.violations.push(format!("request {number}: {:?}", summary(record)));
                    }
                    Outcome::Problem(..) | Outcome::BrokenOff => self.reached.problems += 1,
                }
            }
        });
    }

    fn check_rows(
        world: &World,
        record: &Record,
        answered_at: Duration,
        rows: &[Line],
        slack: Duration,
    ) -> Result<(), String> {
        let WindowRequest { stream, from, to, .. } = record.request;
        let complete_to = to.min(record.present);
        let answer = AnsweredWindow { stream, from, to, complete_to, answered_at, rows: rows.to_vec() };
        world.oracle.check(&answer, |row| {
            let purged = world.purges.oldest_fetch(record.gateway, stream, row, record.asked_at);
            // By any clock of the run. What may be settled may be of any age.
            let is_open = row + SETTLE_AFTER > START + record.asked_at + slack;
            let fresh = if is_open { record.asked_at.saturating_sub(MAX_AGE + slack) } else { Duration::ZERO };
            purged.max(fresh)
        })
    }
}

fn role(world: &World, number: usize) -> Option<Role> {
    let gateway = world.machines[number].gateway.as_ref()?;
    let role = gateway.stack.handles.quotas.scheduler(ACCOUNT)?.role();
    let role = role.borrow().clone();
    Some(role)
}

/// Whether the gateway that was asked has not been killed since.
fn is_still_there(world: &World, record: &Record) -> bool {
    world.machines[record.gateway].started_at <= record.asked_at
}

fn draw_request(world: &mut World) -> WindowRequest {
    let stream = STREAMS[world.random.usize(0..STREAMS.len())];
    let present = START + world.now;
    let age = Duration::from_secs(world.random.u64(60..66 * 3_600));
    let most = if world.random.u32(0..8) == 0 { 30 } else { 5 };
    let length = Duration::from_secs(world.random.u64(1..most * 3_600));
    let from = Duration::from_secs(present.saturating_sub(age).as_secs());
    let to = Duration::from_secs((from + length).min(present).as_secs());
    // Some windows end exactly at a row.
    let ends: Vec<_> =
        world.oracle.present(stream).into_iter().map(|(_, at)| at).filter(|at| at.subsec_nanos() == 0).collect();
    if !ends.is_empty() && world.random.u32(0..5) == 0 {
        let to = ends[world.random.usize(0..ends.len())];
        return WindowRequest { stream, from: to.saturating_sub(length), to, is_background: false };
    }
    // Some windows are asked for again and again.
    let is_common = world.random.bool();
    let (from, to) = if is_common { (floor(from), floor(from) + Duration::from_hours(most)) } else { (from, to) };
    WindowRequest {
        stream,
        from,
        to: to.min(Duration::from_secs(present.as_secs())),
        is_background: world.random.u32(0..6) == 0,
    }
}

fn floor(at: Duration) -> Duration {
    Duration::from_secs(at.as_secs() / 14_400 * 14_400)
}

fn summary(record: &Record) -> impl std::fmt::Debug {
    let WindowRequest { stream, from, to, is_background } = &record.request;
    let ended = record.ended.as_ref().map(|(at, outcome)| {
        let text = match outcome {
            Outcome::Rows(rows) => format!("{} rows", rows.len()),
            Outcome::Problem(status, kind) => format!("{status} {kind}"),
            Outcome::BrokenOff => "broken off".to_owned(),
        };
        (*at, text, outcome.hash())
    });
    (
        record.gateway,
        *stream,
        START.saturating_sub(*from),
        START.saturating_sub(*to),
        *is_background,
        record.asked_at,
        ended,
    )
}
