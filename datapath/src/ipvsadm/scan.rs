//! Text into numbers, addresses, masks and ports, with the C library's idea of them.
//!
//! ipvsadm reads with `strtol` and `inet_aton`, so `+5` is a number and `10.1` is the address 10.0.0.1.
//!
//! Invariant: what cannot be read is `None` or a sentence that says why, never a guess.
//!
//! Not here: which option the text belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::names::{Names, protocol_name};
use crate::control::protocol::Protocol;

/// A decimal number in this range, read as `strtol` reads it.
pub fn number(text: &str, range: RangeInclusive<i64>) -> Option<i64> {
    let digits = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    digits.parse().ok().filter(|number| range.contains(number))
}

/// The number at the start of the text, read as `atoi` reads it: 0 if there is none.
pub fn leading_number(text: &str) -> i64 {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let signed = usize::from(text.starts_with(['+', '-']));
    let digits = text[signed..].bytes().take_while(u8::is_ascii_digit).count();
    text[..signed + digits].parse().unwrap_or(0)
}

/// An IPv4 address, read as `inet_aton` reads it: one to four parts, the last one fills the rest, decimal, octal (`0`)
/// or hexadecimal (`0x`).
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let text = text.split([' ', '\t', '\n', '\x0b', '\x0c', '\r']).next()?;
    let parts: Vec<u32> = text.split('.').map(ipv4_part).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 32 - 8 * leading.len() as u32;
    if room < 32 && *last >= 1 << room {
        return None;
    }
    let leading = leading.iter().enumerate().map(|(index, part)| part << (24 - 8 * index)).sum::<u32>();
    Some(Ipv4Addr::from(leading | last))
}

fn ipv4_part(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // `from_str_radix` allows a sign.
    digits.starts_with(|c: char| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok())?
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `IPV6`. The protocol is for names of ports; without one only numbers are known.
pub fn host_port(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Result<(IpAddr, Option<u16>), String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{text}` is not a host: write an address or a name, and the port behind a colon"));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => match inner.split_once("]:") {
            Some((host, port)) if !host.contains(']') => (host, Some(port)),
            _ => return Err(format!("`{text}` needs a port behind the bracket: [ADDRESS]:PORT")),
        },
        None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let address = match (host.parse::<Ipv6Addr>(), ipv4(host)) {
        (Ok(address), _) => IpAddr::V6(address),
        (_, Some(address)) => IpAddr::V4(address),
        _ => names.address(host).ok_or_else(|| format!("`{host}` is neither an address nor the name of a host"))?,
    };
    let port = port.map(|port| port_number(port, protocol, names)).transpose()?;
    Ok((address, port))
}

fn port_number(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Result<u16, String> {
    let number = number(text, 0..=65535).map(|number| number as u16);
    match (number, protocol) {
        (Some(port), _) => Ok(port),
        (None, Some(protocol)) => names.port(text, protocol).ok_or_else(|| {
            let protocol = protocol_name(protocol);
            format!("`{text}` is neither a port (0 to 65535) nor the name of a {protocol} service")
        }),
        (None, None) => Err(format!("`{text}` is not a port (0 to 65535); for names put the service before -r")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Guards the C library's idea of a number.
    #[test]
    fn numbers() {
        assert_eq!(number("10", 0..=10), Some(10));
        assert_eq!(number(" +10", 0..=10), Some(10));
        for wrong in ["", "11", "-1", "1x", "1 ", "0x1", "99999999999999999999", "+-1"] {
            assert_eq!(number(wrong, 0..=10), None, "{wrong:?}");
        }
        assert_eq!(
            ["64x", "", "x", "-5", "+7 8", "é"].map(leading_number),
            [64, 0, 0, -5, 7, 0],
            "what atoi makes of an IPv6 prefix length"
        );
    }

    /// Guards the C library's idea of an IPv4 address.
    #[test]
    fn addresses() {
        for (text, octets) in [
            ("192.0.2.1", [192, 0, 2, 1]),
            ("10.1", [10, 0, 0, 1]),
            ("10.1.256", [10, 1, 1, 0]),
            ("24", [0, 0, 0, 24]),
            ("0x7f.1", [127, 0, 0, 1]),
            ("010.0.0.1", [8, 0, 0, 1]),
            ("4294967295", [255; 4]),
            ("1.2.3.4 rest", [1, 2, 3, 4]),
        ] {
            assert_eq!(ipv4(text), Some(Ipv4Addr::from(octets)), "{text}");
        }
        for wrong in ["", "300.1.1.1", "1.2.3.256", "1.2.3.4.5", "1..2", "08.1.1.1", "4294967296", "+1.2.3.4", "0x"] {
            assert_eq!(ipv4(wrong), None, "{wrong}");
        }
    }

    proptest! {
        /// Guards the dotted form against the standard library's reading.
        #[test]
        fn dotted(octets: [u8; 4]) {
            let address = Ipv4Addr::from(octets);
            prop_assert_eq!(ipv4(&address.to_string()), Some(address));
        }
    }
}
