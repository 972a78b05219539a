//! A simulator with a gateway before it, on loopback, and a clock for both that is moved by hand.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::tz::TimeZone;
use koregate::clock::Clock;
use koregate::config::Config;
use koregate::server::Gateway;
use koregate::window::Timestamp;
use koregate_simulator::{Control, Profile, Simulator, StreamProfile};

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// All of it ends when the runtime does.
pub(crate) struct Rig {
    pub(crate) clock: Clock,
    pub(crate) control: Control,
    gateway: Gateway,
    _simulator: Simulator,
}

impl Rig {
    /// The data of `streams` ends with the day of `now`. There is memory for all of it, and no call waits for quota; all
    /// else is as koregate does it by default.
    pub(crate) async fn start(streams: Vec<StreamProfile>, days: u32, now: Timestamp) -> anyhow::Result<Self> {
        let clock = Clock::manual(now);
        let profile = Profile { streams, days, ..Profile::default() };
        let simulator_clock = clock.clone();
        let simulator = Simulator::start_with_clock(profile, move || simulator_clock.now().into()).await?;
        let account = simulator.control().profile().account;
        let text = format!(
            "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n[upstream]\nbase_url = '{}'\n\
             [[accounts]]\naccount_id = '{}'\nclient_id = '{}'\nclient_secret = {{ env = 'SECRET' }}\n\
             quota = {{ limits = [{{ requests = 1_000_000, per = '1m' }}] }}\n[cache]\nmemory = '4GiB'\n",
            simulator.base_url(),
            account.account_id,
            account.client_id,
        );
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("koregate.toml");
        std::fs::write(&file, text)?;
        let environment = [("SECRET".to_owned(), account.client_secret)];
        let config = Config::load(Some(&file), environment).map_err(|error| anyhow::anyhow!("{error}"))?;
        let gateway = Gateway::start(&config, clock.clone()).await?;
        Ok(Self { control: simulator.control(), clock, gateway, _simulator: simulator })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.gateway.addr()
    }
}

/// Path and query of a window of a stream; `rest` is added as it is.
pub(crate) fn path(stream: &str, from: &str, to: &str, rest: &str) -> String {
    format!("/agentassist/api/v1/public/{stream}/v2/agentassistinteractions?from={from}&to={to}{rest}")
}

/// A UTC date.
pub(crate) fn date(moment: Timestamp) -> String {
    TimeZone::UTC.to_datetime(moment.to_timestamp()).strftime("%Y-%m-%d").to_string()
}

/// A whole second, in the spelling of Kore's own template.
pub(crate) fn second(moment: Timestamp) -> String {
    TimeZone::UTC.to_datetime(moment.to_timestamp()).strftime("%Y-%m-%d-%H:%M:%S").to_string()
}
