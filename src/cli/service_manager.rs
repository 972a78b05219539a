//! Notifications to systemd (`sd_notify(3)`), for a unit of `Type=notify`: a datagram to the socket that the variable
//! `NOTIFY_SOCKET` names. Without the variable, nothing is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The state of the process, for systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceState {
    /// Both listeners serve.
    Ready,
    /// The drain has begun.
    Stopping,
}

impl ServiceState {
    const fn message(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
        }
    }
}

/// Tells systemd the state of this process. A failure is logged: systemd ends the process if it does not hear of it.
pub(super) fn notify(state: ServiceState) {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "systemd cannot be notified over {SOCKET_VARIABLE}");
    }
}

/// Sends a state to a socket: a path, or `@` and the name of an abstract one.
fn send(socket: &OsStr, state: ServiceState) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.message().as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut message = [0; 64];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    #[test]
    fn state_reaches_a_socket_by_path_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), ServiceState::Ready).unwrap();
        assert_eq!(received(&by_path), "READY=1");
        let name = format!("koregate-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), ServiceState::Stopping).unwrap();
        assert_eq!(received(&by_name), "STOPPING=1");
        assert!(send(folder.path().join("nothing").as_os_str(), ServiceState::Ready).is_err());
    }
}
