//! The file follows the members, on a paused clock.

use std::time::Duration;

use tokio::time::sleep;

use super::super::testing::{OWN, OWN_ADDRESS, TestNodes, member};
use super::*;
use crate::storage::file_disk::FileDisk;
use crate::types::Role;

/// Runs work on the spot.
struct Inline;

impl BlockingPool for Inline {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

struct Place {
    folder: tempfile::TempDir,
    directory: Directory,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, folder.path()).unwrap();
        Place { folder, directory }
    }

    fn refresh(&self, nodes: &TestNodes, stored: &[Server]) -> Refresh {
        Refresh {
            cluster: nodes.cluster(&[]),
            directory: self.directory.clone(),
            pool: Arc::new(Inline),
            known: vec![b"a".to_vec()],
            stored: stored.to_vec(),
        }
    }

    fn stored(&self) -> Option<Vec<Server>> {
        let text = std::fs::read(self.folder.path().join("node-store")).ok()?;
        Some(files::parse_store(&text).unwrap())
    }
}

async fn a_round() {
    sleep(config::SERVER_REFRESH_INTERVAL + Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn the_file_follows_the_members_and_is_left_alone_while_they_stay() {
    let (nodes, place) = (TestNodes::new(&["a", "b"]), Place::new());
    let first = nodes.members();
    let task = tokio::spawn(place.refresh(&nodes, &first).run(Attached::Yes));

    a_round().await;
    assert_eq!(place.stored(), None, "nothing to tell");

    let mut changed = first.clone();
    changed.push(member("c", 3, Role::StandBy));
    nodes.set_members(changed.clone());
    a_round().await;
    assert_eq!(place.stored(), Some(changed.clone()));

    // The member that was asked so far has gone: another one of the list answers. Until then the file stays.
    nodes.nodes.refuse("a");
    a_round().await;
    assert_eq!(place.stored(), Some(changed));
    nodes.lead(Some("b"));
    nodes.set_members(vec![member("b", 2, Role::Voter)]);
    a_round().await;
    assert_eq!(place.stored(), Some(vec![member("b", 2, Role::Voter)]));
    assert_eq!(nodes.changes(), "", "a server that was removed stays so");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_started_without_a_leader_comes_in_when_there_is_one() {
    let (nodes, place) = (TestNodes::new(&["a"]), Place::new());
    nodes.lead(None);
    let task = tokio::spawn(place.refresh(&nodes, &[]).run(Attached::NotYet));

    sleep(Duration::from_secs(3600)).await;
    assert_eq!((place.stored(), nodes.changes()), (None, String::new()));

    nodes.lead(Some("a"));
    sleep(config::SERVER_RETRY_MAX + Duration::from_secs(1)).await;
    let members = vec![member("a", 1, Role::Voter), member(OWN_ADDRESS, OWN.0, Role::Voter)];
    assert_eq!(place.stored(), Some(members));
    assert_eq!(nodes.changes(), "a:ADD a:Voter");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_is_tried_again() {
    let (nodes, place) = (TestNodes::new(&["a"]), Place::new());
    let obstacle = place.folder.path().join("node-store-tmp");
    std::fs::create_dir(&obstacle).unwrap();
    let task = tokio::spawn(place.refresh(&nodes, &[]).run(Attached::Yes));

    a_round().await;
    assert_eq!(place.stored(), None);

    std::fs::remove_dir(&obstacle).unwrap();
    a_round().await;
    assert_eq!(place.stored(), Some(nodes.members()));
    task.abort();
}
