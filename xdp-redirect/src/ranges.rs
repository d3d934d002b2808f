//! Ranges: prefixes, ports and sources that are steered and that no single key can name.
//!
//! A trie answers with the longest prefix that holds an address, and with no other. So the list of each prefix is made
//! whole here: it has the ranges of all prefixes around it, in the order in which they were given, without those that
//! can decide nothing. Invariant: for every packet, the list of its longest prefix decides as the whole set would.
//! It does not know what a range is steered for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv6Addr};

use libbpf_rs::{MapCore, MapFlags};

use crate::error::{Error, errno};
use crate::key::Protocol;
use crate::skeleton::types;

/// `RANGES_EACH` of `bpf/ranges.h`: ranges of a prefix, those of shorter prefixes included.
const EACH: usize = (size_of::<types::ranges>() - offset_of!(types::ranges, of)) / size_of::<types::range>();

/// Bits in front of an address in the trie: the family.
const FAMILY_BITS: u32 = 32;

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// One of them; bits beyond the length do not count.
    pub address: IpAddr,
    /// How many bits: up to 32 or 128.
    pub length: u8,
}

/// Packets by where they go to, where they come from, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// Where they go.
    pub destination: Prefix,
    /// Where they come from, of the same family; `None` is anywhere.
    pub source: Option<Prefix>,
    /// Their protocol; `None` is each of the three.
    pub protocol: Option<Protocol>,
    /// The least destination port.
    pub first: u16,
    /// The greatest one.
    pub last: u16,
    /// Steered, or left alone whatever the ranges below say.
    pub steer: bool,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A prefix as the trie counts it: family, IPv6 form, bits of that form. No bit is set beyond those that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    family: u32,
    bits: u8,
    address: u128,
}

impl Place {
    fn new(prefix: Prefix) -> Place {
        let (family, address, bits) = match prefix.address {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped(), 96 + prefix.length.min(32)),
            IpAddr::V6(v6) => (6, v6, prefix.length.min(128)),
        };
        Place { family, bits: 0, address: address.to_bits() }.cut(bits)
    }

    /// The shorter prefix of so many bits around this one.
    fn cut(self, bits: u8) -> Place {
        Place { bits, address: self.address & mask(bits), ..self }
    }

    fn holds(&self, other: &Place) -> bool {
        self.family == other.family && self.bits <= other.bits && other.cut(self.bits) == *self
    }

    fn prefix(&self) -> Prefix {
        let address = Ipv6Addr::from_bits(self.address);
        match (self.family, address.to_ipv4_mapped()) {
            (4, Some(v4)) => Prefix { address: v4.into(), length: self.bits.saturating_sub(96) },
            _ => Prefix { address: address.into(), length: self.bits },
        }
    }

    /// `struct prefix` of `bpf/ranges.h`.
    fn bytes(&self) -> [u8; size_of::<types::prefix>()] {
        let mut bytes = [0; size_of::<types::prefix>()];
        put(&mut bytes, offset_of!(types::prefix, bits), &(FAMILY_BITS + u32::from(self.bits)).to_ne_bytes());
        put(&mut bytes, offset_of!(types::prefix, family), &self.family.to_ne_bytes());
        put(&mut bytes, offset_of!(types::prefix, address), &self.address.to_be_bytes());
        bytes
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl Range {
    /// Does every packet to the same destination that fits the other one fit this one?
    fn covers(&self, other: &Range) -> bool {
        let source = match (self.source, other.source) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => Place::new(own).holds(&Place::new(other)),
        };
        source
            && self.protocol.is_none_or(|protocol| Some(protocol) == other.protocol)
            && self.first <= other.first
            && other.last <= self.last
    }

    /// `struct range` of `bpf/ranges.h`.
    fn bytes(&self) -> [u8; size_of::<types::range>()] {
        let mut bytes = [0; size_of::<types::range>()];
        if let Some(source) = self.source {
            let place = Place::new(source);
            put(&mut bytes, offset_of!(types::range, source), &place.address.to_be_bytes());
            put(&mut bytes, offset_of!(types::range, mask), &mask(place.bits).to_be_bytes());
        }
        put(&mut bytes, offset_of!(types::range, first), &self.first.to_ne_bytes());
        put(&mut bytes, offset_of!(types::range, last), &self.last.to_ne_bytes());
        bytes[offset_of!(types::range, protocol)] = self.protocol.map_or(0, Protocol::number);
        bytes[offset_of!(types::range, steer)] = self.steer.into();
        bytes
    }
}

