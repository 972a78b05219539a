//! The real binary as a child process: what it prints, where it listens, and how it ends.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use koregate_simulator::Credential;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::sync::mpsc;

const BINARY: &str = env!("CARGO_BIN_EXE_koregate");

/// The environment that is enough for one account.
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

/// Starts the binary from a shell, which does this first.
fn from_shell(before: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), BINARY]);
    shell
}

/// The binary, with nothing of this process's environment.
fn koregate(arguments: &[&str], environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(BINARY);
    prepare(&mut command, arguments, environment);
    command
}

fn prepare(command: &mut Command, arguments: &[&str], environment: &[(&'static str, String)]) {
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (*name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str], environment: &[(&'static str, String)], stdin: &str) -> Output {
    let mut child = koregate(arguments, environment).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Either of the two outputs as text.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Starts something on one core, where it stays.
pub(crate) fn on_one_core<T>(start: impl FnOnce() -> T) -> T {
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap());
    sched_setaffinity(None, &one).unwrap();
    let started = start();
    sched_setaffinity(None, &all).unwrap();
    started
}

/// A command that runs until it is told to end. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// All that it has printed so far, on either output.
    printed: Arc<Mutex<String>>,
    lines: mpsc::UnboundedReceiver<String>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str], environment: &[(&'static str, String)]) -> Self {
        Self::of(koregate(arguments, environment))
    }

    /// The same, with at most so many open files.
    pub(crate) fn start_limited(
        arguments: &[&str],
        environment: &[(&'static str, String)],
        open_files: Option<u64>,
    ) -> Self {
        let limit = |open_files| from_shell(&format!("ulimit -n {open_files}"));
        let mut command = open_files.map_or_else(|| Command::new(BINARY), limit);
        prepare(&mut command, arguments, environment);
        Self::of(command)
    }

    /// The same where no file may grow beyond 512 bytes, until [`Running::make_room`].
    pub(crate) fn start_without_room(arguments: &[&str], environment: &[(&'static str, String)]) -> Self {
        // The signal is ignored, so that writing fails instead, as on a full disk.
        let mut command = from_shell("trap '' XFSZ; ulimit -S -f 1");
        prepare(&mut command, arguments, environment);
        Self::of(command)
    }

    /// From now on files may grow again.
    pub(crate) fn make_room(&self) {
        let unlimited = Rlimit { current: None, maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, unlimited).unwrap();
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let printed = Arc::<Mutex<String>>::default();
        let (sender, lines) = mpsc::unbounded_channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let reader = |output| {
            let (printed, sender) = (printed.clone(), sender.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    printed.lock().unwrap().extend([line.as_str(), "\n"]);
                    let _ = sender.send(line);
                }
            })
        };
        let readers = outputs.map(reader).into();
        Self { child, printed, lines, readers }
    }

    /// The next line that `wanted` picks something from.
    pub(crate) async fn line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> T {
        while let Some(line) = self.lines.recv().await {
            if let Some(found) = wanted(&line) {
                return found;
            }
        }
        panic!("it ended without the line: {}", self.printed())
    }

    /// Where a gateway listens: for callers and for operators.
    pub(crate) async fn listening(&mut self) -> (SocketAddr, SocketAddr) {
        self.line(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let addr = |name: &str| line[name].as_str()?.parse().ok();
            (line["message"] == "listening").then(|| addr("addr").zip(addr("admin_addr")))?
        })
        .await
    }

    /// All that it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// A line of its memory in `/proc/PID/status`, such as `VmRSS`, in bytes.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// How many pipes it has open, those to this process included.
    pub(crate) fn pipes(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let open = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        open.filter(|open| open.to_string_lossy().starts_with("pipe:")).collect::<HashSet<_>>().len()
    }

    /// Sends SIGTERM, as Kubernetes does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP, as a terminal does that is closed.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, signal: &str) {
        let killed = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.child.id())).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for its end: the exit code, and all that it has printed.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        tokio::task::spawn_blocking(move || {
            let status = self.child.wait().unwrap();
            for reader in self.readers.drain(..) {
                reader.join().unwrap();
            }
            (status.code(), self.printed())
        })
        .await
        .unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
