//! TLS to Redis, with the system's root certificates.

use std::process::Command;

use koregate::redis_client::ConnectionError;

use super::{ask, ask_until_open, link, ok, set};
use crate::support::{RedisServer, free_port};
use crate::tls::Authority;

/// Names the server in the process that trusts its authority.
const URL: &str = "KOREGATE_TEST_REDIS";

#[tokio::test]
async fn a_certificate_is_held_against_the_roots_of_the_system() {
    // Which roots are the system's, the environment says, and only that of another process can be changed.
    if let Ok(url) = std::env::var(URL) {
        assert_eq!(ask(&link(&url), set("key", "some")).await, Ok(ok()));
        let misnamed = ask_until_open(&link(&url.replace("127.0.0.1", "localhost"))).await;
        assert!(matches!(&misnamed, ConnectionError::Unreachable(why) if why.contains("certificate")), "{misnamed:?}");
        return;
    }
    let authority = Authority::new();
    let signed = authority.sign("127.0.0.1");
    let [cert, key, ca] = [signed.cert, signed.key, authority.file()].map(|file| file.to_str().unwrap().to_owned());
    let port = free_port().to_string();
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let server = RedisServer::with(&[&files[..], &["--tls-port", &port, "--tls-auth-clients", "no"]].concat());
    server.admin(&["ACL", "SETUSER", "kg", "on", ">hunter2", "~*", "+@all"]);
    let url = format!("rediss://kg:hunter2@127.0.0.1:{port}");

    let unknown = ask_until_open(&link(&url)).await;
    assert!(matches!(&unknown, ConnectionError::Unreachable(why) if why.contains("certificate")), "{unknown:?}");

    let name = std::thread::current().name().unwrap().to_owned();
    let mut trusting = Command::new(std::env::current_exe().unwrap());
    let ended = trusting.args(["--exact", &name]).env("SSL_CERT_FILE", ca).env(URL, url).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}");
}
