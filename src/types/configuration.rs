//! A raft configuration and its bytes. spec: raft-wire 4.3. Used in CHANGE entries, snapshots and `.meta` files.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::NodeId;
use super::config::CONFIGURATION_MAX_BYTES;

/// Role of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Gets the log, does not vote.
    StandBy,
    /// Votes and counts for the quorum.
    Voter,
    /// Gets nothing.
    Spare,
}

impl Role {
    /// Number in a configuration entry: 0 stand-by, 1 voter, 2 spare. spec: raft-wire 4.3.
    #[must_use]
    pub const fn raft_number(self) -> u8 {
        match self {
            Role::StandBy => 0,
            Role::Voter => 1,
            Role::Spare => 2,
        }
    }

    /// Role with this number in a configuration entry.
    #[must_use]
    pub const fn from_raft_number(number: u8) -> Option<Role> {
        match number {
            0 => Some(Role::StandBy),
            1 => Some(Role::Voter),
            2 => Some(Role::Spare),
            _ => None,
        }
    }

    /// Number in the client protocol and in the C interface: 0 voter, 1 stand-by, 2 spare. spec: client-protocol 6.
    #[must_use]
    pub const fn client_number(self) -> u64 {
        match self {
            Role::Voter => 0,
            Role::StandBy => 1,
            Role::Spare => 2,
        }
    }

    /// Role with this number in the client protocol.
    #[must_use]
    pub const fn from_client_number(number: u64) -> Option<Role> {
        match number {
            0 => Some(Role::Voter),
            1 => Some(Role::StandBy),
            2 => Some(Role::Spare),
            _ => None,
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Not 0.
    pub id: NodeId,
    /// What other nodes dial; bytes without NUL, kept as they came.
    pub address: Vec<u8>,
    /// Role.
    pub role: Role,
}

/// The members, in order of joining.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    servers: Vec<Server>,
}

/// Why bytes or servers are no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// The bytes end too early.
    #[error("truncated configuration: {what} at offset {offset}, length {len}")]
    Truncated {
        /// Which field.
        what: &'static str,
        /// Where it starts.
        offset: usize,
        /// How many bytes there are.
        len: usize,
    },
    /// More bytes than a snapshot's metadata can hold.
    #[error("configuration of {0} bytes, at most {CONFIGURATION_MAX_BYTES} are taken")]
    TooLong(usize),
    /// First byte is not 1.
    #[error("configuration format {0}, expected 1")]
    Format(u8),
    /// Role byte is not 0, 1 or 2.
    #[error("server {id}: role {role} is not 0, 1 or 2")]
    Role {
        /// Server.
        id: u64,
        /// Byte found.
        role: u8,
    },
    /// Id 0.
    #[error("server id 0")]
    ZeroId,
    /// Two servers with one id.
    #[error("server id {0} occurs twice")]
    DuplicateId(u64),
    /// Two servers with one address.
    #[error("server address {0:?} occurs twice")]
    DuplicateAddress(String),
    /// An address with a NUL byte.
    #[error("server {0}: address contains a NUL byte")]
    Nul(u64),
}

/// Format and count, then id, address, NUL and role of each; whole words.
fn encoded_bytes(servers: &[Server]) -> usize {
    let bytes: usize = servers.iter().map(|server| 8 + server.address.len() + 2).sum();
    (9 + bytes).next_multiple_of(8)
}

impl Configuration {
    /// Checks and takes servers.
    ///
    /// # Errors
    /// Id 0, an id or an address twice, a NUL in an address, more than what is ever read.
    pub fn new(servers: Vec<Server>) -> Result<Configuration, ConfigurationError> {
        let length = encoded_bytes(&servers);
        if length > CONFIGURATION_MAX_BYTES {
            return Err(ConfigurationError::TooLong(length));
        }
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for server in &servers {
            if server.id.0 == 0 {
                return Err(ConfigurationError::ZeroId);
            }
            if server.address.contains(&0) {
                return Err(ConfigurationError::Nul(server.id.0));
            }
            if !ids.insert(server.id) {
                return Err(ConfigurationError::DuplicateId(server.id.0));
            }
            if !addresses.insert(&server.address) {
                return Err(ConfigurationError::DuplicateAddress(
                    String::from_utf8_lossy(&server.address).into_owned(),
                ));
            }
        }
        Ok(Configuration { servers })
    }

