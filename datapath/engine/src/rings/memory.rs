//! Rings without a device: packets are put in by hand and taken out by hand.
//!
//! For tests, benches and replay. They keep the same rules as AF_XDP: a frame is received into a chunk that was given
//! for it, and a transmitted one comes back only when its completion was collected.

use std::collections::VecDeque;

use crate::hop::Port;

use super::{Frame, Ledger, Rings};

/// Where a packet starts in a fresh chunk, as AF_XDP has it (XDP_PACKET_HEADROOM).
pub const HEADROOM: usize = 256;

/// Rings in memory.
#[derive(Debug)]
pub struct MemoryRings {
    memory: Vec<u8>,
    chunk_size: usize,
    /// Chunks that are not given to devices for reception.
    spare: usize,
    free: Vec<u32>,
    fill: VecDeque<u32>,
    lent: usize,
    devices: Vec<Device>,
}

#[derive(Debug, Default)]
struct Device {
    /// Packets that wait to be received.
    inbox: VecDeque<Vec<u8>>,
    /// Frames in the transmit ring: where the packet starts, and its length.
    sent: VecDeque<(u64, u32)>,
    /// Size of the transmit ring.
    room: usize,
}

impl MemoryRings {
    /// Rings of this many devices over this many chunks of this size.
    pub fn new(devices: usize, chunks: u32, chunk_size: usize) -> Self {
        let device = || Device { room: chunks as usize, ..Device::default() };
        MemoryRings {
            memory: vec![0; chunks as usize * chunk_size],
            chunk_size,
            spare: 0,
            free: (0..chunks).rev().collect(),
            fill: VecDeque::with_capacity(chunks as usize),
            lent: 0,
            devices: (0..devices).map(|_| device()).collect(),
        }
    }

    /// The number of the chunk that a packet starts in.
    fn chunk_of(&self, at: u64) -> u32 {
        (at / self.chunk_size as u64) as u32
    }

    fn device(&mut self, port: Port) -> &mut Device {
        &mut self.devices[usize::from(port.0)]
    }

    /// Keeps this many chunks from reception, for [`Rings::spare`].
    pub fn set_spare(&mut self, spare: usize) {
        self.spare = spare;
    }

    /// Lets a packet arrive at a device.
    pub fn put(&mut self, port: Port, packet: impl Into<Vec<u8>>) {
        self.device(port).inbox.push_back(packet.into());
    }

    /// How many packets wait to be received.
    pub fn waiting(&self) -> usize {
        self.devices.iter().map(|device| device.inbox.len()).sum()
    }

    /// Takes the oldest packet that a device has sent; its frame is free again.
    pub fn take(&mut self, port: Port) -> Option<Vec<u8>> {
        let (at, len) = self.device(port).sent.pop_front()?;
        self.free.push(self.chunk_of(at));
        Some(self.memory[at as usize..][..len as usize].to_vec())
    }

    /// Sets how many frames a device's transmit ring takes.
    pub fn set_room(&mut self, port: Port, room: usize) {
        self.device(port).room = room;
    }
}

impl Rings for MemoryRings {
    fn ports(&self) -> usize {
        self.devices.len()
    }

    fn replenish(&mut self) {
        self.fill.extend(self.free.drain(self.spare.min(self.free.len())..));
    }

    fn receive(&mut self, room: usize, batch: &mut Vec<Frame>) {
        for (port, device) in (0..).map(Port).zip(&mut self.devices) {
            while batch.len() < room && !device.inbox.is_empty() {
                let Some(chunk) = self.fill.pop_front() else { return };
                let packet = device.inbox.pop_front().unwrap_or_default();
                let len = packet.len().min(self.chunk_size - HEADROOM);
                let at = chunk as usize * self.chunk_size + HEADROOM;
                self.memory[at..at + len].copy_from_slice(&packet[..len]);
                self.lent += 1;
                batch.push(Frame::lend(at as u64, len as u32, port));
            }
        }
    }

    fn spare(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        self.lent += 1;
        let at = chunk as usize * self.chunk_size + HEADROOM;
        Some(Frame::lend(at as u64, 0, Port::default()))
    }

    fn packet(&mut self, frame: &Frame) -> &mut [u8] {
        &mut self.memory[frame.at() as usize..][..frame.len()]
    }

    fn head<const N: usize>(&mut self, frame: &Frame) -> Option<&mut [u8; N]> {
        self.packet(frame).first_chunk_mut()
    }

    fn headroom(&self, frame: &Frame) -> usize {
        frame.at() as usize % self.chunk_size
    }

    fn chunk(&mut self, frame: &Frame) -> (&mut [u8], usize) {
        let start = self.headroom(frame);
        (&mut self.memory[frame.at() as usize - start..][..self.chunk_size], start)
    }

    fn transmit(&mut self, port: Port, outbox: &mut Vec<Frame>) -> usize {
        let device = &mut self.devices[usize::from(port.0)];
        let count = outbox.len().min(device.room.saturating_sub(device.sent.len()));
        device.sent.extend(outbox.drain(..count).map(Frame::give_back));
        self.lent -= count;
        count
    }

    fn recycle(&mut self, frame: Frame) {
        self.lent -= 1;
        self.free.push(self.chunk_of(frame.give_back().0));
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            total: (self.memory.len() / self.chunk_size) as u64,
            free: self.free.len() as u64,
            fill: self.fill.len() as u64,
            lent: self.lent as u64,
            tx: self.devices.iter().map(|device| device.sent.len() as u64).sum(),
        }
    }
}
