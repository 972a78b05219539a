//! Publishes messages and hands out those that come in. A message is lost if its receiver is not connected, so a sender
//! repeats what must arrive.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::cipher::Cipher;
use super::codec::{decode_body, decode_head, encode};
use super::message::{Message, MessageKind, QuotaMessage};
use super::replica_id::ReplicaId;
use crate::redis_client::{Command, ConnectionError, Event, RedisClient, Reply, Subscription};

/// The version of the channels; replicas of another version do not receive each other's messages.
const CHANNEL_VERSION: &str = "f1";

/// The receivers of a message.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// Every replica, the sender included.
    All,
    /// A single replica.
    One(ReplicaId),
}

/// An item of an [`Inbox`].
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// Messages come in from now on; earlier ones may have been lost.
    Reconnected,
    /// A message.
    Message {
        /// The replica that claims to have sent it.
        from: ReplicaId,
        /// The message.
        message: Message,
    },
    /// A fetch message that cannot be read, because its sender has another key or another version.
    Unreadable {
        /// The replica that claims to have sent it.
        from: ReplicaId,
    },
}

/// A connection event or an encoded message.
enum RawIncoming {
    Reconnected,
    Message { from: ReplicaId, body: Bytes },
}

/// Sends messages and receives those of other replicas. Clones are the same replica.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Inner>);

struct Inner {
    me: ReplicaId,
    redis: RedisClient,
    prefix: String,
    cipher: Arc<Cipher>,
    /// Whether messages come in.
    is_listening: OnceLock<Arc<AtomicBool>>,
    /// Whether Redis may refuse to publish messages, as far as is known.
    is_refused: AtomicBool,
    /// The receiver of each kind. Locked for a lookup only.
    inboxes: Mutex<BTreeMap<MessageKind, mpsc::UnboundedSender<RawIncoming>>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Mailbox {
    /// The mailbox of the replica `me`, with channels below `prefix`. Must be called on a runtime, on which it listens.
    pub fn new(me: ReplicaId, redis: RedisClient, prefix: &str, cipher: Arc<Cipher>) -> Self {
        let inner = Inner {
            me,
            redis,
            prefix: format!("{prefix}:{CHANNEL_VERSION}"),
            cipher,
            is_listening: OnceLock::new(),
            is_refused: AtomicBool::new(false),
            inboxes: Mutex::default(),
        };
        let mailbox = Self(Arc::new(inner));
        let own = Recipient::One(mailbox.me().clone());
        let channels = vec![mailbox.channel(&Recipient::All), mailbox.channel(&own)];
        let subscription = mailbox.0.redis.listen(channels);
        let _ = mailbox.0.is_listening.set(subscription.is_connected());
        tokio::spawn(distribute(subscription, Arc::downgrade(&mailbox.0)));
        mailbox
    }

    /// The identity of this replica.
    pub fn me(&self) -> &ReplicaId {
        &self.0.me
    }

    /// Whether messages come in now, as far as is known.
    pub fn is_listening(&self) -> bool {
        self.0.is_listening.get().is_some_and(|listening| listening.load(Ordering::Relaxed))
    }

    /// The client that messages go through.
    pub fn redis(&self) -> &RedisClient {
        &self.0.redis
    }

    /// The cipher of messages, which seals values in Redis too.
    pub fn cipher(&self) -> &Arc<Cipher> {
        &self.0.cipher
    }

    /// The prefix of the channels, and of the keys that replicas share beside values.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The receiver of all messages of a kind from now on, in place of an earlier one.
    pub fn receive(&self, kind: MessageKind) -> Inbox {
        let (sender, messages) = mpsc::unbounded_channel();
        self.0.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, sender);
        Inbox { kind, me: self.me().clone(), cipher: self.0.cipher.clone(), messages }
    }

    /// Sends a message. `Ok` does not mean that it is received.
    ///
    /// # Errors
    /// If Redis cannot be reached or refuses it.
    pub async fn send(&self, to: &Recipient, message: &Message) -> Result<(), ConnectionError> {
        let publish = Command::new("PUBLISH").arg(self.channel(to)).arg(self.encode(to, message)?);
        let replies = self.0.redis.run(vec![publish]).await?;
        let refused = replies.first().filter(|reply| matches!(reply, Reply::Error(_)));
        self.0.is_refused.store(refused.is_some(), Ordering::Relaxed);
        refused.map_or(Ok(()), |reply| Err(reply.fault()))
    }

