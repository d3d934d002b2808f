//! A copy of the kernel's tables that follows them.
//!
//! Invariant: whenever [`Mirror::receive`] returned `Ok` and the descriptor is not readable, the [`View`] is the
//! kernel's state (but for two states of neighbours that it does not announce, see [`super::Neighbour`]). Three things
//! make that true:
//!
//! - The subscription comes before the first dump, on a socket of its own, so that no change falls between the two.
//!   Events older than a dump may be applied again on top of it; for each entry the last word is still the kernel's
//!   last word.
//! - If the kernel could not deliver events (`ENOBUFS`), what waits is thrown away, everything is read again, and the
//!   differences become events behind one [`Event::Resynced`].
//! - The kernel removes routes *without a message* when a link goes down, an address or a next-hop object goes away.
//!   After such an event the routes are read again (but for an address that can take none with it). So they are when a message does not tell what became of a route
//!   that shares its key with others (appended routes, parts of multipath routes). A dump of the links comes first: it
//!   waits for the kernel's configuration lock, and the change that was announced is complete when that lock is free.
//!
//! What it is not: no thread, no timer. Somebody polls the descriptor, calls `receive`, and asks for neighbours now and
//! then.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};

use super::channel::{self, Channel};
use super::decode::{self, Message};
use super::error::Error;
use super::follow::{Event, Stale, apply, replace_routes, replace_view};
use super::link::Link;
use super::route::Route;
use super::table::Routes;
use super::view::View;

/// Room for waiting events. The kernel accounts about 1 KiB for each; this is enough for a routing daemon's restart.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Datagrams read in one call, so that a storm of events cannot keep the caller from its other work.
const DATAGRAMS_MAX: usize = 8192;
/// Times that tables are read again in one call; what is still to do then, is done in the next call.
const ROUNDS_MAX: usize = 4;
/// What the director wants to hear about.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];
/// IPv4 and IPv6 are asked for one by one: "any family" would also dump bridges and multicast routing.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];
/// The copy and the sockets that keep it up to date.
#[derive(Debug)]
pub struct Mirror {
    listener: Socket,
    pub(super) channel: Channel,
    buffer: Vec<u8>,
    view: View,
    stale: Stale,
    malformed: u64,
}

impl AsFd for Mirror {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Mirror {
    /// Subscribes to the changes of the current network namespace and reads its state.
    ///
    /// The mirror stays in that namespace, also if the thread moves to another.
    pub fn open() -> Result<Mirror, Error> {
        Mirror::open_with_buffer(RECEIVE_BUFFER_BYTES)
    }

    /// The same with a given number of bytes for waiting events; the kernel doubles it and has limits of its own.
    pub fn open_with_buffer(bytes: usize) -> Result<Mirror, Error> {
        let listener = subscribe(bytes).map_err(|error| Error::from_io("subscribe to network changes", error))?;
        let mut mirror = Mirror {
            listener,
            channel: Channel::open()?,
            buffer: Vec::new(),
            view: View::default(),
            stale: Stale::Nothing,
            malformed: 0,
        };
        mirror.view = mirror.read_everything()?;
        Ok(mirror)
    }

    /// The descriptor to poll: readable when events wait.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    /// The state as of the last [`Mirror::receive`].
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Messages of the kernel that could not be read; anything but 0 is worth a report.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Takes what waits, without blocking, into the view, and appends what changed to `events`.
    ///
    /// After an error, what could not be read is tried again at the next call; call it now and then even if the
    /// descriptor is not readable.
    pub fn receive(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        for _ in 0..ROUNDS_MAX {
            self.drain(events).map_err(|error| Error::from_io("read network changes", error))?;
            match self.stale {
                Stale::Nothing => return Ok(()),
                Stale::Routes => self.reread_routes(events)?,
                Stale::Everything => self.resynchronise(events)?,
            }
            self.stale = Stale::Nothing;
        }
        Ok(())
    }

