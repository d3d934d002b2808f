//! What the director knows from the kernel, and what it asks of it: links, addresses, routes, neighbours.
//!
//! The kernel stays the owner of the machine's network configuration: people use `ip`, routing daemons and ARP as they
//! always did, and the director follows. It reads the tables by netlink ([`Mirror`]), answers "by which port and to
//! which next hop does a packet for this address leave?" from its copy ([`View`]), asks the kernel to keep next hops
//! resolved, owns virtual addresses when told so, and announces them ([`announce`]). What a NIC can do is in [`Facts`].
//!
//! The layers, each knowing only those before it:
//!
//! ```text
//! error    what can go wrong, with a cure
//! link     Link, Port, Tag: an interface, and the physical port with VLAN tags that it stands for
//! address  Address          neighbour  Neighbour, NeighbourState
//! route    Route, NextHop   table      Routes: longest prefix match
//! answer   Answer: how a packet gets there, or why not
//! view     View: all of it together, and the lookups; pure
//! decode   netlink bytes to the nouns above; pure
//! channel  one request socket: ask, acknowledge, dump
//! follow   messages and dumps to changes of a View; pure
//! mirror   subscription + dumps = a View that follows the kernel
//! ask      resolve a neighbour, add and delete addresses
//! announce gratuitous ARP, unsolicited neighbour advertisement
//! ethtool  the ioctl, as words
//! interface  Facts of a NIC
//! ```
//!
//! What it is not: no policy routing. Rules (`ip rule`), VRFs, source-specific IPv6 routes and routes of a type of
//! service are not followed; only the tables `local`, `main` and `default` count, as on a machine without own rules.
//! Next-hop objects are understood as far as the kernel expands them into the route (its default); otherwise the route
//! is reported as [`Unsupported::NexthopObject`]. Bridges, bonds and tunnels are not looked through: a route by such a
//! link is reported as [`Unsupported::Link`] with its kind.

mod address;
mod announce;
mod answer;
mod ask;
mod channel;
mod decode;
mod error;
pub(crate) mod ethtool;
mod follow;
mod interface;
mod link;
mod mirror;
mod neighbour;
mod route;
mod table;
mod view;

pub use address::Address;
pub use announce::{advertisement_frame, announce, arp_frame};
pub use answer::{Answer, NoRoute, Unsupported, Via};
pub use error::Error;
pub use ethtool::{Feature, Spread};
pub use follow::Event;
pub use interface::{Channels, Facts, Rings};
pub use link::{Link, Port, Tag};
pub use mirror::Mirror;
pub use neighbour::{Neighbour, NeighbourState};
pub use route::{NextHop, Route, RouteKind};
pub use table::{Found, Routes};
pub use view::View;
