//! Rings that misbehave, by a seed: for tests of what the worker does when the kernel is slow, full or starved.
//!
//! The faults are those that AF_XDP shows in life: completions that come late, transmit rings that are full, fill rings
//! that run dry, receive calls that give less than there is, pools that are empty. The packets themselves are never harmed.

use crate::hop::Port;

use super::{Frame, Ledger, Rings};

/// Another implementation, with faults.
#[derive(Debug)]
pub struct FaultRings<R> {
    /// The rings that really work.
    pub inner: R,
    state: u64,
}

impl<R> FaultRings<R> {
    /// Makes `inner` misbehave, in a way that the seed decides.
    pub fn new(inner: R, seed: u64) -> Self {
        FaultRings { inner, state: seed | 1 }
    }

    /// A number below `bound`, from the seed.
    pub fn draw(&mut self, bound: u64) -> u64 {
        // xorshift64*: enough to be unforeseen, and the same for the same seed
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }
}

impl<R: Rings> Rings for FaultRings<R> {
    fn ports(&self) -> usize {
        self.inner.ports()
    }

    fn replenish(&mut self) {
        if self.draw(3) != 0 {
            self.inner.replenish();
        }
    }

    fn receive(&mut self, room: usize, batch: &mut Vec<Frame>) {
        let room = self.draw(room as u64 + 1) as usize;
        self.inner.receive(room, batch);
    }

    fn look_ahead(&mut self, room: usize) {
        self.inner.look_ahead(room);
    }

    fn spare(&mut self) -> Option<Frame> {
        if self.draw(4) == 0 { None } else { self.inner.spare() }
    }

    fn packet(&mut self, frame: &Frame) -> &mut [u8] {
        self.inner.packet(frame)
    }

    fn head<const N: usize>(&mut self, frame: &Frame) -> Option<&mut [u8; N]> {
        self.inner.head(frame)
    }

    fn headroom(&self, frame: &Frame) -> usize {
        self.inner.headroom(frame)
    }

    fn chunk(&mut self, frame: &Frame) -> (&mut [u8], usize) {
        self.inner.chunk(frame)
    }

    fn transmit(&mut self, port: Port, outbox: &mut Vec<Frame>) -> usize {
        let count = self.draw(outbox.len() as u64 + 1) as usize;
        let mut rest = outbox.split_off(count);
        let sent = self.inner.transmit(port, outbox);
        outbox.append(&mut rest);
        sent
    }

    fn recycle(&mut self, frame: Frame) {
        self.inner.recycle(frame);
    }

    fn ledger(&self) -> Ledger {
        self.inner.ledger()
    }
}
