//! Reads the configuration of a gateway again, when it is asked to and when a file has changed.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use super::file_watch::{FileWatch, Reading, read};
use crate::config::{Config, ConfigError, Loaded, NamedFiles};
use crate::server::Gateway;

/// The interval at which files are read. A change is applied when two readings agree, so twice this later.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// How often the configuration is read at most until the files are known that it names.
const MAX_READINGS: usize = 3;

/// The sources of a configuration.
#[derive(Clone, Debug)]
struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

/// Reads the configuration of a gateway again.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    /// The files that the configuration in force names, or those of the faulty one that was tried last.
    files: NamedFiles,
    watch: FileWatch,
}

impl Reloader {
    /// Loads the configuration of `file`, if given, and of the variables in `environment`, for the start. Reads files.
    pub fn load(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Result<Config, ConfigError>) {
        let sources = Sources { file, environment: environment.into_iter().collect() };
        let (files, reading, config) = sources.read(NamedFiles::default());
        (Self { sources, files, watch: FileWatch::new(reading) }, config)
    }

    /// Reloads the configuration of `gateway`. Returns the one that is in force afterwards if it was replaced.
    pub async fn reload(&mut self, gateway: &Gateway) -> Option<Config> {
        let (sources, files) = (self.sources.clone(), self.files.clone());
        let Ok((files, reading, config)) = spawn_blocking(move || sources.read(files)).await else { return None };
        (self.files, self.watch) = (files, FileWatch::new(reading));
        if gateway.reload(config).await { Some(gateway.config().await) } else { None }
    }

    /// Returns when a file has changed, which is looked for at this interval.
    pub async fn changed(&mut self, interval: Duration) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let files = self.files.clone();
            let reading = spawn_blocking(move || read(&files)).await;
            if reading.is_ok_and(|reading| self.watch.has_changed(reading)) {
                return;
            }
        }
    }
}

impl Sources {
    /// Reads the configuration. Returns all files that it and `known` name, and their state not later than they were read:
    /// what changes meanwhile is a change.
    fn read(&self, known: NamedFiles) -> (NamedFiles, Reading, Result<Config, ConfigError>) {
        let mut files = known;
        let mut attempt = 1;
        loop {
            let reading = read(&files);
            let Loaded { config, files: named } =
                Config::load_with_files(self.file.as_deref(), self.environment.clone());
            // What a faulty configuration names is perhaps not all that the next one does.
            let all = if config.is_ok() { named } else { named.with(&files.0) };
            if all.0 == files.0 || attempt == MAX_READINGS {
                return (all, reading, config);
            }
            (files, attempt) = (all, attempt + 1);
        }
    }
}
