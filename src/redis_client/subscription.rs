//! Channels that are listened to, for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connector::Connector;

/// The first pause after a connection that could not be made, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Events that may wait for who listens.
const WAITING: usize = 1024;

/// What a [`Subscription`] yields.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// From now on messages are heard. Those from before may have been lost: look for what they would have told.
    Connected,
    /// Somebody has published this.
    Message {
        /// Where.
        channel: String,
        /// What.
        payload: Bytes,
    },
}

/// Shows no payload.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connected => f.write_str("Connected"),
            Self::Message { channel, payload } => write!(f, "Message({} bytes on {channel})", payload.len()),
        }
    }
}

/// Listens to channels until it is dropped; connects again by itself whenever that is needed.
#[derive(Debug)]
pub struct Subscription {
    events: mpsc::Receiver<Event>,
    is_connected: Arc<AtomicBool>,
}

impl Subscription {
    pub(super) fn start(wire: Connector, channels: Vec<String>) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let is_connected = Arc::new(AtomicBool::new(false));
        let connected = is_connected.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = listen(&wire, &channels, &sender, &connected) => {}
                () = sender.closed() => {}
            }
        });
        Self { events, is_connected }
    }

    /// Tells, from now on, whether messages are heard.
    pub fn is_connected(&self) -> Arc<AtomicBool> {
        self.is_connected.clone()
    }

    /// The next event. Nothing is lost if this is dropped while it waits.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // Only at the end of the runtime: there is nothing to come.
            None => std::future::pending().await,
        }
    }
}

/// Ends when nobody takes the events any more.
async fn listen(wire: &Connector, channels: &[String], events: &mpsc::Sender<Event>, connected: &AtomicBool) {
    let mut pause = PAUSES[0];
    loop {
        if let Ok(mut feed) = wire.subscribe(channels).await {
            pause = PAUSES[0];
            connected.store(true, Ordering::Relaxed);
            if events.send(Event::Connected).await.is_err() {
                return;
            }
            while let Some((channel, payload)) = feed.next().await {
                if events.send(Event::Message { channel, payload }).await.is_err() {
                    return;
                }
            }
            connected.store(false, Ordering::Relaxed);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}
