//! HELP texts of all metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

#[rustfmt::skip]
const COUNTERS: [(&str, &str); 33] = [
    ("koregate_admin_refusals_total", "Requests that the admin listener refused, by status"),
    ("koregate_audit_lines_lost_total", "Lines of the audit log that were lost"),
    ("koregate_audit_lines_total", "Lines written to the audit log"),
    ("koregate_broken_answers_total", "Answers that broke off because of Kore or koregate"),
    ("koregate_caller_limit_refusals_total", "Requests and calls beyond a limit of their caller, by limit and mode"),
    ("koregate_connections_cut_total", "Connections that were refused or cut, by the limit that they exceeded"),
    ("koregate_errands_total", "Windows that a leader fetches for a follower, by side and result"),
    ("koregate_fleet_apart_total", "Times that this replica found that the leader has other settings"),
    ("koregate_fleet_exchanges_failed_total", "Failed exchanges with Redis about the common quota"),
    ("koregate_log_lines_lost_total", "Log lines that were lost because nothing read standard error"),
    ("koregate_not_stored_total", "Fetches that were not cached, by reason"),
    ("koregate_purges_total", "Purges by operators, by result"),
    ("koregate_quota_refused_total", "Calls that the upstream refused although the ledger had room"),
    ("koregate_quota_state_failed_total", "Failed writes to the state file of the quota"),
    ("koregate_redis_calls_total", "Calls to Redis, by result"),
    ("koregate_disk_reads_total", "Chunks read from disk, by result"),
    ("koregate_disk_writes_total", "Chunks written to disk, by result"),
    ("koregate_redis_reads_total", "Values read from Redis, by result"),
    ("koregate_redis_writes_total", "Writes of chunks to Redis, by result"),
    ("koregate_requests_total", "Requests that have ended, by outcome"),
    ("koregate_retention_removed_total", "Chunks in memory and cells in Redis that were deleted as too old, by tier"),
    ("koregate_runs_failed_total", "Runs that failed"),
    ("koregate_runs_torn_total", "Runs whose rows moved while they were paged"),
    ("koregate_sent_bytes_total", "Bytes of bodies sent to callers, as encoded"),
    ("koregate_sent_items_total", "Items sent to callers"),
    ("koregate_tier_lookups_total", "Lookups in the tiers of the cache, by tier and result"),
    ("koregate_trace_spans_dropped_total", "Spans that were dropped because the collector did not take them"),
    ("koregate_trace_spans_exported_total", "Spans that a collector has taken"),
    ("koregate_upstream_calls_avoided_total", "Calls that callers would have made beyond those that were made"),
    ("koregate_upstream_calls_spent_total", "Calls to the upstream, by the caller that they are charged to"),
    ("koregate_upstream_calls_total", "Calls to the upstream, by result"),
    ("koregate_upstream_retries_total", "Calls to the upstream that were tried again"),
    ("koregate_window_field_trials_total", "Items that were looked for in the second of their timestamp, by result"),
];

#[rustfmt::skip]
const GAUGES: [(&str, Option<Unit>, &str); 14] = [
    ("koregate_build_info", None, "1, with the version of koregate"),
    ("koregate_cache_bytes", Some(Unit::Bytes), "Bytes that the cache holds"),
    ("koregate_certificate_expiry_timestamp_seconds", None, "Unix time at which a certificate ends"),
    ("koregate_clock_wrong", None, "1 if this machine's clock differs from the upstream's by more than a minute"),
    ("koregate_config_last_reload_timestamp_seconds", None, "Unix time since which the configuration is in force"),
    ("koregate_config_reload_success", None, "1 if the last reload of the configuration succeeded, 0 if it failed"),
    ("koregate_disk_up", None, "1 if the disk tier reads and writes, 0 if not"),
    ("koregate_fleet_role", None, "1 for the role of this replica among those that share an account's quota"),
    ("koregate_quota_budget", None, "Calls of each rolling limit that the gateway uses"),
    ("koregate_quota_remaining", None, "Calls left in each rolling limit"),
    ("koregate_quota_waiting", None, "Calls that wait for the quota"),
    ("koregate_redis_up", None, "1 if Redis answers on this connection, 0 while it is not called because it failed"),
    ("koregate_requests_in_flight", None, "Requests whose answers have not ended"),
    ("koregate_window_field_wrong", None, "1 if window.field is not the timestamp that the upstream selects on"),
];

#[rustfmt::skip]
const HISTOGRAMS: [(&str, &str); 4] = [
    ("koregate_quota_wait_seconds", "Time that calls waited for the quota"),
    ("koregate_redis_duration_seconds", "Time from a call to Redis to its replies"),
    ("koregate_request_duration_seconds", "Time from a request to the end of its answer"),
    ("koregate_upstream_duration_seconds", "Time from a call to the upstream to the end of its answer"),
];

