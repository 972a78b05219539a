//! The simulated network: connections with latency between machines, links that are cut for a time, and resets.
//!
//! A message that is sent over a cut link arrives when the link is whole again, as TCP repeats it. The order of the
//! bytes of a connection is kept.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use koregate::network::{Duplex, SimulatedNetwork};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::host::{now, sleep_until};

/// Bytes of one direction that may be under way, as a kernel's buffers bound them.
const MAX_UNDER_WAY: usize = 256 << 10;
/// The longest that TCP waits before it sends again what was lost while a link was cut.
const MAX_RETRANSMISSION: Duration = Duration::from_millis(800);

/// The longest latency of a network that is not slow, in milliseconds.
pub(super) const MAX_LATENCY: u64 = 3;

/// A machine of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Redis,
    Upstream,
    Gateway(usize),
}

impl Node {
    /// The node that listens on a port.
    fn of_port(port: u16) -> Self {
        if port == super::REDIS_PORT { Self::Redis } else { Self::Upstream }
    }
}

/// The network. Clones are the same.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    /// The longest latency, in milliseconds.
    max_latency: u64,
    listeners: BTreeMap<Node, UnboundedSender<SimStream>>,
    cut_until: BTreeMap<(Node, Node), Duration>,
    connections: Vec<Connection>,
    /// What was sent: when, by whom, to whom, and how many bytes.
    sent: Vec<(Duration, Node, Node, usize)>,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (listeners, cut_until) = (BTreeMap::new(), BTreeMap::new());
        let (connections, sent) = (Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { random, max_latency: MAX_LATENCY, listeners, cut_until, connections, sent })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections to `node` from now on.
    pub(super) fn listen(&self, node: Node) -> UnboundedReceiver<SimStream> {
        let (sender, receiver) = unbounded_channel();
        self.lock().listeners.insert(node, sender);
        receiver
    }

    /// Refuses connections to `node`.
    pub(super) fn close(&self, node: Node) {
        self.lock().listeners.remove(&node);
    }

    /// Cuts the link between two machines.
    pub(super) fn cut(&self, one: Node, other: Node, until: Duration) {
        let mut state = self.lock();
        let end = state.cut_until.entry(link(one, other)).or_default();
        *end = until.max(*end);
    }

    /// Breaks all connections of a machine off, so that both ends notice.
    pub(super) fn reset_connections(&self, node: Node) {
        let mut state = self.lock();
        state.connections.retain(|(from, to, pipes)| {
            let is_reset = [from, to].contains(&&node);
            if is_reset {
                pipes.iter().for_each(reset);
            }
            !is_reset && pipes.iter().all(|pipe| Arc::strong_count(pipe) > 1)
        });
    }

    /// What was sent up to now: when, by whom, to whom, and how many bytes.
    pub(super) fn sent(&self) -> Vec<(Duration, Node, Node, usize)> {
        self.lock().sent.clone()
    }

    /// Sets the longest latency, in milliseconds.
    pub(super) fn set_max_latency(&self, max: u64) {
        self.lock().max_latency = max.max(1);
    }

    /// The network as one gateway sees it.
    pub(super) fn of_gateway(&self, gateway: usize) -> koregate::network::Network {
        koregate::network::Network::Simulated(Arc::new(GatewayNetwork {
            me: Node::Gateway(gateway),
            net: self.clone(),
        }))
    }

    fn is_cut(&self, one: Node, other: Node) -> bool {
        self.lock().cut_until.get(&link(one, other)).is_some_and(|until| *until > now())
    }

    /// When something sent now from one machine to the other arrives.
    fn arrival(&self, one: Node, other: Node) -> Duration {
        let (mut state, now) = (self.lock(), now());
        let max_latency = state.max_latency;
        let latency = Duration::from_millis(state.random.u64(1..=max_latency));
        match state.cut_until.get(&link(one, other)).copied() {
            Some(until) if until > now => {
                let resent = state.random.u64(0..u64::try_from(MAX_RETRANSMISSION.as_millis()).unwrap());
                until + Duration::from_millis(resent) + latency
            }
            _ => now + latency,
        }
    }
}

fn link(one: Node, other: Node) -> (Node, Node) {
    (one.min(other), one.max(other))
}

struct GatewayNetwork {
    me: Node,
    net: Net,
}

