//! One ring that user space and the kernel share: a producer index, a consumer index, flags and a power of two of slots.
//!
//! Invariant: `producer - consumer <= size`, both counting on for ever (wrapping). Of the two indices we write one and
//! the kernel the other; a slot belongs to whoever the indices say. Publishing is a release store, looking an acquire
//! load, so a slot's content is there when its index says so. Source: Documentation/networking/af_xdp.rst.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A shared ring of `T`.
#[derive(Debug)]
pub(super) struct Ring<T> {
    map: NonNull<u8>,
    map_len: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    size: u32,
    /// Our index.
    own: u32,
    /// The kernel's index as we saw it last.
    theirs: u32,
    _content: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    /// Maps the ring of `size` slots that the socket has at this page offset.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offset: u64,
        layout: &libc::xdp_ring_offset,
        size: u32,
        we_produce: bool,
    ) -> io::Result<Self> {
        debug_assert!(size.is_power_of_two());
        let map_len = layout.desc as usize + size as usize * size_of::<T>();
        // SAFETY: a fresh mapping at an address of the kernel's choice; the socket keeps the memory behind it.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        // SAFETY: the kernel gave these offsets for this very mapping, and it is long enough for the last slot.
        let (producer, consumer, flags, slots) = unsafe {
            (
                map.add(layout.producer as usize).cast::<AtomicU32>(),
                map.add(layout.consumer as usize).cast::<AtomicU32>(),
                map.add(layout.flags as usize).cast::<AtomicU32>(),
                map.add(layout.desc as usize).cast::<T>(),
            )
        };
        let mut ring =
            Ring { map, map_len, producer, consumer, flags, slots, size, own: 0, theirs: 0, _content: PhantomData };
        (ring.own, ring.theirs) = match we_produce {
            true => (ring.producer().load(Ordering::Acquire), ring.consumer().load(Ordering::Acquire)),
            false => (ring.consumer().load(Ordering::Acquire), ring.producer().load(Ordering::Acquire)),
        };
        Ok(ring)
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: inside the mapping, which lives as long as `self`; the kernel accesses it atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer.
        unsafe { self.consumer.as_ref() }
    }

    /// Does the kernel want a system call before it looks at the ring?
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        // SAFETY: as for the producer.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Producer side: how many slots are free, of `wanted`. Looks at the kernel's index only if it has to.
    #[inline]
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        let mut room = self.size - self.own.wrapping_sub(self.theirs);
        if room < wanted {
            self.theirs = self.consumer().load(Ordering::Acquire);
            room = self.size - self.own.wrapping_sub(self.theirs);
        }
        room.min(wanted)
    }

    /// Producer side: writes the next slots. No more than [`room`](Ring::room) said there are.
    #[inline]
    pub(super) fn push(&mut self, values: impl Iterator<Item = T>) {
        // Kept in registers: a store into a slot could be one into `self`, for all that the compiler knows.
        let (slots, mask, mut own) = (self.slots, self.size - 1, self.own);
        for value in values {
            debug_assert!(own.wrapping_sub(self.theirs) < self.size);
            // SAFETY: masked, so inside the slots; the slot is ours until the index is published.
            unsafe { slots.add((own & mask) as usize).write_volatile(value) };
            own = own.wrapping_add(1);
        }
        self.own = own;
    }

    /// Producer side: the kernel may have what was pushed.
    #[inline]
    pub(super) fn publish(&self) {
        self.producer().store(self.own, Ordering::Release);
    }

    /// Producer side: has the kernel taken everything?
    #[inline]
    pub(super) fn is_drained(&self) -> bool {
        self.consumer().load(Ordering::Relaxed) == self.own
    }

    /// Consumer side: how many slots are filled, of `wanted`.
    #[inline]
    pub(super) fn available(&mut self, wanted: u32) -> u32 {
        let mut available = self.theirs.wrapping_sub(self.own);
        if available < wanted {
            self.theirs = self.producer().load(Ordering::Acquire);
            available = self.theirs.wrapping_sub(self.own);
        }
        available.min(wanted)
    }

    /// Consumer side: how many slots were filled when the kernel's index was looked at last, less those taken since.
    #[inline]
    pub(super) fn known(&self) -> u32 {
        self.theirs.wrapping_sub(self.own)
    }

    /// Consumer side: reads the next `count` slots. No more than [`available`](Ring::available) said there are.
    #[inline]
    pub(super) fn pop(&mut self, count: u32) -> impl Iterator<Item = T> + use<T> {
        let next = self.peek(0..count);
        self.own = self.own.wrapping_add(count);
        next
    }

    /// Consumer side: reads some of the next slots, which stay where they are. None beyond what
    /// [`available`](Ring::available) said there are.
    #[inline]
    pub(super) fn peek(&self, which: Range<u32>) -> impl Iterator<Item = T> + use<T> {
        debug_assert!(which.end <= self.known());
        let (slots, mask, own) = (self.slots, self.size - 1, self.own);
        // SAFETY: masked, so inside the slots; filled by the kernel, which published them before. They are the kernel's
        // again only when `release` says so.
        which.map(move |at| unsafe { slots.add((own.wrapping_add(at) & mask) as usize).read_volatile() })
    }

    /// Consumer side: the kernel may have the slots back.
    #[inline]
    pub(super) fn release(&self) {
        self.consumer().store(self.own, Ordering::Release);
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
    }
}
