//! A simulator with a gateway before it.

use std::net::SocketAddr;

use futures_util::future::join_all;
use koregate::clock::Clock;
use koregate::server::Gateway;
use koregate::window::Timestamp;
use koregate_simulator::{Control, ItemFilter, Profile, Simulator};
use tokio::runtime::Handle;

use super::{Answer, Ask, Client, NOW, STREAM, Settings, at};

/// A gateway, and a client that asks it.
pub(crate) struct Door {
    pub(crate) gateway: Gateway,
    pub(crate) client: Client,
}

impl Door {
    /// Where callers come in.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.gateway.addr()
    }

    /// The whole answer; the connection must hold.
    pub(crate) async fn ask(&self, ask: &Ask) -> Answer {
        self.try_ask(ask).await.unwrap_or_else(|error| panic!("{ask:?}: {error:#}"))
    }

    /// The whole answer, unless the connection breaks.
    pub(crate) async fn try_ask(&self, ask: &Ask) -> anyhow::Result<Answer> {
        self.client.send(self.addr(), ask).await
    }

    /// All answers to requests of the same instant, in the order of the requests.
    pub(crate) async fn ask_at_once(&self, asks: &[Ask]) -> Vec<Answer> {
        join_all(asks.iter().map(|ask| self.ask(ask))).await
    }

    /// Asks it to purge; `query` is escaped already.
    pub(crate) async fn purge(&self, query: &str) -> Answer {
        self.ask_admin(&Ask::get(query).method(http::Method::POST).path("/api/v1/purge")).await
    }

    /// What the admin plane says to any request.
    pub(crate) async fn ask_admin(&self, ask: &Ask) -> Answer {
        self.client.send(self.gateway.admin_addr(), ask).await.unwrap()
    }

    /// What the admin plane says.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        self.ask_admin(&Ask::get("").path(path)).await
    }
}

/// A simulator and a gateway before it, with one clock for both.
pub(crate) struct Rig {
    pub(crate) clock: Clock,
    /// Take it out and shut it down, and the upstream is gone.
    pub(crate) simulator: Option<Simulator>,
    pub(crate) control: Control,
    pub(crate) door: Door,
    base_url: String,
}

impl Rig {
    /// A manual clock that stands at [`NOW`].
    pub(crate) async fn start(profile: Profile, settings: &Settings) -> Self {
        Self::start_with(profile, settings, Clock::manual(at(NOW))).await
    }

    /// Another clock.
    pub(crate) async fn start_with(profile: Profile, settings: &Settings, clock: Clock) -> Self {
        let simulator_clock = clock.clone();
        let simulator = Simulator::start_with_clock(profile, move || simulator_clock.now().into()).await.unwrap();
        let (control, base_url) = (simulator.control(), simulator.base_url());
        let door = open(&base_url, &control, settings, &clock).await;
        Self { clock, simulator: Some(simulator), control, door, base_url }
    }

    /// One more gateway before the same simulator: another replica.
    pub(crate) async fn another_door(&self, settings: &Settings) -> Door {
        open(&self.base_url, &self.control, settings, &self.clock).await
    }

    /// The same with a clock of its own.
    pub(crate) async fn door_by(&self, clock: &Clock, settings: &Settings) -> Door {
        open(&self.base_url, &self.control, settings, clock).await
    }

    /// The same on a runtime of its own: as if it were a process of its own, which may die at any moment.
    pub(crate) async fn door_on(&self, runtime: &Handle, settings: &Settings) -> Door {
        let (base_url, control, clock, settings) =
            (self.base_url.clone(), self.control.clone(), self.clock.clone(), settings.clone());
        runtime.spawn(async move { open(&base_url, &control, &settings, &clock).await }).await.unwrap()
    }

    /// Stops the upstream: its port refuses connections from now on.
    pub(crate) async fn stop_upstream(&mut self) {
        if let Some(simulator) = self.simulator.take() {
            simulator.shutdown().await;
        }
    }

    /// See [`Door::ask`].
    pub(crate) async fn ask(&self, ask: &Ask) -> Answer {
        self.door.ask(ask).await
    }

    /// `GET` of [`STREAM`].
    pub(crate) async fn get(&self, query: impl Into<String>) -> Answer {
        self.ask(&Ask::get(query)).await
    }

    /// Upstream calls since the start or the last [`Control::reset_counts`].
    pub(crate) fn calls(&self) -> u64 {
        self.control.counts().total
    }

    /// The items of [`STREAM`] from `from` up to, but without, `end`: byte for byte, in the order of the contract.
    pub(crate) fn truth(&self, from: Timestamp, end: Timestamp) -> Vec<Vec<u8>> {
        self.truth_of(from, end, false, &ItemFilter::default())
    }

    /// The same with `agenticActivities`, or filtered.
    pub(crate) fn truth_of(&self, from: Timestamp, end: Timestamp, rich: bool, filter: &ItemFilter) -> Vec<Vec<u8>> {
        let truth = self.control.expected_until(STREAM, from, end, rich, filter);
        truth.into_iter().map(|(_, item)| item).collect()
    }
}

async fn open(base_url: &str, control: &Control, settings: &Settings, clock: &Clock) -> Door {
    let config = settings.load(base_url, &control.profile());
    let gateway = Gateway::start(&config, clock.clone()).await.unwrap();
    Door { gateway, client: Client::default() }
}
