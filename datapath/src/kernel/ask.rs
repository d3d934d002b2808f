//! What the director asks of the kernel: resolve a neighbour, own an address.
//!
//! Invariant: every request is acknowledged before the method returns, and its effect reaches the view as an event,
//! like anybody else's change; nothing here touches the view. Not here: announcing an address to the network
//! (`announce`).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::Error;
use super::mirror::Mirror;
use super::table;

/// "Never" in the lifetimes of an address.
const FOREVER: u32 = u32::MAX;

impl Mirror {
    /// Makes the kernel resolve a neighbour, or keep it fresh, as if a packet had been sent to it (`NTF_USE`).
    ///
    /// The answer is an event. AF_XDP traffic does not count as use, so this is to be repeated: an entry that is asked
    /// for at least every five seconds (`delay_first_probe_time`) is probed before it becomes stale, and a failed one
    /// anew.
    pub fn ask_neighbour(&mut self, link: u32, address: IpAddr) -> Result<(), Error> {
        let mut request = NeighbourMessage::default();
        request.header.family = family(address);
        request.header.ifindex = link;
        request.header.flags = NeighbourFlags::Use;
        request.attributes.push(NeighbourAttribute::Destination(address.into()));
        self.channel
            .ask(RouteNetlinkMessage::NewNeighbour(request), NLM_F_CREATE)
            .map_err(|error| Error::about_link(link, format!("resolve {address}"), error))
    }

    /// Gives a link an address; `false` if it had it already, in which case it is somebody else's to remove.
    ///
    /// An IPv6 address is usable at once (no duplicate detection: a virtual address moves between directors) and is not
    /// chosen as a source for the machine's own conversations.
    pub fn add_address(&mut self, link: u32, address: IpAddr, prefix: u8) -> Result<bool, Error> {
        let mut request = address_message(link, address, prefix)?;
        if address.is_ipv6() {
            request.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = FOREVER;
            lifetime.ifa_preferred = 0;
            request.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        match self.channel.ask(RouteNetlinkMessage::NewAddress(request), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(Error::about_link(link, format!("add the address {address}/{prefix}"), error)),
        }
    }

    /// Takes an address from a link; `false` if it was not there.
    pub fn delete_address(&mut self, link: u32, address: IpAddr, prefix: u8) -> Result<bool, Error> {
        let request = address_message(link, address, prefix)?;
        match self.channel.ask(RouteNetlinkMessage::DelAddress(request), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(false),
            Err(error) => Err(Error::about_link(link, format!("delete the address {address}/{prefix}"), error)),
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(link: u32, address: IpAddr, prefix: u8) -> Result<AddressMessage, Error> {
    if prefix > table::bits(address) {
        return Err(Error::Prefix { address, prefix });
    }
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.flags = AddressHeaderFlags::empty();
    message.header.scope = AddressScope::Universe;
    message.header.index = link;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    Ok(message)
}
