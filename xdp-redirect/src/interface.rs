//! One interface: its copy of the program, the sockets of its queues, its counters, and the link that attaches it.
//!
//! Invariant: while `link` is there the program runs on the interface, and when it goes, so does the program; that
//! holds for a killed process, too, since the kernel closes the link for us. A program that is not ours is never
//! replaced or detached.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use libbpf_rs::libbpf_sys::{XDP_DROP, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, XDP_PASS};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, OpenMapMut, Program};

use crate::error::{Error, errno};
use crate::kernel;
use crate::skeleton::{RedirectSkelBuilder, types};
use crate::steering::Maps;
use crate::{Absent, Active, InterfaceSpec, Mode};

/// The name of the function in `bpf/redirect.bpf.c`, by which we know our own.
const PROGRAM: &str = "xvs_redirect";

/// Destination MACs that an interface may have: `MACS_MAX` of `bpf/maps.h`.
pub(crate) const MACS_MAX: usize = 8;

// `struct settings` of `bpf/maps.h`, which is written whole: four words of four bytes, then the MACs.
const _: () = assert!(size_of::<types::data>() == 16 + 8 * MACS_MAX);

pub(crate) struct Interface {
    spec: InterfaceSpec,
    program: OwnedFd,
    xsks: MapHandle,
    counters: MapHandle,
    settings: MapHandle,
    absent: Absent,
    macs: Vec<[u8; 6]>,
    ranges: bool,
    link: Option<(OwnedFd, Active)>,
}

impl Interface {
    /// Loads a copy of the program for one interface. The first copy creates the steering maps, which all later ones
    /// must be given.
    ///
    /// Only descriptors are kept: they hold what they stand for in the kernel, and the skeleton, which borrows from
    /// its own object, need not outlive this function.
    pub(crate) fn load(
        spec: &InterfaceSpec,
        absent: Absent,
        shared: Option<&Maps>,
    ) -> Result<(Interface, Maps), Error> {
        let load_error = |error: libbpf_rs::Error| Error::from_load(&error);
        let mut object = MaybeUninit::uninit();
        let mut open = RedirectSkelBuilder::default().open(&mut object).map_err(load_error)?;
        open.maps.xsks.set_max_entries(spec.queues.max(1)).map_err(load_error)?;
        if let Some(shared) = shared {
            let reuse = |map: &mut OpenMapMut<'_>, with: &MapHandle| map.reuse_fd(with.as_fd()).map_err(load_error);
            reuse(&mut open.maps.services, &shared.services)?;
            reuse(&mut open.maps.bss_quick, &shared.quick)?;
            reuse(&mut open.maps.replies, &shared.replies)?;
            reuse(&mut open.maps.addresses, &shared.addresses)?;
            reuse(&mut open.maps.local, &shared.local)?;
            reuse(&mut open.maps.ranges, &shared.ranges)?;
        }
        let skeleton = open.load().map_err(load_error)?;

        let maps = Maps {
            services: MapHandle::try_from(&skeleton.maps.services).map_err(load_error)?,
            quick: MapHandle::try_from(&skeleton.maps.bss_quick).map_err(load_error)?,
            replies: MapHandle::try_from(&skeleton.maps.replies).map_err(load_error)?,
            addresses: MapHandle::try_from(&skeleton.maps.addresses).map_err(load_error)?,
            local: MapHandle::try_from(&skeleton.maps.local).map_err(load_error)?,
            ranges: MapHandle::try_from(&skeleton.maps.ranges).map_err(load_error)?,
        };
        let program = skeleton.progs.xvs_redirect.as_fd().try_clone_to_owned();
        let interface = Interface {
            spec: spec.clone(),
            program: program.map_err(|error| Error::other("keep the XDP program", error))?,
            xsks: MapHandle::try_from(&skeleton.maps.xsks).map_err(load_error)?,
            counters: MapHandle::try_from(&skeleton.maps.counters).map_err(load_error)?,
            settings: MapHandle::try_from(&skeleton.maps.data).map_err(load_error)?,
            absent,
            macs: Vec::new(),
            ranges: false,
            link: None,
        };
        interface.write_settings()?;
        Ok((interface, maps))
    }

    pub(crate) fn ifindex(&self) -> u32 {
        self.spec.ifindex
    }

    pub(crate) fn counters(&self) -> &MapHandle {
        &self.counters
    }

    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    pub(crate) fn set_absent(&mut self, absent: Absent) -> Result<(), Error> {
        self.absent = absent;
        self.write_settings()
    }

    pub(crate) fn set_macs(&mut self, macs: &[[u8; 6]]) -> Result<(), Error> {
        if macs.len() > MACS_MAX {
            let reason = format!("{} are given, {MACS_MAX} fit", macs.len());
            return Err(Error::other(format!("set the MACs of {}", self.spec.name), reason));
        }
        self.macs = macs.to_vec();
        self.write_settings()
    }

    /// Says whether there are ranges to look for.
    pub(crate) fn set_ranges(&mut self, ranges: bool) -> Result<(), Error> {
        self.ranges = ranges;
        self.write_settings()
    }

