//! A namespace, and the threads that work inside of it.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle, Runtime};

use super::commands::NamedNamespace;
use super::{Lan, Network};

/// A network namespace with a loopback of its own, a link to each of its LANs, and a runtime inside.
pub(crate) struct Namespace {
    network: Arc<Network>,
    /// Dropped before the name, because its threads are inside.
    runtime: Option<Runtime>,
    inside: NamedNamespace,
    host: u8,
}

impl Namespace {
    pub(super) fn new(network: Arc<Network>, inside: NamedNamespace, host: u8) -> Self {
        let path = inside.path();
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().on_thread_start(move || enter(&path));
        Self { network, runtime: Some(runtime.build().unwrap()), inside, host }
    }

    /// The address in a LAN.
    pub(crate) fn address(&self, lan: Lan) -> String {
        lan.address(self.host)
    }

    /// Tasks that are spawned here open their sockets inside.
    pub(crate) fn handle(&self) -> Handle {
        self.runtime.as_ref().unwrap().handle().clone()
    }

    /// Runs `work` on a thread inside; processes that it starts stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.inside.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&path);
                work()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Takes the link to a LAN down: packets in both directions vanish.
    pub(crate) fn cut(&self, lan: Lan) {
        self.network.set_link(lan, self.host, "down");
    }

    /// Takes the link up again.
    pub(crate) fn heal(&self, lan: Lan) {
        self.network.set_link(lan, self.host, "up");
    }

    /// Separates the namespace from all in a LAN but those that are split off too.
    pub(crate) fn split_off(&self, lan: Lan) {
        self.network.set_bridge(lan, self.host, &lan.split_name());
    }

    /// Ends [`Namespace::split_off`].
    pub(crate) fn rejoin(&self, lan: Lan) {
        self.network.set_bridge(lan, self.host, lan.name());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Moves this thread into a namespace.
fn enter(path: &str) {
    let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}
