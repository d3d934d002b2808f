//! What the director tells of itself: status, drops, connections.

use std::time::Instant;

use xvs_engine::conn::{Conn, Flags, state};
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Shared;
use xvs_engine::flow::Endpoint;
use xvs_engine::real::Method;
use xvs_engine::time::Now;

use crate::xsk::Monitor;

use super::datapath::Datapath;
use super::pace::Tick;
use super::protocol::{
    Connection, Counter, Drop, InterfaceStatus, Ledger, PaceCounts, PaceView, QueueStatus, Status, WorkerPace,
    WorkerStatus,
};
use super::thread;
use super::workers::{Handle, Health};

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
    /// The kernel's number for it.
    pub link: u32,
    /// `native` or `generic`.
    pub xdp_mode: &'static str,
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
    /// What its batches and rings hold.
    pub sizes: Sizing,
}

/// What a worker's batches and rings hold.
#[derive(Clone, Copy, Debug)]
pub struct Sizing {
    /// Packets that a breath takes at most.
    pub batch: u32,
    /// Slots of a receive ring.
    pub rx_ring: u32,
    /// Slots of a transmit ring.
    pub tx_ring: u32,
}

impl Facts {
    /// The state of the director now. It asks no worker, so one that is stuck keeps nobody waiting.
    pub fn status(&self, shared: &Shared, datapath: &Datapath, alarms: Vec<String>) -> Status {
        let xdp = datapath.redirect.counters().unwrap_or_default();
        let counter = |name: &str, value, help: &str| Counter { name: name.into(), value, help: help.into() };
        let handles = &datapath.handles;
        let mut engine = engine_counters(handles);
        engine.extend(troubles(handles));
        engine.extend(ended(shared));
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            generation: datapath.snapshot().generation,
            interfaces: (0..).zip(&self.interfaces).map(|(at, facts)| self.interface(at, facts, datapath)).collect(),
            workers: (0..)
                .zip(&self.workers)
                .zip(handles)
                .map(|((at, facts), handle)| worker(at, facts, handle))
                .collect(),
            connections: shared.table.len().into(),
            connections_max: shared.table.capacity().into(),
            xdp: xdp.iter().map(|xdp| counter(xdp.name, xdp.packets, xdp.help)).collect(),
            engine,
            alarms,
        }
    }

    /// The pace of the workers now. It asks no worker either.
    pub fn pace(&self, handles: &[Handle]) -> PaceView {
        let workers = (0..).zip(&self.workers).zip(handles);
        PaceView {
            pid: std::process::id(),
            at_ns: Tick::now().nanos(),
            workers: workers.map(|((at, facts), handle)| pace(at, facts, handle)).collect(),
        }
    }

    fn interface(&self, at: usize, facts: &InterfaceFacts, datapath: &Datapath) -> InterfaceStatus {
        let queue = |(queue, worker): (u32, &WorkerFacts)| {
            let socket = worker.sockets.get(at)?;
            let kernel = socket.statistics().unwrap_or_default();
            let kernel =
                kernel.into_iter().map(|(name, value, help)| Counter { name: name.into(), value, help: help.into() });
            let zero_copy = socket.is_zero_copy().unwrap_or_default();
            Some(QueueStatus { queue, worker: queue, zero_copy, kernel: kernel.collect() })
        };
        let link = datapath.network.view().link(facts.link);
        InterfaceStatus {
            name: facts.name.clone(),
            xdp_mode: link.map_or("gone", |_| facts.xdp_mode).into(),
            mtu: link.map_or(0, |link| link.mtu),
            queues: (0..).zip(&self.workers).filter_map(queue).collect(),
        }
    }
}

/// Connections that the control side ended.
fn ended(shared: &Shared) -> [Counter; 2] {
    let nodest = "Connections and templates that were ended with the removal of their server (expire_nodest_conn).";
    let sacrificed = "Connections and templates that the defence against a full table ended (drop_entry).";
    [("ended_nodest", &shared.ended_nodest, nodest), ("sacrificed", &shared.sacrificed, sacrificed)]
        .map(|(name, count, help)| Counter { name: name.into(), value: count.get(), help: help.into() })
}

