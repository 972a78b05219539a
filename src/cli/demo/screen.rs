//! The output of the demo.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use super::service::Service;
use crate::api::{CallerUsage, Usage};

/// Standard output.
pub(super) struct Screen {
    /// Whether standard output is a terminal, where progress replaces itself.
    is_live: bool,
    /// Whether the cursor is at the end of a replaceable line.
    has_open_line: bool,
}

/// The requests and upstream calls since the start, as the gateway counts them.
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

    /// The calls that the services would have made without the gateway.
    fn direct_calls(self) -> u64 {
        self.spent + self.saved
    }

    /// The share of direct calls that the gateway saved, in percent.
    fn percent_saved(self) -> u64 {
        (self.saved * 100).checked_div(self.direct_calls()).unwrap_or(0)
    }
}

impl Screen {
    pub(super) fn new(is_live: bool) -> Self {
        Self { is_live, has_open_line: false }
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    pub(super) fn print_welcome(&mut self, upstream: &str, gateway: SocketAddr) {
        self.print_line(&format!(
            "koregate demo\n\n  \
             simulated Kore   {upstream}   30 days, about 1,700 conversations a day, 100 items a call\n  \
             koregate         http://{gateway}\n\n\
             Three services ask for windows that overlap. None has a token, a paging loop or a sleep on 429.\n"
        ));
    }

    /// Shows the progress of the services, in one line.
    pub(super) fn update_progress(&mut self, services: &[Arc<Service>], totals: Totals) {
        let busy = services.iter().filter(|service| !service.is_done()).count();
        self.replace_line(&format!(
            "  {:>4} requests in   {:>5} calls they would have made   {:>4} calls to Kore   {:>3} % saved   \
             ({busy} services at work)",
            totals.requests,
            totals.direct_calls(),
            totals.spent,
            totals.percent_saved()
        ));
    }

    /// Prints the requests of each service, and the calls of all of them.
    pub(super) fn print_summary(&mut self, services: &[Arc<Service>], totals: Totals) {
        self.print_line("");
        self.print_line(&format!(
            "  {:<18} {:>8} {:>9} {:>14}   {}",
            "service", "requests", "items", "calls alone", "asks for"
        ));
        for service in services {
            let Service { name, habit, .. } = &**service;
            let (requests, items, direct_calls) = (service.requests(), service.items(), service.direct_calls());
            self.print_line(&format!("  {name:<18} {requests:>8} {items:>9} {direct_calls:>14}   {habit}"));
        }
        self.print_line(&format!(
            "\n  Alone they would have called Kore {} times. koregate called it {} times: {} % saved.",
            totals.direct_calls(),
            totals.spent,
            totals.percent_saved()
        ));
    }

    pub(super) fn print_instructions(&mut self, url: &str, day: &str, admin: SocketAddr) {
        self.print_line(&format!(
            "\nTry it: no token, any page size, and no call to Kore, since that day is closed and known:\n\n  \
             curl -i '{url}?from={day}&to={day}&limit=2'\n\n\
             Status page: http://{admin}/\nCtrl-C stops the demo.\n"
        ));
    }

    /// Shows the totals, in one line.
    pub(super) fn update_totals(&mut self, totals: Totals) {
        let Totals { requests, spent, saved } = totals;
        self.replace_line(&format!(
            "  {requests} requests in, {spent} calls to Kore, {saved} calls saved: {} % saved",
            totals.percent_saved()
        ));
    }

    fn replace_line(&mut self, line: &str) {
        if self.is_live {
            print!("\r\x1b[2K{line}");
            // The demo continues if the terminal is closed.
            let _ = std::io::stdout().flush();
            self.has_open_line = true;
        } else {
            println!("{line}");
        }
    }

    fn print_line(&mut self, line: &str) {
        if std::mem::take(&mut self.has_open_line) {
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
