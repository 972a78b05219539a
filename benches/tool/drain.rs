//! A load generator for large answers. It reads the head of an answer, and lets the kernel throw the body away
//! (`MSG_TRUNC`), so that it is the server that is measured; or it copies the body, as each true client does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// How much of an answer is read at first: its head, and a little of the body.
const HEAD: usize = 1024;
/// How much is read where the head of a chunk is expected.
const CHUNK_HEAD: usize = 32;
/// How much the kernel may throw away at once.
const ROOM: usize = 1 << 20;
/// How much a client copies at once: what many libraries take.
const COPIED: usize = 1 << 16;

/// What becomes of the bodies.
#[derive(Clone, Copy, Default)]
pub(crate) enum Bodies {
    /// They stay in the kernel.
    #[default]
    Discarded,
    /// Each byte is copied out of the kernel.
    Copied,
}

impl Bodies {
    /// The most that is taken at once, and how.
    const fn manner(self) -> (usize, RecvFlags) {
        match self {
            Self::Discarded => (ROOM, RecvFlags::TRUNC),
            Self::Copied => (COPIED, RecvFlags::empty()),
        }
    }
}

/// What all connections saw.
#[derive(Default)]
struct Tally {
    microseconds: Vec<u64>,
    bytes: u64,
}

/// Sends the bytes of the file `request` over so many connections, again and again, for so many seconds; the answer to
/// the last request of each connection is awaited. Prints what came of it as a line of JSON.
pub(crate) fn run(
    bodies: Bodies,
    address: &str,
    request: &str,
    connections: &str,
    seconds: &str,
) -> anyhow::Result<()> {
    let request = Bytes::from(std::fs::read(request).context(request.to_owned())?);
    let (connections, seconds): (usize, f64) = (connections.parse()?, seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Rc::new(RefCell::new(Tally::default()));
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    LocalSet::new().block_on(&runtime, async {
        let caller =
            |_| tokio::task::spawn_local(call(bodies, address.to_owned(), request.clone(), until, tally.clone()));
        for caller in (0..connections).map(caller).collect::<Vec<_>>() {
            caller.await??;
        }
        anyhow::Ok(())
    })?;
    let took = begun.elapsed().as_secs_f64();
    let mut tally = tally.borrow_mut();
    tally.microseconds.sort_unstable();
    let share = |percent: usize| {
        let last = tally.microseconds.len().saturating_sub(1);
        tally.microseconds.get(last * percent / 100).copied().unwrap_or_default()
    };
    let line = serde_json::json!({
        "requests": tally.microseconds.len(), "seconds": took, "bytes": tally.bytes,
        "p50_us": share(50), "p99_us": share(99),
    });
    println!("{line}");
    Ok(())
}

/// One connection.
async fn call(
    bodies: Bodies,
    address: String,
    request: Bytes,
    until: Instant,
    tally: Rc<RefCell<Tally>>,
) -> anyhow::Result<()> {
    let stream = TcpStream::connect(&address).await.context(address)?;
    stream.set_nodelay(true)?;
    let mut answer = Answer { bodies, ..Answer::default() };
    while Instant::now() < until {
        let begun = Instant::now();
        send(&stream, &request).await?;
        answer.pass(&stream).await?;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        tally.borrow_mut().microseconds.push(took);
    }
    tally.borrow_mut().bytes += answer.bytes;
    Ok(())
}

/// Sends all of it.
pub(crate) async fn send(stream: &TcpStream, mut request: &[u8]) -> anyhow::Result<()> {
    while !request.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || stream.try_write(request)).await?;
        request = &request[sent..];
    }
    Ok(())
}

/// What is known of the answer that is coming in.
pub(crate) struct Answer {
    bodies: Bodies,
    /// Bytes that were read and not yet understood.
    ahead: BytesMut,
    room: Vec<u8>,
    /// Bytes of all answers so far, their heads not counted.
    bytes: u64,
}

impl Default for Answer {
    fn default() -> Self {
        Self { bodies: Bodies::default(), ahead: BytesMut::with_capacity(HEAD), room: vec![0; ROOM], bytes: 0 }
    }
}

impl Answer {
    /// Lets one answer pass.
    pub(crate) async fn pass(&mut self, stream: &TcpStream) -> anyhow::Result<()> {
        let head = self.until(stream, b"\r\n\r\n", HEAD).await?;
        let head = std::str::from_utf8(&head)?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            bail!("the answer is {}", head.lines().next().unwrap_or_default());
        }
        if let Some((_, length)) = head.split_once("\r\ncontent-length:") {
            let length = length.lines().next().unwrap_or_default().trim().parse()?;
            return self.discard(stream, length).await;
        }
        loop {
            let line = self.until(stream, b"\r\n", CHUNK_HEAD).await?;
            let length = usize::from_str_radix(std::str::from_utf8(&line)?.trim(), 16)?;
            // Behind each chunk, and at the end, stands an empty line.
            self.discard(stream, length + 2).await?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// What comes up to and with `mark`, read at most `step` bytes at a time, so that little else is copied.
    async fn until(&mut self, stream: &TcpStream, mark: &[u8], step: usize) -> anyhow::Result<BytesMut> {
        loop {
            if let Some(at) = self.ahead.windows(mark.len()).position(|window| window == mark) {
                return Ok(self.ahead.split_to(at + mark.len()));
            }
            let room = &mut self.room[..step];
            let receive = || Ok(rustix::net::recv(stream, &mut *room, RecvFlags::empty())?.1);
            match stream.async_io(Interest::READABLE, receive).await? {
                0 => bail!("the connection was closed"),
                came => self.ahead.extend_from_slice(&self.room[..came]),
            }
        }
    }

    /// Takes the next `left` bytes, and keeps none of them.
    async fn discard(&mut self, stream: &TcpStream, mut left: usize) -> anyhow::Result<()> {
        self.bytes += left as u64;
        let known = left.min(self.ahead.len());
        self.ahead.advance(known);
        left -= known;
        let (most, flags) = self.bodies.manner();
        while left > 0 {
            let room = &mut self.room[..left.min(most)];
            let receive = || Ok(rustix::net::recv(stream, &mut *room, flags)?.1);
            match stream.async_io(Interest::READABLE, receive).await? {
                0 => bail!("the connection was closed"),
                gone => left -= gone,
            }
        }
        Ok(())
    }
}