    /// The members, in order.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The member with this id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Server> {
        self.servers.iter().find(|server| server.id == id)
    }

    /// Members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.role == Role::Voter)
    }

    /// How many of them decide.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// Whether `id` votes.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters().any(|server| server.id == id)
    }

    /// Whether `id` alone decides.
    #[must_use]
    pub fn is_only_voter(&self, id: NodeId) -> bool {
        let mut voters = self.voters();
        voters.next().is_some_and(|server| server.id == id) && voters.next().is_none()
    }

    /// Whether there is no other member, whatever its role.
    #[must_use]
    pub fn is_only_member(&self, id: NodeId) -> bool {
        matches!(&self.servers[..], [server] if server.id == id)
    }

    /// The bytes; padding is zero, the length a multiple of 8.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(encoded_bytes(&self.servers));
        out.push(1);
        out.extend_from_slice(&(self.servers.len() as u64).to_le_bytes());
        for server in &self.servers {
            out.extend_from_slice(&server.id.0.to_le_bytes());
            out.extend_from_slice(&server.address);
            out.push(0);
            out.push(server.role.raft_number());
        }
        out.resize(out.len().next_multiple_of(8), 0);
        out.into()
    }

    /// Reads the bytes; padding is ignored.
    ///
    /// # Errors
    /// Anything that raft-wire 4.3 refuses; nothing is allocated from the announced count.
    pub fn decode(bytes: &[u8]) -> Result<Configuration, ConfigurationError> {
        if bytes.len() > CONFIGURATION_MAX_BYTES {
            return Err(ConfigurationError::TooLong(bytes.len()));
        }
        let truncated = |what, offset| ConfigurationError::Truncated { what, offset, len: bytes.len() };
        let word = |what, offset: usize| {
            bytes
                .get(offset..offset + 8)
                .and_then(|slice| <[u8; 8]>::try_from(slice).ok())
                .map(u64::from_le_bytes)
                .ok_or(truncated(what, offset))
        };
        let format = *bytes.first().ok_or(truncated("format", 0))?;
        if format != 1 {
            return Err(ConfigurationError::Format(format));
        }
        let count = word("server count", 1)?;
        let mut offset = 9;
        let mut servers = Vec::new();
        for _ in 0..count {
            let id = word("server id", offset)?;
            offset += 8;
            let rest = bytes.get(offset..).ok_or(truncated("server address", offset))?;
            let length =
                rest.iter().position(|byte| *byte == 0).ok_or(truncated("server address", offset))?;
            let address = rest.get(..length).ok_or(truncated("server address", offset))?.to_vec();
            offset += length + 1;
            let number = *bytes.get(offset).ok_or(truncated("server role", offset))?;
            let role = Role::from_raft_number(number).ok_or(ConfigurationError::Role { id, role: number })?;
            offset += 1;
            servers.push(Server { id: NodeId(id), address, role });
        }
        Configuration::new(servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_of_recover_has_the_specified_bytes() {
        // disk-format 9: three servers, payload of the entry.
        #[rustfmt::skip]
        let wire = [
            0x01, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x31, 0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x31, 0x3a, 0x32, 0x39, 0x30, 0x30, 0x31, 0x00, 0x01,
            0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x31, 0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x31, 0x3a, 0x32, 0x39, 0x30, 0x30, 0x32, 0x00, 0x00,
            0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x31, 0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x31, 0x3a, 0x32, 0x39, 0x30, 0x30, 0x33, 0x00, 0x02,
            0x00, 0x00, 0x00, 0x00,
        ];
        let server = |id, port: &str, role| Server {
            id: NodeId(id),
            address: format!("127.0.0.1:{port}").into_bytes(),
            role,
        };
        let configuration = Configuration::new(vec![
            server(1, "29001", Role::Voter),
            server(2, "29002", Role::StandBy),
            server(3, "29003", Role::Spare),
        ])
        .unwrap();

        assert_eq!(configuration.encode(), wire.as_slice());
        assert_eq!(Configuration::decode(&wire).unwrap(), configuration);
    }

    fn server(id: u64, address: &str) -> Server {
        Server { id: NodeId(id), address: address.as_bytes().to_vec(), role: Role::Voter }
    }

    // conformance: raft-wire 11
    #[test]
    fn doubles_and_unknown_roles_and_formats_are_refused() {
        let roles = [(0, Role::StandBy), (1, Role::Voter), (2, Role::Spare)];
        for (number, role) in roles {
            assert_eq!(Role::from_raft_number(number), Some(role));
        }
        assert!(Configuration::new(vec![server(1, "a"), server(1, "b")]).is_err());
        assert!(Configuration::new(vec![server(1, "a"), server(2, "a")]).is_err());
        let good = Configuration::new(vec![server(1, "a"), server(2, "b")]).unwrap().encode();
        assert!(Configuration::decode(&good).is_ok());
        // Format, role of the first server, id and address of the second.
        for (offset, value) in [(0, 2), (19, 3), (20, 1), (28, b'a')] {
            let mut bytes = good.to_vec();
            bytes[offset] = value;
            assert!(Configuration::decode(&bytes).is_err(), "byte {offset} is {value}");
        }
    }

    // conformance: raft-wire 10
    #[test]
    fn padding_may_be_anything() {
        let good = Configuration::new(vec![server(1, "a"), server(2, "b")]).unwrap();
        let mut bytes = good.encode().to_vec();
        assert_eq!(bytes.len(), 32);
        bytes.truncate(31);
        bytes.push(0xa5);

        assert_eq!(Configuration::decode(&bytes), Ok(good));
    }

    // conformance: raft-wire 29
    #[test]
    fn an_encoding_fills_whole_words() {
        for length in 1..40 {
            let configuration = Configuration::new(vec![server(1, &"x".repeat(length))]).unwrap();
            let bytes = configuration.encode();
            assert!(
                bytes.len().is_multiple_of(8) && bytes.len() >= 9 + 8 + length + 2,
                "{length}: {}",
                bytes.len()
            );
        }
    }

    // The fault: every pair was compared, and 100,000 servers took the consensus thread for minutes.
    #[test]
    fn as_many_servers_as_a_snapshot_can_name_are_read_at_once_and_no_more() {
        let servers = |count: u64| (1..=count).map(|id| server(id, &id.to_string())).collect();
        let most = Configuration::new(servers(60_000)).unwrap();
        let bytes = most.encode();

        let began = std::time::Instant::now();
        assert_eq!(Configuration::decode(&bytes).as_ref(), Ok(&most));
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(bytes.len() > 800_000, "{}", bytes.len());
        assert!(matches!(Configuration::new(servers(100_000)), Err(ConfigurationError::TooLong(_))));
        let long = [&bytes[..], &vec![0; CONFIGURATION_MAX_BYTES]].concat();
        assert!(matches!(Configuration::decode(&long), Err(ConfigurationError::TooLong(_))));
    }

    #[test]
    fn an_announced_count_without_servers_is_refused() {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());

        assert!(matches!(
            Configuration::decode(&bytes),
            Err(ConfigurationError::Truncated { what: "server id", .. })
        ));
    }
}
