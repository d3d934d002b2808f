//! Firewall marks: which packets carry which mark.
//!
//! The kernel has netfilter to mark packets before IPVS sees them; AF_XDP is before netfilter, so rules of our own give
//! the marks. A rule looks at a packet's destination, source, protocol and destination port, and the first rule that
//! fits gives the mark. (In iptables the last `MARK` that fits wins, because that target does not end the chain. Here
//! the first one does: an exception is written above what it is an exception of, and nothing below a match is read.)
//!
//! Invariant: immutable once built. Only a packet that may open a connection is asked about, after the connection table
//! did not know it. Which service a mark leads to, and whether there is one, is the snapshot's business.

use rustc_hash::FxHashMap;
use std::fmt;

use crate::flow::{Address, Family, Flow, Protocol};

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: Address,
    length: u8,
}

impl Prefix {
    /// The addresses that share the first `length` bits (of 32 or 128) with this one.
    pub fn new(address: Address, length: u8) -> Self {
        let most = if address.family() == Family::Inet { 32 } else { 128 };
        let length = length.min(most);
        Prefix { address: address.masked(length), length }
    }

    /// The first address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// How many bits count.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Does it hold this address? One of the other family never.
    pub fn holds(&self, address: Address) -> bool {
        self.address.family() == address.family() && address.masked(self.length) == self.address
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A rule: packets that fit all of it carry the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The mark, never 0.
    pub mark: u32,
    /// Where the packets go.
    pub destination: Prefix,
    /// Where they come from; `None` is anywhere.
    pub source: Option<Prefix>,
    /// Their protocol; `None` is each that has ports.
    pub protocol: Option<Protocol>,
    /// First and last of each range of destination ports; none is every port.
    pub ports: Vec<(u16, u16)>,
}

impl Rule {
    /// Does a packet of this flow fit?
    pub fn fits(&self, flow: &Flow) -> bool {
        self.destination.holds(flow.dst.address) && self.fits_beyond_destination(flow)
    }

    fn fits_beyond_destination(&self, flow: &Flow) -> bool {
        self.protocol.map_or(flow.protocol.has_ports(), |protocol| protocol == flow.protocol)
            && self.source.is_none_or(|source| source.holds(flow.src.address))
            && (self.ports.is_empty()
                || self.ports.iter().any(|&(first, last)| (first..=last).contains(&flow.dst.port)))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol} ")?;
        }
        write!(f, "to {}", self.destination)?;
        for (index, (first, last)) in self.ports.iter().enumerate() {
            f.write_str(if index == 0 { " port " } else { "," })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        self.source.map_or(Ok(()), |source| write!(f, " from {source}"))
    }
}

/// The rules, in their order, compiled.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    rules: Vec<Rule>,
    v4: Prefixes,
    v6: Prefixes,
}

/// Prefix length, and for each destination prefix of that length the numbers of its rules, in their order.
type Prefixes = Vec<(u8, FxHashMap<Address, Vec<usize>>)>;

impl Marks {
    /// Compiles the rules; of two that fit a packet the first one counts.
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut marks = Marks::default();
        for (number, rule) in rules.iter().enumerate() {
            let Prefix { address, length } = rule.destination;
            let prefixes = if address.family() == Family::Inet { &mut marks.v4 } else { &mut marks.v6 };
            let at = match prefixes.iter().position(|(known, _)| *known == length) {
                Some(at) => at,
                None => {
                    prefixes.push((length, FxHashMap::default()));
                    prefixes.len() - 1
                }
            };
            prefixes[at].1.entry(address).or_default().push(number);
        }
        marks.rules = rules;
        marks
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The mark of a packet; 0 if no rule fits.
    #[inline]
    pub fn of(&self, flow: &Flow) -> u32 {
        if self.rules.is_empty() {
            return 0;
        }
        self.rule(flow).map_or(0, |(_, rule)| rule.mark)
    }

    /// The rule that marks a packet, and its number from 0.
    pub fn rule(&self, flow: &Flow) -> Option<(usize, &Rule)> {
        let fits = |number: &&usize| self.rules[**number].fits_beyond_destination(flow);
        let of_prefix = |numbers: &Vec<usize>| numbers.iter().find(fits).copied();
        let number = self.mentioning(flow.dst.address).filter_map(of_prefix).min()?;
        Some((number, &self.rules[number]))
    }

