//! The real binary, killed and started again: the quota outlives it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use koregate_simulator::{Credential, Profile, Simulator, StreamProfile};

use crate::process::{Running, environment, run, text};
use crate::support::{Answer, Ask, Client, until};

/// What the quota allows in an hour, so in all of a test.
const LIMIT: u64 = 5;

/// A configuration with a state file, and where that is.
fn configure(dir: &Path) -> (PathBuf, PathBuf) {
    configure_limit(dir, LIMIT)
}

fn configure_limit(dir: &Path, limit: u64) -> (PathBuf, PathBuf) {
    let (config, state) = (dir.join("koregate.toml"), dir.join("quota.state"));
    let Credential { account_id, client_id, .. } = Credential::default();
    let text = format!(
        "[[accounts]]\naccount_id = '{account_id}'\nclient_id = '{client_id}'\n\
         client_secret = {{ env = 'KORE_CLIENT_SECRET' }}\n\
         quota = {{ limits = [{{ requests = {limit}, per = '1h' }}] }}\n\
         [quota]\nstate_file = '{}'\n",
        state.display()
    );
    std::fs::write(&config, text).unwrap();
    (config, state)
}

/// The environment for that configuration.
fn environment_for(base_url: &str) -> Vec<(&'static str, String)> {
    let mut environment = environment(base_url);
    environment.retain(|(name, _)| !["KORE_HOST", "KORE_ACCOUNT_ID", "KORE_CLIENT_ID"].contains(name));
    environment.push(("KOREGATE__UPSTREAM__BASE_URL", base_url.to_owned()));
    environment
}

fn serve(config: &Path) -> [&str; 3] {
    ["serve", "--config", config.to_str().unwrap()]
}

#[tokio::test]
async fn a_process_that_is_killed_again_and_again_never_spends_more_than_its_limit_and_all_of_it() {
    let streams = (0..10).map(|n| StreamProfile::new(format!("st-{n}"), 50)).collect();
    let profile = Profile { streams, days: 4, ..Profile::default() };
    let simulator = Simulator::start(profile).await.unwrap();
    let control = simulator.control();
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = configure(dir.path());
    let environment = environment_for(&simulator.base_url());
    let mut streams = (0..10).map(|n| Ask::get("from=2020-01-01&to=2020-01-02").stream(&format!("st-{n}")));
    // Whether its calls are under way or answered when it is killed.
    for (calls, answers) in [(2, false), (4, true), (LIMIT, false)] {
        control.set_latency(if answers { Duration::ZERO } else { Duration::from_mins(1) }, Duration::ZERO);
        let mut gateway = Running::start(&serve(&config), &environment);
        let (addr, _) = gateway.listening().await;
        let asks = streams.by_ref().take(2);
        let asking: Vec<_> =
            asks.map(|ask| tokio::spawn(async move { Client::default().send(addr, &ask).await })).collect();
        // Two ask each time; the last time there is room for one of them.
        until("its calls to arrive", || control.counts().total >= calls).await;
        if answers {
            until("the answers", || asking.iter().all(tokio::task::JoinHandle::is_finished)).await;
        }
        drop(gateway);
        for asking in asking {
            let _ = asking.await.unwrap();
        }
        assert!(control.counts().total <= LIMIT, "{}", control.counts().total);
    }
    // From here on nothing is left, and every process knows it.
    for _ in 0..3 {
        let mut gateway = Running::start(&serve(&config), &environment);
        let (addr, _) = gateway.listening().await;
        let answer =
            Client::default().send(addr, &Ask::get("from=2020-01-01&to=2020-01-02").stream("st-9")).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3_000..=3_660).contains(&wait), "{wait}");
    }
    assert_eq!(control.counts().total, LIMIT, "all of it was used");
}

