//! One worker: it moves frames from the rings through the engine and back, a bounded turn at a time.
//!
//! A turn is a *breath* ([`Worker::step`]). In it the worker never waits, never allocates and never asks the time; the
//! director's loop around it sleeps, looks at the clock and takes mail.
//!
//! Invariant: after a breath every frame is in the pool, with the kernel, in an outbox, or waits for a MAC or a first
//! fragment; the ledger adds up; and each packet that was received has been sent, whole or in fragments, counted as
//! dropped, or is one of those that wait.

mod newcomer;
mod outboxes;
mod splitter;
mod waiting;

use std::vec::Drain;

use self::outboxes::Outboxes;
use self::splitter::Splitter;
pub use self::waiting::FRAGMENT_WAIT_MS;
use self::waiting::Waiting;
use crate::drop::DropReason;
use crate::engine::{Awaited, Candidate, Candidate6, Engine, Inspected, Tally, Verdict};
use crate::hop::Port;
use crate::lines::prefetch_for_writing;
use crate::rings::{Frame, Rings};
use crate::time::Now;
use crate::wire::Packet;

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
    outboxes: Outboxes,
    waiting: Waiting,
    splitter: Splitter,
}

impl<R: Rings> Worker<R> {
    /// A worker that takes at most `batch_size` frames in a breath.
    pub fn new(engine: Engine, rings: R, batch_size: usize) -> Self {
        Worker {
            outboxes: Outboxes::new(rings.ports(), batch_size),
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
            // Sending takes its time: what comes next travels meanwhile.
            self.rings.look_ahead(self.batch_size);
        }
        self.reunite(now);
        self.engine.counters().waiting.set(self.waiting.len() as u64);
        let sent = self.outboxes.transmit(&mut self.rings);
        self.engine.counters().transmitted.add(sent as u64);
        self.engine.expire(now);
        debug_assert!(self.rings.ledger().is_balanced(), "{:?}", self.rings.ledger());
        received
    }

    /// Passes 1 and 2: parse and hash the whole batch, so that the buckets are on their way before they are needed; then
    /// the entries.
    #[inline(never)]
    fn inspect(&mut self) {
        self.engine.begin_batch();
        if self.wraps {
            self.look::<true>()
        } else {
            self.look::<false>()
        }
        self.engine.guess(&mut self.candidates[..self.batch.len()]);
        for other in &mut self.others {
            if let Other::Six(candidate) = other {
                self.engine.guess6(candidate);
            }
        }
    }