/// Workers that are not well, as counts that are 0 in good times.
fn troubles(handles: &[Handle]) -> [Counter; 2] {
    let count = |health| handles.iter().filter(|handle| handle.health() == health).count() as u64;
    [
        ("workers_ended", Health::Ended, "Workers that have ended; their queues are not served until a new start."),
        ("workers_silent", Health::Silent, "Workers that do not breathe; their queues are not served meanwhile."),
    ]
    .map(|(name, health, help)| Counter { name: name.into(), value: count(health), help: help.into() })
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

fn pace(at: u32, facts: &WorkerFacts, handle: &Handle) -> WorkerPace {
    let (counters, pace) = (&handle.public.counters, &handle.public.pace);
    let [woken_packets, woken_mail, woken_time] = pace.woken.each_ref().map(xvs_engine::counters::Count::get);
    let counts = PaceCounts {
        received: counters.received.get(),
        transmitted: counters.transmitted.get(),
        dropped: counters.dropped.get(),
        breaths: counters.breaths.get(),
        empty: counters.idle.get(),
        busy_ns: pace.busy_ns.get(),
        empty_ns: pace.empty_ns.get(),
        asleep_ns: pace.asleep_ns.get(),
        woken_packets,
        woken_mail,
        woken_time,
        rx_ring_full: kernel_count(facts, "rx_ring_full"),
        rx_fill_ring_empty: kernel_count(facts, "rx_fill_ring_empty"),
    };
    WorkerPace {
        worker: at,
        pinned: facts.cpu,
        thread: thread::view(pace.thread.get()),
        batch_max: facts.sizes.batch,
        rx_ring: facts.sizes.rx_ring,
        tx_ring: facts.sizes.tx_ring,
        frames: handle.public.ledger[0].get(),
        counts,
        batch: pace.batch.spread(),
        breath_ns: pace.breath_ns.spread(),
        rx_waiting: pace.rx_waiting.spread(),
        tx_outstanding: pace.tx_outstanding.spread(),
        free: pace.free.spread(),
    }
}

/// One of the kernel's counts of trouble, over the sockets of a worker.
fn kernel_count(facts: &WorkerFacts, wanted: &str) -> u64 {
    let counts = facts.sockets.iter().flat_map(|socket| socket.statistics().unwrap_or_default());
    counts.filter(|(name, _, _)| *name == wanted).map(|(_, value, _)| value).sum()
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
    let shown = |conn: &Conn<'_>| conn.expires_in(now) > 0 && !conn.is_note();
    shared.table.iter().filter(shown).map(|conn| connection(shared, &conn, now)).collect()
}

fn connection(shared: &Shared, conn: &Conn<'_>, now: Now) -> Connection {
    let state = match conn.protocol() {
        _ if conn.is_assured() => "ASSURED",
        _ if conn.is_template() => "NONE",
        protocol => state::name(protocol, conn.status().state),
    };
    let server = match conn.status().flags.method() {
        Method::Nat | Method::Bypass => conn.server(),
        // A tunnel may lead to the other family, so the address is the server's own.
        Method::Dr | Method::Tun => Endpoint::new(shared.arena.get(conn.real()).endpoint().address, conn.server().port),
    };
    // IPVS gives a template that leads nowhere any more the ports 65535, so that nobody finds it.
    let retired = conn.status().flags.has(Flags::RETIRED);
    let shown = |endpoint: Endpoint| if retired { Endpoint::new(endpoint.address, u16::MAX) } else { endpoint };
    Connection {
        protocol: conn.protocol().0,
        state: state.into(),
        expires_s: u32::try_from(conn.expires_in(now) / 1000).unwrap_or(u32::MAX),
        client: conn.client().into(),
        virtual_address: shown(conn.virtual_endpoint()).into(),
        server: shown(server).into(),
        engine: shared.table.call_id(conn).map(|id| ("sip".to_owned(), id)),
    }
}
