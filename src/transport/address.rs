//! Text of listen addresses. spec: c-api 3.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Port of an address that names none.
pub const DEFAULT_PORT: u16 = 8080;
/// Longest abstract Unix address in bytes, the leading `@` included.
pub const MAX_ABSTRACT_LENGTH: usize = 107;

/// A parsed listen address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `@`: an abstract Unix socket whose name the kernel chooses.
    Autobind,
    /// `@NAME`: an abstract Unix socket; the name is without `@`.
    Abstract(String),
    /// A numeric IPv4 or IPv6 address and port.
    Ip(SocketAddr),
}

/// The text is no address of the table in spec: c-api 3.3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listen address '{text}' is not '@NAME', 'IP', 'IPv4:PORT' or '[IP]:PORT'")]
pub struct AddressError {
    /// The refused text.
    pub text: String,
}

impl Address {
    /// Parses `text`; names are never resolved. spec: c-api 3.3.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or_else(|| AddressError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Address> {
    if let Some(name) = text.strip_prefix('@') {
        return match name {
            "" => Some(Address::Autobind),
            _ if text.len() > MAX_ABSTRACT_LENGTH => None,
            _ => Some(Address::Abstract(name.to_owned())),
        };
    }
    let (ip, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        (ip(host)?, parse_port(port)?)
    } else if text.contains('.') {
        match text.split_once(':') {
            Some((host, port)) => (IpAddr::V4(ipv4(host)?), parse_port(port)?),
            None => (IpAddr::V4(ipv4(text)?), DEFAULT_PORT),
        }
    } else {
        (IpAddr::V6(text.parse::<Ipv6Addr>().ok()?), DEFAULT_PORT)
    };
    Some(Address::Ip(SocketAddr::new(ip, port)))
}

fn ip(host: &str) -> Option<IpAddr> {
    host.parse().ok().or_else(|| ipv4(host).map(IpAddr::V4))
}

/// A decimal port; empty is port 0. A larger number than there are is none: upstream listens on it modulo 65536.
fn parse_port(text: &str) -> Option<u16> {
    text.bytes().try_fold(0u16, |port, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        port.checked_mul(10)?.checked_add(digit)
    })
}

/// One to four decimal parts, the last filling the remaining bytes (`127.1`).
fn ipv4(host: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = host.split('.').collect();
    let (last, first) = parts.split_last()?;
    if first.len() > 3 {
        return None;
    }
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<u64>().ok()).flatten()
    };
    let mut bits = 0u64;
    for (position, part) in first.iter().enumerate() {
        let value = number(part).filter(|value| *value <= 255)?;
        bits |= value << (24 - 8 * position);
    }
    let limit = 1u64 << (32 - 8 * first.len());
    bits |= number(last).filter(|value| *value < limit)?;
    u32::try_from(bits).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    // conformance: c-api 25, 31
    #[test]
    fn the_address_table_parses_as_documented() {
        for (text, socket) in [
            ("127.0.0.1", "127.0.0.1:8080"),
            ("127.0.0.1:19001", "127.0.0.1:19001"),
            ("127.0.0.1:", "127.0.0.1:0"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("127.1:19007", "127.0.0.1:19007"),
            ("::1", "[::1]:8080"),
            ("::", "[::]:8080"),
            ("[::1]:19002", "[::1]:19002"),
            ("[127.0.0.1]:19009", "127.0.0.1:19009"),
        ] {
            assert_eq!(Address::parse(text), Ok(Address::Ip(socket.parse().unwrap())), "{text}");
        }
        for text in [
            "[::1]",
            "[::1",
            "",
            "garbage",
            "8080",
            ":8080",
            "localhost",
            "localhost:19003",
            "127.0.0.1:65536",
            "127.0.0.1:99999",
            "999.1.1.1:1",
            "127.0.0.1:abc",
            "::ffff:1.2.3.4",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert_eq!(Address::parse("@"), Ok(Address::Autobind));
        assert!(Address::parse(&format!("@{}", "a".repeat(106))).is_ok());
        assert!(Address::parse(&format!("@{}", "a".repeat(107))).is_err());
    }
}
