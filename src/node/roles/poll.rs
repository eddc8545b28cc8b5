//! Who is online: DESCRIBE of every member, in parallel, with bounds. A host's connect function may block beyond any
//! deadline; such an attempt is taken up again by the next poll, never doubled. spec: state-machine 6.1, c-api 3.4.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, Description};
use crate::transport::dial::{Dial, Stream};
use crate::types::{Configuration, NodeId, Server, config};

type Dialling = BoxFuture<'static, io::Result<Stream>>;

/// Asks members for their description.
pub struct Poll {
    dial: Arc<dyn Dial>,
    /// Attempts that outlived their poll, at most one for each address of the configuration.
    dialling: HashMap<Vec<u8>, Dialling>,
}

impl std::fmt::Debug for Poll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poll").field("dialling", &self.dialling.len()).finish_non_exhaustive()
    }
}

impl Poll {
    /// A poll over these connections.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>) -> Poll {
        Poll { dial, dialling: HashMap::new() }
    }

    /// The members that answer; this takes `longest` and the time of one request at most.
    pub async fn describe(
        &mut self,
        configuration: &Configuration,
        longest: Duration,
    ) -> BTreeMap<NodeId, Description> {
        let deadline = Instant::now() + longest;
        let mut earlier = std::mem::take(&mut self.dialling);
        let attempts = configuration.servers().iter().map(|server| {
            let dialling = earlier.remove(&server.address);
            let dial = Arc::clone(&self.dial);
            attempt(server.clone(), dial, dialling, deadline)
        });
        let attempts: Vec<_> = attempts.collect();
        let mut attempts = stream::iter(attempts).buffer_unordered(config::ROLES_POLLS_AT_ONCE);
        let mut online = BTreeMap::new();
        while let Some((server, outcome)) = attempts.next().await {
            match outcome {
                Outcome::Online(description) => drop(online.insert(server.id, description)),
                Outcome::Dialling(dialling) => drop(self.dialling.insert(server.address, dialling)),
                Outcome::Offline => {}
            }
        }
        online
    }
}

enum Outcome {
    Online(Description),
    /// The connect function has not come back.
    Dialling(Dialling),
    Offline,
}

async fn attempt(
    server: Server,
    dial: Arc<dyn Dial>,
    dialling: Option<Dialling>,
    deadline: Instant,
) -> (Server, Outcome) {
    let mut dialling = dialling.unwrap_or_else(|| dial.dial(server.address.clone()));
    let outcome = match timeout_at(deadline, &mut dialling).await {
        Err(_) => {
            tracing::debug!(id = server.id.0, "no connection for role management yet");
            Outcome::Dialling(dialling)
        }
        Ok(Err(error)) => {
            tracing::debug!(id = server.id.0, %error, "no connection for role management");
            Outcome::Offline
        }
        Ok(Ok(stream)) => match Client::over(stream, &server.address).describe().await {
            Ok(description) => Outcome::Online(description),
            Err(error) => {
                tracing::debug!(id = server.id.0, %error, "role management");
                Outcome::Offline
            }
        },
    };
    (server, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{Reply, ScriptedNodes};
    use crate::protocol::response;
    use crate::types::Role;

    const LONGEST: Duration = Duration::from_secs(3);

    fn configuration(addresses: &[&str]) -> Configuration {
        let servers = addresses.iter().zip(1..).map(|(address, id)| Server {
            id: NodeId(id),
            address: address.as_bytes().to_vec(),
            role: Role::Voter,
        });
        Configuration::new(servers.collect()).unwrap()
    }

    fn described(weight: u64) -> impl Fn(crate::protocol::request::Request) -> Reply + Send + Sync + 'static {
        move |_| Reply::Bytes(response::metadata(7, weight))
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_answer_are_online_and_the_others_cost_one_deadline() {
        let nodes = Arc::new(ScriptedNodes::default());
        nodes.answer("a", described(1));
        nodes.answer("silent", |_| Reply::Silence);
        nodes.answer("refuses", |_| Reply::Bytes(response::failure(1, b"no")));
        nodes.hang("hangs");
        nodes.answer("b", described(2));
        let members = configuration(&["a", "silent", "hangs", "nobody", "refuses", "b"]);
        let start = Instant::now();

        let online = Poll::new(nodes).describe(&members, LONGEST).await;

        let description = |weight| Description { failure_domain: 7, weight };
        assert_eq!(online, BTreeMap::from([(NodeId(1), description(1)), (NodeId(6), description(2))]));
        assert_eq!(start.elapsed(), config::CLIENT_REQUEST_TIMEOUT.max(LONGEST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connect_function_that_blocks_is_not_called_again_meanwhile() {
        let nodes = Arc::new(ScriptedNodes::default());
        nodes.hang("a");
        let mut poll = Poll::new(Arc::clone(&nodes) as Arc<dyn Dial>);

        for _ in 0..5 {
            assert!(poll.describe(&configuration(&["a"]), LONGEST).await.is_empty());
        }
        assert_eq!(nodes.dialled(), ["a"]);

        // A member that has gone is forgotten.
        poll.describe(&configuration(&["b"]), LONGEST).await;
        assert!(poll.dialling.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_configuration_is_polled_at_once() {
        let start = Instant::now();

        assert!(
            Poll::new(Arc::new(ScriptedNodes::default()))
                .describe(&Configuration::default(), LONGEST)
                .await
                .is_empty()
        );

        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
