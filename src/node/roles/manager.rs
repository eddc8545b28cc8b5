//! The leader's rounds: who is there, what should change, change it. spec: state-machine 6.1.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::plan::{Targets, plan};
use super::poll;
use crate::node::core::LiveSettings;
use crate::raft::engine::Engine;
use crate::transport::dial::Dial;
use crate::types::config::ROLES_INTERVAL;

/// Manages roles while this node leads and the host wants it. Never returns.
pub async fn manage(engine: Engine, dial: Arc<dyn Dial>, live: Arc<LiveSettings>) {
    let mut rounds = interval(ROLES_INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds.tick().await;
    loop {
        rounds.tick().await;
        if !live.role_management.load(Ordering::Relaxed) || engine.serving().is_none() {
            continue;
        }
        let configuration = engine.configuration().configuration;
        let polled = poll(dial.as_ref(), &configuration).await;
        let count = |setting: i32| usize::try_from(setting).unwrap_or(0);
        let targets = Targets {
            voters: count(live.target_voters.load(Ordering::Relaxed)),
            standbys: count(live.target_standbys.load(Ordering::Relaxed)),
        };
        // What the polls say is of no use once leadership has gone.
        for (id, role) in plan(&polled, engine.id(), targets) {
            if engine.serving().is_none() {
                break;
            }
            match engine.assign(id, role).await {
                Ok(()) => info!(node = id.0, ?role, "role assigned"),
                // The next round sees what is.
                Err(error) => warn!(node = id.0, ?role, %error, "role not assigned"),
            }
        }
    }
}
