//! Frames that wait in a worker: for the MAC of their next hop, or for the first fragment of their packet.
//!
//! Invariant: bounded, in all and for one next hop or packet, and in time; who waits keeps its place. Nothing allocates
//! after the start. When all places are taken, a frame that wants a MAC is sent away, because those that wait for it came
//! first; a later fragment gets the place of the oldest one instead, because what has not found its first fragment by
//! then hardly ever will, and strangers' fragments must not keep out everybody's for as long as they last.
//!
//! Not here: what becomes of a frame that has waited. The worker asks the engine.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::conn::PacketKey;
use crate::hop::HopId;
use crate::rings::Frame;
use crate::time::Now;

/// Frames that may wait for the MAC of a next hop, in all and for one hop.
const MAC_MAX: usize = 256;
const MAC_PER_HOP: usize = 32;
/// How long a frame waits for a MAC at most, in milliseconds: the kernel gives up after three tries a second apart.
const MAC_MS: u64 = 3000;
/// Later fragments that may wait for a first one, in all (but a quarter of the worker's frames at most) and of one
/// packet. A datagram of 64 KiB has 45 fragments on Ethernet.
const FRAGMENTS_MAX: usize = 256;
const FRAGMENTS_PER_PACKET: usize = 64;
/// How long a later fragment waits for its first one at most, in milliseconds. Hosts keep fragments for 30 s, but a
/// reordered first fragment is late by less than a round trip, and these frames are wanted for reception.
pub const FRAGMENT_WAIT_MS: u64 = 1000;

/// A frame that waits for the MAC of its next hop.
#[derive(Debug)]
pub(super) struct ForMac {
    pub(super) frame: Frame,
    pub(super) hop: HopId,
    /// It must be cut to this size then.
    pub(super) mtu: Option<NonZeroU16>,
    since: Now,
}

impl ForMac {
    pub(super) fn is_late(&self, now: Now) -> bool {
        now.since(self.since) >= MAC_MS
    }
}

/// A frame that waits for the first fragment of its packet.
#[derive(Debug)]
pub(super) struct ForFirst {
    pub(super) frame: Frame,
    pub(super) key: PacketKey,
    since: Now,
}

impl ForFirst {
    pub(super) fn is_late(&self, now: Now) -> bool {
        now.since(self.since) >= FRAGMENT_WAIT_MS
    }
}

/// The frames that wait, oldest first.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) for_mac: VecDeque<ForMac>,
    pub(super) for_first: VecDeque<ForFirst>,
    fragments_max: usize,
    /// First fragments that had passed when the frames were last looked at.
    seen: u64,
}

impl Waiting {
    /// Nobody waits yet. `frames` are those that the worker has in all.
    pub(super) fn new(frames: u64) -> Self {
        let fragments_max = FRAGMENTS_MAX.min(frames as usize / 4);
        Waiting {
            for_mac: VecDeque::with_capacity(MAC_MAX),
            for_first: VecDeque::with_capacity(fragments_max),
            fragments_max,
            seen: 0,
        }
    }

    /// How many frames wait.
    pub(super) fn len(&self) -> usize {
        self.for_mac.len() + self.for_first.len()
    }

    /// Takes in a frame that wants the MAC of a hop.
    ///
    /// # Errors
    /// There is no place: the frame.
    pub(super) fn hold_for_mac(
        &mut self,
        frame: Frame,
        hop: HopId,
        mtu: Option<NonZeroU16>,
        now: Now,
    ) -> Result<(), Frame> {
        let same = self.for_mac.iter().filter(|held| held.hop == hop).count();
        if self.for_mac.len() >= MAC_MAX || same >= MAC_PER_HOP {
            return Err(frame);
        }
        self.for_mac.push_back(ForMac { frame, hop, mtu, since: now });
        Ok(())
    }

    /// Takes in a later fragment, and gives back one that must go for it.
    ///
    /// # Errors
    /// There is no place: the frame itself.
    pub(super) fn hold_for_first(&mut self, frame: Frame, key: PacketKey, now: Now) -> Result<Option<Frame>, Frame> {
        let same = self.for_first.iter().filter(|held| held.key == key).count();
        if self.fragments_max == 0 || same >= FRAGMENTS_PER_PACKET {
            return Err(frame);
        }
        let full = self.for_first.len() >= self.fragments_max;
        let oldest = if full { self.for_first.pop_front() } else { None };
        self.for_first.push_back(ForFirst { frame, key, since: now });
        Ok(oldest.map(|oldest| oldest.frame))
    }

    /// Is it worth while to look at the later fragments? `passed` first fragments have passed so far.
    #[inline]
    pub(super) fn is_due(&mut self, passed: u64, now: Now) -> bool {
        let Some(oldest) = self.for_first.front() else { return false };
        let due = passed != self.seen || oldest.is_late(now);
        self.seen = passed;
        due
    }

    /// Gives up all frames.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Frame> + '_ {
        let for_mac = self.for_mac.drain(..).map(|held| held.frame);
        for_mac.chain(self.for_first.drain(..).map(|held| held.frame))
    }
}