    /// Pass 1. `WRAPS`: outer headers will be written before the packets.
    #[inline(always)]
    fn look<const WRAPS: bool>(&mut self) {
        for (frame, seen) in self.batch.iter().zip(&mut self.candidates) {
            let packet = self.rings.packet(frame);
            match self.engine.glance(packet) {
                Some(candidate) => {
                    *seen = candidate;
                    if WRAPS {
                        prefetch_for_writing(packet.as_ptr().wrapping_sub(HEADER_MAX));
                    }
                }
                None => {
                    *seen = Candidate::NONE;
                    Self::look_closer(&self.engine, packet, &mut self.others);
                }
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
        let mut seen = &candidates[..batch.len()];
        let mut frames = &mut batch[..];
        loop {
            let known = self.express(frames, seen, &mut others, now, &mut tally);
            let (done, ahead) = frames.split_at_mut(known);
            // What is left alone must not overtake those before it.
            if !done.is_empty() {
                self.queue_all(done);
            }
            let Some((frame, ahead)) = ahead.split_first_mut() else { break };
            let Some((candidate, seen_ahead)) = seen[known..].split_first() else { break };
            match candidate.is_none() {
                true => self.forward_other(frame.take(), others.next(), now),
                false => self.forward_seen(frame.take(), candidate, now),
            }
            (frames, seen) = (ahead, seen_ahead);
        }
        batch.clear();
        drop(others);
        self.wraps = tally.has_wrapped();
        self.engine.settle_tally(tally);
        (self.batch, self.candidates, self.others) = (batch, candidates, rest);
    }

    /// Takes packets through the express lanes up to the first that they leave alone; tells how many.
    #[inline(always)]
    fn express(
        &mut self,
        frames: &mut [Frame],
        candidates: &[Candidate],
        others: &mut Drain<'_, Other>,
        now: Now,
        tally: &mut Tally,
    ) -> usize {
        let mut count = frames.len();
        for (at, (frame, candidate)) in frames.iter_mut().zip(candidates).enumerate() {
            let port = match self.engine.express(&mut self.rings, frame, candidate, now, tally) {
                None if candidate.is_none() => self.express_six(frame, others, now, tally),
                port => port,
            };
            match port {
                Some(port) => frame.leave_by(port),
                None => {
                    count = at;
                    break;
                }
            }
        }
        tally.count(count);
        count
    }

    /// The same for the next of the others, if it is one for IPv6's lane. What is left alone stays with them.
    #[inline(never)]
    fn express_six(
        &mut self,
        frame: &mut Frame,
        others: &mut Drain<'_, Other>,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Port> {
        let Some(Other::Six(candidate)) = others.as_slice().first() else { return None };
        let port = self.engine.express6(&mut self.rings, frame, candidate, now, tally)?;
        others.next();
        Some(port)
    }

    /// The long way, for a packet that looked like one for the express lane.
    #[inline(never)]
    fn forward_seen(&mut self, mut frame: Frame, candidate: &Candidate, now: Now) {
        self.engine.arrive_on(frame.port().0.into());
        let engine = &self.engine;
        let verdict = change(&mut self.rings, &mut frame, |packet| engine.forward_seen(packet, candidate, now));
        self.obey(frame, verdict, now);
    }

    /// The long way, for a packet that did not; what is for nowhere was counted.
    #[inline(never)]
    fn forward_other(&mut self, mut frame: Frame, other: Option<Other>, now: Now) {
        let other = match other {
            Some(Other::Six(candidate)) => {
                if let Some(verdict) = self.welcome6(&mut frame, &candidate, now) {
                    return self.obey(frame, verdict, now);
                }
                Self::look_through(&self.engine, self.rings.packet(&frame))
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
        self.engine.arrive_on(frame.port().0.into());
        let engine = &self.engine;
        let verdict = change(&mut self.rings, &mut frame, |packet| engine.forward(packet, inspected, now));
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
                let Some(key) = self.engine.packet_key(self.rings.packet(&frame)) else {
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
        let room = self.outboxes.room(port);
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

    /// Puts a frame into a device's outbox, if that has room.
    #[inline(always)]
    fn queue(&mut self, port: Port, frame: Frame) {
        if let Err(frame) = self.outboxes.put(port, frame) {
            self.discard(frame, DropReason::TransmitFull);
        }
    }

    /// The same with several that know by which device they leave.
    #[inline(always)]
    fn queue_all(&mut self, frames: &mut [Frame]) {
        let (engine, rings) = (&self.engine, &mut self.rings);
        self.outboxes.put_all(frames, |frame| {
            engine.counters().count_drop(DropReason::TransmitFull);
            rings.recycle(frame);
        });
    }

    /// Looks again at the frames that wait for a MAC, in their order.
    fn release(&mut self, now: Now) {
        for _ in 0..self.waiting.for_mac.len() {
            let Some(mut held) = self.waiting.for_mac.pop_front() else { return };
            let (engine, hop, mtu) = (&self.engine, held.hop, held.mtu);
            let verdict = change(&mut self.rings, &mut held.frame, |packet| engine.release(packet, hop, mtu));
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
            match self.engine.inspect(self.rings.packet(&held.frame)) {
                Ok(inspected) => match self.ask_again(held.frame, inspected, now) {
                    // The note went this very moment: nobody waits twice.
                    (frame, Verdict::Hold(Awaited::FirstFragment)) => self.discard(frame, DropReason::FragmentUnknown),
                    (frame, verdict) => self.obey(frame, verdict, now),
                },
                Err(reason) => self.discard(held.frame, reason),
            }
        }
    }

    /// Frames that are ready to leave but wait for room in a ring.
    pub fn backlog(&self) -> usize {
        self.outboxes.len()
    }

    /// Frames that wait for a MAC or for a first fragment.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Gives up everything that is on its way, so that the worker can be dropped.
    pub fn finish(&mut self) {
        for frame in self.outboxes.drain().chain(self.waiting.drain()) {
            self.engine.counters().count_drop(DropReason::Shutdown);
            self.rings.recycle(frame);
        }
    }
}

/// Lets somebody change the packet in a frame; it may then stand elsewhere in its chunk.
#[inline(always)]
fn change<R: Rings>(rings: &mut R, frame: &mut Frame, by: impl FnOnce(&mut Packet<'_>) -> Verdict) -> Verdict {
    let (chunk, start) = rings.chunk(frame);
    let Some(mut packet) = Packet::new(chunk, start, start + frame.len()) else {
        return Verdict::Drop(DropReason::Truncated);
    };
    let verdict = by(&mut packet);
    frame.set_packet(frame.at() - start as u64 + packet.start() as u64, packet.len());
    verdict
}
