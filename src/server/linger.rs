//! The end of a connection that the gateway closes although its client may still be sending: after a body that was too
//! large, say. A socket that is closed with bytes unread is reset, and a reset takes away what its peer has not read yet. So
//! first the sending half is closed, and what comes until the client closes the other one is discarded, as nginx does
//! (`lingering_close`) and RFC 9112 asks for (9.6).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// How long a client may go on sending.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may send nothing.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// Bytes that are discarded at once.
const DISCARDED: usize = 16 << 10;

/// Returns when `stream` can be closed.
pub(super) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let discarding = async {
        // Where it was closed before, this does nothing.
        let _ = poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await;
        let mut discarded = vec![0; DISCARDED];
        while let Ok(Ok(1..)) = timeout(LINGER_SILENCE, read(&mut stream, &mut discarded)).await {}
    };
    let _ = timeout(LINGER_TIMEOUT, discarding).await;
}

/// Reads once: how many bytes came, 0 at the end.
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
    async fn client_that_sends_is_waited_for_and_a_silent_one_is_not() {
        for (pause, expected) in [(1, LINGER_TIMEOUT), (60, LINGER_SILENCE)] {
            let (client, server) = connect().await;
            let sending = tokio::spawn(async move {
                while client.try_write(b"more").is_ok() {
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                }
            });
            let began = Instant::now();
            linger(server).await;
            assert_eq!(began.elapsed().as_secs(), expected.as_secs(), "every {pause} s");
            sending.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_closes_ends_it_at_once() {
        let (client, server) = connect().await;
        drop(client);
        let began = Instant::now();
        linger(server).await;
        assert!(began.elapsed().is_zero());
    }
}
