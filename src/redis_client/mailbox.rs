//! Letters between replicas: quick, small, and lost if nobody listens. Whoever must be heard says it again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::rand;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Command, ConnectionError, Event, RedisClient, Reply, Subscription};

/// The version of what replicas say to each other; those of another version do not hear it.
const FORMAT: &str = "f1";
/// The digits of a replica's name.
const ID: usize = 16;

/// The name of one process, drawn by lot when it starts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(Arc<str>);

impl ReplicaId {
    /// A name that nobody has.
    fn draw() -> Self {
        let mut lot = [0; ID / 2];
        // Without randomness there is no TLS either, so the process could not have come here.
        rand::fill(&mut lot).expect("the system's source of randomness works");
        Self(format!("{:016x}", u64::from_be_bytes(lot)).into())
    }

    /// A name that stands somewhere, if it is one.
    pub fn read(text: &[u8]) -> Option<Self> {
        let is_name = text.len() == ID && text.iter().all(u8::is_ascii_hexdigit);
        is_name.then(|| Self(String::from_utf8_lossy(text).into()))
    }

    /// As text: letters and digits only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is to have a letter.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// Every replica, the sender included.
    All,
    /// This one.
    One(ReplicaId),
}

/// What a letter is about: who takes it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Topic {
    /// Calls of the shared quota.
    Quota = b'q',
    /// Windows that another replica is to bring.
    RemoteFetch = b'e',
    /// What must not be served any more.
    Purge = b'p',
}

impl Topic {
    fn of(byte: u8) -> Option<Self> {
        [Self::Quota, Self::RemoteFetch, Self::Purge].into_iter().find(|topic| *topic as u8 == byte)
    }
}

/// What comes in.
#[derive(Clone, PartialEq, Eq)]
pub enum Incoming {
    /// From now on letters come in; those from before may have been lost.
    Reconnected,
    /// A letter.
    ClusterMessage {
        /// Who says that it has sent it.
        from: ReplicaId,
        /// What it says.
        body: Bytes,
    },
}

/// Shows no letter's words.
impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reconnected => f.write_str("Reconnected"),
            Self::ClusterMessage { from, body } => write!(f, "Letter({} bytes from {from})", body.len()),
        }
    }
}

/// Sends letters, and takes them in. Cheap to clone; all clones are the same replica.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: ReplicaId,
    link: RedisClient,
    prefix: String,
    /// Whether letters come in.
    is_listening: OnceLock<Arc<AtomicBool>>,
    /// Whether Redis has refused the last letter.
    is_mute: AtomicBool,
    /// Who takes in what; held for a look only.
    takers: Mutex<HashMap<Topic, mpsc::UnboundedSender<Incoming>>>,
}

impl Mailbox {
    /// The post of a new replica, under the keys of `prefix`. Must be called on a runtime, on which it listens.
    pub fn new(link: RedisClient, prefix: &str) -> Self {
        let inner = Inner {
            me: ReplicaId::draw(),
            link,
            prefix: format!("{prefix}:{FORMAT}"),
            is_listening: OnceLock::new(),
            is_mute: AtomicBool::new(false),
            takers: Mutex::default(),
        };
        let post = Self(Arc::new(inner));
        let letters =
            post.0.link.listen(vec![post.channel(&Recipient::All), post.channel(&Recipient::One(post.me().clone()))]);
        let _ = post.0.is_listening.set(letters.is_connected());
        tokio::spawn(hand_out(letters, Arc::downgrade(&post.0)));
        post
    }

    /// This replica.
    pub fn me(&self) -> &ReplicaId {
        &self.0.me
    }

    /// Whether letters come in now, as far as is known.
    pub fn is_listening(&self) -> bool {
        self.0.is_listening.get().is_some_and(|listening| listening.load(Ordering::Relaxed))
    }

    /// The way to Redis.
    pub fn link(&self) -> &RedisClient {
        &self.0.link
    }

