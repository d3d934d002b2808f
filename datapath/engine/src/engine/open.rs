//! New connections: which service, which real server, and the entry in the table.
//!
//! Invariant: choosing the server, entering the connection and counting it happen under the service's lock, after a
//! second look into the table, so that a flow on two queues is scheduled once and the sequence of picks is exact.

use xvs_sdk::Request;

use super::{Engine, Shared};
use crate::conn::{Conn, Flags, NewConn, Side, Status, tcp};
use crate::drop::DropReason;
use crate::flow::{Address, Endpoint, Flow, FlowHash, Protocol};
use crate::real::{Method, Path, RealId};
use crate::route::{Routes, Target};
use crate::time::Now;
use crate::wire::{Headers, TcpFlags};

/// Source port that is never scheduled: FTP's data connections (IPVS-REFERENCE 3.2).
const FTP_DATA: u16 = 20;

impl Engine {
    /// Schedules a new connection and enters it.
    #[cold]
    pub(super) fn open(&self, headers: &Headers, hash: FlowHash, now: Now) -> Result<(Conn<'_>, Side), DropReason> {
        let flow = &headers.flow;
        let opens = flow.protocol != Protocol::TCP || headers.tcp.0 & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN;
        let Some(service) = self.snapshot.service(flow) else {
            // A client's packet for a service that was removed a moment ago, or a late one of a NAT real server.
            let to_us = self.snapshot.is_virtual(flow.dst.address) || flow.protocol == Protocol::TCP && opens;
            return Err(if to_us { DropReason::NoService } else { DropReason::NoConnectionReply });
        };
        if flow.protocol == Protocol::TCP && (!headers.tcp.has(TcpFlags::SYN) || headers.tcp.has(TcpFlags::RST)) {
            return Err(DropReason::NoConnectionTcp);
        }
        if flow.src.port == FTP_DATA {
            return Err(DropReason::SourcePort20);
        }
        if !flow.src.address.is_host() {
            return Err(DropReason::Martian);
        }
        let mut turn = service.turn();
        // Another worker may have made the same connection while this one waited for its turn.
        if let Some(found) = self.shared.table.lookup(flow, hash).filter(|found| self.holds(found, headers, now)) {
            return Ok(found);
        }
        let real = turn.pick(&self.shared.arena, &request(flow, hash, now)).ok_or(DropReason::NoServer)?;
        let conn = self.enter(flow, hash, real, service.number, now)?;
        self.counters.real_conn(real);
        self.counters.opened.add(1);
        let side = if conn.status().flags.has(Flags::NO_OUTPUT) { Side::InOnly } else { Side::In };
        let mut tracked = conn;
        // Counted as active before anybody else is scheduled.
        self.track(&mut tracked, side, headers.tcp, now);
        Ok((tracked, side))
    }

    fn enter(&self, flow: &Flow, hash: FlowHash, id: RealId, service: u32, now: Now) -> Result<Conn<'_>, DropReason> {
        let real = self.shared.arena.get(id);
        let (method, endpoint) = (real.method(), real.endpoint());
        if method != Method::Tun && endpoint.address.family() != flow.family() {
            return Err(DropReason::Method);
        }
        let port = if endpoint.port == 0 { flow.dst.port } else { endpoint.port };
        let reply_path = if method == Method::Nat { self.path_to(flow.src.address) } else { Path::NoRoute };
        let new = NewConn {
            flow: *flow,
            server: Endpoint::new(endpoint.address, port),
            real: id,
            service,
            status: Status { state: tcp::State::None as u8, flags: Flags::new(method) },
            timeout_s: 3, // until the first packet's own state sets another
            reply_path,
        };
        let table = &self.shared.table;
        let made = table.insert(&new, hash, now).or_else(|full| {
            let evicted = table.evict(flow.family(), |conn| {
                self.shared.settle(conn);
                self.counters.evicted.add(1);
            });
            if evicted { table.insert(&new, hash, now) } else { Err(full) }
        });
        let conn = made.map_err(|_| DropReason::TableFull)?;
        real.bind();
        Ok(conn)
    }

    /// The way to a client, with the search for its MAC already begun.
    pub(super) fn path_to(&self, client: Address) -> Path {
        self.shared.path_to(self.snapshot.routes(), client)
    }
}

impl Shared {
    /// The way to a client by these routes. A MAC that is not known yet is asked for.
    pub fn path_to(&self, routes: &Routes, client: Address) -> Path {
        match routes.lookup(client) {
            Some(Target::Via { interface, gateway, .. }) => {
                let neighbour = gateway.unwrap_or(client);
                let Some(hop) = self.hops.intern(interface, neighbour) else { return Path::NoRoute };
                if self.hops.get(hop).mac.is_none() {
                    self.hops.want(hop);
                }
                Path::Hop(hop)
            }
            Some(Target::NotServed) => Path::NotServed,
            Some(Target::Local) => Path::Local,
            Some(Target::Nowhere) | None => Path::NoRoute,
        }
    }

    /// Finds the ways of all NAT connections' answers again, after routes have changed. For the control side: it walks
    /// the whole table.
    pub fn reroute_replies(&self, routes: &Routes) {
        for conn in self.table.iter().filter(|conn| conn.status().flags.method() == Method::Nat) {
            let path = self.path_to(routes, conn.client().address);
            if path != conn.reply_path() {
                conn.set_reply_path(path);
            }
        }
    }
}

/// What a scheduler is told of a new connection.
pub(crate) fn request(flow: &Flow, hash: FlowHash, now: Now) -> Request {
    Request {
        client: flow.src.address.octets16(),
        virtual_address: flow.dst.address.octets16(),
        client_port: flow.src.port,
        virtual_port: flow.dst.port,
        protocol: flow.protocol.0,
        flags: 0,
        hash: hash.0,
        now_s: now.millis() / 1000,
    }
}
