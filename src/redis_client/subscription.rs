//! Channels that are subscribed to, over a connection that is reopened whenever it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connector::Connector;

/// The first pause after a connection that could not be made, and the longest.
const RECONNECT_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Events that may wait to be taken.
const MAX_QUEUED_EVENTS: usize = 1024;

/// An event of a [`Subscription`].
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// Messages come in from now on. Earlier ones may have been lost.
    Connected,
    /// A message was published.
    Message {
        /// The channel.
        channel: String,
        /// The payload.
        payload: Bytes,
    },
}

/// Shows no payload, because payloads contain personal data.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connected => f.write_str("Connected"),
            Self::Message { channel, payload } => write!(f, "Message({} bytes on {channel})", payload.len()),
        }
    }
}

/// A subscription of channels, which ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    events: mpsc::Receiver<Event>,
    is_connected: Arc<AtomicBool>,
}

impl Subscription {
    pub(super) fn start(connector: Connector, channels: Vec<String>) -> Self {
        let (sender, events) = mpsc::channel(MAX_QUEUED_EVENTS);
        let is_connected = Arc::new(AtomicBool::new(false));
        let connected = is_connected.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = listen(&connector, &channels, &sender, &connected) => {}
                () = sender.closed() => {}
            }
        });
        Self { events, is_connected }
    }

    /// A flag that says from now on whether messages come in.
    pub fn is_connected(&self) -> Arc<AtomicBool> {
        self.is_connected.clone()
    }

    /// The next event. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task has ended, which happens only at the end of the runtime.
            None => std::future::pending().await,
        }
    }
}

/// Sends events until the subscription is dropped.
async fn listen(connector: &Connector, channels: &[String], events: &mpsc::Sender<Event>, connected: &AtomicBool) {
    let mut pause = RECONNECT_PAUSES[0];
    loop {
        if let Ok(mut messages) = connector.subscribe(channels).await {
            pause = RECONNECT_PAUSES[0];
            connected.store(true, Ordering::Relaxed);
            if events.send(Event::Connected).await.is_err() {
                return;
            }
            while let Some((channel, payload)) = messages.next().await {
                if events.send(Event::Message { channel, payload }).await.is_err() {
                    return;
                }
            }
            connected.store(false, Ordering::Relaxed);
        }
        sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_PAUSES[1]);
    }
}
