//! What the demo prints.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use super::service::Service;
use crate::api::{CallerUsage, Usage};

/// Standard output, at a terminal or not.
pub(super) struct Screen {
    /// At a terminal, progress is written over itself.
    live: bool,
    /// Whether the cursor stands behind a line that may be written over.
    open: bool,
}

/// Requests and upstream calls since the demo began, as the gateway counts them for its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    requests: u64,
    spent: u64,
    saved: u64,
}

impl Totals {
    pub(super) fn of(usage: &Usage) -> Self {
        let (requests, spent, saved) =
            usage.all(|_| None).iter().map(CallerUsage::total).fold((0, 0, 0), |(requests, spent, saved), caller| {
                (requests + caller.0, spent + caller.1, saved + caller.2)
            });
        Self { requests, spent, saved }
    }

    /// The calls that the services would have made by themselves.
    fn alone(self) -> u64 {
        self.spent + self.saved
    }

    /// How much of what would have been called was not, in percent.
    fn percent_saved(self) -> u64 {
        (self.saved * 100).checked_div(self.alone()).unwrap_or(0)
    }
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
    pub(super) fn progress(&mut self, services: &[Arc<Service>], totals: Totals) {
        let busy = services.iter().filter(|service| !service.is_done()).count();
        self.overwrite(&format!(
            "  {:>4} requests in   {:>5} calls they would have made   {:>4} calls to Kore   {:>3} % saved   \
             ({busy} services at work)",
            totals.requests,
            totals.alone(),
            totals.spent,
            totals.percent_saved()
        ));
    }

    /// What each service asked for, and what all of them cost.
    pub(super) fn table(&mut self, services: &[Arc<Service>], totals: Totals) {
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
        self.line(&format!(
            "\n  Alone they would have called Kore {} times. koregate called it {} times: {} % saved.",
            totals.alone(),
            totals.spent,
            totals.percent_saved()
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
    pub(super) fn totals(&mut self, totals: Totals) {
        let Totals { requests, spent, saved } = totals;
        self.overwrite(&format!(
            "  {requests} requests in, {spent} calls to Kore, {saved} calls saved: {} % saved",
            totals.percent_saved()
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
    fn percent_saved_of_no_calls_is_zero() {
        let percent = |spent, saved| Totals { requests: 1, spent, saved }.percent_saved();
        assert_eq!([percent(0, 0), percent(1, 9), percent(10, 0), percent(2, 1)], [0, 90, 0, 33]);
    }
}
