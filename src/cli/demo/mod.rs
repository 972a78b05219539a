//! `koregate demo`: runs the simulator and the gateway on loopback with three services that request overlapping
//! windows, and reports the upstream calls that the gateway saves.

mod screen;
mod service;

use std::io::{IsTerminal as _, Stdout, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use koregate_simulator::{Control, Latency, Profile, RollingLimit, Simulator, StreamProfile};

use self::screen::{Addresses, Screen, Totals};
use self::service::{Service, WindowRequest};
use super::output::OutputError;
use super::serve::stop_signal;
use crate::api::{CallerUsage, Usage};
use crate::clock::Clock;
use crate::config::Config;
use crate::server::Gateway;

/// The interval of progress updates at a terminal, where each replaces the one before.
const LIVE_UPDATE_INTERVAL: Duration = Duration::from_millis(250);
/// The interval of progress updates elsewhere, where each is a new line.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which the gateway is asked whether it has counted the last answer.
const COUNT_INTERVAL: Duration = Duration::from_millis(10);

/// The stream of the simulated Kore.
const STREAM: &str = "st-demo";
/// Items of the stream on each day, about.
const ITEMS_A_DAY: u32 = 1_700;
/// The limits of Kore's larger plan, which allow fetching a week at once.
const CALLS_A_MINUTE: u64 = 600;
const CALLS_AN_HOUR: u64 = 18_000;

/// The flags of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Stop when the services are done, instead of staying up.
    #[arg(long)]
    pub once: bool,
}

/// Runs the services and prints a summary. Without `--once`, then stays up for requests until Ctrl-C.
///
/// # Errors
/// If a listener cannot be bound, or the output cannot be written.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut stop = stop_signal()?;
    let simulator = Simulator::start(profile()?).await?;
    let gateway = Gateway::start(&config(&simulator)?, Clock::system()).await?;
    let addresses = Addresses { kore: simulator.addr(), gateway: gateway.addr(), admin: gateway.admin_addr() };
    let services = services(Clock::system().now().to_timestamp());
    let usage = &gateway.stack().handles.usage;
    let mut meter = Meter { services: &services, control: simulator.control(), usage, calls_alone_of_services: None };
    let url = format!("http://{}/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions", gateway.addr());
    let mut screen = Screen::new(stdout(), stdout().is_terminal());
    screen.print_welcome(addresses, &services)?;
    tokio::select! {
        result = run_services(&url, &mut meter, &mut screen) => result?,
        () = stop.recv() => return Ok(()),
    }
    if !args.once {
        screen.print_instructions(addresses, STREAM, &closed_day())?;
        tokio::select! {
            result = show_totals(&meter, &mut screen) => result?,
            () = stop.recv() => {}
        }
    }
    Ok(())
}

/// A simulator with realistic latency.
fn profile() -> anyhow::Result<Profile> {
    Ok(Profile {
        streams: vec![StreamProfile::new(STREAM, ITEMS_A_DAY)],
        plain: true,
        latency: Latency { fixed: Duration::from_millis(40), jitter: Duration::from_millis(20) },
        rate_limits: vec![
            RollingLimit::new(usize::try_from(CALLS_A_MINUTE)?, Duration::from_mins(1)),
            RollingLimit::new(usize::try_from(CALLS_AN_HOUR)?, Duration::from_hours(1)),
        ]
        .into(),
        ..Profile::default()
    })
}

fn config(simulator: &Simulator) -> anyhow::Result<Config> {
    let account = simulator.control().profile().account;
    let limits = format!(
        r#"{{limits = [{{requests = {CALLS_A_MINUTE}, per = "1m"}}, {{requests = {CALLS_AN_HOUR}, per = "1h"}}]}}"#
    );
    let environment = [
        ("KORE_HOST", simulator.base_url()),
        ("KORE_ACCOUNT_ID", account.account_id),
        ("KORE_CLIENT_ID", account.client_id),
        ("KORE_CLIENT_SECRET", account.client_secret),
        ("KOREGATE__ACCOUNTS__0__QUOTA", limits),
        ("KOREGATE__SERVER__LISTEN", usual_or_free_port(8080).to_string()),
        ("KOREGATE__SERVER__ADMIN_LISTEN", usual_or_free_port(9090).to_string()),
    ];
    Ok(Config::load(None, environment.map(|(name, value)| (name.to_owned(), value)))?)
}

/// The given port on loopback, or any free one if it is taken.
fn usual_or_free_port(port: u16) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(usual).is_ok() { usual } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}

