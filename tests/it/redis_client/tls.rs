//! TLS to Redis with the system's root certificates.

use std::process;
use std::time::Duration;

use super::{ConnectionError, RedisClient, client_with, ok, run, run_until_open, set};
use crate::support::{CertificateAuthority, RedisServer, free_port};

/// Environment variable with the URL of the server, set in the child process that trusts its authority.
const URL: &str = "KOREGATE_TEST_REDIS";

/// A client with time for a handshake on a busy machine.
fn connect(url: &str) -> RedisClient {
    client_with(url, 16 << 20, Duration::from_secs(10))
}

#[tokio::test]
async fn tls_certificate_is_checked_against_system_roots() {
    // The environment names the system's roots, and it can be changed for a child process only.
    if let Ok(url) = std::env::var(URL) {
        assert_eq!(run(&connect(&url), set("key", "some")).await, Ok(ok()));
        let misnamed = run_until_open(&connect(&url.replace("127.0.0.1", "localhost"))).await;
        assert!(matches!(&misnamed, ConnectionError::Unreachable(why) if why.contains("certificate")), "{misnamed:?}");
        return;
    }
    let authority = CertificateAuthority::new();
    let signed = authority.sign("127.0.0.1");
    let [cert, key, ca] = [signed.cert, signed.key, authority.file()].map(|file| file.to_str().unwrap().to_owned());
    let port = free_port().to_string();
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let server = RedisServer::start_with(&[&files[..], &["--tls-port", &port, "--tls-auth-clients", "no"]].concat());
    server.command(&["ACL", "SETUSER", "kg", "on", ">hunter2", "~*", "+@all"]);
    let url = format!("rediss://kg:hunter2@127.0.0.1:{port}");

    let unknown = run_until_open(&connect(&url)).await;
    assert!(matches!(&unknown, ConnectionError::Unreachable(why) if why.contains("certificate")), "{unknown:?}");

    let name = std::thread::current().name().unwrap().to_owned();
    let mut trusting = process::Command::new(std::env::current_exe().unwrap());
    let ended = trusting.args(["--exact", &name]).env("SSL_CERT_FILE", ca).env(URL, url).output().unwrap();
    let output = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && output.contains("1 passed"), "{output}");
}
