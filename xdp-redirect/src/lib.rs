//! From the wire to an AF_XDP socket, and nothing else.
//!
//! An XDP program on each interface looks at every frame before the kernel does. What belongs to a virtual service it
//! redirects to the socket of the queue that the frame arrived on; the rest it leaves to the kernel. `bpf/redirect.bpf.c`
//! states the rules; this crate loads the program, attaches it, and keeps its maps.
//!
//! ```text
//! Redirect          all interfaces, one set of keys                  lib.rs
//!   Interface       a copy of the program, its sockets, its link     interface.rs
//!   Steering        which keys, counted; four maps                   steering.rs, key.rs
//!   Quick           the commonest keys once more, quick to read      quick.rs, quick/
//!   Ranges          prefixes and ranges of ports: what no key names  ranges.rs
//!   Counter         what became of the frames                        counters.rs
//! ```
//!
//! **Several interfaces.** The slot of a socket must depend on the interface, since each has a queue 0. One program for
//! all would have to find the interface's slots by a look-up for each frame, and would fix the number of interfaces
//! and queues in advance. So each interface gets a copy of the program with a socket map of its own, sized to its
//! queues, and the queue number is the index: nothing to look up, nothing to fix. A copy costs some ten kilobytes. The
//! steering maps exist once, and every copy uses them, the 776 KiB of the quick tables too: a key is steered on all
//! interfaces in one step.
//!
//! **Invariants.** The program never moves a frame's head. A queue without a living worker drops (or passes, as
//! configured) what is steered. Dropping [`Redirect`], or the death of the process, detaches everything; nothing is
//! pinned, so nothing remains, and no file system for BPF needs to be mounted.
//!
//! **What it is not.** It knows no connections, real servers' weights or forwarding methods. It neither creates sockets nor finds out about interfaces: both are handed to it. Frames that span
//! several buffers (jumbo frames on most drivers) are refused by the driver when the program is attached.

mod counters;
mod error;
mod interface;
mod kernel;
mod key;
mod quick;
mod ranges;
mod steering;

/// Generated from `bpf/redirect.bpf.c`: the object, its maps, and their types as Rust sees them.
mod skeleton {
    #![allow(warnings, clippy::all, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/redirect.skel.rs"));
}

use std::os::fd::BorrowedFd;
use std::time::Duration;

use libbpf_rs::PrintLevel;
use libbpf_rs::libbpf_sys::{XDP_DROP, XDP_PASS, XDP_REDIRECT};

pub use crate::counters::Counter;
pub use crate::error::Error;
use crate::interface::Interface;
pub use crate::key::{Key, Protocol};
use crate::ranges::Ranges;
pub use crate::ranges::{Prefix, Range};
use crate::steering::Steering;

/// How the program is to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// In the driver if it can, else in generic mode with a warning.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// After the driver has built a socket buffer: slow, but every driver can.
    Generic,
}

/// How the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// In the driver.
    Native,
    /// After the driver has built a socket buffer.
    Generic,
}

/// What becomes of steered frames while no worker serves their queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absent {
    /// They are lost, and TCP sends them again: connections survive a restart.
    #[default]
    Drop,
    /// The kernel gets them. If the VIP is its own, it resets connections that it does not know.
    Pass,
}

/// Settings of all interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How to attach.
    pub mode: Mode,
    /// What to do without a worker.
    pub absent: Absent,
}

/// An interface of the network namespace of the calling thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// For messages only.
    pub name: String,
    /// What identifies it.
    pub ifindex: u32,
    /// How many receive queues it has. Sockets can be registered for `0..queues`.
    pub queues: u32,
}

/// What the program did with a frame that it was tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A worker's socket would have got it.
    Redirected,
    /// It would have been dropped.
    Dropped,
    /// The kernel would have got it.
    Passed,
}

/// The XDP programs of all interfaces, and what they steer.
pub struct Redirect {
    options: Options,
    steering: Steering,
    ranges: Ranges,
    interfaces: Vec<Interface>,
}

impl Redirect {
    /// MACs that an interface may have.
    pub const MACS_MAX: usize = interface::MACS_MAX;

