//! The fleet: machines, what happens to them, and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use koregate::cache::Purge;
use koregate::environment::Environment;
use koregate::replicas::ReplicaId;
use koregate::stack::Stack;
use koregate_simulator::{Control, FaultPlan};

use super::client::{Record, Records, WindowRequest};
use super::faults::Event;
use super::host::{Host, now};
use super::network::{MAX_LATENCY, Net, Node};
use super::oracle::Oracle;
use super::purges::PurgeRecords;
use super::redis_model::RedisModel;
use super::trace::Trace;
use super::{
    MAX_FIRST_SKEW, START, STREAMS, TICK, UPSTREAM_LATENCY, gateways, has_disk, settings, timestamp, upstream_profile,
};
use crate::support::{ACCOUNT, Clock, Interval, SortOrder};

/// A running gateway.
pub(super) struct Gateway {
    host: Host,
    pub(super) stack: Stack,
}

/// A gateway's machine, whether the gateway runs or not.
pub(super) struct GatewayMachine {
    pub(super) gateway: Option<Gateway>,
    /// When it is started again.
    restart_at: Duration,
    clock: Clock,
    uptime: Arc<AtomicU64>,
    /// Milliseconds by which the clock is ahead.
    pub(super) skew: i64,
    starts: u64,
    pub(super) started_at: Duration,
}

/// Everything.
pub(super) struct World {
    seed: u64,
    pub(super) now: Duration,
    pub(super) random: fastrand::Rng,
    pub(super) net: Net,
    pub(super) redis: RedisModel,
    redis_host: Host,
    upstream_host: Host,
    pub(super) control: Control,
    pub(super) oracle: Oracle,
    pub(super) machines: Vec<GatewayMachine>,
    pub(super) records: Records,
    pub(super) purges: PurgeRecords,
    pub(super) trace: Trace,
    /// What ends later, with its time.
    endings: Vec<(Duration, Ending)>,
    directory: tempfile::TempDir,
    /// The order of the upstream's rows.
    order: SortOrder,
}

enum Ending {
    NetworkIsQuick,
    RedisAcceptsWrites,
    RedisIsBack,
    RedisReplicates,
    UpstreamIsQuick,
    UpstreamIsStable,
    Remove,
    Correct,
    PurgeCorrected(usize, WindowRequest),
    AskAgain(usize, WindowRequest),
}

/// A corrected window is purged so long after its row was changed: later, so that what was read before is known to be
/// purged.
const CORRECTION_IS_PURGED: Duration = Duration::from_millis(20);

