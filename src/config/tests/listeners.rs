//! The addresses of the listeners, and TLS of the admin listener.

use super::{MINIMAL, load};

#[test]
fn listeners_have_addresses_of_their_own() {
    for (lines, expected) in [
        (
            "[server]\nadmin_listen = \"127.0.0.1:8080\"",
            "6: server.admin_listen: is the address of `listen`; the admin plane has a listener of its own",
        ),
        (
            "[server]\nmetrics_listen = \"127.0.0.1:9090\"",
            "6: server.metrics_listen: is the address of another listener",
        ),
        ("[server]\nmetrics_listen = \"127.0.0.1:8080\"", "is the address of another listener"),
        ("[admin.tls]\ncert = \"a.pem\"", "5: admin.tls.key: is missing"),
    ] {
        let error = load(&format!("{MINIMAL}{lines}\n")).unwrap_err();
        assert!(error.contains(expected), "{lines}: {error}");
    }
    let free = "[server]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n";
    assert!(load(&format!("{MINIMAL}{free}")).is_ok(), "any free port is no collision");
}
