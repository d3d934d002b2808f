//! One worker: it moves frames from the rings through the engine and back, a bounded turn at a time.
//!
//! A turn is a *breath* ([`Worker::step`]). In it the worker never waits, never allocates and never asks the time; the
//! director's loop around it sleeps, looks at the clock and takes mail.
//!
//! Invariant: after a breath every frame is in the pool, with the kernel, in an outbox, or waits for a MAC or a first
//! fragment; the ledger adds up; and each packet that was received has been sent, whole or in fragments, counted as
//! dropped, or is one of those that wait.

mod newcomer;
mod splitter;
mod waiting;

use self::splitter::Splitter;
pub use self::waiting::FRAGMENT_WAIT_MS;
use self::waiting::Waiting;
use crate::drop::DropReason;
use crate::engine::{Awaited, Candidate, Candidate6, Engine, Inspected, Tally, Verdict};
use crate::hop::Port;
use crate::lines::prefetch;
use crate::rings::{Frame, Rings};
use crate::time::Now;
use crate::wire::Packet;

/// Batches that may queue before a full transmit ring; one slow or dead link must not stop the others, so what is
/// beyond is dropped and counted.
const OUTBOX_BATCHES: usize = 4;

/// The most that a tunnel's header takes before a packet, within a cache line.
const HEADER_MAX: usize = 20;

/// A packet that is not one for IPv4's express lane.
#[derive(Debug)]
enum Other {
    /// One for IPv6's.
    Six(Candidate6),
    /// For the long way.
    Inspected(Inspected),
    /// For nowhere.
    Dropped,
}

/// A worker: its engine, its rings, and the frames on their way between them.
#[derive(Debug)]
pub struct Worker<R: Rings> {
    /// What happens to packets.
    pub engine: Engine,
    /// Where frames come from and go to.
    pub rings: R,
    batch_size: usize,
    batch: Vec<Frame>,
    /// Of each frame of the batch, in its order; [`Candidate::NONE`] of one that is not for the express lane.
    candidates: Vec<Candidate>,
    /// Packets were wrapped in the last batch.
    wraps: bool,
    /// Of each that is not, in their order.
    others: Vec<Other>,
    outboxes: Vec<Vec<Frame>>,
    waiting: Waiting,
    splitter: Splitter,
}

impl<R: Rings> Worker<R> {
    /// A worker that takes at most `batch_size` frames in a breath.
    pub fn new(engine: Engine, rings: R, batch_size: usize) -> Self {
        let room = batch_size * OUTBOX_BATCHES;
        Worker {
            outboxes: (0..rings.ports()).map(|_| Vec::with_capacity(room)).collect(),
            batch: Vec::with_capacity(batch_size),
            candidates: vec![Candidate::NONE; batch_size],
            wraps: false,
            others: Vec::with_capacity(batch_size),
            waiting: Waiting::new(rings.ledger().total),
            splitter: Splitter::new(),
            engine,
            rings,
            batch_size,
        }
    }

    /// One breath. Returns how many frames came in.
    pub fn step(&mut self, now: Now) -> usize {
        self.rings.replenish();
        self.release(now);
        self.rings.receive(self.batch_size, &mut self.batch);
        let received = self.batch.len();
        let counters = self.engine.counters();
        counters.breaths.add(1);
        counters.received.add(received as u64);
        if received == 0 {
            counters.idle.add(1);
        } else {
            self.inspect();
            self.forward(now);
        }
        self.reunite(now);
        self.engine.counters().waiting.set(self.waiting.len() as u64);
        self.transmit();
        self.engine.expire(now);
        debug_assert!(self.rings.ledger().is_balanced(), "{:?}", self.rings.ledger());
        received
    }

