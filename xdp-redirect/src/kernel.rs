//! The few BPF calls that libbpf-rs wraps not at all, or without the argument that we need.
//!
//! JUSTIFICATION: this is the only unsafe code of the crate. libbpf-rs attaches XDP links without a mode, detaches
//! without naming the program it expects to find, lists all programs of the system to name one, runs a program
//! only while the object it came from is alive, which would tie every interface to a self-referential struct, and maps
//! the memory of no map.
//! Invariant: no pointer outlives the call it is made for, or the mapping it points into ([`Words`]), and file
//! descriptors come and go as owned or borrowed types.

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::slice;
use std::sync::atomic::AtomicU64;

use libbpf_rs::libbpf_sys as sys;
use memmap2::{MmapOptions, MmapRaw};

/// Attaches a program to an interface in the mode that `flags` name (`XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`). The
/// kernel detaches it when the last descriptor of the link is closed, thus also when the process dies.
pub(crate) fn link(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: `options` is a valid, zero-filled struct of the size it states, and lives until the call returns.
    let fd = unsafe { sys::bpf_link_create(program.as_raw_fd(), ifindex as i32, sys::BPF_XDP, &options) };
    check(fd)?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches what a link attached, at once: closing the descriptor alone would wait for whoever holds a copy of it, such
/// as a child process between fork and exec.
pub(crate) fn unlink(link: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are involved.
    check(unsafe { sys::bpf_link_detach(link.as_raw_fd()) })
}

/// Detaches `program` from an interface it was attached to without a link; fails if any other program is there.
pub(crate) fn detach(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<()> {
    let options = sys::bpf_xdp_attach_opts {
        sz: size_of::<sys::bpf_xdp_attach_opts>() as sys::size_t,
        old_prog_fd: program.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: `options` is a valid, zero-filled struct of the size it states, and lives until the call returns.
    check(unsafe { sys::bpf_xdp_detach(ifindex as i32, flags | sys::XDP_FLAGS_REPLACE, &options) })
}

/// Which programs an interface carries: id and the flag of the mode, for each mode.
pub(crate) fn attached(ifindex: u32) -> io::Result<Vec<(u32, u32)>> {
    let mut options =
        sys::bpf_xdp_query_opts { sz: size_of::<sys::bpf_xdp_query_opts>() as sys::size_t, ..Default::default() };
    // SAFETY: `options` is a valid, zero-filled struct of the size it states, and lives until the call returns.
    check(unsafe { sys::bpf_xdp_query(ifindex as i32, 0, &mut options) })?;
    let modes = [
        (options.drv_prog_id, sys::XDP_FLAGS_DRV_MODE),
        (options.skb_prog_id, sys::XDP_FLAGS_SKB_MODE),
        (options.hw_prog_id, sys::XDP_FLAGS_HW_MODE),
    ];
    Ok(modes.into_iter().filter(|&(id, _)| id != 0).collect())
}

/// The name of a loaded program, at most 15 bytes of what its source calls it.
pub(crate) fn program_name(program: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is as large as `size` says, and all-zero asks the kernel to fill none of the arrays it points to.
    check(unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut size) })?;
    let bytes: Vec<u8> = info.name.iter().map(|&byte| byte as u8).collect();
    let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

/// What a run of a program came to.
pub(crate) struct Run {
    /// The action it returned.
    pub(crate) action: u32,
    /// Time per run, as the kernel measures it.
    pub(crate) nanoseconds: u32,
}

/// Runs a program over a frame, `repeat` times, as if it had arrived on that queue. Queue 0 needs no interface: the
/// kernel then pretends that the frame came by the loopback device.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8], ifindex: u32, queue: u32, repeat: u32) -> io::Result<Run> {
    let context = sys::xdp_md {
        data_end: frame.len() as u32,
        ingress_ifindex: ifindex,
        rx_queue_index: queue,
        ..Default::default()
    };
    let mut options = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: repeat as i32,
        ..Default::default()
    };
    if queue != 0 {
        options.ctx_in = (&raw const context).cast();
        options.ctx_size_in = size_of_val(&context) as u32;
    }
    // SAFETY: `frame` and `context` are as large as stated and outlive the call, which only reads them; no output
    // buffers are given, so nothing is written but `options` itself.
    check(unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) })?;
    Ok(Run { action: options.retval, nanoseconds: options.duration })
}

/// The memory of an array map (`BPF_F_MMAPABLE`) as words, which programs read while we write them.
pub(crate) struct Words {
    memory: MmapRaw,
}

impl Words {
    /// Maps as many whole words as fit into `bytes` from the beginning of the map.
    pub(crate) fn map(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Words> {
        let memory = MmapOptions::new().len(bytes).map_raw(map.as_raw_fd())?;
        Ok(Words { memory })
    }

    /// All words. The mapping holds the map in the kernel, whoever else lets go of it.
    pub(crate) fn all(&self) -> &[AtomicU64] {
        let count = self.memory.len() / size_of::<AtomicU64>();
        // SAFETY: the memory is mapped for reading and writing as long as `self` lives, begins on a page, is as long as
        // that, and is filled with integers from the start. Nobody here has another view of it, and what else looks at
        // it, the kernel's programs, sees nothing of ours but atomic stores.
        unsafe { slice::from_raw_parts(self.memory.as_mut_ptr().cast(), count) }
    }
}

/// libbpf answers with a negative error number.
fn check(answer: i32) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::from_raw_os_error(-answer));
    }
    Ok(())
}
