//! What the director tells of itself: status, drops, connections, timeouts.

use std::time::Instant;

use xvs_engine::conn::{Conn, tcp};
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Shared;
use xvs_engine::flow::{Endpoint, Protocol};
use xvs_engine::real::Method;
use xvs_engine::time::Now;
use xvs_redirect::Redirect;

use crate::xsk::Monitor;

use super::protocol::{
    Connection, Counter, Drop, InterfaceStatus, Ledger, QueueStatus, Status, Timeouts, WorkerStatus,
};
use super::workers::Handle;

/// What does not change while the director runs.
#[derive(Debug)]
pub struct Facts {
    /// When it started.
    pub started: Instant,
    /// Interfaces, in the order of their ports.
    pub interfaces: Vec<InterfaceFacts>,
    /// Workers, in their order.
    pub workers: Vec<WorkerFacts>,
}

/// One interface.
#[derive(Debug)]
pub struct InterfaceFacts {
    /// Name.
    pub name: String,
    /// `native` or `generic`.
    pub xdp_mode: &'static str,
    /// MTU in bytes.
    pub mtu: u32,
}

/// One worker.
#[derive(Debug)]
pub struct WorkerFacts {
    /// CPU it is pinned to.
    pub cpu: Option<u32>,
    /// Huge pages under its frames.
    pub huge_pages: bool,
    /// Its sockets, in the order of the interfaces.
    pub sockets: Vec<Monitor>,
}

impl Facts {
    /// The state of the director now.
    pub fn status(&self, shared: &Shared, handles: &[Handle], redirect: &Redirect, generation: u64) -> Status {
        let xdp = redirect.counters().unwrap_or_default();
        let counter = |name: &str, value, help: &str| Counter { name: name.into(), value, help: help.into() };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            generation,
            interfaces: self.interfaces.iter().enumerate().map(|(at, facts)| self.interface(at, facts)).collect(),
            workers: (0..).zip(&self.workers).zip(handles).map(|((at, facts), handle)| worker(at, facts, handle)).collect(),
            connections: shared.table.len().into(),
            connections_max: shared.table.capacity().into(),
            xdp: xdp.iter().map(|xdp| counter(xdp.name, xdp.packets, xdp.help)).collect(),
            engine: engine_counters(handles),
        }
    }

    fn interface(&self, at: usize, facts: &InterfaceFacts) -> InterfaceStatus {
        let queue = |(queue, worker): (u32, &WorkerFacts)| {
            let socket = worker.sockets.get(at)?;
            let kernel = socket.statistics().unwrap_or_default();
            let kernel = kernel.into_iter().map(|(name, value, help)| Counter { name: name.into(), value, help: help.into() });
            let zero_copy = socket.is_zero_copy().unwrap_or_default();
            Some(QueueStatus { queue, worker: queue, zero_copy, kernel: kernel.collect() })
        };
        InterfaceStatus {
            name: facts.name.clone(),
            xdp_mode: facts.xdp_mode.into(),
            mtu: facts.mtu,
            queues: (0..).zip(&self.workers).filter_map(queue).collect(),
        }
    }
}

fn worker(at: u32, facts: &WorkerFacts, handle: &Handle) -> WorkerStatus {
    let [total, free, fill, lent, tx] = handle.public.ledger.each_ref().map(xvs_engine::counters::Count::get);
    let counters = &handle.public.counters;
    WorkerStatus {
        worker: at,
        cpu: facts.cpu,
        huge_pages: facts.huge_pages,
        frames: Ledger { total, free, fill, lent, tx },
        received: counters.received.get(),
        transmitted: counters.transmitted.get(),
        dropped: counters.dropped.get(),
    }
}

fn engine_counters(handles: &[Handle]) -> Vec<Counter> {
    let mut sums: Vec<Counter> = Vec::new();
    for handle in handles {
        for (at, (name, value, help)) in handle.public.counters.named().into_iter().enumerate() {
            match sums.get_mut(at) {
                Some(sum) => sum.value += value,
                None => sums.push(Counter { name: name.into(), value, help: help.into() }),
            }
        }
    }
    sums
}

/// Drops by reason, over all workers.
pub fn drops(handles: &[Handle]) -> Vec<Drop> {
    let count = |reason: DropReason| handles.iter().map(|handle| handle.public.counters.drops(reason)).sum();
    let drop = |&reason: &DropReason| Drop {
        reason: reason.name().into(),
        packets: count(reason),
        help: reason.help().into(),
    };
    DropReason::ALL.iter().map(drop).collect()
}

/// The connection table.
pub fn connections(shared: &Shared, now: Now) -> Vec<Connection> {
    shared.table.iter().filter(|conn| conn.expires_in(now) > 0).map(|conn| connection(shared, &conn, now)).collect()
}

fn connection(shared: &Shared, conn: &Conn<'_>, now: Now) -> Connection {
    let state = match conn.protocol() {
        Protocol::TCP => tcp::State::from_bits(conn.status().state).name(),
        Protocol::UDP => "UDP",
        _ => "NONE",
    };
    let server = match conn.status().flags.method() {
        Method::Nat => conn.server(),
        // A tunnel may lead to the other family, so the address is the server's own.
        Method::Dr | Method::Tun => Endpoint::new(shared.arena.get(conn.real()).endpoint().address, conn.server().port),
    };
    Connection {
        protocol: conn.protocol().0,
        state: state.into(),
        expires_s: u32::try_from(conn.expires_in(now) / 1000).unwrap_or(u32::MAX),
        client: conn.client().into(),
        virtual_address: conn.virtual_endpoint().into(),
        server: server.into(),
        engine: None,
    }
}

/// The timeouts of `--set`.
pub fn timeouts(shared: &Shared) -> Timeouts {
    let timeouts = &shared.timeouts;
    Timeouts {
        tcp: timeouts.tcp(tcp::State::Established),
        tcpfin: timeouts.tcp(tcp::State::FinWait),
        udp: timeouts.udp(),
    }
}

/// Sets them; 0 keeps one.
pub fn set_timeouts(shared: &Shared, set: Timeouts) {
    let timeouts = &shared.timeouts;
    if set.tcp != 0 {
        timeouts.set_tcp(tcp::State::Established, set.tcp);
    }
    if set.tcpfin != 0 {
        timeouts.set_tcp(tcp::State::FinWait, set.tcpfin);
    }
    if set.udp != 0 {
        timeouts.set_udp(set.udp);
    }
}