    /// Sends a message to all replicas. Returns how many receive it, this one included if it is listening; of a Cluster
    /// it may be fewer than do.
    ///
    /// # Errors
    /// As [`Mailbox::send`].
    pub async fn broadcast(&self, message: &Message) -> Result<usize, ConnectionError> {
        let channel = self.channel(&Recipient::All);
        let publish = Command::new("PUBLISH").arg(channel.clone()).arg(self.encode(&Recipient::All, message)?);
        let replies = self.0.redis.run(vec![publish]).await?;
        let receivers = match replies.first() {
            Some(Reply::Integer(count)) => usize::try_from(*count).map_err(|_| ConnectionError::Nonsense)?,
            other => return Err(other.map_or(ConnectionError::Nonsense, Reply::fault)),
        };
        // A node of a Cluster forwards a message to all others, but counts only its own subscribers.
        let counted = if self.0.redis.is_cluster() { self.0.redis.subscribers(&channel).await.ok() } else { None };
        Ok(counted.map_or(receivers, |counted| counted.max(receivers)))
    }

    /// Finds out whether Redis publishes messages of this replica, by one to itself that says nothing.
    ///
    /// # Errors
    /// As [`Mailbox::send`].
    pub async fn probe(&self) -> Result<(), ConnectionError> {
        let nothing = Message::Quota { account: Arc::default(), message: QuotaMessage::LeaseChanged };
        self.send(&Recipient::One(self.me().clone()), &nothing).await
    }

    /// Notes that a script was refused something, which may be a message: [`Mailbox::probe`] finds out.
    pub fn suspect_refusal(&self) {
        self.0.is_refused.store(true, Ordering::Relaxed);
    }

    /// Whether the last message was refused, as far as is known.
    pub fn is_refused(&self) -> bool {
        self.0.is_refused.load(Ordering::Relaxed)
    }

    /// The channel of a receiver, for a script that publishes a message.
    pub fn channel(&self, to: &Recipient) -> String {
        match to {
            Recipient::All => format!("{}:all", self.0.prefix),
            Recipient::One(replica) => format!("{}:to:{replica}", self.0.prefix),
        }
    }

    /// The bytes that are published for a message.
    ///
    /// # Errors
    /// If the message cannot be sealed.
    pub fn encode(&self, to: &Recipient, message: &Message) -> Result<Vec<u8>, ConnectionError> {
        let bytes = encode(message, &self.0.cipher, &self.0.me, to);
        bytes.ok_or_else(|| ConnectionError::NotReady("the message cannot be sealed".to_owned()))
    }
}

/// The messages of one kind, decoded as they are taken.
pub struct Inbox {
    kind: MessageKind,
    me: ReplicaId,
    cipher: Arc<Cipher>,
    messages: mpsc::UnboundedReceiver<RawIncoming>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Inbox {
    /// The next message or event; `None` once the mailbox is dropped or another inbox receives the kind. Nothing is
    /// lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            let (from, body) = match self.messages.recv().await? {
                RawIncoming::Reconnected => return Some(Incoming::Reconnected),
                RawIncoming::Message { from, body } => (from, body),
            };
            match decode_body(self.kind, body, &self.cipher, &from, &self.me) {
                Ok(message) => return Some(Incoming::Message { from, message }),
                Err(why) if self.kind == MessageKind::Fetch => {
                    tracing::debug!(%from, %why, "a fetch message was not understood");
                    return Some(Incoming::Unreadable { from });
                }
                // The core never changes: what is not understood there was not sent by a replica.
                Err(_) => {}
            }
        }
    }
}

/// Puts each message into the inbox of its kind, until the mailbox is dropped.
async fn distribute(mut subscription: Subscription, mailbox: Weak<Inner>) {
    loop {
        let event = subscription.next().await;
        let Some(mailbox) = mailbox.upgrade() else { return };
        let inboxes = mailbox.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected => inboxes.values().for_each(|inbox| drop(inbox.send(RawIncoming::Reconnected))),
            Event::Message { payload, .. } => {
                let Some((kind, from, body)) = decode_head(&payload) else { continue };
                if let Some(inbox) = inboxes.get(&kind) {
                    let _ = inbox.send(RawIncoming::Message { from, body });
                }
            }
        }
    }
}