/// Registers the HELP text of each metric with the recorder.
pub(super) fn describe_all() {
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, unit, help) in GAUGES {
        match unit {
            Some(unit) => describe_gauge!(name, unit, help),
            None => describe_gauge!(name, help),
        }
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(name, Unit::Seconds, help);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use super::*;

    fn source_files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = |path: PathBuf| if path.is_dir() { source_files(&path) } else { vec![path] };
        entries.flat_map(files).collect()
    }

    /// The names in calls of `counter!`, `gauge!` or `histogram!`.
    fn used_names(source: &str, kind: &str) -> Vec<String> {
        let call = format!("{kind}!(");
        let calls = source.split(&call).skip(1);
        let name = |arguments: &str| arguments.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
        calls.filter_map(name).filter(|name| name.starts_with("koregate_")).collect()
    }

    #[test]
    fn each_metric_in_the_source_has_a_description_and_vice_versa() {
        let files = source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let sources: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        let described = [
            ("counter", COUNTERS.map(|(name, _)| name).to_vec()),
            ("gauge", GAUGES.map(|(name, ..)| name).to_vec()),
            ("histogram", HISTOGRAMS.map(|(name, _)| name).to_vec()),
        ];
        for (kind, described) in described {
            let used: BTreeSet<String> = used_names(&sources, kind).into_iter().collect();
            assert_eq!(used, described.into_iter().map(ToOwned::to_owned).collect(), "{kind}");
        }
    }

    /// All metrics with a value each, as they are scraped.
    fn scrape_of_everything() -> String {
        let recorder = super::super::recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe_all();
            for (name, _) in COUNTERS {
                metrics::counter!(name).increment(1);
            }
            for (name, ..) in GAUGES {
                metrics::gauge!(name).set(1.0);
            }
            for (name, _) in HISTOGRAMS {
                metrics::histogram!(name).record(1.0);
            }
        });
        let mut text = handle.render();
        super::super::process::render(&mut text);
        text
    }

    #[test]
    fn described_metrics_are_rendered_with_help() {
        let text = scrape_of_everything();
        let lines = |prefix: &str| -> BTreeSet<&str> {
            text.lines().filter_map(|line| line.strip_prefix(prefix)?.split(' ').next()).collect()
        };
        let own = lines("# TYPE ").into_iter().filter(|name| name.starts_with("koregate_")).count();
        assert_eq!(own, COUNTERS.len() + GAUGES.len() + HISTOGRAMS.len());
        assert_eq!(lines("# TYPE "), lines("# HELP "));
    }

    #[test]
    fn requests_can_be_held_for_an_hour() {
        let text = scrape_of_everything();
        for name in ["koregate_quota_wait_seconds", "koregate_request_duration_seconds"] {
            assert!(text.contains(&format!("{name}_bucket{{le=\"3600\"}} 1")), "{text}");
        }
    }

    /// The names that `product.md` promises, apart from those of features that do not exist yet.
    #[test]
    fn promised_names_are_described() {
        let text = scrape_of_everything();
        for name in [
            "koregate_requests_total",
            "koregate_upstream_calls_total",
            "koregate_upstream_calls_avoided_total",
            "koregate_quota_remaining",
            "koregate_cache_bytes",
            "koregate_request_duration_seconds",
            "koregate_upstream_duration_seconds",
            "koregate_quota_wait_seconds",
            "koregate_broken_answers_total",
            "koregate_build_info",
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        let Ok(mut promtool) = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        else {
            eprintln!("promtool is not installed (Debian's package prometheus): not checked");
            return;
        };
        promtool.stdin.take().unwrap().write_all(scrape_of_everything().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }

    /// The rules and the dashboard for Prometheus and Grafana use no metric that koregate does not have.
    #[test]
    fn metrics_of_rules_and_dashboard_exist() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability");
        let described: BTreeSet<&str> = COUNTERS
            .iter()
            .map(|(name, _)| *name)
            .chain(GAUGES.iter().map(|(name, ..)| *name))
            .chain(HISTOGRAMS.iter().map(|(name, _)| *name))
            .collect();
        let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
        for (file, least) in [("koregate.rules.yaml", 8), ("koregate.dashboard.json", 20)] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            let names: BTreeSet<&str> =
                text.split(|char| !is_name(char)).filter(|word| word.starts_with("koregate_")).collect();
            assert!(names.len() >= least, "{file}: {names:?}");
            for name in names {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                    name.strip_suffix(suffix).filter(|base| HISTOGRAMS.iter().any(|(known, _)| known == base))
                });
                assert!(described.contains(base.unwrap_or(name)), "{file}: {name} does not exist");
            }
        }
    }
}
