//! The output of the demo: at most 80 columns wide, and replaced in place at a terminal.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use super::service::Service;
use super::{CALLS_A_MINUTE, CALLS_AN_HOUR};
use crate::cli::output::OutputError;

/// Where the demo prints.
pub(super) struct Screen<W> {
    out: W,
    /// Whether `out` is a terminal, where progress replaces itself.
    is_live: bool,
    /// Lines at the end of the output that the next progress replaces.
    replaceable_lines: usize,
}

/// The addresses that the demo listens on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// Of the simulator.
    pub(super) kore: SocketAddr,
    /// Of the gateway, for callers.
    pub(super) gateway: SocketAddr,
    /// Of the gateway, for operators.
    pub(super) admin: SocketAddr,
}

/// Requests and calls since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Requests that the gateway has answered.
    pub(super) requests: u64,
    /// Calls to Kore that these requests would have cost without the gateway.
    pub(super) calls_alone: u64,
    /// Calls that the simulator has received.
    pub(super) calls: u64,
}

impl Totals {
    /// The share of calls that the gateway saved, in percent, rounded down.
    pub(super) fn percent_saved(self) -> u64 {
        (self.calls_alone.saturating_sub(self.calls) * 100).checked_div(self.calls_alone).unwrap_or(0)
    }
}

impl<W: Write> Screen<W> {
    /// A screen on `out`, which is a terminal if `is_live`.
    pub(super) fn new(out: W, is_live: bool) -> Self {
        Self { out, is_live, replaceable_lines: 0 }
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Prints what is about to happen.
    pub(super) fn print_welcome(&mut self, addresses: Addresses, services: &[Arc<Service>]) -> Result<(), OutputError> {
        let Addresses { kore, gateway, .. } = addresses;
        let [minute, hour] = [CALLS_A_MINUTE, CALLS_AN_HOUR].map(with_commas);
        let mut text = format!(
            "koregate demo: three services read from Kore through koregate\n\n  \
             Kore      http://{kore} (simulated, 30 days of data)\n  \
             quota     {minute} calls a minute and {hour} an hour, for all three together\n  \
             koregate  http://{gateway}\n\n"
        );
        for service in services {
            push_line(&mut text, format_args!("  {:<18} {}", service.name, service.habit));
        }
        text += "\nTheir windows overlap. None has a token, a paging loop or a quota to mind.\n\n";
        self.print(&text)
    }

    /// Shows the progress of the services: all of them at a terminal, one line elsewhere.
    pub(super) fn update_progress(&mut self, services: &[Arc<Service>], totals: Totals) -> Result<(), OutputError> {
        if self.is_live {
            return self.replace(&table(services, totals));
        }
        let busy = services.iter().filter(|service| !service.is_done()).count();
        let Totals { requests, calls_alone, calls } = totals;
        self.print(&format!(
            "  {busy} at work {requests:>5} requests {:>6} calls alone {calls:>5} calls to Kore {:>4} % saved\n",
            with_commas(calls_alone),
            totals.percent_saved()
        ))
    }

    /// Prints the requests of each service, and the calls of all of them.
    pub(super) fn print_summary(&mut self, services: &[Arc<Service>], totals: Totals) -> Result<(), OutputError> {
        let Totals { calls_alone, calls, .. } = totals;
        let [alone, calls] = [calls_alone, calls].map(with_commas);
        let percent = totals.percent_saved();
        let blank = if self.is_live { "" } else { "\n" };
        let table = table(services, totals);
        self.replace(&format!(
            "{blank}{table}\n  {alone} calls to Kore without koregate, {calls} with it: {percent} % saved.\n"
        ))?;
        self.replaceable_lines = 0;
        Ok(())
    }

    /// Prints a request to try, on a day whose data is cached, and the address of the status page.
    pub(super) fn print_instructions(
        &mut self,
        addresses: Addresses,
        stream: &str,
        day: &str,
    ) -> Result<(), OutputError> {
        let Addresses { gateway, admin, .. } = addresses;
        self.print(&format!(
            "\nTry it, in a second terminal. That day is cached, so there is no call to Kore:\n\n  \
             curl -si 'http://{gateway}/agentassist/api/v1/public'\\\n\
             '/{stream}/v2/agentassistinteractions?from={day}&to={day}&limit=1' \\\n  \
             | cut -c -79\n\n\
             Status page: http://{admin}/\nCtrl-C stops the demo.\n\n"
        ))
    }

    /// Shows the totals, in one line.
    pub(super) fn update_totals(&mut self, totals: Totals) -> Result<(), OutputError> {
        let Totals { requests, calls_alone, calls } = totals;
        self.replace(&format!(
            "  {requests} requests, {calls} calls to Kore instead of {}: {} % saved\n",
            with_commas(calls_alone),
            totals.percent_saved()
        ))
    }

    /// Prints `text`, at a terminal over the text that was printed by the last call.
    fn replace(&mut self, text: &str) -> Result<(), OutputError> {
        if self.is_live && self.replaceable_lines > 0 {
            // Up to the first line, and clear to the end of the screen.
            write!(self.out, "\x1b[{}A\x1b[J", self.replaceable_lines)?;
        }
        self.print(text)?;
        self.replaceable_lines = text.lines().count();
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), OutputError> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }
}

