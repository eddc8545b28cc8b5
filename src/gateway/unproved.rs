//! A connection that came while no descriptors are left but spare ones: it is served if it turns into one of a member at once.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::time::timeout;
use tracing::{debug, info};

use super::connection::{Gateway, PeerConnection, Version};
use super::reader::FrameReader;
use crate::protocol::request::{Kind, Request};
use crate::transport::client_stream::ClientStream;
use crate::transport::spares::Unproved;
use crate::types::NodeId;
use crate::types::config::SPARE_WAIT_MAX;

impl Gateway {
    /// Takes a connection if it says in time that it is a member's. Clients have taken all descriptors but the spares.
    pub fn serve_member<S: ClientStream>(self: &Arc<Gateway>, stream: S, unproved: Unproved) {
        let (read, write) = stream.split();
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut frames = FrameReader::new(read);
            let first = tokio::select! {
                biased;
                () = gateway.stop.cancelled() => return,
                () = unproved.end.cancelled() => None,
                first = timeout(SPARE_WAIT_MAX, first_request(&mut frames)) => first.ok().flatten(),
            };
            let configuration = gateway.engine.configuration().configuration;
            match first {
                Some(Request::Connect { id, address }) if configuration.get(NodeId(id)).is_some() => {
                    info!(peer = id, "no descriptors are left: a member gets a spare one");
                    let (stream, received) = frames.into_parts();
                    let stream = S::detach(stream, write);
                    gateway.peers.accept(PeerConnection { id: NodeId(id), address, received, stream });
                }
                _ => debug!("no descriptors are left: a client is not served"),
            }
        });
    }
}

/// What a connection begins with, if it is CONNECT.
async fn first_request<R: tokio::io::AsyncRead + Unpin>(frames: &mut FrameReader<R>) -> Option<Request> {
    let word = frames.handshake().await.ok()??;
    Version::from_handshake(word)?;
    let frame = poll_fn(|context| frames.poll_frame(context, |_| true)).await.ok()??;
    let is_connect = frame.header.kind == Kind::Connect as u8 && frame.header.schema == 0;
    if is_connect { Request::decode(frame.header.kind, frame.header.schema, &frame.body).ok() } else { None }
}
