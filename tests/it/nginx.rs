//! nginx between a client and the gateway, as Debian has it: what breaks off is an error for the client, and what is whole
//! stays whole.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use koregate_simulator::{Fault, FaultPlan};
use tempfile::TempDir;

use crate::representation::ndjson;
use crate::support::{Ask, Rig, Settings, at, exact_profile, free_port, wait_for};

/// Four settled days of 2000 items in all, which are streamed over HTTP/1.1.
const LONG: &str = "from=2026-02-20&to=2026-02-23";
const PAGES: u64 = 20;

/// A proxy before one address. Killed when dropped.
struct Nginx {
    addr: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Nginx {
    /// `settings` are those of its one location, beside `proxy_pass`.
    fn start(upstream: SocketAddr, settings: &str) -> Self {
        loop {
            // Another test may have taken the port in between; then the server ends at once.
            if let Some(server) = Self::try_start(free_port(), upstream, settings) {
                return server;
            }
        }
    }

    fn try_start(port: u16, upstream: SocketAddr, settings: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let paths =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {root};"));
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr; events {{}} http {{ access_log off; {} \
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{upstream}; {settings} }} }} }}",
            paths.concat()
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut nginx = Command::new("nginx");
        // A user that is not root may not have it in its path.
        nginx.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        nginx.arg("-p").arg(dir.path()).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = nginx.spawn().expect("nginx, which ./test installs");
        let mut server = Self { addr: SocketAddr::from(([127, 0, 0, 1], port)), child, _dir: dir };
        server.is_up().then_some(server)
    }

    /// Waits until it listens; `false` if it has ended instead.
    fn is_up(&mut self) -> bool {
        wait_for("an nginx that listens", || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            std::net::TcpStream::connect(self.addr).is_ok().then_some(true)
        })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn answer_behind_nginx_is_whole_or_an_error() {
    // By default nginx speaks HTTP/1.0 to what it stands before.
    for settings in ["", "proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_buffering off;"] {
        let limits = Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]");
        let rig = Rig::start(exact_profile(500, 6), &limits).await;
        let nginx = Nginx::start(rig.door.addr(), settings);
        let lines = Ask::get(LONG).header("accept", "application/x-ndjson");
        rig.control.set_faults(FaultPlan::always(Fault::Status500).after(PAGES / 2));
        let broken = rig.door.client.send(nginx.addr, &lines).await;
        assert!(broken.as_ref().map_or(true, |answer| answer.status.is_server_error()), "{settings}: {broken:?}");
        rig.control.clear_faults();
        let answer = rig.door.client.send(nginx.addr, &lines).await.unwrap();
        let truth = rig.truth(at("2026-02-20"), at("2026-02-24"));
        assert!(answer.status == 200 && answer.body == ndjson(&truth), "{settings}: {}", answer.status);
    }
}