    /// Loads the program for each interface, with nothing steered yet. Nothing is attached, no frame is touched.
    ///
    /// From here on what libbpf has to say is logged, for the whole process, instead of being printed.
    pub fn load(options: &Options, interfaces: &[InterfaceSpec]) -> Result<Redirect, Error> {
        libbpf_rs::set_print(Some((PrintLevel::Debug, log_libbpf)));
        let Some((first, rest)) = interfaces.split_first() else {
            return Err(Error::other("load the XDP program", "no interface is given: name at least one"));
        };
        let (interface, maps) = Interface::load(first, options.absent, None)?;
        let (steering, ranges) = (Steering::new(maps)?, Ranges::default());
        let mut redirect = Redirect { options: *options, steering, ranges, interfaces: vec![interface] };
        for spec in rest {
            redirect.add(spec)?;
        }
        Ok(redirect)
    }

    /// Loads the program for one more interface. If one with this index is there already, it is detached and forgotten
    /// first: its registered sockets are gone, but what is steered stays.
    pub fn add(&mut self, spec: &InterfaceSpec) -> Result<(), Error> {
        let (mut interface, _) = Interface::load(spec, self.options.absent, Some(&self.steering.maps))?;
        interface.set_ranges(!self.ranges.is_empty())?;
        self.remove(spec.ifindex);
        self.interfaces.push(interface);
        Ok(())
    }

    /// Detaches an interface and forgets its sockets and counters. An unknown one is no error.
    pub fn remove(&mut self, ifindex: u32) {
        self.interfaces.retain(|interface| interface.ifindex() != ifindex);
    }

    /// Attaches the program to an interface, in the mode that the options ask for. Attaching twice is no error.
    ///
    /// A program of ours that an earlier director left is replaced. A foreign one is [`Error::Busy`], a living
    /// director's is [`Error::Taken`]. Zero-copy sockets must be bound only after this, some drivers demand it.
    pub fn attach(&mut self, ifindex: u32) -> Result<Active, Error> {
        let mode = self.options.mode;
        self.interface_mut(ifindex)?.attach(mode)
    }

