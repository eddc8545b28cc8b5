//! openraft's way to other nodes: its calls become messages of `peers`, and answers that carry no id become results.
//! The rules are those of openraft-mapping 4.3.

use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, Vote};

use super::client::{Network, PeerClient, rpc_error, term_only};
use super::session::AppendSession;
use crate::peers::message::{AppendEntries, Message, RequestVote};
use crate::peers::replicator::{ReplicationError, Target};
use crate::raft::log::LogView;
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
        mut input: S,
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
            let target = self.target.clone();
            let patience = self.network.patience;
            let log = self.network.log.clone();
            return Box::pin(async move {
                let Some(request) = input.next().await else {
                    let none: BoxStream<'s, _> = Box::pin(futures_util::stream::empty());
                    return Ok(none);
                };
                let term = Term(request.vote.leader_id.term);
                tell_commit(&target, &log, &request, term);
                // L6: whatever the follower's log holds, this commits nothing and cannot be mistaken.
                let result = match target.fence(term, patience).await {
                    Ok(_) => Ok(request.prev_log_id),
                    Err(ReplicationError::HigherTerm(term)) => {
                        Err(StreamAppendError::HigherVote(term_only(term)))
                    }
                    Err(error) => return Err(rpc_error(&error)),
                };
                let one: BoxStream<'s, _> = Box::pin(futures_util::stream::iter([Ok(result)]));
                Ok(one)
            });
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

/// Tells the commit index once more, in case a message was lost, where the follower's log is known to be a part of this
/// one: its answer then says nothing wrong. L1, L7.
fn tell_commit(target: &Target, log: &LogView, request: &AppendEntriesRequest<TypeConfig>, term: Term) {
    let (rank, matched) = position(request.prev_log_id.as_ref());
    let Some((previous_term, _)) = log.terms_at(matched).filter(|_| rank == term) else { return };
    let commit = position(request.leader_commit.as_ref()).1.min(matched);
    let append = AppendEntries { term, previous_index: matched, previous_term, commit, entries: Vec::new() };
    // The fence behind it finds out what is wrong.
    let _ = target.send_message(&Message::AppendEntries(append));
}

impl PeerClient {
    async fn ask_for_vote(
        &self,
        rpc: &VoteRequest<TypeConfig>,
        is_pre_vote: bool,
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
            is_pre_vote,
        };
        let answer = self.target.peer.expect_vote(request);
        self.target.send_message(&Message::RequestVote(request)).map_err(|error| rpc_error(&error))?;
        // openraft bounds the wait.
        let Ok(answer) = answer.await else {
            let error = ReplicationError::Unreachable(self.target.id, "no answer to a vote".to_owned());
            return Err(rpc_error(&error));
        };
        if answer.granted {
            return Ok(VoteResponse::new(rpc.vote, None, true));
        }
        // The term of a refused pre-vote is that of the question, unless the peer is ahead. raft-wire 6.3.
        let knows_more = answer.term.0 > term || !is_pre_vote;
        let vote = if knows_more { term_only(answer.term) } else { Vote::new(0, 0) };
        Ok(VoteResponse::new(vote, None, false))
    }
}

impl NetVote<TypeConfig> for PeerClient {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(&rpc, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(&rpc, true).await
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
        let error = ReplicationError::Unreachable(self.target.id, "openraft transfers nothing".to_owned());
        Err(rpc_error(&error))
    }
}
