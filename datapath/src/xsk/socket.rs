//! Frame memory and sockets: made by `xsk-rs`, asked about by `getsockopt`.
//!
//! One worker has one frame memory, and on every device a socket for its queue that shares it, so a frame received on
//! one device leaves by another without a copy.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::socket::{RxQueue, Socket, TxQueue};
use xsk_rs::umem::{CompQueue, FillQueue, Umem};

/// How long a busy queue is asked for, and the pause between two attempts. The kernel frees a dead socket's queue from
/// a work queue, behind its configuration lock.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Frame memory and rings of a worker, as configured. All ring sizes are powers of two.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    /// Bytes of a chunk: 2048 or 4096.
    pub size: u32,
    /// Chunks.
    pub count: u32,
    /// Slots of the receive ring.
    pub rx_ring: u32,
    /// Slots of the transmit ring.
    pub tx_ring: u32,
    /// Slots of the fill ring.
    pub fill_ring: u32,
    /// Slots of the completion ring.
    pub completion_ring: u32,
    /// Try huge pages.
    pub huge_pages: bool,
    /// Do without huge pages if there are none.
    pub huge_pages_optional: bool,
    /// Packets that the kernel handles in one busy poll; `None` for interrupts.
    pub busy_poll: Option<u32>,
}

/// What is asked of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Zero-copy if the driver can.
    Auto,
    /// Zero-copy or nothing.
    Require,
    /// Copy.
    Off,
}

/// A device's queue to bind.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Name of the device.
    pub interface: String,
    /// Queue.
    pub queue: u32,
    /// What is asked of its driver.
    pub zero_copy: ZeroCopy,
}

/// Why a worker's sockets could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Frame memory.
    #[error("can not make {megabytes} MiB of frame memory{huge}: {source}; lower `frames.count`{cure}")]
    Memory {
        /// Size asked for.
        megabytes: u64,
        /// " on huge pages", if so.
        huge: &'static str,
        /// What else would help.
        cure: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A socket.
    #[error("can not bind queue {queue} of {interface} to AF_XDP{mode}: {source}{cure}")]
    Socket {
        /// Device.
        interface: String,
        /// Queue.
        queue: u32,
        /// " in zero-copy mode", if so.
        mode: &'static str,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        cure: &'static str,
    },
    /// A setting that the configuration should have refused.
    #[error("frames: {0}")]
    Settings(String),
}

impl BindError {
    fn is_busy(&self) -> bool {
        matches!(self, BindError::Socket { source, .. } if source.raw_os_error() == Some(libc::EBUSY))
    }
}