    /// Detaches the program from an interface, but keeps it loaded. Detaching twice is no error.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        self.interface_mut(ifindex)?.detach();
        Ok(())
    }

    /// Hands the frames of a queue to an AF_XDP socket, which must be bound to the same queue of the same interface.
    /// A socket registered earlier for the queue is replaced. When the socket is closed, the kernel unregisters it.
    pub fn register(&mut self, ifindex: u32, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.interface_mut(ifindex)?.register(queue, socket)
    }

    /// Takes the socket of a queue away. A queue without one is no error.
    pub fn unregister(&mut self, ifindex: u32, queue: u32) -> Result<(), Error> {
        self.interface_mut(ifindex)?.unregister(queue)
    }

    /// Steers a key on all interfaces, from the next frame on.
    ///
    /// Services, replies and tunnels are counted: what two services share stays until both have unsteered it. Local addresses
    /// are a set, because the kernel's list of them is read again and again; steering one twice is steering it once.
    /// A VIP that the kernel owns is an address of the director as well, and services go before local addresses.
    pub fn steer(&mut self, key: Key) -> Result<(), Error> {
        self.steering.steer(&key)
    }

    /// Takes back one [`Redirect::steer`]. An unknown key is no error.
    pub fn unsteer(&mut self, key: &Key) -> Result<(), Error> {
        self.steering.unsteer(key)
    }

    /// Steers these ranges, and no others, on all interfaces: the whole set is replaced. The first range of the list that
    /// fits a packet decides whether it is steered; so a range that does not steer is an exception of those below it.
    ///
    /// Each prefix goes from its old ranges to its new ones in one step; all prefixes together do not. What is steered
    /// by both sets is steered all the time. When it fails, the old set is in force.
    pub fn set_ranges(&mut self, ranges: &[Range]) -> Result<(), Error> {
        let next = Ranges::fold(ranges)?;
        let map = &self.steering.maps.ranges;
        let (was_empty, is_empty) = (self.ranges.is_empty(), next.is_empty());
        self.ranges.replace(map, next)?;
        if was_empty != is_empty {
            self.interfaces.iter_mut().try_for_each(|interface| interface.set_ranges(!is_empty))?;
        }
        Ok(())
    }

    /// Would [`Redirect::set_ranges`] take these? It needs no kernel to tell.
    pub fn check_ranges(ranges: &[Range]) -> Result<(), Error> {
        Ranges::fold(ranges).map(drop)
    }

    /// Changes what becomes of steered frames without a worker, from the next frame on.
    pub fn set_absent(&mut self, absent: Absent) -> Result<(), Error> {
        self.options.absent = absent;
        self.interfaces.iter_mut().try_for_each(|interface| interface.set_absent(absent))
    }

    /// Says which destination MACs are an interface's own, [`Redirect::MACS_MAX`] at most: only frames for these are
    /// steered, from the next one on. With none, which is how it begins, every frame is.
    pub fn set_macs(&mut self, ifindex: u32, macs: &[[u8; 6]]) -> Result<(), Error> {
        self.interface_mut(ifindex)?.set_macs(macs)
    }

    /// What became of the frames of all interfaces, one counter an outcome, always the same ones in the same order.
    pub fn counters(&self) -> Result<Vec<Counter>, Error> {
        let mut sum = counters::zero();
        for interface in &self.interfaces {
            counters::add(&mut sum, interface.counters())?;
        }
        Ok(sum)
    }

    /// What became of the frames of one interface.
    pub fn counters_of(&self, ifindex: u32) -> Result<Vec<Counter>, Error> {
        let mut sum = counters::zero();
        counters::add(&mut sum, self.interface(ifindex)?.counters())?;
        Ok(sum)
    }

    /// Runs the program over a frame as if it had arrived on this queue. The frame goes nowhere, but it is counted.
    ///
    /// The kernel knows queues other than 0 only of an interface that is attached, and wants at least an Ethernet
    /// header.
    pub fn try_frame(&self, ifindex: u32, queue: u32, frame: &[u8]) -> Result<Action, Error> {
        Ok(self.run(ifindex, queue, frame, 1)?.0)
    }

    /// Measures the program on a frame: the mean time of that many runs, by the kernel's clock. All are counted.
    pub fn time_frame(&self, ifindex: u32, frame: &[u8], runs: u32) -> Result<Duration, Error> {
        Ok(self.run(ifindex, 0, frame, runs)?.1)
    }

    /// The program that an interface runs, for tools that want to ask the kernel about it.
    pub fn program(&self, ifindex: u32) -> Result<BorrowedFd<'_>, Error> {
        Ok(self.interface(ifindex)?.program())
    }

    fn run(&self, ifindex: u32, queue: u32, frame: &[u8], runs: u32) -> Result<(Action, Duration), Error> {
        let interface = self.interface(ifindex)?;
        let run = kernel::run(interface.program(), frame, ifindex, queue, runs)
            .map_err(|error| Error::other("try the XDP program on a frame", error))?;
        let action = match run.action {
            XDP_REDIRECT => Action::Redirected,
            XDP_DROP => Action::Dropped,
            XDP_PASS => Action::Passed,
            other => return Err(Error::other("make sense of the XDP program", format!("it answered {other}"))),
        };
        Ok((action, Duration::from_nanos(run.nanoseconds.into())))
    }

    fn interface(&self, ifindex: u32) -> Result<&Interface, Error> {
        self.interfaces
            .iter()
            .find(|interface| interface.ifindex() == ifindex)
            .ok_or(Error::UnknownInterface { ifindex })
    }

    fn interface_mut(&mut self, ifindex: u32) -> Result<&mut Interface, Error> {
        self.interfaces
            .iter_mut()
            .find(|interface| interface.ifindex() == ifindex)
            .ok_or(Error::UnknownInterface { ifindex })
    }
}

/// libbpf warns of what we handle (a busy interface) as of what we do not, so its warnings are details to us: an error
/// of ours says what matters.
fn log_libbpf(level: PrintLevel, text: String) {
    let text = text.trim_end();
    match level {
        PrintLevel::Warn | PrintLevel::Info => tracing::debug!(target: "libbpf", "{text}"),
        PrintLevel::Debug => tracing::trace!(target: "libbpf", "{text}"),
    }
}

// Control owns it, and control may live on any thread.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Redirect>();
};
