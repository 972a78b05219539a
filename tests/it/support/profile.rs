//! Profiles of the simulator's data. The only file that names the simulator's types.

pub(crate) use koregate_simulator::{
    AcceptedScheme, ApiVariant, CallOutcome, Control, Credential, Fault, FaultPlan, ItemFilter, Profile, RateLimits,
    RecordedCall, RollingLimit, SelectOn, Simulator, SortOrder, StreamProfile, TokenRules,
};

use super::at;

/// The account of the simulator's default profile.
pub(crate) const ACCOUNT: &str = "664b33a620bd0892e0000001";
/// The stream of [`profile`].
pub(crate) const STREAM: &str = "st-test";
/// The account of [`other_credential`].
pub(crate) const OTHER_ACCOUNT: &str = "664b33a620bd0892e0000002";
/// A second stream, for tests that add one.
pub(crate) const OTHER_STREAM: &str = "st-other";

/// All faults of an upstream response.
pub(crate) const FAULTS: [Fault; 15] = [
    Fault::Status500,
    Fault::Html502,
    Fault::TooMany,
    Fault::TooManySilent,
    Fault::Unauthorized,
    Fault::Reset,
    Fault::Truncated,
    Fault::TruncatedJson,
    Fault::Garbage,
    Fault::Html200,
    Fault::EmptyBody,
    Fault::Slow,
    Fault::SlowBody,
    Fault::WrongCount,
    Fault::EmptyPage,
];

/// `days` UTC days of [`STREAM`], up to the end of the day of "now", with random numbers of items.
pub(crate) fn profile(items_per_day: u32, days: u32) -> Profile {
    Profile { streams: vec![StreamProfile::new(STREAM, items_per_day)], days, ..Profile::default() }
}

/// The same with exactly `items_per_day` items on each day.
pub(crate) fn exact_profile(items_per_day: u32, days: u32) -> Profile {
    Profile { streams: vec![exact_stream(STREAM, items_per_day)], days, ..Profile::default() }
}

/// A stream with exactly `items_per_day` items on each day.
pub(crate) fn exact_stream(id: impl Into<String>, items_per_day: u32) -> StreamProfile {
    StreamProfile { exact: true, ..StreamProfile::new(id, items_per_day) }
}

/// The credential of a second account.
pub(crate) fn other_credential() -> Credential {
    Credential {
        account_id: OTHER_ACCOUNT.to_owned(),
        client_id: "cs-2".to_owned(),
        client_secret: "another-secret-of-no-worth".to_owned(),
    }
}

/// A filter by one channel.
pub(crate) fn channel_filter(channel: &str) -> ItemFilter {
    ItemFilter { channels: vec![channel.to_owned()], ..ItemFilter::default() }
}

/// The items of [`STREAM`] on [`SETTLED_DAY`](super::SETTLED_DAY).
pub(crate) fn settled_day_items(control: &Control) -> Vec<Vec<u8>> {
    let items = control.expected_until(STREAM, at("2026-02-23"), at("2026-02-24"), false, &ItemFilter::default());
    items.into_iter().map(|(_, item)| item).collect()
}

/// A simulator on the system's clock, for a gateway process; its data ends with 2026-02-25 whenever the test runs.
pub(crate) async fn start_dated_simulator(profile: Profile) -> (Simulator, Control) {
    let profile = Profile { end: Some(at("2026-02-26").into()), ..profile };
    let simulator = Simulator::start(profile).await.unwrap();
    let control = simulator.control();
    (simulator, control)
}
