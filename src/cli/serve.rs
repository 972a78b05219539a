//! `koregate serve`: runs the gateway until a signal stops it; `server/mod.rs` drains it.

use std::path::PathBuf;
use std::process::ExitCode;

use secrecy::ExposeSecret as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

use super::output;
use super::service_manager::{ServiceState, notify};
use crate::clock::Clock;
use crate::config::{Config, RedisUrl, process_environment};
use crate::server::{Gateway, Reloader, WATCH_INTERVAL, preflight};
use crate::telemetry;
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
///
/// The configuration is reloaded on SIGHUP, and when a file that it names has changed. Its `log.level` holds unless the
/// command line has set a level, `log`.
pub async fn run(args: ServeArgs, log: Option<LevelFilter>) -> ExitCode {
    let clock = Clock::system();
    let (reloader, loaded) = Reloader::load(args.config, process_environment());
    let config = match loaded.and_then(|config| preflight(&config, &clock).map(|()| config)) {
        Ok(config) => config,
        Err(error) => {
            output::complain(&error);
            return ExitCode::from(2);
        }
    };
    let log_level = LogLevel(log);
    log_level.apply(&config);
    match serve(&config, clock, reloader, log_level).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The level of the command line, which has precedence over that of the configuration.
#[derive(Clone, Copy, Debug)]
struct LogLevel(Option<LevelFilter>);

impl LogLevel {
    fn apply(self, config: &Config) {
        telemetry::set_log_level(self.0.unwrap_or(config.log.level));
    }
}

/// Reloads the configuration of `gateway` on each hang-up, request and change of a file, and again after a failure, for ever.
async fn keep_reloading(gateway: &Gateway, mut reloader: Reloader, mut hang_up: Signal, log_level: LogLevel) {
    let mut requests = gateway.accept_reload_requests();
    loop {
        let request = tokio::select! {
            Some(()) = hang_up.recv() => None,
            request = requests.recv() => request,
            () = reloader.wait_until_due(WATCH_INTERVAL) => None,
        };
        let reloaded = reloader.reload(gateway).await;
        if let Some(config) = &reloaded {
            log_level.apply(config);
        }
        if let Some(request) = request {
            // Whoever asked may have gone.
            let _ = request.send(reloaded.is_some());
        }
    }
}

async fn serve(config: &Config, clock: Clock, reloader: Reloader, log_level: LogLevel) -> anyhow::Result<()> {
    let mut stop = stop_signal()?;
    // A handled signal does not end the process.
    let hang_up = signal(SignalKind::hangup())?;
    announce(config);
    let gateway = Gateway::start(config, clock).await?;
    notify(ServiceState::Ready);
    tokio::select! {
        () = stop.recv() => {}
        () = keep_reloading(&gateway, reloader, hang_up, log_level) => {}
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
