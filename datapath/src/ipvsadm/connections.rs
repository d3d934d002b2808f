//! `-L -c`: the connection table as ipvsadm prints it.
//!
//! Invariant: in the director's order, one line an entry; templates have client port 0, and those of mark services the
//! mark in the place of the virtual address.
//!
//! Not here: what the states mean.

use std::net::SocketAddr;

use super::command::{Columns, Format};
use super::listing::ENDPOINT_MAX;
use super::names::Names;
use super::numbers::{cut, endpoint};
use crate::control::protocol::{Connection, Protocol};

/// The table under its titles.
pub fn table(connections: &[Connection], format: &Format, names: &dyn Names) -> String {
    let engines = format.columns == Columns::PersistentConn;
    let mut out = "IPVS connection entries\n".to_owned();
    out += "pro expire state       source             virtual            destination";
    out += if engines { "        pe name          pe_data\n" } else { "\n" };
    for connection in connections {
        out += &row(connection, engines, format.numeric, names);
    }
    out
}

fn row(connection: &Connection, engines: bool, numeric: bool, names: &dyn Names) -> String {
    let (pro, protocol) = protocol(connection.protocol);
    let name = |address: SocketAddr| {
        let name = endpoint(address, protocol, numeric, names);
        cut(&name, ENDPOINT_MAX).to_owned()
    };
    let expire = format!("{:02}:{:02}", connection.expires_s / 60, connection.expires_s % 60);
    let state = &connection.state;
    let (client, virtual_address) = (name(connection.client), name(connection.virtual_address));
    let server = name(connection.server);
    let start = format!("{pro:<3} {expire:<6} {state:<11} {client:<18} {virtual_address:<18}");
    match &connection.engine {
        // The titles stand 18 and 16 wide over columns of 16 and 18.
        Some((engine, data)) if engines => format!("{start} {server:<16} {engine:<18} {data}\n"),
        _ => format!("{start} {server}\n"),
    }
}

/// The name of an IP protocol as IPVS lists it, and the protocol by which its ports have names.
pub(super) fn protocol(number: u8) -> (String, Option<Protocol>) {
    match number {
        0 => ("IP".to_owned(), None),
        1 => ("ICMP".to_owned(), None),
        6 => ("TCP".to_owned(), Some(Protocol::Tcp)),
        17 => ("UDP".to_owned(), Some(Protocol::Udp)),
        58 => ("ICMPv6".to_owned(), None),
        132 => ("SCTP".to_owned(), Some(Protocol::Sctp)),
        other => (format!("IP_{other}"), None),
    }
}
