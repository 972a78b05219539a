//! `koregate serve`: runs the gateway until a signal stops it; `server/mod.rs` drains it.

use std::path::PathBuf;
use std::process::ExitCode;

use secrecy::ExposeSecret as _;
use tokio::signal::unix::{SignalKind, signal};

use super::output;
use super::service_manager::{ServiceState, notify};
use crate::clock::Clock;
use crate::config::{Config, RedisUrl, process_environment};
use crate::server::{Gateway, preflight};
use crate::units::print_size;

/// The flags of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// The configuration file; without one, the environment alone must be enough.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Serves until SIGTERM or Ctrl-C, then drains. The exit code is 2 if the configuration is at fault, 1 if the gateway
/// cannot start, and 0 after a drain, whether or not all answers ended in time.
pub async fn run(args: ServeArgs) -> ExitCode {
    let clock = Clock::system();
    let loaded = Config::load(args.config.as_deref(), process_environment());
    let config = match loaded.and_then(|config| preflight(&config, &clock).map(|()| config)) {
        Ok(config) => config,
        Err(error) => {
            output::complain(&error);
            return ExitCode::from(2);
        }
    };
    match serve(&config, clock).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: &Config, clock: Clock) -> anyhow::Result<()> {
    let mut stop = stop_signal()?;
    // A handled signal does not end the process.
    let mut hang_up = signal(SignalKind::hangup())?;
    announce(config);
    let gateway = Gateway::start(config, clock).await?;
    notify(ServiceState::Ready);
    let ignore_hang_ups = async {
        while hang_up.recv().await.is_some() {
            tracing::warn!("SIGHUP is ignored: to change the configuration, restart");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop.recv() => {}
        () = ignore_hang_ups => {}
    }
    notify(ServiceState::Stopping);
    tokio::select! {
        _ = gateway.drain() => {}
        // A second signal ends the drain.
        () = stop.recv() => {}
    }
    Ok(())
}

/// Logs what starts: the version, the listeners, the accounts, the tiers of the cache, and where traces and the audit log
/// go.
fn announce(config: &Config) {
    let Config { server, accounts, callers, cache, upstream, log, traces, .. } = config;
    let accounts = accounts.iter().map(|account| &*account.account_id).collect::<Vec<_>>().join(", ");
    let disk = cache.disk.as_ref().map(|disk| format!("{} at {}", print_size(disk.size), disk.path.display()));
    let redis = cache.redis.as_ref().and_then(|redis| RedisUrl::parse(redis.url.expose_secret()).ok());
    let redis = redis.map(|url| url.nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %server.listen,
        tls = server.tls.is_some(),
        admin_listen = %server.admin_listen,
        upstream = %upstream.base_url,
        accounts,
        callers = callers.len(),
        memory = print_size(cache.memory),
        disk,
        redis = redis.map(|nodes| nodes.join(", ")),
        traces = traces.collector.as_ref().map(|collector| collector.endpoint.to_string()),
        audit = log.audit.as_ref().map(ToString::to_string),
        "starting"
    );
}

/// Stream of SIGTERM and Ctrl-C.
pub(super) fn stop_signal() -> std::io::Result<StopSignal> {
    Ok(StopSignal { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
}

pub(super) struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    /// Waits for the next signal.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