/// Counts requests and calls. Those of the services are counted by the services and by the simulator, so that the share
/// saved does not rest on what the gateway says of itself.
struct Meter<'a> {
    services: &'a [Arc<Service>],
    control: Control,
    usage: &'a Usage,
    /// What the gateway has counted for the services as their calls without it; `None` while they run.
    calls_alone_of_services: Option<u64>,
}

impl Meter<'_> {
    fn totals(&self) -> Totals {
        let sum = |count: fn(&Service) -> u64| self.services.iter().map(|service| count(service)).sum::<u64>();
        let (requests, calls_alone) = self.counted_by_gateway();
        // Requests from outside, which only the gateway has counted.
        let more = self.calls_alone_of_services.map_or(0, |services| calls_alone.saturating_sub(services));
        Totals {
            requests: requests.max(sum(Service::requests)),
            calls_alone: sum(Service::direct_calls) + more,
            calls: self.control.counts().total,
        }
    }

    /// Requests, and the calls that they would have cost.
    fn counted_by_gateway(&self) -> (u64, u64) {
        let totals = self.usage.all(|_| None);
        let (requests, spent, saved) = totals
            .iter()
            .map(CallerUsage::total)
            .fold((0, 0, 0), |sum, caller| (sum.0 + caller.0, sum.1 + caller.1, sum.2 + caller.2));
        (requests, spent + saved)
    }

    /// Ends the count of the services, when the gateway has counted their last answers too.
    async fn close(&mut self) {
        let answered: u64 = self.services.iter().map(|service| service.requests()).sum();
        while self.counted_by_gateway().0 < answered {
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
        self.calls_alone_of_services = Some(self.counted_by_gateway().1);
    }
}

/// Runs the three services and shows their progress.
async fn run_services(url: &str, meter: &mut Meter<'_>, screen: &mut Screen<Stdout>) -> anyhow::Result<()> {
    let services = meter.services;
    let mut running: Vec<_> =
        services.iter().map(|service| tokio::spawn(service.clone().run(url.to_owned()))).collect();
    let all = async {
        for service in &mut running {
            service.await??;
        }
        anyhow::Ok(())
    };
    let mut all = std::pin::pin!(all);
    let mut updates = tokio::time::interval(if screen.is_live() { LIVE_UPDATE_INTERVAL } else { LINE_INTERVAL });
    loop {
        tokio::select! {
            result = &mut all => break result?,
            _ = updates.tick() => screen.update_progress(services, meter.totals())?,
        }
    }
    meter.close().await;
    Ok(screen.print_summary(services, meter.totals())?)
}

/// Shows the totals whenever they change.
async fn show_totals(meter: &Meter<'_>, screen: &mut Screen<Stdout>) -> Result<(), OutputError> {
    let mut shown = None;
    loop {
        let now = meter.totals();
        if shown != Some(now) {
            screen.update_totals(now)?;
            shown = Some(now);
        }
        tokio::time::sleep(LIVE_UPDATE_INTERVAL).await;
    }
}

/// Three services with overlapping windows.
fn services(now: Timestamp) -> [Arc<Service>; 3] {
    let ago = |hours: i64| now - SignedDuration::from_hours(hours);
    let week = WindowRequest { from: ago(7 * 24), to: now, page_size: 2000 };
    let days =
        (1..=7).rev().map(|day| WindowRequest { from: ago(24 * day), to: ago(24 * (day - 1)), page_size: 10_000 });
    let random_hours =
        (0..40i64).map(|n| WindowRequest { from: ago((n * 37) % 160 + 2), to: ago((n * 37) % 160), page_size: 100 });
    let last_hour = WindowRequest { from: ago(1), to: now, page_size: 500 };
    [
        Service::new(
            "bi-load",
            "the last 7 days, in pages of 2,000, three times",
            vec![week; 3],
            Duration::from_millis(400),
        ),
        Service::new(
            "qa-dashboard",
            "the last hour again and again, and 40 hours here and there",
            random_hours.flat_map(|hour| [last_hour, hour]).collect(),
            Duration::from_millis(40),
        ),
        Service::new(
            "compliance-export",
            "each of the last 7 days as a whole",
            days.collect(),
            Duration::from_millis(300),
        ),
    ]
}

/// The day before yesterday, which is settled at any time of day.
fn closed_day() -> String {
    let day = Clock::system().now() - Duration::from_hours(48);
    day.to_timestamp().strftime("%Y-%m-%d").to_string()
}
