//! Lingering close of a connection whose client may still be sending, for instance a body that is too large.
//!
//! A socket that is closed with unread bytes is reset, and a reset discards data that the peer has not read yet. So the
//! sending half is closed first, and incoming bytes are discarded until the client closes its half, as nginx does
//! (`lingering_close`) and RFC 9112, 9.6 recommends.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// Maximum duration of a lingering close.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time without incoming bytes after which a lingering close ends.
const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Size in bytes of the buffer for discarded bytes.
const DISCARD_BUFFER: usize = 16 << 10;

/// Closes the sending half of `stream` and discards incoming bytes until the stream can be closed.
pub(super) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let discarding = async {
        // A stream that was shut down before is not changed by this.
        let _ = poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await;
        let mut discarded = vec![0; DISCARD_BUFFER];
        while let Ok(Ok(1..)) = timeout(LINGER_IDLE_TIMEOUT, read(&mut stream, &mut discarded)).await {}
    };
    let _ = timeout(LINGER_TIMEOUT, discarding).await;
}

/// Reads once; returns the number of bytes, 0 at the end of the stream.
async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> io::Result<usize> {
    poll_fn(|context| {
        let mut buffer = ReadBuf::new(bytes);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
        Ok(buffer.filled().len()).into()
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    async fn connect() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test(start_paused = true)]
    async fn linger_lasts_longer_for_a_sending_than_an_idle_client() {
        for (pause, expected) in [(1, LINGER_TIMEOUT), (60, LINGER_IDLE_TIMEOUT)] {
            let (client, server) = connect().await;
            let sending = tokio::spawn(async move {
                while client.try_write(b"more").is_ok() {
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                }
            });
            let started = Instant::now();
            linger(server).await;
            assert_eq!(started.elapsed().as_secs(), expected.as_secs(), "every {pause} s");
            sending.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn linger_ends_when_the_client_closes() {
        let (client, server) = connect().await;
        drop(client);
        let started = Instant::now();
        linger(server).await;
        assert!(started.elapsed().is_zero());
    }
}
