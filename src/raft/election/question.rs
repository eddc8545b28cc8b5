//! A leader that is silent is asked whether it is there, before anybody stands or votes against it: by a pre-vote, which every
//! leader refuses at once and which changes nothing. It is one of the leader's own term, as nobody else asks for one: whoever
//! is in a later term says so, and leads no more in this one.

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::board::LeaderBoard;
use super::standing::Standing;
use super::times::Times;
use crate::peers::message::Message;
use crate::peers::replicator::Target;
use crate::peers::{Peers, Sender};
use crate::raft::log::LogView;
use crate::types::Term;
use crate::types::config::{PAUSE_MIN, QUESTIONS_MAX};

/// Where it is asked for. Cheap to clone, and holds nothing: it may outlive the node.
#[derive(Clone)]
pub(crate) struct Question {
    waiting: mpsc::Sender<oneshot::Sender<()>>,
}

impl Question {
    /// Nobody is asked before the other half runs.
    pub(crate) fn new() -> (Question, mpsc::Receiver<oneshot::Sender<()>>) {
        let (waiting, asked) = mpsc::channel(QUESTIONS_MAX);
        (Question { waiting }, asked)
    }

    /// Asks the leader that is followed, if it was not heard of late. The board knows afterwards what it is to be taken for.
    pub(super) async fn ask(&self) {
        let (sender, answer) = oneshot::channel();
        // Without the other half the node stops: nobody needs the answer.
        if self.waiting.send(sender).await.is_ok() {
            let _ = answer.await;
        }
    }
}

/// Asks it, once for all who want to know.
pub(crate) struct Asker {
    pub(crate) log: LogView,
    pub(crate) peers: Peers,
    pub(crate) board: LeaderBoard,
    pub(crate) standing: Standing,
    pub(crate) times: Times,
}

impl Asker {
    /// Until nobody can ask any more.
    pub(crate) async fn run(self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut waiting = Vec::new();
        while asked.recv_many(&mut waiting, QUESTIONS_MAX).await > 0 {
            self.ask().await;
            for waiting in waiting.drain(..) {
                // Whoever gave up waiting does not want it.
                let _ = waiting.send(());
            }
        }
    }

    async fn ask(&self) {
        let Some((leader, term)) = self.board.doubted() else { return };
        if self.answers(&leader, term).await && self.board.is_there(&leader, term) {
            return;
        }
        if self.board.doubted().as_ref() == Some(&(leader.clone(), term)) && self.board.lost(leader.id, term)
        {
            info!(leader = leader.id.0, term = term.0, "the leader is silent and does not answer");
        }
    }

    /// Whether it answers as leaders do, or is heard meanwhile.
    async fn answers(&self, leader: &Sender, term: Term) -> bool {
        let request = self.standing.pre_vote(term);
        let target = match self.log.configuration().0.get(leader.id) {
            Some(server) => Target::of(&self.peers, server),
            None => Target::new(&self.peers, leader.id, leader.address.clone()),
        };
        let mut answer = target.peer.expect_vote(request);
        // A queue that is full holds earlier questions.
        let _ = target.send_message(&Message::RequestVote(request));
        loop {
            let due = Instant::now() + self.times.confirm();
            match timeout_at(due, &mut answer).await {
                Ok(Ok(answer)) => return !answer.granted && answer.term <= term,
                Ok(Err(_)) => return self.board.doubted().is_none(),
                Err(_) => {
                    self.board.woke(due);
                    // Whoever was not running reads first what has come.
                    if due.elapsed() < PAUSE_MIN {
                        return self.board.doubted().is_none();
                    }
                }
            }
        }
    }
}
