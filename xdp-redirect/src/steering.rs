//! Which keys the program knows: our counted view of the maps of keys that all interfaces share.
//!
//! Invariant: a key is in the kernel's map if and only if somebody here still wants it, [`Quick`] is told of just these,
//! and an address is in `addresses` if and only if some service, reply or tunnel key has it. When a step fails, the
//! steps before it are undone. It does not know why a key is wanted.

use std::collections::HashMap;
use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::error::{Error, errno};
use crate::key::{Entry, Key, Kind, Protocol};
use crate::quick::Quick;

/// `ADDRESS_SERVICE`, `ADDRESS_REPLY` and `ADDRESS_TUNNEL` of `bpf/maps.h`: preprocessor names leave no trace in BTF.
const ADDRESS_KINDS: [u32; 3] = [1, 2, 4];

/// The place of tunnels among them; the others are those of [`Kind`], in its order.
const TUNNEL: usize = 2;

/// The maps that every interface's program looks into.
pub(crate) struct Maps {
    pub(crate) services: MapHandle,
    pub(crate) replies: MapHandle,
    pub(crate) addresses: MapHandle,
    pub(crate) local: MapHandle,
    pub(crate) ranges: MapHandle,
    pub(crate) quick: MapHandle,
}

/// The keys, and how many want each of them.
pub(crate) struct Steering {
    pub(crate) maps: Maps,
    quick: Quick,
    services: HashMap<Entry, u32>,
    replies: HashMap<Entry, u32>,
    /// How many service keys, reply keys and tunnel keys an address carries.
    addresses: HashMap<Entry, [u32; 3]>,
    local: HashMap<Entry, ()>,
}

impl Steering {
    pub(crate) fn new(maps: Maps) -> Result<Steering, Error> {
        Ok(Steering {
            quick: Quick::new(&maps.quick)?,
            maps,
            services: HashMap::new(),
            replies: HashMap::new(),
            addresses: HashMap::new(),
            local: HashMap::new(),
        })
    }

    pub(crate) fn steer(&mut self, key: &Key) -> Result<(), Error> {
        match *key {
            Key::Service { protocol, address, port } => self.want(Kind::Service, protocol, address, port),
            Key::Reply { protocol, address, port } => self.want(Kind::Reply, protocol, address, port),
            Key::Tunnel { address, port } => self.adjust_address(TUNNEL, Entry::new(address, port, 0), 1),
            Key::Local { address } => {
                let entry = Entry::new(address, 0, 0);
                if !self.local.contains_key(&entry) {
                    insert(&self.maps.local, "local", self.local.len(), entry.bytes(), 0)?;
                    self.local.insert(entry, ());
                    self.quick.add_local(address);
                }
                Ok(())
            }
        }
    }

    pub(crate) fn unsteer(&mut self, key: &Key) -> Result<(), Error> {
        match *key {
            Key::Service { protocol, address, port } => self.unwant(Kind::Service, protocol, address, port),
            Key::Reply { protocol, address, port } => self.unwant(Kind::Reply, protocol, address, port),
            Key::Tunnel { address, port } => self.adjust_address(TUNNEL, Entry::new(address, port, 0), -1),
            Key::Local { address } => {
                let entry = Entry::new(address, 0, 0);
                if self.local.contains_key(&entry) {
                    delete(&self.maps.local, "local", entry.bytes())?;
                    self.local.remove(&entry);
                    self.quick.remove_local(address);
                }
                Ok(())
            }
        }
    }

