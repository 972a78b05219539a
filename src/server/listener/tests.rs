//! Tests of how connections end: after a timeout, in order, or with a reset.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use http_body_util::Full;
use tokio::net::TcpStream;

use super::*;

fn limits() -> Limits {
    let (connections, request_memory) = (ConnectionLimits::new(8, 8), RequestMemory::new(1 << 20));
    Limits { connections, max_head_size: 16 << 10, request_memory, stalled_writes: StalledWrites::new(1 << 20) }
}

async fn connect() -> (TcpStream, CancellationToken) {
    connect_to(|_| async { Ok(Response::new(Full::new(Bytes::from_static(b"here")))) }).await
}

async fn connect_to<F, R, B>(answer: F) -> (TcpStream, CancellationToken)
where
    F: FnMut(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, Infallible>> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (closing, tracker) = (CancellationToken::new(), TaskTracker::new());
    let aborting = CancellationToken::new();
    let listener = Listener { socket, tls: None, limits: limits(), closing: closing.clone(), aborting, tracker };
    let client = TcpStream::connect(listener.addr().unwrap()).await.unwrap();
    tokio::spawn(listener.serve(move |_| tower::service_fn(answer.clone())));
    (client, closing)
}

async fn send(client: &TcpStream, bytes: &[u8]) {
    client.writable().await.unwrap();
    assert_eq!(client.try_write(bytes).unwrap(), bytes.len());
}

/// The next bytes; none if the connection was closed.
async fn receive(client: &TcpStream) -> String {
    let mut bytes = [0; 512];
    loop {
        client.readable().await.unwrap();
        match client.try_read(&mut bytes) {
            Ok(read) => return String::from_utf8(bytes[..read].to_vec()).unwrap(),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn connection_with_a_late_head_is_closed() {
    for (sent, answers) in [(&b""[..], 0), (b"GET / HTTP/1.1\r\nhost", 0), (HEAD, 1)] {
        let (client, _closing) = connect().await;
        let started = tokio::time::Instant::now();
        if !sent.is_empty() {
            send(&client, sent).await;
        }
        for _ in 0..answers {
            assert!(receive(&client).await.ends_with("here"));
        }
        assert_eq!(receive(&client).await, "");
        assert_eq!(started.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn connection_with_further_requests_stays_open() {
    let (client, closing) = connect().await;
    for _ in 0..20 {
        send(&client, HEAD).await;
        assert!(receive(&client).await.ends_with("here"));
        tokio::time::sleep(HEAD_TIMEOUT / 2).await;
    }
    // An idle connection is closed at once when the listener closes.
    let closed = tokio::time::Instant::now();
    closing.cancel();
    assert_eq!(receive(&client).await, "");
    assert!(closed.elapsed().is_zero());
}

/// A body with or without a declared length, which breaks off after one frame.
struct BrokenBody {
    length: Option<u64>,
    frames: u32,
}

impl Body for BrokenBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.frames += 1;
        match self.frames {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"started"))))),
            // hyper sends the first frame before the body breaks off.
            2 => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Some(Err(std::io::ErrorKind::Other.into()))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[tokio::test]
async fn connection_whose_response_breaks_off_is_reset() {
    for (version, length) in [("1.1", None), ("1.1", Some(10)), ("1.0", Some(10)), ("1.0", None)] {
        let answer = move |_| async move { Ok::<_, Infallible>(Response::new(BrokenBody { length, frames: 0 })) };
        let (client, _closing) = connect_to(answer).await;
        send(&client, format!("GET / HTTP/{version}\r\nhost: here\r\n\r\n").as_bytes()).await;
        let error = loop {
            client.readable().await.unwrap();
            match client.try_read(&mut [0; 512]) {
                Ok(0) => panic!("HTTP/{version}, {length:?}: closed in order"),
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break error,
                Ok(_) | Err(_) => {}
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "HTTP/{version}, {length:?}");
    }
}

#[tokio::test]
async fn aborted_connection_is_reset_and_its_task_ends() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (closing, aborting, tracker) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let (connections, arrived) = (tracker.clone(), Arc::new(tokio::sync::Notify::new()));
    let (closed, aborted) = (closing.clone(), aborting.clone());
    let listener = Listener { socket, tls: None, limits: limits(), closing: closed, aborting: aborted, tracker };
    let client = TcpStream::connect(listener.addr().unwrap()).await.unwrap();
    let arrive = arrived.clone();
    let never = move |_| {
        arrive.notify_one();
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    };
    tokio::spawn(listener.serve(move |_| tower::service_fn(never.clone())));
    send(&client, HEAD).await;
    arrived.notified().await;
    closing.cancel();
    aborting.cancel();
    connections.close();
    connections.wait().await;
    client.readable().await.unwrap();
    let error = client.try_read(&mut [0; 512]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
