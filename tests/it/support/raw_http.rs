//! Bytes on a socket, for messages that no client library would send and endings that it would hide.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for bytes of a response.
const READ_DEADLINE: Duration = Duration::from_mins(1);

fn connect(addr: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(addr).unwrap();
    connection.set_read_timeout(Some(READ_DEADLINE)).unwrap();
    connection
}

/// Sends `request` over a connection of its own and reads nothing yet.
pub(crate) fn send_raw(addr: SocketAddr, request: &[u8]) -> TcpStream {
    let mut connection = connect(addr);
    connection.write_all(request).unwrap();
    connection
}

/// Sends `request` over a connection of its own and reads until it ends: all bytes that came, and the kind of error
/// that ended the connection if it was not closed in order.
pub(crate) async fn read_to_end(addr: SocketAddr, request: &[u8]) -> (Vec<u8>, Option<ErrorKind>) {
    let mut connection = send_raw(addr, request);
    let reading = move || {
        let mut received = Vec::new();
        let ended = connection.read_to_end(&mut received);
        (received, ended.err().map(|error| error.kind()))
    };
    tokio::task::spawn_blocking(reading).await.unwrap()
}

/// Sends `message`, closes the sending half if `half_close`, and reads until the gateway has closed the connection. The
/// gateway must not reset it before the responses are read.
pub(crate) fn exchange(addr: SocketAddr, message: &str, half_close: bool) -> Vec<u8> {
    let mut connection = connect(addr);
    // A gateway that refuses a head may stop reading it.
    let _ = connection.write_all(message.as_bytes());
    if half_close {
        let _ = connection.shutdown(Shutdown::Write);
    }
    let mut received = Vec::new();
    connection.read_to_end(&mut received).unwrap_or_else(|error| panic!("{error}: {message:.300}"));
    received
}

/// Sends all of `message`, which the gateway must accept, and reads the first bytes of the response.
pub(crate) fn first_response(addr: SocketAddr, message: &[u8]) -> String {
    let mut connection = send_raw(addr, message);
    let mut received = [0; 1024];
    let read = connection.read(&mut received).unwrap();
    String::from_utf8_lossy(&received[..read]).into_owned()
}

/// Splits the bytes of one response into its head, in lower case, and its body.
#[track_caller]
pub(crate) fn split_head(received: &[u8]) -> (String, &[u8]) {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an end of the head") + 4;
    (String::from_utf8(received[..end].to_vec()).unwrap().to_ascii_lowercase(), &received[end..])
}

/// All responses of one connection.
pub(crate) struct RawResponses {
    pub(crate) statuses: Vec<u16>,
    /// All heads, in lower case.
    pub(crate) heads: String,
}

impl RawResponses {
    /// Splits responses by their lengths; each of them must be complete.
    pub(crate) fn parse(mut received: &[u8]) -> Self {
        let mut responses = Self { statuses: Vec::new(), heads: String::new() };
        while !received.is_empty() {
            let (head, rest) = split_head(received);
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            received = rest.split_at_checked(length).expect("a body of the declared length").1;
            if status != 100 {
                responses.statuses.push(status);
            }
            responses.heads += &head;
        }
        responses
    }
}