/// `struct ranges` of `bpf/ranges.h`.
fn value(list: &[Range]) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<types::ranges>()];
    put(&mut bytes, offset_of!(types::ranges, count), &(list.len() as u32).to_ne_bytes());
    for (number, range) in list.iter().enumerate() {
        put(&mut bytes, offset_of!(types::ranges, of) + number * size_of::<types::range>(), &range.bytes());
    }
    bytes
}

/// The prefixes and their lists, as the trie has them.
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<Place, Vec<Range>>);

impl Ranges {
    /// Makes the list of each prefix whole.
    pub(crate) fn fold(ranges: &[Range]) -> Result<Ranges, Error> {
        let mut own: HashMap<Place, Vec<usize>> = HashMap::new();
        for (number, range) in ranges.iter().enumerate() {
            own.entry(Place::new(range.destination)).or_default().push(number);
        }
        let lengths: HashSet<u8> = own.keys().map(|place| place.bits).collect();
        let mut lists = BTreeMap::new();
        for place in own.keys() {
            let around =
                lengths.iter().filter(|&&bits| bits <= place.bits).filter_map(|&bits| own.get(&place.cut(bits)));
            let mut numbers: Vec<usize> = around.flatten().copied().collect();
            numbers.sort_unstable();
            let list = that_decide(numbers.into_iter().map(|number| ranges[number]));
            if list.len() > EACH {
                let prefix = place.prefix().to_string();
                return Err(Error::TooManyRanges { prefix, ranges: list.len(), limit: EACH });
            }
            lists.insert(*place, list);
        }
        // A prefix that steers nothing is needed only to hide one around it that does.
        let steering: Vec<Place> = lists.iter().filter(|(_, list)| !list.is_empty()).map(|(place, _)| *place).collect();
        let around: HashSet<Place> = steering.into_iter().collect();
        let hides = |place: &Place| lengths.iter().any(|&bits| bits < place.bits && around.contains(&place.cut(bits)));
        lists.retain(|place, list| !list.is_empty() || hides(place));
        Ok(Ranges(lists))
    }

