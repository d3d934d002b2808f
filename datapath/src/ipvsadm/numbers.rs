//! The cells of a listing: counters, addresses, endpoints.
//!
//! Invariant: a counter takes its column's nine characters as long as ipvsadm's does, and is cut, not rounded, beyond.
//!
//! Not here: the order of cells and the titles above them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::names::Names;
use crate::control::protocol::Protocol;

/// A counter, nine characters wide; beyond 10^8 in units, unless exact.
pub fn counter(value: u64, exact: bool) -> String {
    const K: u64 = 1_000;
    let (value, unit) = match value {
        _ if exact => return format!("{value:>width$}", width = value.to_string().len().max(8) + 1),
        0..100_000_000 => return format!("{value:>9}"),
        100_000_000..1_000_000_000 => (value / K, 'K'),
        1_000_000_000..100_000_000_000 => (value / (K * K), 'M'),
        100_000_000_000..100_000_000_000_000 => (value / (K * K * K), 'G'),
        100_000_000_000_000.. => (value / (K * K * K * K), 'T'),
    };
    format!("{value:>8}{unit}")
}

/// An address as `inet_ntop` writes it: like the standard library but for `::192.0.2.1`.
pub fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) if compatible(v6) => {
            let [.., a, b, c, d] = v6.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        other => other.to_string(),
    }
}

/// Whether the address is an IPv4 address behind 96 zero bits, as the C library sees it: `::1` is none.
fn compatible(address: Ipv6Addr) -> bool {
    let [head @ .., high, _] = address.segments();
    head == [0; 6] && high != 0
}

/// An endpoint with names where there are any. Ports have names only if the protocol is known.
pub fn endpoint(endpoint: SocketAddr, protocol: Option<Protocol>, numeric: bool, names: &dyn Names) -> String {
    let (ip, port) = (endpoint.ip(), endpoint.port());
    let host = if numeric { None } else { names.host(ip) };
    let service = if numeric { None } else { protocol.and_then(|protocol| names.service(port, protocol)) };
    let host = host.unwrap_or_else(|| address(ip));
    let service = service.unwrap_or_else(|| port.to_string());
    match ip {
        IpAddr::V4(_) => format!("{host}:{service}"),
        IpAddr::V6(_) => format!("[{host}]:{service}"),
    }
}

/// The first bytes of a text, at most this many and never half a character.
pub fn cut(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards each border between units, and that values are cut and not rounded.
    #[test]
    fn counters() {
        for (value, short, exact) in [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (99_999_999_999_999, "   99999G", " 99999999999999"),
            (100_000_000_000_000, "     100T", " 100000000000000"),
            (u64::MAX, "18446744T", " 18446744073709551615"),
        ] {
            assert_eq!((counter(value, false).as_str(), counter(value, true).as_str()), (short, exact));
        }
    }

    /// Guards the one place where the C library writes IPv6 addresses differently.
    #[test]
    fn addresses() {
        for text in ["::1", "::", "2001:db8::1", "::ffff:192.0.2.1", "::192.0.2.1", "1:0:0:2::3", "192.0.2.1"] {
            assert_eq!(address(text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))), text);
        }
    }

    /// Guards cutting against splitting a character.
    #[test]
    fn cutting() {
        assert_eq!((cut("abc", 2), cut("abc", 9), cut("aé", 2)), ("ab", "abc", "a"));
    }
}