    /// Passes 1 and 2: parse and hash the whole batch, so that the buckets are on their way before they are needed; then
    /// the entries.
    #[inline(never)]
    fn inspect(&mut self) {
        self.engine.begin_batch();
        let wraps = self.wraps;
        for (frame, seen) in self.batch.iter().zip(&mut self.candidates) {
            let (start, end) = (frame.start(), frame.end());
            let chunk = self.rings.chunk(frame);
            match self.engine.glance(&chunk[start..end]) {
                Some(candidate) => {
                    *seen = candidate;
                    if wraps {
                        prefetch(&chunk[start.saturating_sub(HEADER_MAX)]);
                    }
                }
                None => {
                    *seen = Candidate::NONE;
                    Self::look_closer(&self.engine, &chunk[start..end], &mut self.others);
                }
            }
        }
        self.engine.guess(&mut self.candidates[..self.batch.len()]);
        for other in &mut self.others {
            if let Other::Six(candidate) = other {
                self.engine.guess6(candidate);
            }
        }
    }

    /// Pass 1 for a packet that is not one for IPv4's express lane.
    #[inline(never)]
    fn look_closer(engine: &Engine, frame: &[u8], others: &mut Vec<Other>) {
        others.push(match engine.glance6(frame) {
            Some(candidate) => Other::Six(candidate),
            None => Self::look_through(engine, frame),
        });
    }

    #[inline(never)]
    fn look_through(engine: &Engine, frame: &[u8]) -> Other {
        match engine.inspect(frame) {
            Ok(inspected) => Other::Inspected(inspected),
            Err(reason) => {
                engine.counters().count_drop(reason);
                Other::Dropped
            }
        }
    }

    /// Pass 3: forward each packet and sort it by where it leaves.
    #[inline(never)]
    fn forward(&mut self, now: Now) {
        // The vectors are taken out while the worker is busy with them, and put back with their memory.
        let mut batch = std::mem::take(&mut self.batch);
        let candidates = std::mem::take(&mut self.candidates);
        let mut rest = std::mem::take(&mut self.others);
        let mut others = rest.drain(..);
        let mut tally = Tally::default();
        for (frame, candidate) in batch.iter_mut().zip(&candidates) {
            let mut frame = frame.take();
            match self.engine.express(self.rings.chunk(&frame), &mut frame, candidate, now, &mut tally) {
                Some(port) => self.queue(port, frame),
                None if candidate.is_none() => self.forward_other(frame, others.next(), now, &mut tally),
                None => self.forward_seen(frame, candidate, now),
            }
        }
        batch.clear();
        drop(others);
        self.wraps = tally.has_wrapped();
        self.engine.settle_tally(tally);
        (self.batch, self.candidates, self.others) = (batch, candidates, rest);
    }

    /// The long way, for a packet that looked like one for the express lane.
    #[inline(never)]
    fn forward_seen(&mut self, mut frame: Frame, candidate: &Candidate, now: Now) {
        let (start, end) = (frame.start(), frame.end());
        let verdict = match Packet::new(self.rings.chunk(&frame), start, end) {
            Some(mut packet) => {
                self.engine.arrive_on(frame.port().0.into());
                let verdict = self.engine.forward_seen(&mut packet, candidate, now);
                let (start, len) = (packet.start(), packet.len());
                frame.set_packet(start, len);
                verdict
            }
            None => Verdict::Drop(DropReason::Truncated),
        };
        self.obey(frame, verdict, now);
    }

    /// Pass 3 for a packet that is not one for IPv4's express lane.
    #[inline(never)]
    fn forward_other(&mut self, mut frame: Frame, other: Option<Other>, now: Now, tally: &mut Tally) {
        if let Some(Other::Six(candidate)) = &other
            && let Some(port) = self.engine.express6(self.rings.chunk(&frame), &mut frame, candidate, now, tally)
        {
            return self.queue(port, frame);
        }
        self.forward_inspected(frame, other, now);
    }