/// One bound socket. The queues are kept only to keep the socket: its rings are driven through mappings of our own.
#[derive(Debug)]
pub(super) struct Bound {
    fd: RawFd,
    /// Frames that the kernel sends in one system call at most, in copy mode.
    pub(super) send_budget: u32,
    _tx: TxQueue,
    _rx: RxQueue,
    _fill: FillQueue,
    _completion: CompQueue,
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the queues of this value keep the socket open as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// A worker's frame memory and sockets, one a device, in the order asked for.
#[derive(Debug)]
pub struct Sockets {
    pub(super) bound: Vec<Bound>,
    pub(super) umem: Umem,
    pub(super) base: *mut u8,
    pub(super) frames: Frames,
    /// Huge pages lie under the frames.
    pub(super) huge_pages: bool,
}

/// Makes frame memory and binds the sockets. With [`ZeroCopy::Auto`] each driver is asked for zero-copy first; since
/// all sockets of a frame memory must agree, one that refuses makes all of them copy. A queue that is still busy is
/// asked for again for a while: the kernel takes a moment to let go of the sockets of a director that has just ended.
///
/// # Errors
/// [`BindError`], with the cure.
pub fn bind(frames: &Frames, bindings: &[Binding]) -> Result<Sockets, BindError> {
    let asks_copy = bindings.iter().any(|binding| binding.zero_copy == ZeroCopy::Off);
    let requires = bindings.iter().any(|binding| binding.zero_copy == ZeroCopy::Require);
    let modes: &[BindFlags] = match (asks_copy, requires) {
        (true, true) => {
            return Err(BindError::Settings("one interface requires zero-copy, another one forbids it".into()));
        }
        (true, _) => &[BindFlags::XDP_COPY],
        (_, true) => &[BindFlags::XDP_ZEROCOPY],
        _ => &[BindFlags::XDP_ZEROCOPY, BindFlags::XDP_COPY],
    };
    let deadline = Instant::now() + BUSY_PATIENCE;
    let mut outcome = None;
    for &mode in modes {
        loop {
            match bind_as(frames, bindings, mode) {
                Ok(sockets) => return Ok(sockets),
                // Not a reason for another mode: it would stay copied for as long as the director runs.
                Err(error) if error.is_busy() && Instant::now() < deadline => std::thread::sleep(BUSY_PAUSE),
                Err(error @ (BindError::Memory { .. } | BindError::Settings(_))) => return Err(error),
                Err(error) => {
                    outcome = Some(error);
                    break;
                }
            }
        }
    }
    Err(outcome.unwrap_or_else(|| BindError::Settings("no device to bind".into())))
}

fn bind_as(frames: &Frames, bindings: &[Binding], mode: BindFlags) -> Result<Sockets, BindError> {
    let (umem, base, huge_pages) = memory(frames)?;
    let size = |slots| QueueSize::new(slots).map_err(|error| BindError::Settings(error.to_string()));
    let config = SocketConfig::builder()
        .rx_queue_size(size(frames.rx_ring)?)
        .tx_queue_size(size(frames.tx_ring)?)
        // The redirecting program is ours, not libxdp's.
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let mut bound = Vec::with_capacity(bindings.len());
    for binding in bindings {
        let failed = |source: io::Error| {
            let zero_copy = mode.contains(BindFlags::XDP_ZEROCOPY);
            let cure = match source.raw_os_error() {
                // Drivers say so of features that are missing as well as of queues that are.
                Some(libc::EINVAL | libc::EOPNOTSUPP) if zero_copy => {
                    "; the driver can not do it with this device as it is (docs/zero-copy.md); set `zero_copy = \"auto\"`"
                }
                Some(libc::EBUSY) => "; another program has the queue, stop it",
                Some(libc::EPERM) => "; run as root or with CAP_NET_RAW and CAP_BPF",
                Some(libc::EINVAL) => "; is the queue number below the device's combined queues?",
                Some(libc::ENODEV) => "; is the interface up and still there?",
                Some(libc::EOPNOTSUPP) => "; the driver can not, set `zero_copy = \"off\"`",
                _ => "",
            };
            let mode = if zero_copy { " in zero-copy mode" } else { "" };
            BindError::Socket { interface: binding.interface.clone(), queue: binding.queue, mode, source, cure }
        };
        let interface = binding.interface.parse().map_err(|_| failed(io::Error::from_raw_os_error(libc::ENODEV)))?;
        // SAFETY: libxdp loads no program (flag above), so a device and queue that is bound twice with one frame memory
        // could not free one twice.
        let made = unsafe { Socket::new(config, &umem, &interface, binding.queue) };
        let (tx, rx, rings) = made.map_err(|error| failed(os_error(&error)))?;
        let (fill, completion) = rings.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EBUSY)))?;
        let fd = rx.fd().as_raw_fd();
        // SAFETY: the queues, which are in this function's hands, keep the socket open.
        let send_budget = send_budget(unsafe { BorrowedFd::borrow_raw(fd) }, frames.tx_ring);
        bound.push(Bound { fd, send_budget, _tx: tx, _rx: rx, _fill: fill, _completion: completion });
    }
    if let Some(budget) = frames.busy_poll {
        for socket in &bound {
            prefer_busy_poll(socket.as_fd(), budget);
        }
    }
    Ok(Sockets { bound, umem, base, frames: *frames, huge_pages })
}

/// Frame memory, on huge pages if asked for and to be had, and the address of its first byte.
fn memory(frames: &Frames) -> Result<(Umem, *mut u8, bool), BindError> {
    let settings = |error: &dyn std::fmt::Display| BindError::Settings(error.to_string());
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(frames.size).map_err(|error| settings(&error))?)
        .fill_queue_size(QueueSize::new(frames.fill_ring).map_err(|error| settings(&error))?)
        .comp_queue_size(QueueSize::new(frames.completion_ring).map_err(|error| settings(&error))?)
        .build()
        .map_err(|error| settings(&error))?;
    let count = NonZeroU32::new(frames.count).ok_or_else(|| settings(&"`count` must be above 0"))?;
    let make = |huge| {
        Umem::new(config, count, huge).map_err(|error| BindError::Memory {
            megabytes: (u64::from(frames.size) * u64::from(frames.count)) >> 20,
            huge: if huge { " on huge pages" } else { "" },
            cure: if huge { ", or reserve pages in /proc/sys/vm/nr_hugepages" } else { "" },
            source: os_error(&error),
        })
    };
    let (umem, descriptors, huge) = match make(frames.huge_pages) {
        Ok((umem, descriptors)) => (umem, descriptors, frames.huge_pages),
        Err(_) if frames.huge_pages && frames.huge_pages_optional => {
            let (umem, descriptors) = make(false)?;
            (umem, descriptors, false)
        }
        Err(error) => return Err(error),
    };
    let first = descriptors.first().ok_or_else(|| settings(&"no frames"))?;
    // SAFETY: the first descriptor is of this memory, and nobody has used it yet, so nobody writes. Only its address is
    // taken.
    let at = unsafe { umem.data(first) }.contents().as_ptr();
    // The memory was mapped by C, for the kernel as well: its provenance is exposed, and this is a pointer to all of it.
    let base = std::ptr::with_exposed_provenance_mut(at.expose_provenance() - first.addr());
    Ok((umem, base, huge))
}

