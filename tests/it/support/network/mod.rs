//! Network namespaces of Linux, for processes that are cut off from each other as by a broken cable.
//!
//! A [`Network`] is one namespace with a bridge for each [`Lan`]. Each [`Namespace`] has a pair of virtual interfaces
//! for each LAN that it is attached to: one end inside, the other at the bridge. Cutting a link takes the end at the
//! bridge down, so that packets vanish and connections hang. Nothing changes in the namespace of the machine, and
//! dropping removes everything.

mod commands;
mod namespace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

pub(crate) use namespace::Namespace;

use commands::{NamedNamespace, PREFIX, remove_orphans};

/// One of the networks that a namespace can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lan {
    /// Redis, its replicas and Sentinels, and the gateways.
    Redis,
    /// The upstream and the gateways.
    Upstream,
}

impl Lan {
    const ALL: [Self; 2] = [Self::Redis, Self::Upstream];

    /// The name of its bridge, and of the interfaces of namespaces in it.
    const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Upstream => "upstream",
        }
    }

    /// The second bridge, which has the links of those that are split off.
    fn split_name(self) -> String {
        format!("{}-split", self.name())
    }

    fn address(self, host: u8) -> String {
        format!("10.77.{}.{host}", if self == Self::Redis { 1 } else { 2 })
    }
}

/// The namespace with the bridges. Removed when the last [`Namespace`] has been dropped too.
pub(crate) struct Network {
    /// `koregate-PID-NUMBER`, with which the names of its namespaces begin.
    prefix: String,
    hub: NamedNamespace,
    next_host: AtomicU8,
}

impl Network {
    /// Creates the bridges, or prints the reason for which the system refuses a namespace.
    pub(crate) fn create() -> Option<Arc<Self>> {
        Self::try_create().inspect_err(|reason| println!("SKIPPED: no network namespaces here: {reason}")).ok()
    }

    fn try_create() -> Result<Arc<Self>, String> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        remove_orphans();
        let prefix = format!("{PREFIX}-{}-{}", std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed));
        let hub = NamedNamespace::create(format!("{prefix}-hub"))?;
        for lan in Lan::ALL {
            for bridge in [lan.name().to_owned(), lan.split_name()] {
                hub.try_ip(&["link", "add", "name", &bridge, "type", "bridge"])?;
                hub.try_ip(&["link", "set", "dev", &bridge, "up"])?;
            }
        }
        Ok(Arc::new(Self { prefix, hub, next_host: AtomicU8::new(1) }))
    }

    /// Creates a namespace that is attached to `lans`.
    pub(crate) fn attach(self: &Arc<Self>, lans: &[Lan]) -> Arc<Namespace> {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        let inside = NamedNamespace::create(format!("{}-{host}", self.prefix)).unwrap();
        inside.ip(&["link", "set", "dev", "lo", "up"]);
        for lan in lans {
            let (port, interface) = (port_name(*lan, host), lan.name());
            self.hub.ip(&["link", "add", "name", &port, "type", "veth", "peer", "name", interface, "netns", &inside.0]);
            self.hub.ip(&["link", "set", "dev", &port, "master", lan.name(), "up"]);
            inside.ip(&["address", "add", &format!("{}/24", lan.address(host)), "dev", interface]);
            inside.ip(&["link", "set", "dev", interface, "up"]);
        }
        Arc::new(Namespace::new(self.clone(), inside, host))
    }

    fn set_link(&self, lan: Lan, host: u8, state: &str) {
        self.hub.ip(&["link", "set", "dev", &port_name(lan, host), state]);
    }

    fn set_bridge(&self, lan: Lan, host: u8, bridge: &str) {
        self.hub.ip(&["link", "set", "dev", &port_name(lan, host), "master", bridge]);
    }
}

/// The name of a link's end at the bridge.
fn port_name(lan: Lan, host: u8) -> String {
    format!("{}-{host}", lan.name())
}