    /// The long way; what is for nowhere was counted.
    #[inline(never)]
    fn forward_inspected(&mut self, mut frame: Frame, other: Option<Other>, now: Now) {
        let other = match other {
            Some(Other::Six(candidate)) => {
                if let Some(verdict) = self.welcome6(&mut frame, &candidate, now) {
                    return self.obey(frame, verdict, now);
                }
                let (start, end) = (frame.start(), frame.end());
                Self::look_through(&self.engine, &self.rings.chunk(&frame)[start..end])
            }
            other => other.unwrap_or(Other::Dropped),
        };
        match other {
            Other::Inspected(inspected) => {
                let (frame, verdict) = self.ask(frame, inspected, now);
                self.obey(frame, verdict, now);
            }
            Other::Six(_) | Other::Dropped => self.rings.recycle(frame),
        }
    }

    /// What becomes of the packet in this frame?
    #[inline]
    fn ask(&mut self, mut frame: Frame, inspected: Inspected, now: Now) -> (Frame, Verdict) {
        let (start, end) = (frame.start(), frame.end());
        let Some(mut packet) = Packet::new(self.rings.chunk(&frame), start, end) else {
            return (frame, Verdict::Drop(DropReason::Truncated));
        };
        self.engine.arrive_on(frame.port().0.into());
        let verdict = self.engine.forward(&mut packet, inspected, now);
        let (start, len) = (packet.start(), packet.len());
        frame.set_packet(start, len);
        (frame, verdict)
    }

    /// The same out of line, for a frame that has waited.
    #[cold]
    #[inline(never)]
    fn ask_again(&mut self, frame: Frame, inspected: Inspected, now: Now) -> (Frame, Verdict) {
        self.ask(frame, inspected, now)
    }

    /// Does with a frame what the engine said.
    #[inline]
    fn obey(&mut self, frame: Frame, verdict: Verdict, now: Now) {
        match verdict {
            Verdict::Transmit(port) => self.queue(port, frame),
            Verdict::Reflect => self.queue(frame.port(), frame),
            Verdict::Split { port, mtu } => self.split(port, mtu, frame),
            Verdict::Hold(awaited) => self.hold(frame, awaited, now),
            Verdict::Drop(reason) => self.discard(frame, reason),
        }
    }

    #[cold]
    #[inline(never)]
    fn discard(&mut self, frame: Frame, reason: DropReason) {
        self.engine.counters().count_drop(reason);
        self.rings.recycle(frame);
    }

    /// Keeps a frame for a moment.
    #[cold]
    fn hold(&mut self, frame: Frame, awaited: Awaited, now: Now) {
        match awaited {
            Awaited::Mac { hop, mtu } => match self.waiting.hold_for_mac(frame, hop, mtu, now) {
                Ok(()) => self.engine.counters().held.add(1),
                Err(frame) => self.discard(frame, DropReason::NeighbourQueueFull),
            },
            Awaited::FirstFragment => {
                let (start, end) = (frame.start(), frame.end());
                let Some(key) = self.engine.packet_key(&self.rings.chunk(&frame)[start..end]) else {
                    return self.discard(frame, DropReason::FragmentUnknown);
                };
                match self.waiting.hold_for_first(frame, key, now) {
                    Ok(gone) => {
                        self.engine.counters().fragments_held.add(1);
                        gone.into_iter().for_each(|frame| self.discard(frame, DropReason::FragmentQueueFull));
                    }
                    Err(frame) => self.discard(frame, DropReason::FragmentQueueFull),
                }
            }
        }
    }

    /// Cuts a packet and sends the fragments.
    #[cold]
    fn split(&mut self, port: Port, mtu: u16, frame: Frame) {
        let queued = self.outboxes.get(usize::from(port.0)).map_or(usize::MAX, Vec::len);
        let room = (self.batch_size * OUTBOX_BATCHES).saturating_sub(queued);
        let id = self.engine.next_fragment_id();
        if let Err((frame, reason)) = self.splitter.split(&mut self.rings, frame, mtu, id, room) {
            self.discard(frame, reason);
            return;
        }
        let mut pieces = std::mem::take(&mut self.splitter.pieces);
        self.engine.counters().split.add(1);
        self.engine.counters().fragments_made.add(pieces.len() as u64);
        pieces.drain(..).for_each(|piece| self.queue(port, piece));
        self.splitter.pieces = pieces;
    }

