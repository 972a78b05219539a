//! Bytes on a connection, for what no client library would send.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The longest that an answer may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// Sends all of it, and reads until the gateway has closed the connection. It may not reset it before what it has answered is
/// read.
pub(crate) fn exchange(addr: SocketAddr, message: &str, is_cut: bool) -> Vec<u8> {
    let mut connection = connect(addr);
    // A gateway that refuses a head may stop reading it.
    let _ = connection.write_all(message.as_bytes());
    if is_cut {
        let _ = connection.shutdown(Shutdown::Write);
    }
    let mut received = Vec::new();
    connection.read_to_end(&mut received).unwrap_or_else(|error| panic!("{error}: {message:.300}"));
    received
}

/// Sends all of it, which must be taken, and reads what comes first.
pub(crate) fn first_answer(addr: SocketAddr, message: &[u8]) -> String {
    let mut connection = connect(addr);
    connection.write_all(message).unwrap();
    let mut received = [0; 1024];
    let read = connection.read(&mut received).unwrap();
    String::from_utf8_lossy(&received[..read]).into_owned()
}

fn connect(addr: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(addr).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    connection
}

/// All that came over a connection.
pub(crate) struct Answers {
    pub(crate) statuses: Vec<u16>,
    /// In lower case.
    pub(crate) heads: String,
}

impl Answers {
    /// Takes the answers apart by their lengths; each of them must be whole.
    pub(crate) fn read(mut received: &[u8]) -> Self {
        let mut answers = Self { statuses: Vec::new(), heads: String::new() };
        while !received.is_empty() {
            let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head has an end") + 4;
            let head = std::str::from_utf8(&received[..end]).unwrap().to_ascii_lowercase();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            received = received[end..].split_at_checked(length).expect("an answer is as long as it says").1;
            if status != 100 {
                answers.statuses.push(status);
            }
            answers.heads += &head;
        }
        answers
    }
}
