//! openraft's way to other nodes: its calls become messages of `peers`, and answers that carry no id become results.
//! The rules are those of openraft-mapping 4.3.

use std::future::Future;
use std::time::Duration;

use futures_util::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, Vote};

use super::client::{Network, PeerClient, rpc_error, term_only};
use super::session::AppendSession;
use crate::peers::message::{Message, RequestVote};
use crate::peers::replicator::ReplicationError;
use crate::raft::snapshot::{RaftSnapshot, SendError, SnapshotData, send_snapshot};
use crate::raft::types::{LeaderId, Node, TypeConfig, position};
use crate::types::{NodeId, Term};

/// Pauses after failures to reach a peer, then the last one for ever.
const BACKOFF_MS: [u64; 4] = [50, 100, 200, 400];

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &Node) -> PeerClient {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> PeerClient {
        self.client(target, node, true)
    }
}

impl NetBackoff<TypeConfig> for PeerClient {
    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        let pauses = BACKOFF_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}

impl NetStreamAppend<TypeConfig> for PeerClient {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.is_heartbeat {
            // The heart beats instead.
            return Box::pin(std::future::ready(Err(self.unreachable("openraft sends no heartbeats"))));
        }
        let session = AppendSession::new(self, input);
        let results = futures_util::stream::unfold(session, |mut session| async move {
            let result = session.next().await?;
            Some((result, session))
        });
        Box::pin(async move {
            let results: BoxStream<'s, _> = Box::pin(results);
            Ok(results)
        })
    }
}

impl PeerClient {
    fn unreachable(&self, reason: &str) -> RPCError<TypeConfig> {
        rpc_error(&ReplicationError::Unreachable(self.target.id, reason.to_owned()))
    }
}

impl NetVote<TypeConfig> for PeerClient {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let (rank, last_index) = position(rpc.last_log_id.as_ref());
        let stored = self.network.log.terms_at(last_index).map_or(rank, |(stored, _)| stored);
        let LeaderId { term, voted_for } = rpc.vote.leader_id;
        let request = RequestVote {
            term: Term(term),
            candidate: NodeId(voted_for),
            last_index,
            last_term: stored,
            disrupts_leader: rpc.leadership_transfer,
            is_pre_vote: false,
        };
        let answer = self.target.peer.expect_vote(request);
        self.target.send_message(&Message::RequestVote(request)).map_err(|error| rpc_error(&error))?;
        // openraft bounds the wait.
        let answer = answer.await.map_err(|_| self.unreachable("no answer to a vote"))?;
        let vote = if answer.granted { rpc.vote } else { term_only(answer.term) };
        Ok(VoteResponse::new(vote, None, answer.granted))
    }

    // The trait's own would grant.
    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable("openraft asks for no pre-votes"))
    }
}

impl NetSnapshot<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote<LeaderId>,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let term = Term(vote.leader_id.term);
        let sending = send_snapshot(&self.target, &self.network.snapshots, &snapshot, term);
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = sending => sent,
        };
        match sent {
            Ok(()) => Ok(SnapshotResponse::new(vote)),
            Err(SendError::HigherTerm(term)) => Ok(SnapshotResponse::new(term_only(term))),
            Err(SendError::Failed(text)) => {
                tracing::warn!(peer = self.target.id.0, error = text, "snapshot not sent");
                Err(StreamingError::Unreachable(Unreachable::new(&AnyError::error(text))))
            }
        }
    }
}

impl NetTransferLeader<TypeConfig> for PeerClient {
    // Transfers are this layer's own: openraft's would not wait for the target. openraft-mapping 4.6.
    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable("openraft transfers nothing"))
    }
}