/// The kernel's error number below one of `xsk-rs`'s errors.
fn os_error(error: &dyn std::error::Error) -> io::Error {
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => {
            source.raw_os_error().map_or_else(|| io::Error::other(source.to_string()), io::Error::from_raw_os_error)
        }
        None => io::Error::other(error.to_string()),
    }
}

fn prefer_busy_poll(socket: BorrowedFd<'_>, budget: u32) {
    // Not in the `libc` crate for every target; from include/uapi/asm-generic/socket.h.
    const SO_BUSY_POLL: libc::c_int = 46;
    const SO_PREFER_BUSY_POLL: libc::c_int = 69;
    const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
    /// Microseconds that the kernel polls in a blocking call.
    const POLL_US: u32 = 20;
    for (option, value) in [(SO_PREFER_BUSY_POLL, 1), (SO_BUSY_POLL, POLL_US), (SO_BUSY_POLL_BUDGET, budget)] {
        if let Err(error) = set_option(socket, libc::SOL_SOCKET, option, value) {
            tracing::warn!(%error, option, "busy polling is not available; interrupts serve the queue");
            return;
        }
    }
}

/// Lets the kernel send a whole transmit ring in one system call in copy mode, and says how many frames it sends: kernels
/// before 6.17 do not take that, and send their 32.
fn send_budget(socket: BorrowedFd<'_>, tx_ring: u32) -> u32 {
    // Not in the `libc` crate; from include/uapi/linux/if_xdp.h and net/xdp/xsk.c.
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    const LEAST: u32 = 32;
    match set_option(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, tx_ring.max(LEAST)) {
        Ok(()) => tx_ring.max(LEAST),
        Err(_) => LEAST,
    }
}

fn set_option(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: a valid socket and an int, as these options take.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Plain data that the kernel may write.
///
/// # Safety
/// Any bytes are a valid value, and none of them is padding.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for [u64; 6] {}
// SAFETY: a C struct of 64-bit integers.
unsafe impl Plain for libc::xdp_mmap_offsets {}

/// Reads a fixed-size option of an AF_XDP socket. What an older kernel does not know of it is 0.
pub(super) fn xdp_option<T: Plain>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    // SAFETY: any bytes are a valid `T`, so zeros are.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `length` bytes that the kernel may fill with whatever it likes, by the trait.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, (&raw mut value).cast(), &mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Is the socket in zero-copy mode, by the kernel's own answer (XDP_OPTIONS)?
pub(super) fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let options: u32 = xdp_option(socket, libc::XDP_OPTIONS)?;
    Ok(options & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// What the kernel says of one socket, to be asked from another thread than the worker's.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
}

impl Monitor {
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Monitor { socket: socket.try_clone_to_owned()? })
    }

    /// Is the queue in zero-copy mode, by the kernel's own answer?
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn is_zero_copy(&self) -> io::Result<bool> {
        is_zero_copy(self.socket.as_fd())
    }

    /// The kernel's counts of trouble (XDP_STATISTICS): name, value, meaning.
    pub fn statistics(&self) -> io::Result<Vec<(&'static str, u64, &'static str)>> {
        let [dropped, invalid_rx, invalid_tx, full, fill_empty, tx_empty]: [u64; 6] =
            xdp_option(self.socket.as_fd(), libc::XDP_STATISTICS)?;
        Ok(vec![
            ("rx_dropped", dropped, "Packets that the kernel dropped for other reasons than a full ring."),
            ("rx_invalid_descs", invalid_rx, "Descriptors in the fill ring that the kernel refused; a bug of ours."),
            (
                "tx_invalid_descs",
                invalid_tx,
                "Descriptors in the transmit ring that the kernel refused; a bug of ours.",
            ),
            ("rx_ring_full", full, "Packets dropped because the worker was too slow; raise `rx_ring` or add workers."),
            ("rx_fill_ring_empty", fill_empty, "Times that no frame was free for reception; raise `frames.count`."),
            ("tx_ring_empty", tx_empty, "Times that the kernel found nothing to send; harmless."),
        ])
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
