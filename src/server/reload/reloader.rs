//! Reads the configuration of a gateway again, when it is asked to, when a file has changed, and some time after a reload
//! that has failed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::file_watch::{FileState, FileWatch, Reading, read};
use crate::config::{Config, ConfigError, Loaded, NamedFiles};
use crate::server::Gateway;

/// The interval at which files are read. A change is applied when two readings agree, so twice this later.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// The time after which a reload that has failed is tried again: the fault may be of the machine, and no file changes when
/// it is over.
const FAILED_RELOAD_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Why a configuration from a pipe or a device cannot be reloaded.
const PIPE: &str = "is no file that could be read again, so a change needs a restart";
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
    /// When the last reload, which has failed, is tried again.
    retry_at: Option<Instant>,
}

impl Reloader {
    /// Loads the configuration of `file`, if given, and of the variables in `environment`, for the start. Reads files.
    pub fn load(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Result<Config, ConfigError>) {
        let sources = Sources { file, environment: environment.into_iter().collect() };
        let (files, reading, config) = sources.read(NamedFiles::default());
        (Self { sources, files, watch: FileWatch::new(reading), retry_at: None }, config)
    }

    /// Reloads the configuration of `gateway`. Returns the one that is in force afterwards if it was replaced.
    pub async fn reload(&mut self, gateway: &Gateway) -> Option<Config> {
        let (sources, files) = (self.sources.clone(), self.files.clone());
        let Ok((files, reading, config)) = spawn_blocking(move || sources.read_again(files)).await else { return None };
        let can_retry = special(&reading).is_none();
        (self.files, self.watch) = (files, FileWatch::new(reading));
        let is_replaced = gateway.reload(config).await;
        self.retry_at = (!is_replaced && can_retry).then(|| Instant::now() + FAILED_RELOAD_RETRY_INTERVAL);
        if is_replaced { Some(gateway.config().await) } else { None }
    }

    /// Returns when a file has changed, which is looked for at this interval, or when a failed reload is to be tried again.
    pub async fn wait_until_due(&mut self, interval: Duration) {
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                self.watch.try_again();
            }
            let files = self.files.clone();
            let reading = spawn_blocking(move || read(&files)).await;
            if reading.is_ok_and(|reading| self.watch.has_changed(reading)) {
                return;
            }
        }
    }
}

/// A file that must not be read again.
fn special(reading: &Reading) -> Option<&Path> {
    let mut special = reading.iter().filter(|(_, state)| **state == FileState::Special);
    special.next().map(|(path, _)| path.as_path())
}

impl Sources {
    /// As [`Sources::read`], unless a file among `known` was a pipe: another process has written it, and has gone.
    fn read_again(&self, known: NamedFiles) -> (NamedFiles, Reading, Result<Config, ConfigError>) {
        let reading = read(&known);
        let pipe = special(&reading).map(|path| ConfigError::of_file(path, PIPE));
        match pipe {
            Some(error) => (known, reading, Err(error)),
            None => self.read(known),
        }
    }

    /// Reads the configuration. Returns all files that it and `known` name, and their state not later than they were read:
    /// what changes meanwhile is a change. A pipe is read once.
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
            let now = read(&all);
            if special(&now).is_some() {
                return (all, now, config);
            }
            (files, attempt) = (all, attempt + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn toml(secret: &Path) -> String {
        format!(
            "[[accounts]]\naccount_id = 'a'\nclient_id = 'c'\nclient_secret = {{ file = '{}' }}\n",
            secret.display()
        )
    }

    #[tokio::test]
    async fn file_that_a_faulty_configuration_names_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (file, secret) = (folder.path().join("koregate.toml"), folder.path().join("secret"));
        fs::write(&file, toml(&secret)).unwrap();
        let (mut reloader, faulty) = Reloader::load(Some(file), []);
        assert!(faulty.is_err());
        fs::write(&secret, "s").unwrap();
        let due = reloader.wait_until_due(Duration::from_millis(1));
        tokio::time::timeout(Duration::from_secs(30), due).await.unwrap();
    }

    #[test]
    fn pipe_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, secret) = (folder.path().join("pipe"), folder.path().join("secret"));
        fs::write(&secret, "s").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let (path, text) = (pipe.clone(), toml(&secret));
        let writer = std::thread::spawn(move || fs::write(path, text).unwrap());
        let (reloader, config) = Reloader::load(Some(pipe), []);
        assert!(config.is_ok());
        writer.join().unwrap();
        let (_, _, again) = reloader.sources.read_again(reloader.files.clone());
        assert!(again.unwrap_err().to_string().contains(PIPE));
    }
}