    /// Applies the waiting messages, and notes in `stale` what they do not tell.
    fn drain(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let mut applied = 0;
        while applied < DATAGRAMS_MAX {
            match channel::receive(&self.listener, &mut self.buffer) {
                // All of it will be read again. Not counted: it is cheap, and has to be complete, see below.
                Ok(()) if self.stale == Stale::Everything => {}
                Ok(()) => {
                    applied += 1;
                    for envelope in decode::envelopes(&self.buffer) {
                        let message = decode::message(&envelope);
                        if message == Message::Malformed {
                            self.malformed += 1;
                            tracing::warn!(kind = envelope.kind, "a netlink message is malformed; ignored");
                        }
                        let stale = apply(&mut self.view, message, events);
                        self.stale = self.stale.max(stale);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The kernel drops all further events, without another error, until the queue has been empty once: what
                // is read again before that could miss a change for ever.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.stale = Stale::Everything,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reread_routes(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        // For its lock: see the top of the file.
        self.read_links()?;
        let routes = self.read_routes()?;
        replace_routes(&mut self.view, routes, events);
        Ok(())
    }

    fn resynchronise(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let new = self.read_everything()?;
        events.push(Event::Resynced);
        replace_view(&mut self.view, new, events);
        Ok(())
    }

    fn read_everything(&mut self) -> Result<View, Error> {
        let links = self.read_links()?;
        let mut view = View { links, ..View::default() };
        for family in FAMILIES {
            let mut request = AddressMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetAddress(request);
            view.addresses.extend(self.read("addresses", &request, |into: &mut BTreeMap<_, _>, message| {
                if let Message::Address(address) = message {
                    into.insert((address.link, address.address, address.prefix), address);
                }
            })?);
        }
        view.routes = self.read_routes()?;
        for family in FAMILIES {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetNeighbour(request);
            view.neighbours.extend(self.read("neighbours", &request, |into: &mut HashMap<_, _>, message| {
                if let Message::Neighbour(neighbour) = message {
                    into.insert((neighbour.link, neighbour.address), neighbour);
                }
            })?);
        }
        Ok(view)
    }

    fn read_links(&mut self) -> Result<BTreeMap<u32, Link>, Error> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.read("links", &RouteNetlinkMessage::GetLink(request), |into: &mut BTreeMap<_, _>, message| {
            if let Message::Link(link) = message {
                into.insert(link.index, link);
            }
        })
    }

    fn read_routes(&mut self) -> Result<Routes, Error> {
        let mut routes = Vec::new();
        for family in FAMILIES {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(request);
            routes.extend(self.read("routes", &request, |into: &mut Vec<Route>, message| {
                if let Message::Route { route, .. } = message {
                    into.push(route);
                }
            })?);
        }
        let mut table = Routes::default();
        routes.into_iter().for_each(|route| table.insert(route));
        Ok(table)
    }

    /// One dump; a kernel without the family (IPv6 switched off) has an empty table.
    fn read<State: Default>(
        &mut self,
        table: &'static str,
        request: &RouteNetlinkMessage,
        mut each: impl FnMut(&mut State, Message),
    ) -> Result<State, Error> {
        let mut malformed = 0;
        let result = self.channel.dump(table, request, State::default, |state, envelope| {
            let message = decode::message(envelope);
            malformed += u64::from(message == Message::Malformed);
            each(state, message);
        });
        self.malformed += malformed;
        match result {
            Err(Error::Kernel { source, .. })
                if matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) =>
            {
                Ok(State::default())
            }
            result => result,
        }
    }
}

fn subscribe(bytes: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // Beyond the administrator's limit only with CAP_NET_ADMIN; without it, as much as there is.
    if setsockopt(&socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &bytes)?;
    }
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    // Linux before 5.3 has no next-hop objects, and then nothing to say about them.
    if let Err(error) = socket.add_membership(libc::RTNLGRP_NEXTHOP) {
        tracing::debug!(%error, "no events for next-hop objects");
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}
