//! Peers that do not speak the protocol of Redis.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::{ConnectionError, Event, client, client_with, get, run, run_until_open};

/// Starts a peer that answers each read with the same bytes, `times` on each connection, and then nothing. Without
/// bytes it closes the connection.
fn start_peer(reply: &'static [u8], times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut read, mut left) = ([0; 4096], times);
                while stream.read(&mut read).is_ok_and(|length| length > 0) {
                    if reply.is_empty() || left > 0 && stream.write_all(reply).is_err() {
                        return;
                    }
                    left = left.saturating_sub(1);
                }
            });
        }
    });
    format!("redis://{addr}")
}

#[tokio::test]
async fn malformed_reply_is_an_error() {
    let not_ready = |code: &str| ConnectionError::NotReady(code.to_owned());
    // An unreadable reply closes the connection; the error depends on which pending call reads it.
    let broken = ConnectionError::Broken("broken pipe".to_owned());
    for (reply, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"[..], [ConnectionError::Nonsense, broken.clone()]),
        (b"\0\xff\xfe\r\n", [ConnectionError::Nonsense, broken.clone()]),
        (b"*999999999\r\n", [ConnectionError::TimedOut, ConnectionError::TimedOut]),
        // Incomplete, and malformed with the next reply behind it.
        (b"$5\r\nab", [ConnectionError::TimedOut, broken.clone()]),
        (b"-LOADING Redis is loading the dataset in memory\r\n", [not_ready("LOADING"), not_ready("LOADING")]),
        (b"-CLUSTERDOWN The cluster is down\r\n", [not_ready("CLUSTERDOWN"), not_ready("CLUSTERDOWN")]),
        (b"", [broken.clone(), broken.clone()]),
    ] {
        let url = start_peer(reply, usize::MAX);
        let error = run_until_open(&client(&url)).await;
        assert!(expected.contains(&error), "{}: {error:?}", reply.escape_ascii());
        // With a login, or in a Cluster or behind Sentinels, the errors differ.
        run_until_open(&client(&url.replace("redis://", "redis://user:hunter2@"))).await;
        for url in [url.replace("redis://", "redis+cluster://"), url.replace("redis://", "redis+sentinel://") + "/main"]
        {
            assert!(run(&client(&url), get("key")).await.is_err(), "{url}: {}", reply.escape_ascii());
        }
    }
}

#[tokio::test]
async fn two_gigabyte_value_is_refused_before_reading() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, mut read) = (listener.accept().unwrap().0, [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut read) {
            for command in String::from_utf8_lossy(&read[..length]).split('*').skip(1) {
                // No byte of the value is ever sent, so waiting for it would end in the timeout.
                let reply = if command.contains("GET\r\n$3\r\nkey") { "$2147483648\r\n" } else { "-ERR no\r\n" };
                stream.write_all(reply.as_bytes()).unwrap();
            }
        }
    });
    assert!(run(&client(&url), get("key")).await.unwrap().is_too_large());
}

#[tokio::test]
async fn endless_reply_closes_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let value = [b"$65536\r\n", vec![b'x'; 65536].as_slice(), b"\r\n"].concat();
        stream.write_all(b"*1000000000\r\n").unwrap();
        (0u64..1_000_000_000).take_while(|_| stream.write_all(&value).is_ok()).count()
    });
    // A debug build is slow with so many bytes.
    let slow = client_with(&url, 2 << 20, std::time::Duration::from_mins(1));
    // Broken, if another call on the same connection has read it first.
    let error = slow.run(vec![get("key")]).await.unwrap_err();
    assert!(matches!(error, ConnectionError::TooLarge(8_388_608) | ConnectionError::Broken(_)), "{error:?}");
    let written = server.join().unwrap();
    // The limit, and the buffers of both sockets.
    assert!(written < 1000, "{written} values of 64 KiB");
}

#[tokio::test]
async fn subscription_to_silent_peer_reconnects() {
    let url = start_peer(b"*3\r\n$9\r\nsubscribe\r\n$3\r\none\r\n:1\r\n", 1);
    let mut subscription = client(&url).listen(vec!["one".to_owned()]);
    for _ in 0..2 {
        assert_eq!(subscription.next().await, Event::Connected);
    }
}
