//! Frames that are ready to leave, one list a device.
//!
//! A device's list empties into its transmit ring once a breath. Invariant: a list keeps the order in which frames came to it,
//! and never grows beyond what it was made for; one slow or dead link must not stop the others, so what is beyond is given
//! back.

use crate::hop::Port;
use crate::rings::{Frame, Rings};

/// Batches that may wait for one device.
const OUTBOX_BATCHES: usize = 4;

/// The lists.
#[derive(Debug)]
pub(super) struct Outboxes(Vec<Vec<Frame>>);

impl Outboxes {
    /// For so many devices, and batches of this size.
    pub(super) fn new(ports: usize, batch_size: usize) -> Self {
        Outboxes((0..ports).map(|_| Vec::with_capacity(batch_size * OUTBOX_BATCHES)).collect())
    }

    /// How many frames a device's list still takes.
    #[inline]
    pub(super) fn room(&self, port: Port) -> usize {
        self.0.get(usize::from(port.0)).map_or(0, |outbox| outbox.capacity() - outbox.len())
    }

    /// Puts a frame into a device's list.
    ///
    /// # Errors
    /// There is no room: the frame.
    #[inline(always)]
    pub(super) fn put(&mut self, port: Port, frame: Frame) -> Result<(), Frame> {
        match self.0.get_mut(usize::from(port.0)).filter(|outbox| outbox.len() < outbox.capacity()) {
            Some(outbox) => {
                outbox.push(frame);
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// Takes frames that know by which device they leave, in their order: mostly all by one. Those that find no room go to
    /// `rest`.
    #[inline(never)]
    pub(super) fn put_all(&mut self, frames: &mut [Frame], mut rest: impl FnMut(Frame)) {
        let Some(first) = frames.first().map(Frame::port) else { return };
        // All are looked at, whatever the first ones say: a loop without a way out takes several at a time.
        if frames.iter().fold(true, |same, frame| same & (frame.port() == first)) {
            return self.put_run(first, frames, &mut rest);
        }
        for run in frames.chunk_by_mut(|one, next| one.port() == next.port()) {
            self.put_run(run[0].port(), run, &mut rest);
        }
    }

    #[inline(never)]
    fn put_run(&mut self, port: Port, run: &mut [Frame], rest: &mut impl FnMut(Frame)) {
        let (fit, beyond) = run.split_at_mut(self.room(port).min(run.len()));
        if let Some(outbox) = self.0.get_mut(usize::from(port.0)) {
            outbox.extend(fit.iter_mut().map(Frame::take));
        }
        beyond.iter_mut().for_each(|frame| rest(frame.take()));
    }

    /// Sends what the transmit rings take; tells how many frames.
    #[inline]
    pub(super) fn transmit(&mut self, rings: &mut impl Rings) -> usize {
        let mut sent = 0;
        for (port, outbox) in (0..).map(Port).zip(&mut self.0) {
            if !outbox.is_empty() {
                sent += rings.transmit(port, outbox);
            }
        }
        sent
    }

    /// Frames in all lists.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// All frames, which then are in no list.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Frame> {
        self.0.iter_mut().flat_map(|outbox| outbox.drain(..))
    }
}
