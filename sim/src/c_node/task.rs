//! The tasks of a modelled C node: its timers, its connections to peers and theirs to it. spec: raft-wire 1.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dqlite::peers::Sender;
use dqlite::peers::message::Message;
use dqlite::peers::reader::MessageReader;
use dqlite::protocol::request::Request;
use dqlite::types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CNode, Event, Outgoing};
use crate::network::Network;

/// Between two attempts to reach a peer.
const RETRY: Duration = Duration::from_secs(1);
/// Messages that are kept while a peer cannot be reached.
const KEPT: usize = 3;
/// Type of the request that makes a connection one of raft.
const CONNECT: u8 = 11;
/// Longest CONNECT in words.
const CONNECT_WORDS_MAX: u32 = 1024;

/// A node that runs.
#[derive(Debug)]
pub struct Running {
    node: Arc<Mutex<CNode>>,
    /// What happens to it.
    pub events: mpsc::UnboundedSender<Event>,
    /// Ends it.
    pub dead: CancellationToken,
}

impl Running {
    /// Starts a node at its address.
    #[must_use]
    pub fn start(node: CNode, network: &Network) -> Running {
        let (events, received) = mpsc::unbounded_channel();
        let dead = CancellationToken::new();
        let me = node.me.clone();
        let mut accepted = network.listen(&me.address);
        let (acceptor, dies) = (events.clone(), dead.clone());
        tokio::spawn(async move {
            while let Some(stream) = accepted.recv().await {
                let (events, dies) = (acceptor.clone(), dies.clone());
                tokio::spawn(async move {
                    tokio::select! { biased; () = dies.cancelled() => {} () = receive(stream, events) => {} }
                });
            }
        });
        let node = Arc::new(Mutex::new(node));
        let links = Links {
            me,
            network: network.clone(),
            links: BTreeMap::new(),
            events: events.clone(),
            dead: dead.clone(),
        };
        tokio::spawn(run(Arc::clone(&node), received, links));
        Running { node, events, dead }
    }

    /// The node.
    pub fn node(&self) -> MutexGuard<'_, CNode> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(node: Arc<Mutex<CNode>>, mut events: mpsc::UnboundedReceiver<Event>, mut links: Links) {
    let lock = || node.lock().unwrap_or_else(PoisonError::into_inner);
    let dead = links.dead.clone();
    loop {
        let wake = lock().next_wake();
        tokio::select! {
            biased;
            () = dead.cancelled() => return,
            Some(event) = events.recv() => lock().handle(event),
            () = sleep_until(wake) => {}
        }
        lock().wake();
        let outgoing = lock().take_outgoing();
        outgoing.into_iter().for_each(|message| links.send(message));
    }
}

/// One connection to each peer, made for its first message.
struct Links {
    me: Sender,
    network: Network,
    links: BTreeMap<NodeId, (Bytes, mpsc::UnboundedSender<Bytes>)>,
    events: mpsc::UnboundedSender<Event>,
    dead: CancellationToken,
}

impl Links {
    fn send(&mut self, Outgoing { to, bytes }: Outgoing) {
        // Another address is another connection.
        if self.links.get(&to.id).is_none_or(|(address, _)| *address != to.address) {
            let (sender, queue) = mpsc::unbounded_channel();
            let (network, me, events) = (self.network.clone(), self.me.clone(), self.events.clone());
            let (dead, peer) = (self.dead.clone(), to.clone());
            tokio::spawn(async move {
                tokio::select! { biased; () = dead.cancelled() => {} () = link(network, me, peer, queue, events) => {} }
            });
            self.links.insert(to.id, (to.address, sender));
        }
        if let Some((_, queue)) = self.links.get(&to.id) {
            // A link ends only with its node.
            let _ = queue.send(bytes);
        }
    }
}

async fn link(
    network: Network,
    me: Sender,
    peer: Sender,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    events: mpsc::UnboundedSender<Event>,
) {
    let dialer = network.dialer(&me.address);
    let connect = Request::Connect { id: me.id.0, address: me.address.clone() };
    let Some(connect) = connect.encode() else { return };
    let mut waiting = VecDeque::new();
    loop {
        let mut stream = loop {
            match dialer.connect(&peer.address).await {
                Ok(stream) => break stream,
                Err(_) => {
                    while let Ok(message) = queue.try_recv() {
                        waiting.push_back(message);
                    }
                    let old = waiting.len().saturating_sub(KEPT);
                    waiting.drain(..old);
                    sleep(RETRY).await;
                }
            }
        };
        let mut sent = stream.write_all(&[&1u64.to_le_bytes()[..], &connect].concat()).await;
        while sent.is_ok() {
            let message = match waiting.pop_front() {
                Some(message) => Some(message),
                None => queue.recv().await,
            };
            let Some(message) = message else { return };
            sent = stream.write_all(&message).await;
        }
        let _ = events.send(Event::SendFailed(peer.id));
    }
}

/// Reads one connection. One of a client ends here.
async fn receive(mut stream: DuplexStream, events: mpsc::UnboundedSender<Event>) {
    let Some(from) = connected(&mut stream).await else { return };
    let mut reader = MessageReader::new(stream, Bytes::new(), None);
    while let Ok(Some(received)) = reader.next().await {
        let mut content = BytesMut::new();
        if let Message::InstallSnapshot(install) = &received.message {
            while (content.len() as u64) < install.content_bytes {
                let Ok(piece) = reader.content(install.content_bytes - content.len() as u64).await else {
                    return;
                };
                content.extend_from_slice(&piece);
            }
        }
        let event = Event::Message(from.clone(), received.message, received.payloads, content.freeze());
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Reads CONNECT; None if it is another request.
async fn connected(stream: &mut DuplexStream) -> Option<Sender> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await.ok()?;
    let words = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if head[12] != CONNECT || words > CONNECT_WORDS_MAX {
        return None;
    }
    let mut body = vec![0; words as usize * 8];
    stream.read_exact(&mut body).await.ok()?;
    match Request::decode(CONNECT, head[13], &body.into()).ok()? {
        Request::Connect { id, address } => Some(Sender { id: NodeId(id), address }),
        _ => None,
    }
}
