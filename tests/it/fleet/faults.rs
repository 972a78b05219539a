//! What goes wrong in a run, drawn from its seed.

use std::time::Duration;

use koregate_simulator::Fault as UpstreamFault;

use super::FAULTS_END;
use super::network::Node;

/// Something that happens to the fleet.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The link between two machines is cut for so long.
    Cut(Node, Node, Duration),
    /// A machine is suspended for so long.
    Suspend(Node, Duration),
    /// A gateway is killed, and started again after so long.
    Kill(usize, Duration),
    /// A gateway ends in an orderly way, and is started again after so long.
    Leave(usize, Duration),
    /// A gateway's time of day is set, by so many milliseconds from the true one.
    ClockStep(usize, i64),
    /// The latency of all links is up to so many milliseconds for so long.
    SlowNetwork(u64, Duration),
    /// Redis loses all data.
    RedisForgets,
    /// Redis refuses writes for so long.
    RedisRefusesWrites(Duration),
    /// Redis is not there for so long; its data stays.
    RedisDown(Duration),
    /// The master of Redis dies, and its replica, which lacks the writes of so long before, takes over.
    RedisFailsOver(Duration),
    /// The next calls fail in this way.
    UpstreamFails(UpstreamFault, u64),
    /// The order of rows changes from call to call for so long.
    UpstreamIsUnstable(Duration),
    /// Calls take so long for so long.
    UpstreamIsSlow(Duration, Duration),
    /// A row is inserted so long before the present.
    Insert(Duration),
    /// A row is changed.
    Touch,
    /// A row is removed, once no request is under way.
    Remove,
    /// A gateway is told to purge a stream from so long before the present, for so long.
    Purge(usize, Duration, Duration),
    /// A row of a window that is being answered is changed; then the window is purged, and asked for again.
    Correct,
}

/// The kinds of faults that a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultClass {
    /// Only those under which the quota is exact.
    Exact,
    /// All, in any combination.
    All,
}

const UPSTREAM_FAULTS: [UpstreamFault; 10] = [
    UpstreamFault::TooMany,
    UpstreamFault::Status500,
    UpstreamFault::Html502,
    UpstreamFault::Reset,
    UpstreamFault::Truncated,
    UpstreamFault::TruncatedJson,
    UpstreamFault::Garbage,
    UpstreamFault::EmptyBody,
    UpstreamFault::Slow,
    UpstreamFault::Unauthorized,
];

/// The events of a run with their times since it began, in their order.
pub(super) fn draw(random: &mut fastrand::Rng, class: FaultClass, gateways: usize) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    // Runs are calm or stormy.
    let faults = random.usize(2..13);
    for _ in 0..faults {
        let at = Duration::from_millis(random.u64(2_000..u64::try_from(FAULTS_END.as_millis()).unwrap() - 4_000));
        events.push((at, draw_fault(random, class, gateways)));
    }
    for _ in 0..random.usize(0..15) {
        let at = Duration::from_millis(random.u64(0..u64::try_from(FAULTS_END.as_millis()).unwrap()));
        events.push((at, draw_change(random, gateways)));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

fn millis(random: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..to))
}

fn draw_fault(random: &mut fastrand::Rng, class: FaultClass, gateways: usize) -> Event {
    let gateway = random.usize(0..gateways);
    let node = Node::Gateway(gateway);
    // The first ones keep the quota exact.
    match random.u32(0..if class == FaultClass::Exact { 12 } else { 17 }) {
        0 => Event::Cut(node, Node::Upstream, millis(random, 100, 5_000)),
        1 => Event::Suspend(node, millis(random, 50, 4_400)),
        2 | 3 => Event::Kill(gateway, millis(random, 100, 4_000)),
        4 => Event::Leave(gateway, millis(random, 100, 4_000)),
        5 => Event::ClockStep(gateway, random.i64(-20_000..20_000)),
        6 => Event::SlowNetwork(random.u64(5..60), millis(random, 500, 5_000)),
        7 => Event::UpstreamFails(UPSTREAM_FAULTS[random.usize(0..UPSTREAM_FAULTS.len())], random.u64(1..4)),
        8 => Event::UpstreamIsSlow(millis(random, 50, 4_000), millis(random, 500, 4_400)),
        9 => Event::Suspend(Node::Upstream, millis(random, 100, 4_400)),
        10 => Event::RedisRefusesWrites(millis(random, 100, 600)),
        11 => Event::UpstreamIsUnstable(millis(random, 100, 4_000)),
        12 => Event::Cut(node, Node::Redis, millis(random, 100, 5_000)),
        13 => Event::RedisForgets,
        14 => Event::RedisDown(millis(random, 100, 5_000)),
        15 => Event::RedisFailsOver(millis(random, 10, 500)),
        _ => Event::Suspend(Node::Redis, millis(random, 100, 4_400)),
    }
}

fn draw_change(random: &mut fastrand::Rng, gateways: usize) -> Event {
    let hours = |random: &mut fastrand::Rng, most: u64| Duration::from_secs(random.u64(1..most * 3_600));
    match random.u32(0..12) {
        0..=3 => Event::Insert(hours(random, 12)),
        4..=6 => Event::Touch,
        7 => Event::Remove,
        8 | 9 => Event::Correct,
        _ => Event::Purge(random.usize(0..gateways), hours(random, 60), hours(random, 30)),
    }
}

/// How many calls more than `limit` the documents allow under these events (`docs/limits.md`, "Replicas").
pub(super) fn documented_overrun(events: &[(Duration, Event)], limit: u32) -> u32 {
    let count = |is_counted: fn(&Event) -> bool| {
        u32::try_from(events.iter().filter(|(_, event)| is_counted(event)).count()).unwrap()
    };
    let cut_off = count(|event| matches!(event, Event::Cut(_, Node::Redis, _)));
    let restarted = count(|event| matches!(event, Event::Kill(..) | Event::Leave(..)));
    let suspended = count(|event| matches!(event, Event::Suspend(Node::Gateway(_), _)));
    let away = count(|event| matches!(event, Event::RedisDown(_) | Event::Suspend(Node::Redis, _)));
    let emptied = count(|event| matches!(event, Event::RedisForgets | Event::RedisFailsOver(_)));
    if emptied > 0 && cut_off + restarted + suspended + away > 0 {
        return limit;
    }
    // A replica that is cut off, or starts during an outage, uses its share besides: at most half of the limit.
    let shares = cut_off + if away > 0 { restarted } else { 0 };
    limit.min(shares * limit.div_ceil(2))
}
