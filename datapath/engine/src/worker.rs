//! One worker: it moves frames from the rings through the engine and back, a bounded turn at a time.
//!
//! A turn is a *breath* ([`Worker::step`]). In it the worker never waits, never allocates and never asks the time; the
//! director's loop around it sleeps, looks at the clock and takes mail.
//!
//! Invariant: after a breath every frame is in the pool, with the kernel, in an outbox, or on hold for a MAC; the
//! ledger adds up; and each packet that was received has been sent, counted as dropped, or is one of those that wait.

use crate::drop::DropReason;
use crate::engine::{Engine, Inspected, Verdict};
use crate::hop::{HopId, Port};
use crate::rings::{Frame, Rings};
use crate::time::Now;
use crate::wire::Packet;

/// Frames that may wait for the MAC of a next hop, in all and for one hop.
const HOLD_MAX: usize = 256;
const HOLD_PER_HOP: usize = 32;
/// How long a frame waits for a MAC at most, in milliseconds: the kernel gives up after three tries a second apart.
const HOLD_MS: u64 = 3000;
/// Batches that may queue before a full transmit ring; one slow or dead link must not stop the others, so what is
/// beyond is dropped and counted.
const OUTBOX_BATCHES: usize = 4;

/// A frame that waits for the MAC of its next hop.
#[derive(Debug)]
struct Held {
    frame: Frame,
    hop: HopId,
    since: Now,
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
    inspected: Vec<Option<Inspected>>,
    outboxes: Vec<Vec<Frame>>,
    held: Vec<Held>,
}

impl<R: Rings> Worker<R> {
    /// A worker that takes at most `batch_size` frames in a breath.
    pub fn new(engine: Engine, rings: R, batch_size: usize) -> Self {
        let room = batch_size * OUTBOX_BATCHES;
        Worker {
            outboxes: (0..rings.ports()).map(|_| Vec::with_capacity(room)).collect(),
            batch: Vec::with_capacity(batch_size),
            inspected: Vec::with_capacity(batch_size),
            held: Vec::with_capacity(HOLD_MAX),
            engine,
            rings,
            batch_size,
        }
    }

    /// One breath. Returns how many frames came in.
    pub fn step(&mut self, now: Now) -> usize {
        self.rings.replenish();
        if !self.held.is_empty() {
            self.release(now);
        }
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
        self.transmit();
        self.engine.expire(now);
        debug_assert!(self.rings.ledger().is_balanced(), "{:?}", self.rings.ledger());
        received
    }

    /// Pass 1: parse and hash the whole batch, so that the buckets are on their way before they are needed.
    #[inline]
    fn inspect(&mut self) {
        for frame in &self.batch {
            let (start, end) = (frame.start(), frame.end());
            let inspected = self.engine.inspect(&self.rings.chunk(frame)[start..end]);
            let inspected = inspected.map_err(|reason| self.engine.counters().count_drop(reason));
            self.inspected.push(inspected.ok());
        }
    }

    /// Pass 2: forward each packet and sort it by where it leaves.
    #[inline]
    fn forward(&mut self, now: Now) {
        // Both vectors are taken out while the worker is busy with them, and put back with their memory.
        let mut batch = std::mem::take(&mut self.batch);
        let mut inspections = std::mem::take(&mut self.inspected);
        for (mut frame, inspected) in batch.drain(..).zip(inspections.drain(..)) {
            let Some(inspected) = inspected else {
                self.rings.recycle(frame);
                continue;
            };
            let (start, end) = (frame.start(), frame.end());
            let Some(mut packet) = Packet::new(self.rings.chunk(&frame), start, end) else {
                self.rings.recycle(frame);
                continue;
            };
            let verdict = self.engine.forward(&mut packet, inspected, now);
            let (start, len) = (packet.start(), packet.len());
            frame.set_packet(start, len);
            match verdict {
                Verdict::Transmit(port) => self.queue(port, frame),
                Verdict::Reflect => self.queue(frame.port(), frame),
                Verdict::Drop(reason) => {
                    self.engine.counters().count_drop(reason);
                    self.rings.recycle(frame);
                }
                Verdict::Hold(hop) => {
                    let same = self.held.iter().filter(|held| held.hop == hop).count();
                    if self.held.len() < HOLD_MAX && same < HOLD_PER_HOP {
                        self.engine.counters().held.add(1);
                        self.held.push(Held { frame, hop, since: now });
                    } else {
                        self.engine.counters().count_drop(DropReason::NeighbourQueueFull);
                        self.rings.recycle(frame);
                    }
                }
            }
        }
        (self.batch, self.inspected) = (batch, inspections);
    }

    /// Puts a frame into a device's outbox, if that has not grown too long.
    #[inline]
    fn queue(&mut self, port: Port, frame: Frame) {
        let limit = self.batch_size * OUTBOX_BATCHES;
        match self.outboxes.get_mut(usize::from(port.0)).filter(|outbox| outbox.len() < limit) {
            Some(outbox) => outbox.push(frame),
            None => {
                self.engine.counters().count_drop(DropReason::TransmitFull);
                self.rings.recycle(frame);
            }
        }
    }

    /// Looks again at the frames that wait for a MAC, in their order.
    fn release(&mut self, now: Now) {
        let mut index = 0;
        while let Some(held) = self.held.get(index) {
            let (start, end) = (held.frame.start(), held.frame.end());
            let verdict = match Packet::new(self.rings.chunk(&held.frame), start, end) {
                Some(mut packet) => self.engine.release(&mut packet, held.hop),
                None => Verdict::Drop(DropReason::NeighbourUnresolved),
            };
            let too_long = now.since(held.since) >= HOLD_MS;
            match verdict {
                Verdict::Hold(_) if !too_long => index += 1,
                Verdict::Transmit(port) => {
                    let held = self.held.remove(index);
                    self.queue(port, held.frame);
                }
                Verdict::Hold(_) | Verdict::Reflect | Verdict::Drop(_) => {
                    let reason = match verdict {
                        Verdict::Drop(reason) => reason,
                        _ => DropReason::NeighbourUnresolved,
                    };
                    self.engine.counters().count_drop(reason);
                    self.rings.recycle(self.held.remove(index).frame);
                }
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

    /// Frames that wait for a MAC.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Gives up everything that is on its way, so that the worker can be dropped.
    pub fn finish(&mut self) {
        let outboxes = self.outboxes.iter_mut().flat_map(|outbox| outbox.drain(..));
        for frame in outboxes.chain(self.held.drain(..).map(|held| held.frame)) {
            self.engine.counters().count_drop(DropReason::Shutdown);
            self.rings.recycle(frame);
        }
    }
}