/// The services, and the sum of them.
fn table(services: &[Arc<Service>], totals: Totals) -> String {
    let mut text = String::new();
    let mut row = |name: &str, cells: [&str; 5]| {
        let [requests, items, alone, calls, saved] = cells;
        let line = format!("  {name:<18} {requests:>8} {items:>9} {alone:>12} {calls:>14} {saved:>7}");
        push_line(&mut text, format_args!("{}", line.trim_end()));
    };
    row("service", ["requests", "segments", "calls alone", "calls to Kore", "saved"]);
    let mut all_items = 0;
    for service in services {
        let [requests, items, alone] = [service.requests(), service.items(), service.direct_calls()].map(with_commas);
        all_items += service.items();
        row(service.name, [&requests, &items, &alone, "", ""]);
    }
    let Totals { requests, calls_alone, calls } = totals;
    let [requests, items, alone, calls] = [requests, all_items, calls_alone, calls].map(with_commas);
    row("together", [&requests, &items, &alone, &calls, &format!("{} %", totals.percent_saved())]);
    text
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes all that is written to it");
}

/// A number with its thousands parted by commas.
fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::{STREAM, services};
    use super::*;

    #[test]
    fn percent_saved_of_no_calls_is_zero() {
        let percent = |calls, calls_alone| Totals { requests: 1, calls_alone, calls }.percent_saved();
        assert_eq!([percent(0, 0), percent(1, 10), percent(10, 10), percent(2, 3), percent(5, 2)], [0, 90, 0, 33, 0]);
    }

    #[test]
    fn thousands_are_parted_by_commas() {
        assert_eq!([0, 12, 999, 1_000, 1_234_567].map(with_commas), ["0", "12", "999", "1,000", "1,234,567"]);
    }

    /// All that the demo prints, with large numbers.
    fn printed(is_live: bool) -> String {
        let [kore, gateway, admin] = [65_533, 65_534, 65_535].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let addresses = Addresses { kore, gateway, admin };
        let services = services(jiff::Timestamp::UNIX_EPOCH);
        let totals = Totals { requests: 99_999, calls_alone: 999_999, calls: 9_999 };
        let mut screen = Screen::new(Vec::new(), is_live);
        screen.print_welcome(addresses, &services).unwrap();
        for _ in 0..2 {
            screen.update_progress(&services, totals).unwrap();
        }
        screen.print_summary(&services, totals).unwrap();
        screen.print_instructions(addresses, STREAM, "2026-02-25").unwrap();
        for _ in 0..2 {
            screen.update_totals(totals).unwrap();
        }
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn output_fits_eighty_columns_and_names_services_and_quota() {
        for is_live in [false, true] {
            let text = printed(is_live);
            for line in text.split(['\n', '\x1b']) {
                assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
            }
            for part in ["bi-load", "qa-dashboard", "compliance-export", "600 calls a minute and 18,000 an hour"] {
                assert!(text.contains(part), "no {part} in {text}");
            }
        }
    }

    #[test]
    fn terminal_shows_each_progress_over_the_one_before() {
        let text = printed(true);
        // The table has five lines, the summary follows the second one.
        assert_eq!(text.matches("\x1b[5A\x1b[J").count(), 2, "{text}");
        assert_eq!(text.matches("\x1b[1A\x1b[J").count(), 1, "{text}");
        assert!(!printed(false).contains('\x1b'));
    }
}
