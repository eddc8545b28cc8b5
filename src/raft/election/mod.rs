//! Who leads, who may vote, who stands, and how leadership ends.

mod adoption;
mod awake;
mod board;
mod candidate;
mod disk;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod election_tests;
mod gaps;
mod hang_up;
mod leading;
#[cfg(test)]
mod model_tests;
mod publish;
mod question;
mod standing;
mod table;
mod terms;
mod times;
#[cfg(test)]
mod timing_tests;
mod transfer;
mod view;
mod voter;

pub(crate) use board::LeaderBoard;
pub(crate) use candidate::Candidate;
pub(crate) use disk::{DiskParts, DiskWatch};
pub(crate) use hang_up::HangUps;
pub(crate) use leading::Leading;
pub(crate) use publish::Publisher;
pub(crate) use question::{Asker, Question};
pub(crate) use standing::Standing;
pub(crate) use terms::{Claim, Terms};
pub(crate) use times::Times;
pub(crate) use transfer::Transfer;
pub(crate) use voter::Voter;