    /// Nothing is steered by a range?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the trie what `next` says: what is new or changed first, so that nothing is lost that both have. When a step
    /// fails, the steps before it are undone.
    pub(crate) fn replace<M: MapCore>(&mut self, map: &M, next: Ranges) -> Result<(), Error> {
        // Half of the trie: the old set and the new one are in it together for a moment.
        let limit = map.max_entries() / 2;
        if next.0.len() > limit as usize {
            return Err(Error::MapFull { map: "ranges", limit });
        }
        let steps = |from: &Ranges, to: &Ranges| -> Result<(), Error> {
            for (place, list) in to.0.iter().filter(|(place, list)| from.0.get(*place) != Some(*list)) {
                let written = map.update(&place.bytes(), &value(list), MapFlags::ANY);
                written.map_err(|error| Error::other("add a prefix to the map 'ranges'", error))?;
            }
            for place in from.0.keys().filter(|place| !to.0.contains_key(*place)) {
                match map.delete(&place.bytes()) {
                    Err(error) if errno(&error) != Some(libc::ENOENT) => {
                        return Err(Error::other("remove a prefix from the map 'ranges'", error));
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        if let Err(error) = steps(self, &next) {
            // How far it came nobody knows: all of the old set is written again, and nothing of the new one stays.
            let nothing = Ranges::default();
            let undone = steps(&nothing, self).and_then(|()| steps(&Ranges(without(next.0, &self.0)), &nothing));
            if let Err(second) = undone {
                tracing::warn!(error = %second, "the ranges before could not be brought back");
            }
            return Err(error);
        }
        *self = next;
        Ok(())
    }
}

/// The prefixes of one set that the other has not.
fn without(mut all: BTreeMap<Place, Vec<Range>>, other: &BTreeMap<Place, Vec<Range>>) -> BTreeMap<Place, Vec<Range>> {
    all.retain(|place, _| !other.contains_key(place));
    all
}

/// The ranges of a list that can decide anything: none that an earlier one covers, none that leaves alone what nothing
/// below it would steer.
fn that_decide(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut list: Vec<Range> = Vec::new();
    for range in ranges {
        if !list.iter().any(|earlier| earlier.covers(&range)) {
            list.push(range);
        }
    }
    while list.pop_if(|last| !last.steer).is_some() {}
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    fn range(destination: &str, first: u16, last: u16, steer: bool) -> Range {
        Range { destination: prefix(destination), source: None, protocol: None, first, last, steer }
    }

    fn folded(ranges: &[Range]) -> Vec<(String, Vec<(u16, bool)>)> {
        let of = |list: &Vec<Range>| list.iter().map(|range| (range.first, range.steer)).collect();
        Ranges::fold(ranges).unwrap().0.iter().map(|(place, list)| (place.prefix().to_string(), of(list))).collect()
    }

    /// Guards the folding: a longer prefix has what those around it say, in the order given, and nothing else does.
    #[test]
    fn longer_prefixes_know_what_shorter_ones_say() {
        let ranges = [
            range("192.0.2.0/24", 80, 80, true),
            range("192.0.2.1/32", 443, 443, true),
            range("0.0.0.0/0", 53, 53, true),
            range("::/0", 53, 53, true),
            range("198.51.100.0/24", 22, 22, true),
        ];
        let wanted = [
            ("0.0.0.0/0", vec![(53, true)]),
            ("192.0.2.0/24", vec![(80, true), (53, true)]),
            ("198.51.100.0/24", vec![(53, true), (22, true)]),
            ("192.0.2.1/32", vec![(80, true), (443, true), (53, true)]),
            ("::/0", vec![(53, true)]),
        ];
        assert_eq!(folded(&ranges), wanted.map(|(prefix, list)| (prefix.to_owned(), list)));
    }

    /// Guards exceptions: what is left alone hides what stands below it, and takes no room where it hides nothing.
    #[test]
    fn exceptions_stay_only_where_they_hide_something() {
        let all = |prefix, steer| range(prefix, 0, u16::MAX, steer);
        assert!(folded(&[all("192.0.2.1/32", false)]).is_empty());
        assert!(folded(&[all("192.0.2.1/32", false), range("192.0.2.1/32", 80, 80, true)]).is_empty());
        let hidden = folded(&[all("192.0.2.1/32", false), all("192.0.2.0/24", true)]);
        assert_eq!(hidden, [("192.0.2.0/24".to_owned(), vec![(0, true)]), ("192.0.2.1/32".to_owned(), vec![])]);
        let after = folded(&[all("192.0.2.0/24", true), all("192.0.2.1/32", false)]);
        assert_eq!(after.len(), 2);
        assert!(after.iter().all(|(_, list)| *list == [(0, true)]), "the first one decides: {after:?}");
        let trailing = folded(&[range("192.0.2.0/24", 80, 80, true), range("192.0.2.0/24", 22, 22, false)]);
        assert_eq!(trailing, [("192.0.2.0/24".to_owned(), vec![(80, true)])]);
    }

    /// Guards the limit of a prefix: those around it count, what an earlier range covers does not, and the error names it.
    #[test]
    fn too_many_ranges_are_refused() {
        let mut ranges: Vec<Range> =
            (0..EACH as u16).map(|n| range("192.0.2.0/24", 10 * n, 10 * n + 1, true)).collect();
        ranges.push(range("192.0.2.0/24", 10, 10, true));
        assert!(Ranges::fold(&ranges).is_ok(), "{EACH} fit");
        ranges.push(range("192.0.2.7/32", 5, 5, true));
        let Err(Error::TooManyRanges { prefix, ranges: count, limit }) = Ranges::fold(&ranges) else { panic!() };
        assert_eq!((prefix.as_str(), count, limit), ("192.0.2.7/32", EACH + 1, EACH));
        assert_eq!(EACH, 32);
    }

    /// Guards against a quadratic step: ten thousand prefixes are folded in a moment.
    #[test]
    fn many_prefixes_are_folded_quickly() {
        let ranges: Vec<Range> = (0..10_000u32)
            .map(|n| {
                let address = IpAddr::V4((0x0a00_0000 + n).into());
                Range { destination: Prefix { address, length: 32 }, ..range("10.0.0.0/8", 80, 80, true) }
            })
            .collect();
        let begun = std::time::Instant::now();
        assert_eq!(Ranges::fold(&ranges).unwrap().0.len(), 10_000);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
