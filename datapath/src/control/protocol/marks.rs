//! Rules for firewall marks: which packets carry which mark.
//!
//! Invariant: a [`Prefix`] and [`Ports`] are right by construction, from text and from JSON alike; a [`MarkRule`] may
//! still be wrong (mark 0, two families), which is for `config::rules` to say. Equal rules are equal values.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::rules::{Family, Protocol, ServiceId};

/// Addresses with the same first bits, as in `192.0.2.0/24`. A single address is one of all bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        Prefix { address, length: full(address) }
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The IP version.
    pub fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::Inet } else { Family::Inet6 }
    }
}

fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with only its first bits.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    let cut = u32::from(full(address) - length);
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(cut).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(cut).unwrap_or(0)).into()),
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (head, tail) = text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail)));
        let Ok(address) = head.parse::<IpAddr>() else {
            return Err("it is no prefix: write it in figures, as in 192.0.2.0/24 or 2001:db8::/64".to_owned());
        };
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err("it is IPv4 in IPv6 clothes: write it as IPv4".to_owned());
        }
        let most = full(address);
        // A number alone: `parse` would take a sign, too.
        let digits = |tail: &&str| !tail.is_empty() && tail.bytes().all(|digit| digit.is_ascii_digit());
        let length = match tail {
            None => Some(most),
            Some(tail) => Some(tail).filter(digits).and_then(|tail| tail.parse().ok()).filter(|length| *length <= most),
        };
        let Some(length) = length else {
            return Err(format!("its length must be a number from 0 to {most}"));
        };
        let first = masked(address, length);
        if first != address {
            return Err(format!("it has bits beyond its length: {first}/{length} would be right"));
        }
        Ok(Prefix { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Destination ports, as in `80,443,8000-8100`: in order, apart from each other, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// First and last of each range.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port != 0)
        };
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
            let Some(range) = range else {
                return Err("they are no ports: write numbers from 1 to 65535, as in 80,443,8000-8100".to_owned());
            };
            ranges.push(range);
        }
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Ok(Ports(joined))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

as_text!(Prefix);
as_text!(Ports);

/// A rule: new connections that fit all of it carry the mark.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRule {
    /// The mark, never 0.
    pub mark: u32,
    /// Where the packets go.
    pub destination: Prefix,
    /// Where they come from; anywhere without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Prefix>,
    /// Their protocol; each without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Their destination ports; each without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
}

impl MarkRule {
    /// The service that the mark leads to, if there is one.
    pub fn service(&self) -> ServiceId {
        ServiceId::Mark { mark: self.mark, family: self.destination.family() }
    }

    /// Do both ask for the same packets?
    pub fn matches_like(&self, other: &MarkRule) -> bool {
        MarkRule { mark: other.mark, ..self.clone() } == *other
    }
}

impl fmt::Display for MarkRule {
    /// `mark 7 to 192.0.2.0/24 protocol tcp ports 80,443 from 10.0.0.0/8`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mark {} to {}", self.mark, self.destination)?;
        if let Some(protocol) = self.protocol {
            write!(f, " protocol {}", protocol.name())?;
        }
        if let Some(ports) = &self.ports {
            write!(f, " ports {ports}")?;
        }
        self.source.map_or(Ok(()), |source| write!(f, " from {source}"))
    }
}

/// A rule as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkView {
    /// The rule.
    #[serde(flatten)]
    pub rule: MarkRule,
    /// Its mark has a service; without one the rule steers nothing.
    pub served: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards prefixes: what is read is what is shown, and what is wrong is told with what would be right.
    #[test]
    fn prefixes_are_read_and_shown() {
        for (text, shown) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()).as_deref(), Ok(shown));
        }
        for (text, said) in [
            ("", "no prefix"),
            ("example.org/24", "no prefix"),
            ("192.0.2.0:80/24", "no prefix"),
            ("192.0.2.0/33", "from 0 to 32"),
            ("192.0.2.0/", "from 0 to 32"),
            ("192.0.2.0/+8", "from 0 to 32"),
            ("2001:db8::/129", "from 0 to 128"),
            ("192.0.2.1/24", "192.0.2.0/24 would be right"),
            ("2001:db8::1/0", "::/0 would be right"),
            ("::ffff:192.0.2.1", "write it as IPv4"),
        ] {
            let error = text.parse::<Prefix>().expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    /// Guards ports: one way to write each set, so that a rule is found again by what it says.
    #[test]
    fn ports_are_put_in_order() {
        for (text, shown) in [
            ("80", "80"),
            ("443,80", "80,443"),
            ("8000-8100, 80 ,8050-8200", "80,8000-8200"),
            ("1,2,3,5", "1-3,5"),
            ("1-65535,7", "1-65535"),
            ("65535,65534", "65534-65535"),
        ] {
            assert_eq!(text.parse::<Ports>().map(|ports| ports.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in ["", ",", "80,", "0", "0-10", "80-70", "65536", "http", "+80", "80-90-100", "-80", "80-"] {
            assert!(text.parse::<Ports>().expect_err(text).contains("1 to 65535"), "{text}");
        }
    }

    /// Guards the control protocol: a rule comes back as it went, short where it asks for little, and wrong text is no rule.
    #[test]
    fn rules_travel_as_text() {
        let json =
            r#"{"mark":7,"destination":"192.0.2.0/24","source":"10.0.0.0/8","protocol":"tcp","ports":"80,8000-8100"}"#;
        let rule: MarkRule = serde_json::from_str(json).expect("a rule");
        assert_eq!(serde_json::to_string(&rule).expect("JSON"), json);
        assert_eq!(rule.to_string(), "mark 7 to 192.0.2.0/24 protocol tcp ports 80,8000-8100 from 10.0.0.0/8");
        let short: MarkRule = serde_json::from_str(r#"{"mark":7,"destination":"192.0.2.0/24"}"#).expect("a rule");
        assert_eq!(short.to_string(), "mark 7 to 192.0.2.0/24");
        assert!(!rule.matches_like(&short) && rule.matches_like(&MarkRule { mark: 8, ..rule.clone() }));
        for wrong in [r#"{"mark":7,"destination":"192.0.2.1/24"}"#, r#"{"mark":7,"destination":"::/0","ports":"0"}"#] {
            assert!(serde_json::from_str::<MarkRule>(wrong).is_err(), "{wrong}");
        }
    }
}
