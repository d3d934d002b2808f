//! The window into a plugin's memory: the one place with unsafe code.
//!
//! A worker writes a flow for each new connection and rows for each breath; through wasmtime's own accessors that costs
//! 8 ns each time, through a pointer that was fetched once it costs a copy.
//!
//! Invariant: the pointer is good as long as the instance lives, because memories do not move (`memory_may_move(false)`
//! in `host`) and never shrink; no reference into the memory is ever formed, since WebAssembly writes there; and nobody
//! looks through it while WebAssembly runs, since an [`Instance`](crate::Instance) is borrowed for the whole of a call.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// What may be copied into a plugin's memory as it is: no pointer, no padding, every pattern of bits a value.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and any bytes are a value of it.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: `xvs_sdk::abi` asserts for each of them that its fields fill it; all fields are integers.
unsafe impl Plain for xvs_sdk::abi::Row {}
// SAFETY: as above.
unsafe impl Plain for xvs_sdk::abi::Facts {}
// SAFETY: as above.
unsafe impl Plain for xvs_sdk::abi::Flow {}
// SAFETY: as above.
unsafe impl Plain for xvs_sdk::abi::TableHead {}
// SAFETY: as above.
unsafe impl Plain for xvs_sdk::abi::FactsHead {}
// SAFETY: as above.
unsafe impl Plain for xvs_sdk::abi::TextHead {}
// SAFETY: an array of integers has no padding.
unsafe impl<const N: usize> Plain for [u32; N] {}

/// Bytes of a page of the machine; a larger one only means that pages are touched more often than needed.
const PAGE: usize = 4096;

/// A plugin's memory.
#[derive(Debug)]
pub(crate) struct Window {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the store that is sent along with the window, and is reached through `&mut` alone.
unsafe impl Send for Window {}

impl Window {
    /// The window of a memory that does not move while the window is used.
    pub(crate) fn new(memory: &wasmtime::Memory, store: impl wasmtime::AsContext) -> Option<Window> {
        let base = NonNull::new(memory.data_ptr(&store))?;
        Some(Window { base, len: memory.data_size(&store) })
    }

    /// Bytes that can be seen through it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn has(&self, at: usize, bytes: usize) -> bool {
        at <= self.len && bytes <= self.len - at
    }

    /// Copies a value there. Does nothing where there is no memory.
    #[inline(always)]
    pub(crate) fn write<T: Plain>(&mut self, at: usize, value: &T) {
        let bytes = size_of::<T>();
        if self.has(at, bytes) {
            // SAFETY: `at..at + bytes` is memory of the plugin, which nobody else touches now (see above); `value` is
            // the host's and can not overlap it.
            unsafe {
                self.base.as_ptr().add(at).copy_from_nonoverlapping(std::ptr::from_ref(value).cast(), bytes);
            }
        }
    }

    /// Copies bytes there. Does nothing where there is no memory.
    pub(crate) fn write_bytes(&mut self, at: usize, bytes: &[u8]) {
        if self.has(at, bytes.len()) {
            // SAFETY: as in `write`.
            unsafe { self.base.as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }

    /// A copy of what stands there, if that is memory.
    pub(crate) fn read<T: Plain>(&self, at: usize) -> Option<T> {
        // SAFETY: the bytes are memory of the plugin, which nobody writes now; any bytes are a `T`.
        self.has(at, size_of::<T>()).then(|| unsafe { self.base.as_ptr().add(at).cast::<T>().read_unaligned() })
    }

    /// A copy of bytes, if they are memory.
    pub(crate) fn read_bytes(&self, at: usize, count: usize) -> Option<Vec<u8>> {
        self.has(at, count).then(|| {
            let mut bytes = vec![0; count];
            // SAFETY: as in `read`; `bytes` has room for `count`.
            unsafe { self.base.as_ptr().add(at).copy_to_nonoverlapping(bytes.as_mut_ptr(), count) };
            bytes
        })
    }

    /// Makes every page from a byte on resident, so that no pick waits for the kernel to do so (a fault of a page costs
    /// as much as a whole scan, and a plugin could meet hundreds).
    pub(crate) fn settle(&mut self, from: usize) {
        for at in (from..self.len).step_by(PAGE) {
            // SAFETY: the byte is memory of the plugin, which nobody else touches now. Volatile, because writing what
            // was read is the purpose.
            unsafe {
                let byte = self.base.as_ptr().add(at);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }
}
