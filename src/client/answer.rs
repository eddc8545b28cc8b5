//! What the answers say. Pure: any bytes give a value or a problem. spec: client-protocol 6.

use bytes::Bytes;

use super::error::Problem;
use crate::protocol::codec::CodecError;
use crate::protocol::response::{Kind, decode_failure, decode_server, decode_words};
use crate::protocol::{decode, header::MessageHeader};
use crate::types::{NodeId, Role, Server, config};

/// What a node says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Nodes of one domain are expected to fail together.
    pub failure_domain: u64,
    /// The lower, the rather a node gets a role.
    pub weight: u64,
}

/// Format of CLUSTER that has roles.
pub(super) const WITH_ROLES: u64 = 1;

/// The body if the answer is of the type that the request wants.
pub(super) fn expect(header: MessageHeader, body: Bytes, expected: Kind) -> Result<Bytes, Problem> {
    if header.kind == expected as u8 {
        return Ok(body);
    }
    if header.kind == Kind::Failure as u8 {
        let (code, text) = decode_failure(&body).map_err(malformed(Kind::Failure))?;
        let text = text.get(..config::CLIENT_FAILURE_TEXT_MAX_BYTES).unwrap_or(&text);
        return Err(Problem::Failure { code, message: String::from_utf8_lossy(text).into_owned() });
    }
    Err(Problem::Kind { found: header.kind, expected: expected as u8 })
}

/// EMPTY.
pub(super) fn empty(body: &Bytes) -> Result<(), Problem> {
    decode_words::<1>(body).map(|_| ()).map_err(malformed(Kind::Empty))
}

/// SERVER; id 0 or no address means that the node knows no leader.
pub(super) fn leader(body: &Bytes) -> Result<Option<(NodeId, Vec<u8>)>, Problem> {
    let (id, address) = decode_server(body).map_err(malformed(Kind::Server))?;
    Ok((id != 0 && !address.is_empty()).then(|| (NodeId(id), address.to_vec())))
}

/// METADATA.
pub(super) fn description(body: &Bytes) -> Result<Description, Problem> {
    let [failure_domain, weight] = decode_words::<2>(body).map_err(malformed(Kind::Metadata))?;
    Ok(Description { failure_domain, weight })
}

/// SERVERS with roles.
pub(super) fn servers(body: &Bytes) -> Result<Vec<Server>, Problem> {
    let members = decode::members(body, WITH_ROLES).map_err(malformed(Kind::Servers))?;
    let server = |member: decode::Member| Server {
        id: member.id,
        address: member.address.to_vec(),
        // Never missing in this format.
        role: member.role.unwrap_or(Role::Spare),
    };
    Ok(members.into_iter().map(server).collect())
}

fn malformed(kind: Kind) -> impl Fn(CodecError) -> Problem {
    move |error| Problem::Malformed { kind: kind as u8, error }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_answer_is_a_value_or_a_problem(
            header: [u8; 8],
            words in prop::collection::vec(prop_oneof![0..4u64, any::<u64>()], 0..20),
            cut in 0..8usize,
        ) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let body = Bytes::from(bytes).slice(..(words.len() * 8).saturating_sub(cut));
            for kind in [Kind::Failure, Kind::Server, Kind::Servers, Kind::Empty, Kind::Metadata] {
                for kind_sent in [header[4], 0, kind as u8] {
                    let mut header = header;
                    header[4] = kind_sent;
                    if let Err(problem) = expect(MessageHeader::read(&header), body.clone(), kind) {
                        prop_assert!(!problem.to_string().is_empty());
                    }
                }
            }

            let _ = (empty(&body), leader(&body), description(&body));
            if let Ok(servers) = servers(&body) {
                prop_assert!(servers.len() * 24 <= body.len());
            }
        }
    }
}
