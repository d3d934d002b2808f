//! A director without a network: the real rules, the real engine, and time by hand.
//!
//! Actions go through the same book as in production, packets through [`Engine::inspect`] and [`Engine::forward`] of
//! real workers, and nothing else is simulated but what lies around them: one interface, a next hop with a MAC of its
//! own for each real server, and a clock that its owner moves. So a rehearsal shows what a director would do, to the
//! byte, without root and as fast as the machine counts.
//!
//! ```text
//! surroundings   what the book reaches outside of the engine
//! segment        packets of clients and servers, made and read
//! clock          what happens when time passes
//! ```
//!
//! Invariant: the same calls give the same answers; there is no clock, no thread and no random number here. A packet
//! goes to the next worker in turn, so that nothing comes to depend on one worker seeing all of a flow.
//! Not here: the kernel's share of the traffic (ARP, ICMP to the director itself), and what only a running director
//! has: status, drops by worker, files.

use std::net::SocketAddr;
use std::sync::Arc;

use xvs_engine::counters::Counters;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::{Engine, Shared, Sizes, Verdict};
use xvs_engine::flow::{Flow, HashKey};
use xvs_engine::real::Generation;
use xvs_engine::time::Now;
use xvs_engine::wire::Packet;

use crate::control::answer;
use crate::control::book::Book;
use crate::control::change::Scene;
use crate::control::protocol::{Action, Answer, Refusal};

mod clock;
pub mod segment;
mod surroundings;

pub use segment::Segment;
pub use surroundings::{OWN_MAC, Surroundings};

/// Room before each packet, as AF_XDP leaves it, and for the longest one.
const HEADROOM: usize = 256;
const CHUNK: usize = 4096;

/// What a rehearsal is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Entries of the connection table.
    pub connections: u32,
    /// Records of real servers.
    pub servers: usize,
    /// Workers that the packets are dealt to.
    pub workers: u32,
    /// Kernel generation whose schedulers are copied.
    pub generation: Generation,
}

/// A director without a network.
#[derive(Debug)]
pub struct Rehearsal {
    shared: Arc<Shared>,
    book: Book,
    surroundings: Surroundings,
    engines: Vec<Engine>,
    /// The worker whose turn it is.
    turn: usize,
    /// What the engines use.
    generation: u64,
    now: Now,
    sampled: Now,
    tidied: Now,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It went to this real server. The port is the one that the packet has: a NAT server's own, else the service's.
    Server(SocketAddr),
    /// A server's packet went to its client, as if from this address.
    Client {
        /// Source, after translation.
        from: SocketAddr,
        /// The client.
        to: SocketAddr,
    },
    /// Its sender was told that it goes no further (ICMP).
    Refused,
    /// It was dropped.
    Dropped(DropReason),
    /// What was sent makes no sense; an engine that does this is wrong.
    Nonsense(String),
}

impl Rehearsal {
    /// A director without rules, at a time that is not 0.
    pub fn new(plan: &Plan) -> Self {
        let sizes = Sizes { connections: plan.connections, reals: plan.servers, hops: plan.servers + 2 };
        let shared = Arc::new(Shared::new(sizes, HashKey::from_bytes([0x78; 32]), plan.generation));
        let counters: Vec<_> = (0..plan.workers).map(|_| Arc::new(Counters::new(plan.servers))).collect();
        let book = Book::new(shared.clone(), counters.clone());
        let surroundings = Surroundings::new(shared.clone());
        let engine =
            |(worker, counters)| Engine::new(shared.clone(), surroundings.snapshot(), counters, worker, plan.workers);
        let engines = (0..).zip(counters).map(engine).collect();
        let now = Now::from_secs(1000);
        Rehearsal { shared, book, surroundings, engines, turn: 0, generation: 0, now, sampled: now, tidied: now }
    }

    /// The engine's shared state.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Carries out an action, or answers a question, as the director would.
    ///
    /// # Errors
    /// It is refused, and nothing has changed.
    pub fn act(&mut self, action: Action) -> Result<Answer, Refusal> {
        let Rehearsal { book, shared, surroundings, now, .. } = self;
        let mut scene = Scene { book, shared, outside: surroundings, now_ms: now.millis(), who: "rehearsal" };
        let outcome = answer::answer(&mut scene, action);
        self.follow();
        outcome
    }

    /// The workers take what was published into use.
    fn follow(&mut self) {
        if self.generation != self.surroundings.generation() {
            self.generation = self.surroundings.generation();
            for engine in &mut self.engines {
                let _old = engine.swap(self.surroundings.snapshot());
            }
        }
    }

    /// A frame through the next worker: the verdict and what became of the bytes.
    pub fn forward(&mut self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let engine = &self.engines[self.turn];
        self.turn = (self.turn + 1) % self.engines.len();
        let mut chunk = vec![0; CHUNK.max(HEADROOM + frame.len())];
        chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let inspected = match engine.inspect(frame) {
            Ok(inspected) => inspected,
            Err(reason) => return (Verdict::Drop(reason), Vec::new()),
        };
        let Some(mut packet) = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len()) else {
            return (Verdict::Drop(DropReason::NoRoom), Vec::new());
        };
        let verdict = engine.forward(&mut packet, inspected, self.now);
        (verdict, packet.bytes().to_vec())
    }

    /// Sends a packet of a client or of a server, and tells from the bytes that leave what became of it.
    pub fn send(&mut self, segment: &Segment<'_>) -> Fate {
        let (verdict, bytes) = self.forward(&segment.frame());
        match verdict {
            Verdict::Drop(reason) => Fate::Dropped(reason),
            Verdict::Reflect => Fate::Refused,
            Verdict::Hold(_) => Fate::Nonsense("it waits, and there is nothing to wait for".to_owned()),
            // The pieces of a large one go the way of the whole.
            Verdict::Transmit(_) | Verdict::Split { .. } => self.read(segment, &bytes),
        }
    }

    fn read(&self, sent: &Segment<'_>, bytes: &[u8]) -> Fate {
        let Some(seen) = segment::read(bytes) else { return Fate::Nonsense("no packet left".to_owned()) };
        let Some(server) = self.surroundings.owner(seen.to_mac) else {
            return match (seen.from, seen.to) {
                (Some(from), Some(to)) if to == sent.to => Fate::Client { from, to },
                _ => Fate::Nonsense(format!("a packet for {} left as {seen:?}", sent.to)),
            };
        };
        // A translated packet is the client's own with another destination; in a tunnel, or just with another MAC, it
        // keeps the destination that it had.
        let port = match (seen.from, seen.to) {
            (Some(from), Some(to)) if from == sent.from && to.ip() == server => to.port(),
            _ => sent.to.port(),
        };
        let chosen = SocketAddr::new(server, port);
        match self.entered(sent) {
            Some(entered) if entered != chosen => {
                Fate::Nonsense(format!("it was sent to {chosen}, and the connection table says {entered}"))
            }
            _ => Fate::Server(chosen),
        }
    }

    /// The server of a client's connection, by the table; none if it has no entry (one-packet scheduling).
    fn entered(&self, sent: &Segment<'_>) -> Option<SocketAddr> {
        let flow = Flow { protocol: sent.protocol, src: sent.from.into(), dst: sent.to.into() };
        let (conn, _) = self.shared.table.lookup(&flow, self.shared.table.hash(&flow))?;
        let real = self.shared.arena.get(conn.real()).endpoint();
        Some(SocketAddr::new(real.address.into(), conn.server().port))
    }
}
