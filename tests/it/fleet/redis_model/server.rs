//! The server of the model: the protocol, the channels, and what can go wrong.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::script::ScriptRunner;
use super::store::{ModelReply, Store};
use crate::fleet::START;
use crate::fleet::host::now;
use crate::fleet::network::SimStream;

/// The server. Clones are the same.
#[derive(Clone)]
pub(in crate::fleet) struct RedisModel(Arc<Mutex<Inner>>);

struct Inner {
    store: Store,
    snapshot: Option<Store>,
    scripts: ScriptRunner,
    /// The text of scripts by their SHA-1.
    known_scripts: BTreeMap<Vec<u8>, String>,
    subscribers: BTreeMap<Vec<u8>, Vec<UnboundedSender<ModelReply>>>,
    /// Commands that the model does not know.
    unknown: Vec<String>,
}

impl RedisModel {
    pub(in crate::fleet) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            store: Store::default(),
            snapshot: None,
            scripts: ScriptRunner::new(),
            known_scripts: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            unknown: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands that the model does not know.
    pub(in crate::fleet) fn unknown_commands(&self) -> Vec<String> {
        self.lock().unknown.clone()
    }

    /// Loses all data.
    pub(in crate::fleet) fn forget(&self) {
        self.lock().store.entries.clear();
    }

    /// Refuses writes, or accepts them again.
    pub(in crate::fleet) fn refuse_writes(&self, refuses: bool) {
        self.lock().store.refuses_writes = refuses;
    }

    /// Keeps what [`RedisModel::fail_over`] goes back to: what has reached the replica of this Redis.
    pub(in crate::fleet) fn replicate(&self) {
        let mut inner = self.lock();
        inner.snapshot = Some(inner.store.clone());
    }

    /// Loses the writes since [`RedisModel::replicate`].
    pub(in crate::fleet) fn fail_over(&self) {
        let mut inner = self.lock();
        if let Some(snapshot) = inner.snapshot.take() {
            inner.store = Store { refuses_writes: inner.store.refuses_writes, ..snapshot };
        }
    }

    /// Serves connections until there are no more.
    pub(in crate::fleet) async fn serve(self, mut connections: UnboundedReceiver<SimStream>) {
        while let Some(stream) = connections.recv().await {
            let server = self.clone();
            tokio::spawn(async move {
                // A connection that ends is the client's business.
                let _ = server.serve_connection(stream).await;
            });
        }
    }

    async fn serve_connection(self, stream: SimStream) -> io::Result<()> {
        let (reader, mut writer) = split(stream);
        let (sender, mut messages) = unbounded_channel();
        let (commands, mut received) = unbounded_channel();
        tokio::spawn(read_commands(BufReader::new(reader), commands));
        loop {
            tokio::select! {
                biased;
                message = messages.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    write_reply(&mut writer, &message).await?;
                }
                command = received.recv() => {
                    let Some(command) = command else { return Ok(()) };
                    for reply in self.run(&command, &sender) {
                        write_reply(&mut writer, &reply).await?;
                    }
                }
            }
        }
    }

    fn run(&self, command: &[Vec<u8>], messages: &UnboundedSender<ModelReply>) -> Vec<ModelReply> {
        let mut inner = self.lock();
        inner.store.now = START + now();
        let name = command[0].to_ascii_uppercase();
        let reply = match name.as_slice() {
            b"PING" if inner.is_subscriber(messages) => bulk_array(&[b"pong", b""]),
            b"PING" => ModelReply::Status("PONG"),
            b"SELECT" | b"CLIENT" => ModelReply::Status("OK"),
            b"SUBSCRIBE" => return command[1..].iter().map(|channel| inner.subscribe(channel, messages)).collect(),
            b"PUBLISH" => ModelReply::Integer(i64::try_from(inner.publish(&command[1], &command[2])).unwrap()),
            b"PUBSUB" => {
                let number = inner.subscribers_of(&command[2]);
                ModelReply::Array(vec![
                    ModelReply::Bytes(command[2].clone()),
                    ModelReply::Integer(i64::try_from(number).unwrap()),
                ])
            }
            b"EVAL" | b"EVALSHA" => inner.run_script(&name, &command[1..]),
            _ => inner.store.run(command).unwrap_or_else(|| {
                let text = String::from_utf8_lossy(&command.join(&b' ')).into_owned();
                inner.unknown.push(text);
                ModelReply::Error("ERR unknown command".to_owned())
            }),
        };
        vec![reply]
    }
}