    /// Is the address a destination of any rule?
    pub fn mentions(&self, address: Address) -> bool {
        self.mentioning(address).next().is_some()
    }

    /// The rules whose destination holds the address, by the prefixes that do.
    fn mentioning(&self, address: Address) -> impl Iterator<Item = &Vec<usize>> {
        let prefixes = if address.family() == Family::Inet { &self.v4 } else { &self.v6 };
        prefixes.iter().filter_map(move |(length, rules)| rules.get(&address.masked(*length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn rule(mark: u32, destination: &str, length: u8) -> Rule {
        let destination = Prefix::new(address(destination), length);
        Rule { mark, destination, source: None, protocol: None, ports: Vec::new() }
    }

    fn flow(protocol: Protocol, src: &str, dst: &str, port: u16) -> Flow {
        Flow { protocol, src: Endpoint::new(address(src), 40000), dst: Endpoint::new(address(dst), port) }
    }

    /// Guards each part of a rule, with the edges of its port ranges, and that protocols without ports have no mark.
    #[test]
    fn every_part_of_a_rule_counts() {
        let full = Rule {
            source: Some(Prefix::new(address("10.0.0.0"), 8)),
            protocol: Some(Protocol::TCP),
            ports: vec![(80, 80), (8000, 8100)],
            ..rule(7, "192.0.2.0", 24)
        };
        let marks = Marks::new(vec![full, rule(8, "198.51.100.1", 32)]);
        let tcp = |src, dst, port| marks.of(&flow(Protocol::TCP, src, dst, port));
        for (port, mark) in [(79, 0), (80, 7), (81, 0), (7999, 0), (8000, 7), (8100, 7), (8101, 0)] {
            assert_eq!(tcp("10.9.9.9", "192.0.2.200", port), mark, "{port}");
        }
        assert_eq!(tcp("11.0.0.1", "192.0.2.200", 80), 0, "another source");
        assert_eq!(tcp("10.9.9.9", "192.0.3.0", 80), 0, "another destination");
        assert_eq!(marks.of(&flow(Protocol::UDP, "10.9.9.9", "192.0.2.200", 80)), 0, "another protocol");
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            assert_eq!(marks.of(&flow(protocol, "10.9.9.9", "198.51.100.1", 1)), 8);
        }
        assert_eq!(marks.of(&flow(Protocol::ICMP, "10.9.9.9", "198.51.100.1", 0)), 0);
    }

    /// Guards the order: the first rule that fits counts, not the longest prefix and not the last rule.
    #[test]
    fn the_first_rule_that_fits_counts() {
        let marks = Marks::new(vec![
            Rule { ports: vec![(22, 22)], ..rule(1, "192.0.2.0", 24) },
            rule(2, "192.0.2.1", 32),
            rule(3, "192.0.2.0", 24),
            rule(4, "192.0.2.2", 32),
        ]);
        let mark = |dst, port| marks.of(&flow(Protocol::TCP, "10.0.0.1", dst, port));
        assert_eq!((mark("192.0.2.1", 22), mark("192.0.2.1", 80)), (1, 2));
        assert_eq!((mark("192.0.2.2", 22), mark("192.0.2.2", 80)), (1, 3));
        assert_eq!(marks.rule(&flow(Protocol::TCP, "10.0.0.1", "192.0.2.9", 80)).unwrap().0, 2);
    }

    /// Guards the families against each other: "everything" of one is nothing of the other.
    #[test]
    fn families_are_apart() {
        let marks = Marks::new(vec![rule(4, "0.0.0.0", 0), rule(6, "::", 0)]);
        assert_eq!(marks.of(&flow(Protocol::TCP, "10.0.0.1", "192.0.2.1", 80)), 4);
        assert_eq!(marks.of(&flow(Protocol::TCP, "2001:db8::1", "2001:db8::2", 80)), 6);
        assert!(Marks::new(vec![rule(6, "::", 0)]).mentions(address("2001:db8::1")));
        assert!(!Marks::new(vec![rule(6, "::", 0)]).mentions(address("192.0.2.1")));
    }

    /// Guards the words in which a rule is told.
    #[test]
    fn a_rule_tells_what_it_asks_for() {
        let full = Rule {
            source: Some(Prefix::new(address("10.1.2.3"), 8)),
            protocol: Some(Protocol::TCP),
            ports: vec![(80, 80), (8000, 8100)],
            ..rule(7, "192.0.2.7", 24)
        };
        assert_eq!(full.to_string(), "TCP to 192.0.2.0/24 port 80,8000-8100 from 10.0.0.0/8");
        assert_eq!(rule(1, "2001:db8::1", 200).to_string(), "to 2001:db8::1/128");
    }

    /// A few addresses that share prefixes of many lengths.
    fn any_address() -> impl Strategy<Value = Address> {
        (any::<bool>(), 0u8..4, 0u8..4).prop_map(|(v4, a, b)| {
            let mut bytes = [0; 16];
            (bytes[0], bytes[1], bytes[2], bytes[3], bytes[15]) = (0xc0, a, 0, b, b);
            if v4 { Address::v4([0xc0, a, 0, b]) } else { Address::v6(bytes) }
        })
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        (any_address(), prop::sample::select(vec![0, 7, 8, 14, 15, 16, 30, 31, 32, 64, 127, 128]))
            .prop_map(|(address, length)| Prefix::new(address, length))
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let protocols = vec![None, Some(Protocol::TCP), Some(Protocol::UDP), Some(Protocol::SCTP)];
        let ports = prop::collection::vec((0u16..6, 0u16..3).prop_map(|(first, more)| (first, first + more)), 0..3);
        (1u32..5, any_prefix(), prop::option::of(any_prefix()), prop::sample::select(protocols), ports).prop_map(
            |(mark, destination, source, protocol, ports)| Rule { mark, destination, source, protocol, ports },
        )
    }

    /// The rules read from top to bottom, bit by bit, as a person would.
    fn naive(rules: &[Rule], flow: &Flow) -> u32 {
        let within = |prefix: &Prefix, address: Address| {
            let v4 = address.family() == Family::Inet;
            let skipped = if v4 { 96 } else { 0 };
            (prefix.address.family() == Family::Inet) == v4
                && (0..u32::from(prefix.length))
                    .all(|bit| (prefix.address.bits() ^ address.bits()) << (skipped + bit) >> 127 == 0)
        };
        for rule in rules {
            let ports =
                rule.ports.is_empty() || rule.ports.iter().any(|r| r.0 <= flow.dst.port && flow.dst.port <= r.1);
            let protocol = match rule.protocol {
                None => [6, 17, 132].contains(&flow.protocol.0),
                Some(protocol) => protocol == flow.protocol,
            };
            let source = rule.source.is_none() || within(&rule.source.unwrap(), flow.src.address);
            if within(&rule.destination, flow.dst.address) && source && protocol && ports {
                return rule.mark;
            }
        }
        0
    }

    proptest! {
        /// Guards the compiled rules against the rules as they are written: any rules, any packet, the same mark.
        #[test]
        fn compiled_rules_say_what_is_written(
            rules in prop::collection::vec(any_rule(), 0..24),
            packets in prop::collection::vec((any_address(), any_address(), 0u16..8, 0usize..4), 1..24),
        ) {
            let marks = Marks::new(rules.clone());
            for (src, dst, port, protocol) in packets {
                if src.family() != dst.family() {
                    continue;
                }
                let protocol = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP][protocol];
                let flow = Flow { protocol, src: Endpoint::new(src, 1), dst: Endpoint::new(dst, port) };
                prop_assert_eq!(marks.of(&flow), naive(&rules, &flow), "{:?}", flow);
                prop_assert_eq!(marks.mentions(dst), rules.iter().any(|rule| rule.destination.holds(dst)));
                prop_assert_eq!(marks.rule(&flow).map(|(at, _)| at), rules.iter().position(|rule| rule.fits(&flow)));
            }
        }
    }
}