impl SimulatedNetwork for GatewayNetwork {
    fn connect(&self, _: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let (me, net, target) = (self.me, self.net.clone(), Node::of_port(port));
        Box::pin(async move {
            // A SYN and its answer.
            sleep_until(net.arrival(me, target)).await;
            sleep_until(net.arrival(target, me)).await;
            let pipes = [Arc::<Mutex<Pipe>>::default(), Arc::default()];
            let stream = |from, to, read: &Arc<Mutex<Pipe>>, write: &Arc<Mutex<Pipe>>| SimStream {
                net: net.clone(),
                route: (from, to),
                read: read.clone(),
                write: write.clone(),
                arrival: None,
            };
            let (near, far) = (stream(me, target, &pipes[0], &pipes[1]), stream(target, me, &pipes[1], &pipes[0]));
            let mut state = net.lock();
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            state.listeners.get(&target).ok_or_else(refused)?.send(far).map_err(|_| refused())?;
            state.connections.push((me, target, pipes));
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

/// Both ends of a connection, and its directions.
type Connection = (Node, Node, [Arc<Mutex<Pipe>>; 2]);

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    /// Bytes with the time at which they arrive.
    under_way: VecDeque<(Duration, Vec<u8>)>,
    bytes: usize,
    /// When the end arrives.
    closed: Option<Duration>,
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reset(pipe: &Arc<Mutex<Pipe>>) {
    let mut pipe = lock(pipe);
    pipe.is_reset = true;
    for waker in [pipe.reader.take(), pipe.writer.take()].into_iter().flatten() {
        waker.wake();
    }
}

/// One end of a connection.
pub(super) struct SimStream {
    net: Net,
    route: (Node, Node),
    read: Arc<Mutex<Pipe>>,
    write: Arc<Mutex<Pipe>>,
    /// The arrival that the reader waits for.
    arrival: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl SimStream {
    /// Breaks the connection off, so that both ends notice.
    pub(super) fn reset(&self) {
        [&self.read, &self.write].into_iter().for_each(reset);
    }

    fn closing(&self, pipe: &mut Pipe) {
        if pipe.closed.is_none() {
            let last = pipe.under_way.back().map_or(Duration::ZERO, |(at, _)| *at);
            pipe.closed = Some(last.max(self.net.arrival(self.route.0, self.route.1)));
            if let Some(reader) = pipe.reader.take() {
                reader.wake();
            }
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(arrival) = &mut self.arrival {
                std::task::ready!(arrival.as_mut().poll(context));
                self.arrival = None;
            }
            let read = self.read.clone();
            let mut pipe = lock(&read);
            if pipe.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let now = now();
            let arrives_at = pipe.under_way.front().map(|(at, _)| *at).or(pipe.closed);
            match arrives_at {
                None => {
                    pipe.reader = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Some(at) if at > now => self.arrival = Some(Box::pin(sleep_until(at))),
                Some(_) => {
                    let Some((_, bytes)) = pipe.under_way.front_mut() else { return Poll::Ready(Ok(())) };
                    let taken = bytes.len().min(buffer.remaining());
                    buffer.put_slice(&bytes[..taken]);
                    bytes.drain(..taken);
                    if bytes.is_empty() {
                        pipe.under_way.pop_front();
                    }
                    pipe.bytes -= taken;
                    if let Some(writer) = pipe.writer.take() {
                        writer.wake();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.write);
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.closed.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.bytes >= MAX_UNDER_WAY {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let written = bytes.len().min(MAX_UNDER_WAY - pipe.bytes);
        let last = pipe.under_way.back().map_or(Duration::ZERO, |(at, _)| *at);
        let at = last.max(self.net.arrival(self.route.0, self.route.1));
        self.net.lock().sent.push((now(), self.route.0, self.route.1, written));
        pipe.under_way.push_back((at, bytes[..written].to_vec()));
        pipe.bytes += written;
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closing(&mut lock(&self.write));
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        {
            let mut write = lock(&self.write);
            if self.route.1 == Node::Upstream && self.net.is_cut(self.route.0, self.route.1) {
                // Gateways close these connections with a linger time of zero.
                write.under_way.clear();
            }
            self.closing(&mut write);
        }
        // The peer's writes fail from now on.
        let mut read = lock(&self.read);
        read.closed = Some(Duration::ZERO);
        read.under_way.clear();
        if let Some(writer) = read.writer.take() {
            writer.wake();
        }
    }
}
