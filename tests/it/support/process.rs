//! The binary as a child process: its outputs, its listeners and its exit code.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::sync::mpsc;

use super::{Credential, HttpClient, Metrics, TestRequest, TestResponse};

/// The binary of this version.
pub(crate) const KOREGATE_BINARY: &str = env!("CARGO_BIN_EXE_koregate");

/// The environment variables that configure one account in front of `base_url`.
pub(crate) fn environment(base_url: &str) -> Vec<(&'static str, String)> {
    let Credential { account_id, client_id, client_secret } = Credential::default();
    vec![
        ("KORE_HOST", base_url.to_owned()),
        ("KORE_ACCOUNT_ID", account_id),
        ("KORE_CLIENT_ID", client_id),
        ("KORE_CLIENT_SECRET", client_secret),
        ("KOREGATE__SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("KOREGATE__SERVER__ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
    ]
}

/// Starts the binary from a shell that runs `setup` first.
fn from_shell(setup: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{setup}; exec \"$0\" \"$@\""), KOREGATE_BINARY]);
    shell
}

/// The binary without the environment of this process.
fn koregate(arguments: &[&str], environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(KOREGATE_BINARY);
    prepare(&mut command, arguments, environment);
    command
}

fn prepare(command: &mut Command, arguments: &[&str], environment: &[(&'static str, String)]) {
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (*name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Runs a command of the binary to its end.
pub(crate) fn run_koregate(arguments: &[&str], environment: &[(&'static str, String)], stdin: &str) -> Output {
    let mut child = koregate(arguments, environment).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// One of the two outputs as text.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs `start` on one core; processes that it starts stay there.
pub(crate) fn on_one_core<T>(start: impl FnOnce() -> T) -> T {
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap());
    sched_setaffinity(None, &one).unwrap();
    let started = start();
    sched_setaffinity(None, &all).unwrap();
    started
}

/// A command that runs until a signal ends it. Killed when dropped.
#[derive(Debug)]
pub(crate) struct KoregateProcess {
    child: Child,
    /// Both outputs so far.
    output: Arc<Mutex<String>>,
    lines: mpsc::UnboundedReceiver<String>,
    readers: Vec<JoinHandle<()>>,
}

impl KoregateProcess {
    /// Starts a command.
    pub(crate) fn start(arguments: &[&str], environment: &[(&'static str, String)]) -> Self {
        Self::spawn(koregate(arguments, environment))
    }

    /// Starts a command of another binary.
    pub(crate) fn start_binary(binary: &Path, arguments: &[&str], environment: &[(String, String)]) -> Self {
        let mut command = Command::new(binary);
        prepare(&mut command, arguments, &[]);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::spawn(command)
    }

    /// Starts a command with a limit of open files, if given.
    pub(crate) fn start_limited(
        arguments: &[&str],
        environment: &[(&'static str, String)],
        open_files: Option<u64>,
    ) -> Self {
        let limit = |open_files| from_shell(&format!("ulimit -n {open_files}"));
        let mut command = open_files.map_or_else(|| Command::new(KOREGATE_BINARY), limit);
        prepare(&mut command, arguments, environment);
        Self::spawn(command)
    }

    /// The same on a disk that is full: no file can grow beyond 512 bytes until [`KoregateProcess::free_disk`].
    pub(crate) fn start_with_full_disk(arguments: &[&str], environment: &[(&'static str, String)]) -> Self {
        // With the signal ignored, writing fails as on a full disk.
        let mut command = from_shell("trap '' XFSZ; ulimit -S -f 1");
        prepare(&mut command, arguments, environment);
        Self::spawn(command)
    }

    /// Lets files grow again.
    pub(crate) fn free_disk(&self) {
        let unlimited = Rlimit { current: None, maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, unlimited).unwrap();
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output = Arc::<Mutex<String>>::default();
        let (sender, lines) = mpsc::unbounded_channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let reader = |stream| {
            let (printed, sender) = (output.clone(), sender.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    printed.lock().unwrap().extend([line.as_str(), "\n"]);
                    let _ = sender.send(line);
                }
            })
        };
        let readers = streams.map(reader).into();
        Self { child, output, lines, readers }
    }

    /// Waits for the next line in which `find` finds something.
    pub(crate) async fn wait_for_line<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> T {
        while let Some(line) = self.lines.recv().await {
            if let Some(found) = find(&line) {
                return found;
            }
        }
        panic!("the process ended without the line: {}", self.output())
    }

    /// The addresses of a gateway's data plane and admin plane.
    pub(crate) async fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        self.wait_for_line(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let addr = |name: &str| line[name].as_str()?.parse().ok();
            (line["message"] == "listening").then(|| addr("addr").zip(addr("admin_addr")))?
        })
        .await
    }

    /// Both outputs so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// A line of `/proc/PID/status` such as `VmRSS`, in bytes.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The number of open pipes, those to this process included.
    pub(crate) fn open_pipes(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let open = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        open.filter(|open| open.to_string_lossy().starts_with("pipe:")).collect::<HashSet<_>>().len()
    }

    /// Sends SIGTERM, as Kubernetes does before a kill.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP, as a closed terminal does.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, signal: &str) {
        let killed = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.child.id())).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for the end of the process: the exit code and both outputs.
    pub(crate) async fn wait(mut self) -> (Option<i32>, String) {
        tokio::task::spawn_blocking(move || {
            let status = self.child.wait().unwrap();
            for reader in self.readers.drain(..) {
                reader.join().unwrap();
            }
            (status.code(), self.output())
        })
        .await
        .unwrap()
    }
}

impl Drop for KoregateProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway as a process of its own, and a client that sends requests to it.
pub(crate) struct GatewayProcess {
    pub(crate) process: KoregateProcess,
    /// The address of the data plane.
    pub(crate) addr: SocketAddr,
    /// The address of the admin plane.
    pub(crate) admin_addr: SocketAddr,
    client: HttpClient,
}

impl GatewayProcess {
    /// Starts `koregate serve` and waits until it listens.
    pub(crate) async fn start(environment: &[(&'static str, String)]) -> Self {
        Self::from_process(KoregateProcess::start(&["serve"], environment)).await
    }

    /// Waits until a process listens.
    pub(crate) async fn from_process(mut process: KoregateProcess) -> Self {
        let (addr, admin_addr) = process.addresses().await;
        Self { process, addr, admin_addr, client: HttpClient::default() }
    }

    /// The whole response; the connection must not break.
    pub(crate) async fn send(&self, request: &TestRequest) -> TestResponse {
        self.client.send(self.addr, request).await
    }

    /// `GET` of a window.
    pub(crate) async fn get(&self, query: impl Into<String>) -> TestResponse {
        self.send(&TestRequest::get(query)).await
    }

    /// Sends a request to the admin plane.
    pub(crate) async fn send_admin(&self, request: &TestRequest) -> TestResponse {
        self.client.send(self.admin_addr, request).await
    }

    /// `GET` of a path of the admin plane.
    pub(crate) async fn get_admin(&self, path: &str) -> TestResponse {
        self.send_admin(&TestRequest::path_only(path)).await
    }

    /// The metrics of the process.
    pub(crate) async fn metrics(&self) -> Metrics {
        self.client.metrics(self.admin_addr).await
    }

    /// Sends SIGTERM and waits for the end: the exit code and both outputs.
    pub(crate) async fn stop(self) -> (Option<i32>, String) {
        self.process.terminate();
        self.process.wait().await
    }
}
