//! nginx, as Debian packages it, between a client and the gateway: an aborted response is an error for the client, and
//! a complete one stays complete.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{
    Fault, FaultPlan, HttpClient, Settings, TestHarness, TestRequest, at, exact_profile, free_port, poll_blocking,
    to_ndjson,
};

/// Four settled days with 2000 items, which are streamed over HTTP/1.1.
const LONG: &str = "from=2026-02-20&to=2026-02-23";
const PAGES: u64 = 20;

/// An nginx in front of one address. Killed when dropped.
struct Nginx {
    addr: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Nginx {
    /// Starts with these settings of the location, beside `proxy_pass`.
    fn start(upstream: SocketAddr, settings: &str) -> Self {
        loop {
            // Another test may have taken the port in between; then nginx exits at once.
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
        // The path of a user other than root may lack it.
        nginx.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        nginx.arg("-p").arg(dir.path()).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = nginx.spawn().expect("nginx, which ./test installs");
        let mut server = Self { addr: SocketAddr::from(([127, 0, 0, 1], port)), child, _dir: dir };
        server.is_up().then_some(server)
    }

    /// Waits until nginx listens; `false` if it has exited instead.
    fn is_up(&mut self) -> bool {
        poll_blocking("nginx to listen", || {
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
async fn response_behind_nginx_is_complete_or_an_error() {
    // By default nginx sends HTTP/1.0 to its upstream.
    for settings in ["", "proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_buffering off;"] {
        let limits = Settings::one_second_limit();
        let harness = TestHarness::start(exact_profile(500, 6), &limits).await;
        let nginx = Nginx::start(harness.gateway.addr(), settings);
        let client = HttpClient::default();
        let lines = TestRequest::get(LONG).ndjson();
        harness.control.set_faults(FaultPlan::always(Fault::Status500).after(PAGES / 2));
        let broken = client.try_send(nginx.addr, &lines).await;
        assert!(broken.as_ref().map_or(true, |response| response.status.is_server_error()), "{settings}: {broken:?}");
        harness.control.clear_faults();
        let response = client.send(nginx.addr, &lines).await;
        let expected = harness.items(at("2026-02-20"), at("2026-02-24"));
        assert!(response.status == 200 && response.body == to_ndjson(&expected), "{settings}: {}", response.status);
    }
}