    fn write_settings(&self) -> Result<(), Error> {
        let action: u32 = match self.absent {
            Absent::Drop => XDP_DROP,
            Absent::Pass => XDP_PASS,
        };
        let mut value = [0; size_of::<types::data>()];
        value[..4].copy_from_slice(&action.to_ne_bytes());
        value[4..8].copy_from_slice(&(self.macs.len() as u32).to_ne_bytes());
        value[8..12].copy_from_slice(&u32::from(self.ranges).to_ne_bytes());
        for (slot, mac) in value[16..].chunks_exact_mut(8).zip(&self.macs) {
            slot[..6].copy_from_slice(mac);
        }
        self.settings
            .update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(|error| Error::other(format!("change the settings of {}", self.spec.name), error))
    }

    /// Attaches the program; does nothing when it is attached already.
    pub(crate) fn attach(&mut self, mode: Mode) -> Result<Active, Error> {
        if let Some((_, active)) = &self.link {
            return Ok(*active);
        }
        self.make_room()?;
        let (link, active) = match mode {
            Mode::Native => (self.link(XDP_FLAGS_DRV_MODE)?, Active::Native),
            Mode::Generic => (self.link(XDP_FLAGS_SKB_MODE)?, Active::Generic),
            Mode::Auto => match self.link(XDP_FLAGS_DRV_MODE) {
                Ok(link) => (link, Active::Native),
                Err(Error::NativeRefused { interface, reason }) => {
                    tracing::warn!(
                        interface,
                        %reason,
                        "the driver refuses native XDP: falling back to generic mode, which is slow"
                    );
                    (self.link(XDP_FLAGS_SKB_MODE)?, Active::Generic)
                }
                Err(error) => return Err(error),
            },
        };
        self.link = Some((link, active));
        Ok(active)
    }

    /// Detaches the program; does nothing when it is not attached.
    pub(crate) fn detach(&mut self) {
        // An error means that the interface is gone already, and the program with it.
        if let Some((link, _)) = self.link.take()
            && let Err(error) = kernel::unlink(&link)
        {
            tracing::debug!(interface = self.spec.name, %error, "nothing to detach");
        }
    }

    /// Removes what an earlier director left on the interface, and refuses to touch anything else.
    ///
    /// A link cannot be left behind, so what is ours and stale was attached by other means: with `ip link`, say. The
    /// kernel refuses to detach what a living director's link holds.
    fn make_room(&self) -> Result<(), Error> {
        let interface = || self.spec.name.clone();
        for (id, flags) in kernel::attached(self.spec.ifindex).map_err(|error| self.attach_error(error))? {
            let program = match Program::fd_from_id(id) {
                Ok(program) => program,
                // Between the two calls it may have gone by itself.
                Err(error) if errno(&error) == Some(libc::ENOENT) => continue,
                // Looking at other people's programs takes more rights than loading one's own.
                Err(_) => {
                    let program = "unknown: its name is for CAP_SYS_ADMIN".to_owned();
                    return Err(Error::Busy { interface: interface(), program, id });
                }
            };
            let name = kernel::program_name(program.as_fd())
                .map_err(|error| Error::other(format!("ask for the XDP program of {}", self.spec.name), error))?;
            if name != PROGRAM {
                return Err(Error::Busy { interface: interface(), program: name, id });
            }
            match kernel::detach(program.as_fd(), self.spec.ifindex, flags) {
                Ok(()) => tracing::info!(interface = interface(), id, "removed a stale program of an earlier director"),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    return Err(Error::Taken { interface: interface(), id });
                }
                Err(error) => return Err(self.attach_error(error)),
            }
        }
        Ok(())
    }

    fn link(&self, flags: u32) -> Result<OwnedFd, Error> {
        kernel::link(self.program(), self.spec.ifindex, flags).map_err(|reason| match reason.raw_os_error() {
            Some(libc::EPERM | libc::ENODEV | libc::EBUSY | libc::EEXIST) => self.attach_error(reason),
            _ if flags == XDP_FLAGS_DRV_MODE => Error::NativeRefused { interface: self.spec.name.clone(), reason },
            _ => self.attach_error(reason),
        })
    }

    fn attach_error(&self, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::EPERM) => Error::NoPrivilege,
            Some(libc::ENODEV) => Error::NoSuchInterface { name: self.spec.name.clone(), ifindex: self.spec.ifindex },
            _ => Error::other(format!("attach the XDP program to {}", self.spec.name), error),
        }
    }

    /// Gives the frames of a queue to a socket. A socket that was registered before is replaced.
    pub(crate) fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.check_queue(queue)?;
        self.xsks.update(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY).map_err(|error| {
            match errno(&error) {
                Some(libc::EOPNOTSUPP | libc::ENOTSOCK) => {
                    Error::NotAnXdpSocket { interface: self.spec.name.clone(), queue }
                }
                _ => Error::other(format!("register the socket of queue {queue} of {}", self.spec.name), error),
            }
        })
    }

    /// Takes a queue's socket away again. A queue without one stays as it is: the kernel forgets closed sockets itself.
    pub(crate) fn unregister(&self, queue: u32) -> Result<(), Error> {
        self.check_queue(queue)?;
        match self.xsks.delete(&queue.to_ne_bytes()) {
            Err(error) if errno(&error) != Some(libc::ENOENT) => {
                Err(Error::other(format!("unregister the socket of queue {queue} of {}", self.spec.name), error))
            }
            _ => Ok(()),
        }
    }

    fn check_queue(&self, queue: u32) -> Result<(), Error> {
        if queue >= self.spec.queues {
            return Err(Error::QueueOutOfRange { interface: self.spec.name.clone(), queue, queues: self.spec.queues });
        }
        Ok(())
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        self.detach();
    }
}