    /// What all names of what replicas share begin with.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// From now on takes in the letters about `topic`; whoever did so before does not any more.
    pub fn take_in(&self, topic: Topic) -> mpsc::UnboundedReceiver<Incoming> {
        let (sender, letters) = mpsc::unbounded_channel();
        self.0.takers.lock().unwrap_or_else(PoisonError::into_inner).insert(topic, sender);
        letters
    }

    /// Sends a letter. That it was sent does not say that it was heard.
    ///
    /// # Errors
    /// If Redis cannot be asked, or does not allow it.
    pub async fn send(&self, to: &Recipient, topic: Topic, body: &[u8]) -> Result<(), ConnectionError> {
        let letter = [self.head(topic).as_slice(), body].concat();
        let publish = Command::new("PUBLISH").arg(self.channel(to)).arg(letter);
        let replies = self.0.link.run(vec![publish]).await?;
        let refused = replies.first().filter(|reply| matches!(reply, Reply::Error(_)));
        self.0.is_mute.store(refused.is_some(), Ordering::Relaxed);
        refused.map_or(Ok(()), |reply| Err(reply.fault()))
    }

    /// Somebody else was refused something, perhaps a letter: the next one is going to tell.
    pub fn doubt(&self) {
        self.0.is_mute.store(true, Ordering::Relaxed);
    }

    /// Whether the last letter was refused, as far as is known.
    pub fn is_mute(&self) -> bool {
        self.0.is_mute.load(Ordering::Relaxed)
    }

    /// Sends a letter to all; how many replicas hear it, this one included if it listens just now. Of a Cluster it may be
    /// fewer than do.
    ///
    /// # Errors
    /// As [`Mailbox::send`].
    pub async fn send_to_all(&self, topic: Topic, body: &[u8]) -> Result<usize, ConnectionError> {
        let channel = self.channel(&Recipient::All);
        let letter = [self.head(topic).as_slice(), body].concat();
        let replies = self.0.link.run(vec![Command::new("PUBLISH").arg(channel.clone()).arg(letter)]).await?;
        let heard = match replies.first() {
            Some(Reply::Integer(heard)) => usize::try_from(*heard).map_err(|_| ConnectionError::Nonsense)?,
            other => return Err(other.map_or(ConnectionError::Nonsense, Reply::fault)),
        };
        // A node of a Cluster passes a letter on to all others, but counts only who listens at itself.
        let elsewhere = if self.0.link.is_cluster() { self.0.link.listeners(&channel).await.ok() } else { None };
        Ok(elsewhere.map_or(heard, |counted| counted.max(heard)))
    }

    /// Where letters to `to` go, for a script that sends one.
    pub fn channel(&self, to: &Recipient) -> String {
        match to {
            Recipient::All => format!("{}:all", self.0.prefix),
            Recipient::One(replica) => format!("{}:to:{replica}", self.0.prefix),
        }
    }

    /// What a letter begins with.
    pub fn head(&self, topic: Topic) -> Vec<u8> {
        [&[topic as u8], self.me().as_str().as_bytes()].concat()
    }
}

/// Gives each letter to who takes it in, until the post is gone.
async fn hand_out(mut letters: Subscription, post: std::sync::Weak<Inner>) {
    loop {
        let event = letters.next().await;
        let Some(post) = post.upgrade() else { return };
        let takers = post.takers.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected => takers.values().for_each(|taker| drop(taker.send(Incoming::Reconnected))),
            Event::Message { payload, .. } => {
                let Some((topic, from)) = read_head(&payload) else { continue };
                if let Some(taker) = takers.get(&topic) {
                    let _ = taker.send(Incoming::ClusterMessage { from, body: payload.slice(1 + ID..) });
                }
            }
        }
    }
}

fn read_head(letter: &[u8]) -> Option<(Topic, ReplicaId)> {
    let (topic, rest) = letter.split_first()?;
    Some((Topic::of(*topic)?, ReplicaId::read(rest.get(..ID)?)?))
}