#[tokio::test]
async fn two_processes_do_not_share_a_state_file() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure(dir.path());
    let environment = environment_for("http://127.0.0.1:9");
    let mut first = Running::start(&serve(&config), &environment);
    first.listening().await;
    let second = run(&serve(&config), &environment, "");
    assert_eq!(second.status.code(), Some(1));
    let said = format!("{}{}", text(&second.stdout), text(&second.stderr));
    assert!(said.contains("another process uses this state file") && said.contains(state.to_str().unwrap()), "{said}");
    // When the first has gone, however it went, the file is free.
    drop(first);
    Running::start(&serve(&config), &environment).listening().await;
}

#[tokio::test]
async fn a_file_that_is_something_else_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure(dir.path());
    let environment = environment_for("http://127.0.0.1:9");
    let notes = "notes that somebody wants to keep, and which are longer than a line of the state file is\n";
    std::fs::write(&state, notes).unwrap();
    let refused = run(&serve(&config), &environment, "");
    assert_eq!(refused.status.code(), Some(1));
    let said = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
    assert!(said.contains("not a state file of koregate's"), "{said}");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), notes);
}

/// A gateway before a simulator with some empty windows, each of which costs a call.
struct EmptyWindows {
    simulator: Simulator,
    asked: u64,
}

impl EmptyWindows {
    async fn start() -> Self {
        let streams = vec![StreamProfile::new("st-0", 50)];
        let profile = Profile { streams, days: 4, ..Profile::default() };
        Self { simulator: Simulator::start(profile).await.unwrap(), asked: 0 }
    }

    async fn ask(&mut self, addr: SocketAddr) -> Answer {
        self.asked += 1;
        let day = self.asked;
        let ask = Ask::get(format!("from=2020-01-{day:02}&to=2020-01-{day:02}")).stream("st-0");
        Client::default().send(addr, &ask).await.unwrap()
    }

    fn calls(&self) -> u64 {
        self.simulator.control().counts().total
    }
}

async fn readiness(operators: SocketAddr) -> (String, String) {
    let answer = Client::default().send(operators, &Ask::get("").path("/readyz")).await.unwrap().json();
    (answer["status"].as_str().unwrap().to_owned(), answer["problems"][0].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn full_disk_degrades_and_what_is_missing_is_written_later() {
    let mut windows = EmptyWindows::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure_limit(dir.path(), 12);
    let environment = environment_for(&windows.simulator.base_url());
    let mut gateway = Running::start_without_room(&serve(&config), &environment);
    let (addr, operators) = gateway.listening().await;
    for _ in 0..12 {
        assert_eq!(windows.ask(addr).await.status, 200);
    }
    // A line is 64 bytes long, and the first is not a call's.
    assert_eq!(std::fs::metadata(&state).unwrap().len(), 8 * 64);
    let (status, problem) = readiness(operators).await;
    assert_eq!(status, "degraded");
    assert!(problem.starts_with("quota.state_file: 5 calls") && problem.contains("File too large"), "{problem}");
    gateway.make_room();
    let is_complete = async { while readiness(operators).await.0 != "ready" {} };
    tokio::time::timeout(Duration::from_secs(30), is_complete).await.expect("what is missing is written");
    drop(gateway);
    let mut gateway = Running::start(&serve(&config), &environment);
    let (addr, _) = gateway.listening().await;
    assert_eq!(windows.ask(addr).await.status, 503, "all is spent, and the next process knows it");
    assert_eq!(windows.calls(), 12);
}

#[tokio::test]
async fn state_file_of_zeros_starts_with_everything_spent() {
    let mut windows = EmptyWindows::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure(dir.path());
    let environment = environment_for(&windows.simulator.base_url());
    std::fs::write(&state, [0; 640]).unwrap();
    for is_damaged in [true, false] {
        let mut gateway = Running::start(&serve(&config), &environment);
        let (addr, _) = gateway.listening().await;
        assert_eq!(gateway.printed().contains("the state file of the quota is damaged"), is_damaged);
        let answer = windows.ask(addr).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3_000..=3_660).contains(&wait), "{wait}");
    }
    assert_eq!(windows.calls(), 0);
}
