//! What the demo prints.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use super::service::Service;
use crate::simulator::Control;
use crate::telemetry;

/// Standard output, at a terminal or not.
pub(super) struct Screen {
    /// At a terminal, progress is written over itself.
    live: bool,
    /// Whether the cursor stands behind a line that may be written over.
    open: bool,
}

/// Requests and calls since the demo began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    requests: u64,
    avoided: u64,
    upstream: u64,
}

impl Totals {
    /// As the gateway's own metrics and the simulator count them.
    pub(super) fn of(upstream: &Control) -> Self {
        let metrics = telemetry::init_metrics().render();
        Self {
            requests: sum(&metrics, "koregate_requests_total"),
            avoided: sum(&metrics, "koregate_upstream_calls_avoided_total"),
            upstream: upstream.counts().total,
        }
    }
}

/// The sum of a counter over all its labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit(' ').next());
    samples.filter_map(|value| value.parse::<u64>().ok()).sum()
}

/// How much of what would have been called was not, in percent.
fn saved(alone: u64, upstream: u64) -> u64 {
    (alone.saturating_sub(upstream) * 100).checked_div(alone).unwrap_or(0)
}

impl Screen {
    pub(super) fn new(live: bool) -> Self {
        Self { live, open: false }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn welcome(&mut self, upstream: &str, gateway: SocketAddr) {
        self.line(&format!(
            "koregate demo\n\n  simulated Kore   {upstream}   30 days, about 1,700 conversations a day, 100 items a call\n  \
             koregate         http://{gateway}\n\n\
             Three services ask for windows that overlap. None has a token, a paging loop or a sleep on 429.\n"
        ));
    }

    /// One line on how far the services are.
    pub(super) fn progress(&mut self, services: &[Arc<Service>], upstream: u64) {
        let requests: u64 = services.iter().map(|service| service.requests()).sum();
        let alone: u64 = services.iter().map(|service| service.alone()).sum();
        let busy = services.iter().filter(|service| !service.is_done()).count();
        self.overwrite(&format!(
            "  {requests:>4} requests in   {alone:>5} calls they would have made   {upstream:>4} calls to Kore   {:>3} % saved   \
             ({busy} services at work)",
            saved(alone, upstream)
        ));
    }

    /// What each service asked for, and what all of them cost.
    pub(super) fn table(&mut self, services: &[Arc<Service>], upstream: u64) {
        self.line("");
        self.line(&format!(
            "  {:<18} {:>8} {:>9} {:>14}   {}",
            "service", "requests", "items", "calls alone", "asks for"
        ));
        for service in services {
            let Service { name, habit, .. } = &**service;
            let (requests, items, alone) = (service.requests(), service.items(), service.alone());
            self.line(&format!("  {name:<18} {requests:>8} {items:>9} {alone:>14}   {habit}"));
        }
        let alone: u64 = services.iter().map(|service| service.alone()).sum();
        self.line(&format!(
            "\n  Alone they would have called Kore {alone} times. koregate called it {upstream} times: {} % saved.",
            saved(alone, upstream)
        ));
    }

    pub(super) fn invite(&mut self, url: &str, day: &str, admin: SocketAddr) {
        self.line(&format!(
            "\nTry it: no token, any page size, and no call to Kore, since that day is closed and known:\n\n  \
             curl -i '{url}?from={day}&to={day}&limit=2'\n\n\
             Status page: http://{admin}/\nCtrl-C stops the demo.\n"
        ));
    }

    /// What requests have cost since the demo began.
    pub(super) fn totals(&mut self, Totals { requests, avoided, upstream }: Totals) {
        self.overwrite(&format!(
            "  {requests} requests in, {upstream} calls to Kore, {avoided} calls avoided: {} % saved",
            saved(avoided + upstream, upstream)
        ));
    }

    fn overwrite(&mut self, line: &str) {
        if self.live {
            print!("\r\x1b[2K{line}");
            // A terminal that is gone is no reason to stop.
            let _ = std::io::stdout().flush();
            self.open = true;
        } else {
            println!("{line}");
        }
    }

    fn line(&mut self, line: &str) {
        if std::mem::take(&mut self.open) {
            println!();
        }
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let metrics = "# TYPE a_total counter\na_total{x=\"1\"} 3\na_total{x=\"}  2\"} 4\na_total_more{x=\"1\"} 100\nb_total{} 7\n";
        assert_eq!(sum(metrics, "a_total"), 7);
    }

    #[test]
    fn nothing_asked_is_nothing_saved() {
        assert_eq!([saved(0, 0), saved(10, 1), saved(1, 10)], [0, 90, 0]);
    }
}
