//! The quick tables: the keys of IPv4, TCP and UDP once more, where the program reads them without a helper's call; and
//! which destinations, of all families and protocols, it need not look for.
//!
//! The program asks here first, and the maps only if it is not told: `bpf/quick.h` says what it concludes, and from that
//! follows what must be kept here. Invariant: what is in a table is wanted; a wanted key that is in none has a bucket
//! without an empty slot; and the bit of each address that has a service or is the director's own is set. Words are
//! written whole, one after the other, in an order that keeps this for keys that stay while others come and go.
//!
//! It never fails and is never full: what finds no room is left out, and found in the maps. It counts no keys: a key
//! comes once and goes once.

mod destinations;
mod table;

use std::mem::{offset_of, size_of};
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use libbpf_rs::MapHandle;

use crate::error::Error;
use crate::kernel::Words;
use crate::key::{Kind, Protocol};
use crate::quick::destinations::Destinations;
use crate::quick::table::Table;
use crate::skeleton::types;

/// `QUICK_SLOTS` and `QUICK_SPREAD` of `bpf/quick.h`: preprocessor names leave no trace in BTF.
const SLOTS: usize = 8;
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes of a word, and of a bucket.
const WORD: usize = size_of::<u64>();
const BUCKET: usize = size_of::<types::quick_bucket>();

// The program's buckets and ours must agree; its tables lie where the types say.
const _: () = assert!(BUCKET == SLOTS * WORD);

/// The memory that all interfaces' programs read, and what is to stand in it.
pub(crate) struct Quick {
    words: Words,
    /// By [`Kind`].
    tables: [Table; 2],
    destinations: Destinations,
}

impl Quick {
    /// Takes the map `.bss.quick`, with nothing in it.
    pub(crate) fn new(map: &MapHandle) -> Result<Quick, Error> {
        let words = Words::map(map.as_fd(), size_of::<types::quick>())
            .map_err(|error| Error::other("map the memory of the XDP program's quick tables", error))?;
        let (services, replies) = (offset_of!(types::quick, services), offset_of!(types::quick, replies));
        let destinations = offset_of!(types::quick, destinations);
        let table = |from: usize, to: usize| Table::new(from / WORD, (to - from) / BUCKET);
        Ok(Quick {
            words,
            tables: [table(services, replies), table(replies, destinations)],
            destinations: Destinations::new(destinations / WORD, (size_of::<types::quick>() - destinations) / WORD),
        })
    }

    /// A key is wanted, and was not before.
    pub(crate) fn add(&mut self, kind: Kind, protocol: Protocol, address: IpAddr, port: u16) {
        let words = self.words.all();
        if kind == Kind::Service {
            self.destinations.add(words, address);
        }
        if let Some(key) = key(protocol, address, port) {
            self.tables[kind as usize].add(words, key);
        }
    }

    /// A key that was added is not wanted any more.
    pub(crate) fn remove(&mut self, kind: Kind, protocol: Protocol, address: IpAddr, port: u16) {
        let words = self.words.all();
        if let Some(key) = key(protocol, address, port) {
            self.tables[kind as usize].remove(words, key);
        }
        if kind == Kind::Service {
            self.destinations.remove(words, address);
        }
    }

    /// An address is the director's own, and was not before.
    pub(crate) fn add_local(&mut self, address: IpAddr) {
        self.destinations.add(self.words.all(), address);
    }

    /// An address that was added is not the director's own any more.
    pub(crate) fn remove_local(&mut self, address: IpAddr) {
        self.destinations.remove(self.words.all(), address);
    }
}

/// A key as the program makes it from a frame (`quick_key`): none of IPv6, none of SCTP.
fn key(protocol: Protocol, address: IpAddr, port: u16) -> Option<u64> {
    let (IpAddr::V4(address), Protocol::Tcp | Protocol::Udp) = (address, protocol) else { return None };
    let address = u32::from_ne_bytes(address.octets());
    let port = u16::from_ne_bytes(port.to_be_bytes());
    Some(u64::from(address) << 32 | u64::from(port) << 16 | u64::from(protocol.number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against keys that the program never asks for, and against two that are one.
    #[test]
    fn keys_are_of_what_the_program_asks_for() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(key(Protocol::Tcp, v6, 80), None);
        assert_eq!(key(Protocol::Sctp, v4, 80), None);
        let tcp = key(Protocol::Tcp, v4, 0x1234).unwrap();
        assert_eq!(((tcp >> 32) as u32).to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(((tcp >> 16) as u16).to_ne_bytes(), [0x12, 0x34]);
        let others = [(Protocol::Udp, 0x1234), (Protocol::Tcp, 0x3412), (Protocol::Tcp, 0)];
        assert!(others.iter().all(|&(protocol, port)| key(protocol, v4, port).unwrap() != tcp));
    }
}
