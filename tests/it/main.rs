//! The whole gateway against the simulator, both in this process, over real sockets.
//!
//! One binary for all of it, so that it links once. Each test starts a simulator and a gateway of its own on free
//! ports; both share one clock, which most tests set by hand, so that "now" is a fact and not a race. What is true, the
//! simulator says ([`koregate::simulator::Control::expected`]); what was spent, it counts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod callers;
mod faults;
mod imports;
mod operations;
mod process;
mod quota;
mod secrets;
mod support;
mod tap;
mod tls;

/// The least that must work, so that a failure elsewhere is not the harness's.
#[tokio::test]
async fn a_day_comes_through_whole() {
    let rig = support::Rig::start(support::exact_profile(120, 3), &support::Settings::default()).await;
    let page = rig.get("from=2026-02-24&to=2026-02-24").await.page();
    let truth = rig.truth(support::at("2026-02-24"), support::at("2026-02-25"));
    assert!(!page.has_more && page.items().eq(truth.iter().map(Vec::as_slice)));
    assert_eq!(rig.calls(), 2);
}