impl Inner {
    fn is_subscriber(&self, messages: &UnboundedSender<ModelReply>) -> bool {
        self.subscribers.values().flatten().any(|other| other.same_channel(messages))
    }

    fn subscribe(&mut self, channel: &[u8], messages: &UnboundedSender<ModelReply>) -> ModelReply {
        self.subscribers.entry(channel.to_vec()).or_default().push(messages.clone());
        let ModelReply::Array(mut parts) = bulk_array(&[b"subscribe", channel]) else { unreachable!() };
        parts.push(ModelReply::Integer(1));
        ModelReply::Array(parts)
    }

    fn subscribers_of(&mut self, channel: &[u8]) -> usize {
        let Some(subscribers) = self.subscribers.get_mut(channel) else { return 0 };
        subscribers.retain(|subscriber| !subscriber.is_closed());
        subscribers.len()
    }

    fn publish(&mut self, channel: &[u8], message: &[u8]) -> usize {
        publish(&mut self.subscribers, channel, message)
    }

    fn run_script(&mut self, name: &[u8], arguments: &[Vec<u8>]) -> ModelReply {
        let (script, rest) = arguments.split_first().unwrap();
        let text = if name == b"EVAL" {
            let text = String::from_utf8(script.clone()).unwrap();
            let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, script);
            let digits = hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
            let hash: Vec<u8> = digits.map(|digit| b"0123456789abcdef"[usize::from(digit)]).collect();
            self.known_scripts.insert(hash, text.clone());
            text
        } else {
            match self.known_scripts.get(script) {
                Some(text) => text.clone(),
                None => return ModelReply::Error("NOSCRIPT No matching script.".to_owned()),
            }
        };
        let keys: usize = String::from_utf8_lossy(&rest[0]).parse().unwrap();
        let (keys, arguments) = rest[1..].split_at(keys);
        let subscribers = &mut self.subscribers;
        let mut publish = |channel: &[u8], message: &[u8]| publish(subscribers, channel, message);
        self.scripts.run(&text, keys, arguments, &mut self.store, &mut publish)
    }
}

fn publish(
    subscribers: &mut BTreeMap<Vec<u8>, Vec<UnboundedSender<ModelReply>>>,
    channel: &[u8],
    message: &[u8],
) -> usize {
    let Some(subscribers) = subscribers.get_mut(channel) else { return 0 };
    let message = bulk_array(&[b"message", channel, message]);
    subscribers.retain(|subscriber| subscriber.send(message.clone()).is_ok());
    subscribers.len()
}

fn bulk_array(parts: &[&[u8]]) -> ModelReply {
    ModelReply::Array(parts.iter().map(|part| ModelReply::Bytes(part.to_vec())).collect())
}

/// Reads commands, which are arrays of bulk strings, until the connection ends.
async fn read_commands(mut reader: BufReader<ReadHalf<SimStream>>, commands: UnboundedSender<Vec<Vec<u8>>>) {
    while let Ok(command) = read_command(&mut reader).await {
        if commands.send(command).is_err() {
            return;
        }
    }
}

async fn read_command(reader: &mut BufReader<ReadHalf<SimStream>>) -> io::Result<Vec<Vec<u8>>> {
    let parts = read_length(reader, b'*').await?;
    let mut command = Vec::with_capacity(parts);
    for _ in 0..parts {
        let length = read_length(reader, b'$').await?;
        let mut part = vec![0; length + 2];
        reader.read_exact(&mut part).await?;
        part.truncate(length);
        command.push(part);
    }
    Ok(command)
}

async fn read_length(reader: &mut BufReader<ReadHalf<SimStream>>, kind: u8) -> io::Result<usize> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    let text = line.strip_prefix(&[kind]).and_then(|rest| rest.strip_suffix(b"\r\n"));
    let number = text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    number.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

async fn write_reply(writer: &mut WriteHalf<SimStream>, reply: &ModelReply) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode(reply, &mut bytes);
    writer.write_all(&bytes).await
}

fn encode(reply: &ModelReply, out: &mut Vec<u8>) {
    match reply {
        ModelReply::Nil => out.extend_from_slice(b"$-1\r\n"),
        ModelReply::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        ModelReply::Status(status) => out.extend_from_slice(format!("+{status}\r\n").as_bytes()),
        ModelReply::Error(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
        ModelReply::Bytes(bytes) => {
            out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        ModelReply::Array(parts) => {
            out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
            for part in parts {
                encode(part, out);
            }
        }
    }
}