    /// Puts a frame into a device's outbox, if that has not grown too long.
    #[inline(always)]
    fn queue(&mut self, port: Port, frame: Frame) {
        // It was made for so many, and does not grow.
        match self.outboxes.get_mut(usize::from(port.0)).filter(|outbox| outbox.len() < outbox.capacity()) {
            Some(outbox) => outbox.push(frame),
            None => self.discard(frame, DropReason::TransmitFull),
        }
    }

    /// Looks again at the frames that wait for a MAC, in their order.
    fn release(&mut self, now: Now) {
        for _ in 0..self.waiting.for_mac.len() {
            let Some(held) = self.waiting.for_mac.pop_front() else { return };
            let (start, end) = (held.frame.start(), held.frame.end());
            let verdict = match Packet::new(self.rings.chunk(&held.frame), start, end) {
                Some(mut packet) => self.engine.release(&mut packet, held.hop, held.mtu),
                None => Verdict::Drop(DropReason::Truncated),
            };
            match verdict {
                Verdict::Hold(_) if held.is_late(now) => self.discard(held.frame, DropReason::NeighbourUnresolved),
                Verdict::Hold(_) => self.waiting.for_mac.push_back(held),
                verdict => self.obey(held.frame, verdict, now),
            }
        }
    }

    /// Looks again at the later fragments that wait for a first one, if one has passed since, on whatever worker.
    #[inline]
    fn reunite(&mut self, now: Now) {
        if self.waiting.is_due(self.engine.first_fragments(), now) {
            self.forward_reunited(now);
        }
    }

    #[cold]
    fn forward_reunited(&mut self, now: Now) {
        for _ in 0..self.waiting.for_first.len() {
            let Some(held) = self.waiting.for_first.pop_front() else { return };
            if !self.engine.has_passed(held.key, now) {
                match held.is_late(now) {
                    true => self.discard(held.frame, DropReason::FragmentUnknown),
                    false => self.waiting.for_first.push_back(held),
                }
                continue;
            }
            let (start, end) = (held.frame.start(), held.frame.end());
            match self.engine.inspect(&self.rings.chunk(&held.frame)[start..end]) {
                Ok(inspected) => match self.ask_again(held.frame, inspected, now) {
                    // The note went this very moment: nobody waits twice.
                    (frame, Verdict::Hold(Awaited::FirstFragment)) => self.discard(frame, DropReason::FragmentUnknown),
                    (frame, verdict) => self.obey(frame, verdict, now),
                },
                Err(reason) => self.discard(held.frame, reason),
            }
        }
    }

    #[inline]
    fn transmit(&mut self) {
        for (port, outbox) in (0..).map(Port).zip(&mut self.outboxes) {
            if !outbox.is_empty() {
                let sent = self.rings.transmit(port, outbox);
                self.engine.counters().transmitted.add(sent as u64);
            }
        }
    }

    /// Frames that are ready to leave but wait for room in a ring.
    pub fn backlog(&self) -> usize {
        self.outboxes.iter().map(Vec::len).sum()
    }

    /// Frames that wait for a MAC or for a first fragment.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Gives up everything that is on its way, so that the worker can be dropped.
    pub fn finish(&mut self) {
        let outboxes = self.outboxes.iter_mut().flat_map(|outbox| outbox.drain(..));
        for frame in outboxes.chain(self.waiting.drain()) {
            self.engine.counters().count_drop(DropReason::Shutdown);
            self.rings.recycle(frame);
        }
    }
}
