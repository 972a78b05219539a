//! `koregate demo`: runs the simulator and the gateway on loopback with three services that request overlapping
//! windows, and reports the upstream calls that the gateway saves.

mod screen;
mod service;

use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use koregate_simulator::{Latency, Profile, RollingLimit, Simulator};

use self::screen::{Screen, Totals};
use self::service::{Service, WindowRequest};
use super::serve::stop_signal;
use crate::api::Usage;
use crate::clock::Clock;
use crate::config::Config;
use crate::server::Gateway;

/// The interval of progress updates at a terminal, where each replaces the one before.
const LIVE_UPDATE_INTERVAL: Duration = Duration::from_millis(250);
/// The interval of progress updates elsewhere, where each is a new line.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

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
/// If a listener cannot be bound.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut stop = stop_signal()?;
    let simulator = Simulator::start(profile()).await?;
    let gateway = Gateway::start(&config(&simulator)?, Clock::system()).await?;
    let stream = simulator.control().profile().streams.first().map(|stream| stream.id.clone()).unwrap_or_default();
    let usage = &gateway.stack().handles.usage;
    let url = format!("http://{}/agentassist/api/v1/public/{stream}/v2/agentassistinteractions", gateway.addr());
    let mut screen = Screen::new(std::io::stdout().is_terminal());
    screen.print_welcome(&simulator.base_url(), gateway.addr());
    tokio::select! {
        result = run_services(&url, usage, &mut screen) => result?,
        () = stop.recv() => return Ok(()),
    }
    if !args.once {
        screen.print_instructions(&url, &closed_day(), gateway.admin_addr());
        tokio::select! {
            () = show_totals(usage, &mut screen) => {}
            () = stop.recv() => {}
        }
    }
    Ok(())
}

/// A simulator with realistic latency, and with the limits of Kore's larger plan, which allow fetching a week at once.
fn profile() -> Profile {
    let (requests, hourly) = (600, 18_000);
    Profile {
        latency: Latency { fixed: Duration::from_millis(40), jitter: Duration::from_millis(20) },
        rate_limits: vec![
            RollingLimit::new(requests, Duration::from_mins(1)),
            RollingLimit::new(hourly, Duration::from_hours(1)),
        ]
        .into(),
        ..Profile::default()
    }
}

fn config(simulator: &Simulator) -> anyhow::Result<Config> {
    let account = simulator.control().profile().account;
    let limits = r#"{limits = [{requests = 600, per = "1m"}, {requests = 18000, per = "1h"}]}"#;
    let environment = [
        ("KORE_HOST", simulator.base_url()),
        ("KORE_ACCOUNT_ID", account.account_id),
        ("KORE_CLIENT_ID", account.client_id),
        ("KORE_CLIENT_SECRET", account.client_secret),
        ("KOREGATE__ACCOUNTS__0__QUOTA", limits.to_owned()),
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

/// Runs the three services and shows their progress.
async fn run_services(url: &str, usage: &Usage, screen: &mut Screen) -> anyhow::Result<()> {
    let services = services(Clock::system().now().to_timestamp());
    let mut running: Vec<_> =
        services.iter().map(|service| tokio::spawn(service.clone().run(url.to_owned()))).collect();
    let pause = if screen.is_live() { LIVE_UPDATE_INTERVAL } else { LINE_INTERVAL };
    let all = async {
        for service in &mut running {
            service.await??;
        }
        anyhow::Ok(())
    };
    let mut all = std::pin::pin!(all);
    loop {
        tokio::select! {
            result = &mut all => {
                screen.print_summary(&services, Totals::of(usage));
                return result;
            }
            () = tokio::time::sleep(pause) => screen.update_progress(&services, Totals::of(usage)),
        }
    }
}

/// Shows the totals whenever they change.
async fn show_totals(usage: &Usage, screen: &mut Screen) {
    let mut shown = None;
    loop {
        let now = Totals::of(usage);
        if shown != Some(now) {
            screen.update_totals(now);
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
            Duration::from_secs(1),
        ),
        Service::new(
            "qa-dashboard",
            "the last hour over and over, and 40 hours here and there",
            random_hours.flat_map(|hour| [last_hour, hour]).collect(),
            Duration::from_millis(60),
        ),
        Service::new(
            "compliance-export",
            "each day of the last week, whole",
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
