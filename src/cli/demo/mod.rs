//! `koregate demo`: the simulator and the gateway on loopback, three services that ask for overlapping windows, and what
//! the gateway saves them.

mod screen;
mod service;

use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::screen::{Screen, Totals};
use self::service::{Ask, Service};
use super::serve::stop_signal;
use crate::api::Usage;
use crate::clock::Clock;
use crate::config::Config;
use crate::server::Gateway;
use crate::simulator::{Latency, Limit, Profile, Simulator};

/// How often the live line is written: at a terminal over itself, elsewhere as a new line.
const BLINK: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(3);

/// The flags of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Stop when the services have had their answers, instead of staying up.
    #[arg(long)]
    pub once: bool,
}

/// Shows the point, then stays up until Ctrl-C.
///
/// # Errors
/// If no listener can be bound.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut stop = stop_signal()?;
    let simulator = Simulator::start(profile(), Clock::system()).await?;
    let gateway = Gateway::start(&config(&simulator)?, Clock::system()).await?;
    let stream = simulator.control().profile().streams.first().map(|stream| stream.id.clone()).unwrap_or_default();
    let usage = &gateway.stack().usage;
    let url = format!("http://{}/agentassist/api/v1/public/{stream}/v2/agentassistinteractions", gateway.addr());
    let mut screen = Screen::new(std::io::stdout().is_terminal());
    screen.welcome(&simulator.base_url(), gateway.addr());
    tokio::select! {
        result = play(&url, usage, &mut screen) => result?,
        () = stop.recv() => return Ok(()),
    }
    screen.invite(&url, &closed_day(), gateway.admin_addr());
    if !args.once {
        tokio::select! {
            () = watch(usage, &mut screen) => {}
            () = stop.recv() => {}
        }
    }
    Ok(())
}

/// An upstream that takes its time and has limits, like the real one; of the larger class, so that a week comes at once.
fn profile() -> Profile {
    let (requests, hourly) = (600, 18_000);
    Profile {
        latency: Latency { fixed: Duration::from_millis(40), jitter: Duration::from_millis(20) },
        limits: vec![
            Limit { requests, per: Duration::from_mins(1) },
            Limit { requests: hourly, per: Duration::from_hours(1) },
        ],
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
        ("KOREGATE__SERVER__LISTEN", free(8080).to_string()),
        ("KOREGATE__SERVER__ADMIN_LISTEN", free(9090).to_string()),
    ];
    Ok(Config::load(None, environment.map(|(name, value)| (name.to_owned(), value)))?)
}

/// The usual port on loopback, or any other if somebody else has it.
fn free(port: u16) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(usual).is_ok() { usual } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}

/// Lets the three services ask, and shows how it goes.
async fn play(url: &str, usage: &Usage, screen: &mut Screen) -> anyhow::Result<()> {
    let services = services(Clock::system().now().to_timestamp());
    let mut running: Vec<_> =
        services.iter().map(|service| tokio::spawn(service.clone().run(url.to_owned()))).collect();
    let pause = if screen.is_live() { BLINK } else { LINE_EVERY };
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
                screen.table(&services, Totals::of(usage));
                return result;
            }
            () = tokio::time::sleep(pause) => screen.progress(&services, Totals::of(usage)),
        }
    }
}

/// Shows what requests cost from now on, as they come.
async fn watch(usage: &Usage, screen: &mut Screen) {
    let mut shown = None;
    loop {
        let now = Totals::of(usage);
        if shown != Some(now) {
            screen.totals(now);
            shown = Some(now);
        }
        tokio::time::sleep(BLINK).await;
    }
}

/// Three services whose windows overlap, as those of one company do.
fn services(now: Timestamp) -> [Arc<Service>; 3] {
    let ago = |hours: i64| now - SignedDuration::from_hours(hours);
    let week = Ask { from: ago(7 * 24), to: now, page: 2000 };
    let days = (1..=7).rev().map(|day| Ask { from: ago(24 * day), to: ago(24 * (day - 1)), page: 10_000 });
    let random_hours = (0..40i64).map(|n| Ask { from: ago((n * 37) % 160 + 2), to: ago((n * 37) % 160), page: 100 });
    let last_hour = Ask { from: ago(1), to: now, page: 500 };
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

/// The day before yesterday: all of it has settled, whatever the time of day.
fn closed_day() -> String {
    let day = Clock::system().now() - Duration::from_hours(48);
    day.to_timestamp().strftime("%Y-%m-%d").to_string()
}