/// A corrected window is asked for again so long after it was purged.
const CORRECTION_IS_READ: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let net = Net::new(seed ^ 0x6e65_7477);
        let (redis_host, upstream_host) = (Host::start(Duration::ZERO), Host::start(Duration::ZERO));
        let order = [SortOrder::Ascending, SortOrder::Descending, SortOrder::Shuffled];
        let order = order[usize::try_from(seed / 6).unwrap() % order.len()];
        let redis = RedisModel::new();
        let control = Control::new(upstream_profile(order), || timestamp(START + now()).into()).unwrap();
        let connections = net.listen(Node::Redis);
        let server = redis.clone();
        redis_host.enter(|| tokio::spawn(server.serve(connections)));
        let mut connections = net.listen(Node::Upstream);
        let api = control.clone();
        upstream_host.enter(|| {
            tokio::spawn(async move {
                while let Some(stream) = connections.recv().await {
                    let api = api.clone();
                    tokio::spawn(async move {
                        if let Some(stream) = api.serve(stream).await {
                            stream.reset();
                        }
                    });
                }
            })
        });
        let oracle = Oracle::new(control.clone());
        let mut world = Self {
            seed,
            now: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
            net,
            redis,
            redis_host,
            upstream_host,
            control,
            oracle,
            machines: Vec::new(),
            records: Records::default(),
            purges: PurgeRecords::default(),
            trace: Trace::default(),
            endings: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            order,
        };
        for number in 0..gateways(seed) {
            let skew = world.random.i64(-MAX_FIRST_SKEW..MAX_FIRST_SKEW);
            let clock = Clock::manual(timestamp(START));
            let machine = GatewayMachine {
                gateway: None,
                restart_at: Duration::ZERO,
                clock,
                uptime: Arc::default(),
                skew,
                starts: 0,
                started_at: Duration::ZERO,
            };
            world.machines.push(machine);
            world.start_gateway(number);
        }
        world
    }

    fn start_gateway(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.starts += 1;
        machine.started_at = self.now;
        machine.set_clock(self.now);
        let identity = format!("{:08x}{:08x}", number + 1, machine.starts);
        let environment = Environment {
            clock: machine.clock.clone(),
            uptime: Some(machine.uptime.clone()),
            network: self.net.of_gateway(number),
            replica: ReplicaId::parse(identity.as_bytes()),
        };
        let path = |name| self.directory.path().join(format!("{name}-{number}"));
        let disk = has_disk(self.seed).then(|| path("cache"));
        if disk.is_none() {
            self.purges.forget(number, self.now);
        }
        let config =
            settings(&path("quota"), disk.as_deref()).load("http://127.0.0.1:80", &upstream_profile(self.order));
        let host = Host::start(self.now);
        let stack = host.enter(|| Stack::new(&config, &environment).unwrap());
        machine.gateway = Some(Gateway { host, stack });
    }

    fn kill_gateway(&mut self, number: usize, restart_after: Duration) {
        let Some(Gateway { host, stack }) = self.machines[number].gateway.take() else { return };
        drop(stack);
        host.kill(self.now);
        self.net.reset_connections(Node::Gateway(number));
        self.machines[number].restart_at = self.now + restart_after;
    }

    /// Whether a gateway runs and is not suspended.
    pub(super) fn is_running(&self, number: usize) -> bool {
        self.machines[number].gateway.as_ref().is_some_and(|gateway| !gateway.host.is_suspended(self.now))
    }

    /// Runs all machines up to `target`.
    pub(super) fn run_until(&mut self, target: Duration) {
        while self.now < target {
            self.now += TICK;
            self.end_faults();
            for number in 0..self.machines.len() {
                if self.machines[number].gateway.is_none() && self.machines[number].restart_at <= self.now {
                    self.trace.add(self.now, "start", &number);
                    self.start_gateway(number);
                }
                self.machines[number].set_clock(self.now);
            }
            self.redis_host.run_until(self.now);
            self.upstream_host.run_until(self.now);
            for machine in &self.machines {
                if let Some(gateway) = &machine.gateway {
                    gateway.host.run_until(self.now);
                }
            }
        }
    }

    /// Makes a request to a gateway, which must run.
    pub(super) fn ask(&mut self, number: usize, request: WindowRequest) -> Option<usize> {
        let present = self.wall_clock(number);
        let gateway = self.machines[number].gateway.as_ref()?;
        Some(gateway.host.enter(|| self.records.ask(number, &gateway.stack.service, request, present)))
    }

    pub(super) fn happen(&mut self, event: &Event) {
        self.trace.add(self.now, "event", &format!("{event:?}"));
        match event {
            Event::Cut(one, other, time) => self.net.cut(*one, *other, self.now + *time),
            Event::Suspend(node, time) => {
                let until = self.now + *time;
                match node {
                    Node::Redis => self.redis_host.suspend(until),
                    Node::Upstream => self.upstream_host.suspend(until),
                    Node::Gateway(number) => {
                        if let Some(gateway) = &mut self.machines[*number].gateway {
                            gateway.host.suspend(until);
                        }
                    }
                }
            }
            Event::Kill(number, time) => self.kill_gateway(*number, *time),
            Event::Leave(number, time) => self.leave(*number, *time),
            Event::ClockStep(number, skew) => self.machines[*number].skew = *skew,
            Event::SlowNetwork(max, time) => {
                self.net.set_max_latency(*max);
                self.end_after(*time, Ending::NetworkIsQuick);
            }
            Event::RedisForgets => self.redis.forget(),
            Event::RedisRefusesWrites(time) => {
                self.redis.refuse_writes(true);
                self.end_after(*time, Ending::RedisAcceptsWrites);
            }
            Event::RedisDown(time) => {
                self.net.close(Node::Redis);
                self.net.reset_connections(Node::Redis);
                self.end_after(*time, Ending::RedisIsBack);
            }
            Event::RedisFailsOver(lag) => {
                self.redis.replicate();
                self.end_after(*lag, Ending::RedisReplicates);
            }
            Event::UpstreamFails(fault, times) => {
                self.control.set_faults(FaultPlan::times(*fault, *times).delay(Duration::from_secs(8)));
            }
            Event::UpstreamIsUnstable(time) => {
                self.control.set_order(SortOrder::Unstable);
                self.end_after(*time, Ending::UpstreamIsStable);
            }
            Event::UpstreamIsSlow(latency, time) => {
                self.control.set_latency(*latency, Duration::from_millis(20));
                self.end_after(*time, Ending::UpstreamIsQuick);
            }
            Event::Insert(age) => {
                let stream = STREAMS[self.random.usize(0..STREAMS.len())];
                // At a whole second, so that windows can end exactly there.
                let at = Duration::from_secs((START + self.now).saturating_sub(*age).as_secs());
                self.oracle.insert(stream, at, self.now);
            }
            Event::Touch => self.change_row(Oracle::touch),
            Event::Remove => self.end_after(Duration::ZERO, Ending::Remove),
            Event::Purge(number, age, length) => {
                let stream = STREAMS[self.random.usize(0..STREAMS.len())];
                let from = (START + self.now).saturating_sub(*age);
                self.purge(*number, stream, from, from + *length);
            }
            Event::Correct => self.end_after(Duration::ZERO, Ending::Correct),
        }
    }

    /// Changes a row of a window that is being answered, purges the window, and asks for it again. If none is, this
    /// waits for one.
    fn correct(&mut self) {
        let open = self.records.with(|records| {
            let is_open = |record: &&Record| {
                record.ended.is_none() && self.machines[record.gateway].started_at <= record.asked_at
            };
            let open = records.iter().filter(is_open).map(|record| (record.gateway, record.request.clone()));
            open.collect::<Vec<_>>()
        });
        if open.is_empty() {
            return self.end_after(Duration::from_millis(50), Ending::Correct);
        }
        let (gateway, request) = open[self.random.usize(0..open.len())].clone();
        let is_inside = |at: &Duration| (request.from..request.to).contains(at);
        let rows: Vec<_> = self.oracle.present(request.stream).into_iter().filter(|(_, at)| is_inside(at)).collect();
        if rows.is_empty() {
            return;
        }
        let (id, _) = &rows[self.random.usize(0..rows.len())];
        self.oracle.touch(request.stream, id, self.now);
        self.end_after(CORRECTION_IS_PURGED, Ending::PurgeCorrected(gateway, request.clone()));
        self.end_after(CORRECTION_IS_READ, Ending::AskAgain(gateway, request));
    }

    fn change_row(&mut self, change: impl FnOnce(&mut Oracle, &'static str, &str, Duration)) {
        let stream = STREAMS[self.random.usize(0..STREAMS.len())];
        let rows = self.oracle.present(stream);
        let (id, _) = &rows[self.random.usize(0..rows.len())];
        change(&mut self.oracle, stream, id, self.now);
    }

    fn purge(&mut self, number: usize, stream: &'static str, from: Duration, to: Duration) {
        let Some(gateway) = &self.machines[number].gateway else { return };
        let interval = Interval::new(timestamp(from), timestamp(to));
        let purge = Purge { account: ACCOUNT.into(), stream: Some(stream.into()), interval, ids: None };
        let purges = gateway.stack.handles.cache.purges.clone();
        let (records, others) = (self.purges.clone(), self.machines.len() - 1);
        gateway.host.enter(|| {
            let record = records.begin(number, stream, from, to);
            tokio::spawn(async move { records.end(record, &purges.purge(purge).await, others) });
        });
    }

    /// Ends a gateway as a signal does: it returns its leases.
    fn leave(&mut self, number: usize, restart_after: Duration) {
        let Some(gateway) = &self.machines[number].gateway else { return };
        let quotas = gateway.stack.handles.quotas.clone();
        gateway.host.enter(|| tokio::spawn(async move { quotas.leave().await }));
        // The process ends when the leases are returned, for which it waits a moment only.
        self.run_until(self.now + Duration::from_millis(300));
        self.kill_gateway(number, restart_after);
    }

    fn end_after(&mut self, time: Duration, ending: Ending) {
        self.endings.push((self.now + time, ending));
    }

    fn end_faults(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.endings.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, ending) in due {
            match ending {
                Ending::NetworkIsQuick => self.net.set_max_latency(MAX_LATENCY),
                Ending::RedisAcceptsWrites => self.redis.refuse_writes(false),
                Ending::RedisReplicates => {
                    self.redis.fail_over();
                    self.net.reset_connections(Node::Redis);
                }
                Ending::RedisIsBack => {
                    let connections = self.net.listen(Node::Redis);
                    let server = self.redis.clone();
                    self.redis_host.enter(|| tokio::spawn(server.serve(connections)));
                }
                Ending::UpstreamIsQuick => self.control.set_latency(UPSTREAM_LATENCY.fixed, UPSTREAM_LATENCY.jitter),
                Ending::UpstreamIsStable => self.control.set_order(self.order),
                // Rows that are removed while a window is paged are a documented limit.
                Ending::Remove if self.is_a_request_open() => {
                    self.end_after(Duration::from_millis(500), Ending::Remove);
                }
                Ending::Remove => self.change_row(Oracle::remove),
                Ending::Correct => self.correct(),
                Ending::PurgeCorrected(gateway, request) => {
                    self.purge(gateway, request.stream, request.from, request.to);
                }
                Ending::AskAgain(gateway, request) => {
                    if self.is_running(gateway) {
                        self.ask(gateway, request);
                    }
                }
            }
        }
    }

    fn is_a_request_open(&self) -> bool {
        self.records.with(|records| records.iter().any(|record| record.ended.is_none()))
    }

    /// A gateway's time of day, since the Unix epoch.
    fn wall_clock(&self, number: usize) -> Duration {
        shifted(START + self.now, self.machines[number].skew)
    }
}

fn shifted(at: Duration, milliseconds: i64) -> Duration {
    let by = Duration::from_millis(milliseconds.unsigned_abs());
    if milliseconds < 0 { at.saturating_sub(by) } else { at + by }
}

impl GatewayMachine {
    fn set_clock(&self, now: Duration) {
        self.clock.set(timestamp(shifted(START + now, self.skew)));
        self.uptime.store(u64::try_from(now.as_millis()).unwrap() + 1_000_000, Ordering::SeqCst);
    }
}
