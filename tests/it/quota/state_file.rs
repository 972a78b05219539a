//! The state file: the spent quota outlives the process, however it ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{
    Credential, GatewayProcess, HttpClient, KoregateProcess, Profile, Simulator, StreamProfile, TestRequest,
    TestResponse, environment, run_koregate, text, until, until_async,
};

/// Calls in an hour, so in the whole test.
const LIMIT: u64 = 5;

/// Writes a configuration with a state file; returns the paths of both.
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

/// The environment variables for that configuration.
fn environment_for(base_url: &str) -> Vec<(&'static str, String)> {
    let mut environment = environment(base_url);
    environment.retain(|(name, _)| !["KORE_HOST", "KORE_ACCOUNT_ID", "KORE_CLIENT_ID"].contains(name));
    environment.push(("KOREGATE__UPSTREAM__BASE_URL", base_url.to_owned()));
    environment
}

/// The arguments that serve with that configuration.
fn serve(config: &Path) -> [&str; 3] {
    ["serve", "--config", config.to_str().unwrap()]
}

async fn start(config: &Path, environment: &[(&'static str, String)]) -> GatewayProcess {
    GatewayProcess::from_process(KoregateProcess::start(&serve(config), environment)).await
}

#[tokio::test]
async fn killed_processes_spend_exactly_their_limit() {
    let streams = (0..10).map(|n| StreamProfile::new(format!("st-{n}"), 50)).collect();
    let profile = Profile { streams, days: 4, ..Profile::default() };
    let simulator = Simulator::start(profile).await.unwrap();
    let control = simulator.control();
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = configure(dir.path());
    let environment = environment_for(&simulator.base_url());
    let mut streams = (0..10).map(|n| TestRequest::get("from=2020-01-01&to=2020-01-02").stream(&format!("st-{n}")));
    // Each process is killed with its calls pending or answered.
    for (calls, responses) in [(2, false), (4, true), (LIMIT, false)] {
        control.set_latency(if responses { Duration::ZERO } else { Duration::from_mins(1) }, Duration::ZERO);
        let gateway = start(&config, &environment).await;
        let addr = gateway.addr;
        let requests = streams.by_ref().take(2);
        let send = |request| async move { HttpClient::default().try_send(addr, &request).await };
        let pending: Vec<_> = requests.map(|request| tokio::spawn(send(request))).collect();
        // Two requests each time; the last time the limit allows one of them.
        until("the calls to arrive", || control.counts().total >= calls).await;
        if responses {
            until("the responses", || pending.iter().all(tokio::task::JoinHandle::is_finished)).await;
        }
        drop(gateway);
        for response in pending {
            let _ = response.await.unwrap();
        }
        assert!(control.counts().total <= LIMIT, "{}", control.counts().total);
    }
    // The limit is spent, and every later process knows it.
    for _ in 0..3 {
        let gateway = start(&config, &environment).await;
        let response = gateway.send(&TestRequest::get("from=2020-01-01&to=2020-01-02").stream("st-9")).await;
        assert_eq!(response.status, 503, "{}", response.text());
        assert!((3_000..=3_660).contains(&response.retry_after()), "{:?}", response.headers);
    }
    assert_eq!(control.counts().total, LIMIT, "the whole limit is used");
}

#[tokio::test]
async fn state_file_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure(dir.path());
    let environment = environment_for("http://127.0.0.1:9");
    let first = start(&config, &environment).await;
    let second = run_koregate(&serve(&config), &environment, "");
    assert_eq!(second.status.code(), Some(1));
    let output = format!("{}{}", text(&second.stdout), text(&second.stderr));
    assert!(
        output.contains("another process uses this state file") && output.contains(state.to_str().unwrap()),
        "{output}"
    );
    // A killed process releases the file.
    drop(first);
    start(&config, &environment).await;
}

#[tokio::test]
async fn foreign_state_file_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure(dir.path());
    let environment = environment_for("http://127.0.0.1:9");
    let notes = "notes that somebody wants to keep, and which are longer than a line of the state file is\n";
    std::fs::write(&state, notes).unwrap();
    let refused = run_koregate(&serve(&config), &environment, "");
    assert_eq!(refused.status.code(), Some(2));
    let output = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
    assert!(output.contains("not a state file of koregate's"), "{output}");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), notes);
}

/// A simulator with empty windows, each of which costs one call.
struct EmptyWindows {
    simulator: Simulator,
    requested: u64,
}

impl EmptyWindows {
    async fn start() -> Self {
        let streams = vec![StreamProfile::new("st-0", 50)];
        let profile = Profile { streams, days: 4, ..Profile::default() };
        Self { simulator: Simulator::start(profile).await.unwrap(), requested: 0 }
    }

    /// Requests a window that was not requested before.
    async fn get_next(&mut self, gateway: &GatewayProcess) -> TestResponse {
        self.requested += 1;
        let day = self.requested;
        gateway.send(&TestRequest::get(format!("from=2020-01-{day:02}&to=2020-01-{day:02}")).stream("st-0")).await
    }

    fn calls(&self) -> u64 {
        self.simulator.control().counts().total
    }
}

/// The status and the first problem of `/readyz`.
async fn readiness(gateway: &GatewayProcess) -> (String, String) {
    let readiness = gateway.get_admin("/readyz").await.json();
    (readiness["status"].as_str().unwrap().to_owned(), readiness["problems"][0].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn full_disk_degrades_until_calls_are_written() {
    let mut windows = EmptyWindows::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure_limit(dir.path(), 12);
    let environment = environment_for(&windows.simulator.base_url());
    let process = KoregateProcess::start_with_full_disk(&serve(&config), &environment);
    let gateway = GatewayProcess::from_process(process).await;
    for _ in 0..12 {
        assert_eq!(windows.get_next(&gateway).await.status, 200);
    }
    // A record has 64 bytes, and the first one is a header.
    assert_eq!(std::fs::metadata(&state).unwrap().len(), 8 * 64);
    let (status, problem) = readiness(&gateway).await;
    assert_eq!(status, "degraded");
    assert!(problem.starts_with("quota.state_file: 5 calls") && problem.contains("File too large"), "{problem}");
    gateway.process.free_disk();
    until_async("the missing records to be written", async || readiness(&gateway).await.0 == "ready").await;
    drop(gateway);
    let gateway = start(&config, &environment).await;
    assert_eq!(windows.get_next(&gateway).await.status, 503, "the next process knows that the limit is spent");
    assert_eq!(windows.calls(), 12);
}

#[tokio::test]
async fn zeroed_state_file_starts_with_spent_limit() {
    let mut windows = EmptyWindows::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = configure(dir.path());
    let environment = environment_for(&windows.simulator.base_url());
    std::fs::write(&state, [0; 640]).unwrap();
    for is_damaged in [true, false] {
        let gateway = start(&config, &environment).await;
        assert_eq!(gateway.process.output().contains("the state file of the quota is damaged"), is_damaged);
        let response = windows.get_next(&gateway).await;
        assert_eq!(response.status, 503, "{}", response.text());
        assert!((3_000..=3_660).contains(&response.retry_after()), "{:?}", response.headers);
    }
    assert_eq!(windows.calls(), 0);
}