    /// The exact key before its address: a fragment that comes in between is a moment early, not lost for good.
    fn want(&mut self, kind: Kind, protocol: Protocol, address: IpAddr, port: u16) -> Result<(), Error> {
        let entry = Entry::new(address, port, protocol.number());
        let (map, name, counts) = self.table(kind);
        if let Some(count) = counts.get_mut(&entry) {
            *count += 1;
            return Ok(());
        }
        insert(map, name, counts.len(), entry.bytes(), 0)?;
        counts.insert(entry, 1);

        let address_key = Entry::new(address, 0, protocol.number());
        let adjusted = self.adjust_address(kind as usize, address_key, 1);
        if adjusted.is_err() {
            let (map, name, counts) = self.table(kind);
            counts.remove(&entry);
            delete(map, name, entry.bytes())?;
        } else {
            self.quick.add(kind, protocol, address, port);
        }
        adjusted
    }

    fn unwant(&mut self, kind: Kind, protocol: Protocol, address: IpAddr, port: u16) -> Result<(), Error> {
        let entry = Entry::new(address, port, protocol.number());
        let (map, name, counts) = self.table(kind);
        match counts.get_mut(&entry) {
            None => return Ok(()),
            Some(count) if *count > 1 => {
                *count -= 1;
                return Ok(());
            }
            Some(_) => {}
        }
        delete(map, name, entry.bytes())?;
        counts.remove(&entry);
        self.quick.remove(kind, protocol, address, port);
        self.adjust_address(kind as usize, Entry::new(address, 0, protocol.number()), -1)
    }

    fn table(&mut self, kind: Kind) -> (&MapHandle, &'static str, &mut HashMap<Entry, u32>) {
        match kind {
            Kind::Service => (&self.maps.services, "services", &mut self.services),
            Kind::Reply => (&self.maps.replies, "replies", &mut self.replies),
        }
    }

    /// Counts one key of this kind more or less at an address, and tells the kernel when the answer changes.
    fn adjust_address(&mut self, kind: usize, entry: Entry, step: i32) -> Result<(), Error> {
        let before = self.addresses.get(&entry).copied().unwrap_or_default();
        let mut after = before;
        after[kind] = after[kind].saturating_add_signed(step);

        match (kinds(before), kinds(after)) {
            (old, new) if old == new => {}
            (_, 0) => delete(&self.maps.addresses, "addresses", entry.bytes())?,
            (old, new) => {
                // A change of flags needs no room.
                let others = self.addresses.len() - usize::from(old != 0);
                insert(&self.maps.addresses, "addresses", others, entry.bytes(), new)?;
            }
        }
        if kinds(after) == 0 {
            self.addresses.remove(&entry);
        } else {
            self.addresses.insert(entry, after);
        }
        Ok(())
    }
}

/// The flags that the program reads.
fn kinds(counts: [u32; 3]) -> u32 {
    counts.iter().zip(ADDRESS_KINDS).filter(|&(&count, _)| count > 0).map(|(_, flag)| flag).sum()
}

/// `others` is how many other entries the map holds: the kernel's own count of a large map is approximate.
fn insert<M: MapCore>(map: &M, name: &'static str, others: usize, key: &[u8], value: u32) -> Result<(), Error> {
    let limit = map.max_entries();
    if others >= limit as usize {
        return Err(Error::MapFull { map: name, limit });
    }
    map.update(key, &value.to_ne_bytes(), MapFlags::ANY).map_err(|error| match errno(&error) {
        Some(libc::E2BIG) => Error::MapFull { map: name, limit },
        Some(libc::EPERM) => Error::NoPrivilege,
        _ => Error::other(format!("add a key to the map '{name}'"), error),
    })
}

fn delete<M: MapCore>(map: &M, name: &'static str, key: &[u8]) -> Result<(), Error> {
    map.delete(key).map_err(|error| Error::other(format!("remove a key from the map '{name}'"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the translation of counts to flags; that the flags mean the same to the program, `tests/verdicts.rs` does.
    #[test]
    fn counts_become_flags() {
        assert_eq!(kinds([0, 0, 0]), 0);
        assert_eq!(kinds([3, 0, 0]), 1);
        assert_eq!(kinds([0, 1, 0]), 2);
        assert_eq!(kinds([1, 1, 2]), 7);
    }
}
