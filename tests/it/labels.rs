//! What has a label in the metrics: nobody who may ask for any stream makes them grow by inventing names.

use koregate_simulator::StreamProfile;

use crate::support::{Ask, Rig, STREAM, Settings, exact_profile};

const DAY: &str = "from=2026-02-23&to=2026-02-23";
const FUTURE: &str = "from=2027-02-23&to=2027-02-23";

/// Three streams with items, of which none is configured by its name if `settings` does not.
async fn rig(settings: &Settings) -> Rig {
    let mut profile = exact_profile(50, 4);
    profile.streams.extend(["st-2", "st-3"].map(|id| StreamProfile { exact: true, ..StreamProfile::new(id, 50) }));
    Rig::start(profile, settings).await
}

/// The streams that have labels, each once.
async fn labels(rig: &Rig) -> Vec<String> {
    let metrics = rig.door.admin("/metrics").await;
    let of_line = |line: &str| Some(line.split_once("stream=\"")?.1.split_once('"')?.0.to_owned());
    let mut labels: Vec<String> = metrics.text().lines().filter_map(of_line).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

#[tokio::test]
async fn invented_streams_have_no_labels() {
    let rig = rig(&Settings::default()).await;
    for number in 0..40 {
        let stream = format!("invented-{number}");
        for ask in [Ask::get(DAY).header("prefer", "dry-run"), Ask::get(FUTURE)] {
            assert_eq!(rig.ask(&ask.stream(&stream)).await.status, 200);
        }
    }
    assert_eq!(rig.calls(), 0);
    assert_eq!(labels(&rig).await, ["-", "other"]);
    let long = "x".repeat(8 << 10);
    let refused = rig.ask(&Ask::get(DAY).stream(&long)).await;
    assert!(refused.status == 400 && refused.text().contains("streamId"), "{}", refused.text());
}

#[tokio::test]
async fn streams_beyond_the_bound_share_a_label() {
    let settings = Settings::default().section("admin", "metric_streams = 1").account("streams = ['*']");
    let rig = rig(&settings).await;
    for stream in [STREAM, "st-2", "st-3", STREAM] {
        // At first there is nothing in it, and no reason for a label yet.
        for window in [FUTURE, DAY] {
            rig.ask(&Ask::get(window).stream(stream)).await.page();
        }
    }
    assert_eq!(labels(&rig).await, ["other", STREAM]);
}

#[tokio::test]
async fn configured_streams_have_labels_whatever_the_bound() {
    let settings = Settings::default().section("admin", "metric_streams = 0");
    let rig = rig(&settings.account("streams = ['st-2', 'st-3', 'st-test']")).await;
    for stream in ["st-2", "st-3"] {
        rig.ask(&Ask::get(FUTURE).stream(stream)).await.page();
    }
    assert_eq!(labels(&rig).await, ["st-2", "st-3"]);
}
