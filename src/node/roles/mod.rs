//! Roles of the members: managed by the leader if the host wants it, and given away before a node stops.
//! spec: state-machine 6.1, c-api 3.5, 3.9.

pub mod handover;
pub mod manager;
pub mod plan;

use futures_util::future::join_all;

use crate::client::Client;
use crate::transport::dial::Dial;
use crate::types::Configuration;
use crate::types::config::POLL_TIMEOUT;

use plan::Polled;

/// Asks every member whether it is there.
pub(super) async fn poll(dial: &dyn Dial, configuration: &Configuration) -> Vec<Polled> {
    let polls = configuration.servers().iter().map(|server| async move {
        let described = async {
            let mut client = Client::connect(dial, &server.address, POLL_TIMEOUT).await?;
            client.describe().await
        };
        let online = match described.await {
            Ok(description) => Some(description),
            Err(error) => {
                tracing::debug!(node = server.id.0, %error, "not online");
                None
            }
        };
        Polled { id: server.id, role: server.role, online }
    });
    join_all(polls).await
}
