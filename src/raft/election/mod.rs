//! Who leads, who may vote, who stands, and how leadership ends.

mod board;
mod candidate;
#[cfg(test)]
mod election_tests;
mod leading;
mod publish;
mod standing;
mod terms;
#[cfg(test)]
mod timers_tests;
mod times;
mod transfer;
mod view;
mod voter;

pub(crate) use board::LeaderBoard;
pub(crate) use candidate::Candidate;
pub(crate) use leading::Timers;
pub(crate) use publish::Publisher;
pub(crate) use standing::Standing;
pub(crate) use terms::{Claim, Terms};
pub(crate) use times::Times;
pub(crate) use transfer::Transfer;
pub(crate) use voter::Voter;
