//! What an item looks at: the machine, one interface of it, and what the director is to do there.
//!
//! Invariant: every fact is read anew when it is asked for, because a change of one item (the number of queues) moves
//! the facts of another (interrupts, the indirection table).

use std::io;

use crate::kernel::Feature;

use super::cpus::Cpus;
use super::device::Counts;
use super::setting::Machine;

/// What the director is to do, as far as it decides what is right.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Queues that it serves of each interface; none for all that there are.
    pub queues: Option<u32>,
    /// CPUs of the queues, in their order; none for those near the NIC.
    pub cpus: Option<Vec<u32>>,
    /// It polls busily.
    pub busy_poll: bool,
    /// It carries VLANs, also where the kernel has none.
    pub vlans: bool,
    /// Both directions of a flow are to have one hash.
    pub symmetric: bool,
    /// Bytes of a frame.
    pub frame_size: u32,
    /// Frames of a worker.
    pub frame_count: u32,
}

impl Default for Wishes {
    fn default() -> Wishes {
        let (frame_size, frame_count) = (2048, 4096);
        Wishes { queues: None, cpus: None, busy_poll: false, vlans: false, symmetric: false, frame_size, frame_count }
    }
}

/// One interface, or the machine as a whole (then `name` is empty).
pub struct Scene<'a> {
    /// The machine.
    pub machine: &'a Machine<'a>,
    /// The interface's name.
    pub name: &'a str,
    /// /sys shows this interface, and not another one of its name in another network namespace.
    pub in_sysfs: bool,
    /// What is wished.
    pub wishes: &'a Wishes,
    /// How many queues would be right, of every interface of the director.
    pub queues: u32,
}

impl Scene<'_> {
    /// A file of the interface below /sys/class/net.
    pub fn path(&self, rest: &str) -> String {
        format!("/sys/class/net/{}/{rest}", self.name)
    }

    /// An error unless /sys shows this interface.
    pub fn demand_sysfs(&self) -> io::Result<()> {
        if self.in_sysfs {
            return Ok(());
        }
        Err(io::Error::other("/sys shows another network namespace: run it there by `ip netns exec`"))
    }

    /// The directory of the device's interrupts: of its own, or of the bus device that a virtio device sits on.
    pub fn interrupts(&self) -> Vec<u32> {
        let places = ["device/msi_irqs", "device/../msi_irqs"];
        let all = places.iter().map(|place| self.machine.tree.names(&self.path(place)));
        let names = all.into_iter().find(|names| !names.is_empty()).unwrap_or_default();
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// A file of the bus device.
    pub fn bus(&self, file: &str) -> io::Result<String> {
        let tree = &self.machine.tree;
        tree.read(&self.path(&format!("device/{file}")))
            .or_else(|_| tree.read(&self.path(&format!("device/../{file}"))))
    }

    /// Numbers of queues in use and possible; `None` if the driver does not tell.
    pub fn channels(&self) -> io::Result<Option<(Counts, Counts)>> {
        match self.machine.device.channels(self.name) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Receive queues in use, at least 1.
    pub fn receive_queues(&self) -> io::Result<u32> {
        let counted = self.channels()?.map(|(counts, _)| counts.receive + counts.combined);
        let listed = || if self.in_sysfs { self.queue_names("rx-").len() as u32 } else { 1 };
        Ok(counted.filter(|count| *count > 0).unwrap_or_else(listed).max(1))
    }

    /// The queues in /sys of a kind.
    pub fn queue_names(&self, kind: &str) -> Vec<String> {
        let names = self.machine.tree.names(&self.path("queues"));
        names.into_iter().filter(|name| name.starts_with(kind)).collect()
    }

    /// An offload; `None` if this kernel has none of this name.
    pub fn feature(&self, name: &str) -> io::Result<Option<Feature>> {
        let features = self.machine.device.features(self.name)?;
        Ok(features.into_iter().find(|(other, _)| other == name).map(|(_, feature)| feature))
    }

    /// CPUs that run.
    pub fn online(&self) -> io::Result<Cpus> {
        let text = self.machine.tree.read("/sys/devices/system/cpu/online")?;
        text.parse().map_err(|message: String| io::Error::new(io::ErrorKind::InvalidData, message))
    }

    /// The CPUs for the queues, in their order: those that are wished, else those near the NIC, else all.
    pub fn cpus(&self) -> io::Result<Vec<u32>> {
        if let Some(cpus) = &self.wishes.cpus {
            return Ok(cpus.clone());
        }
        let online = self.online()?;
        let near: Cpus = self.bus("local_cpulist").ok().and_then(|list| list.parse().ok()).unwrap_or_default();
        let near = near.as_slice().iter().copied().filter(|cpu| online.as_slice().contains(cpu));
        let near: Vec<u32> = if self.in_sysfs { near.collect() } else { Vec::new() };
        Ok(if near.is_empty() { online.as_slice().to_vec() } else { near })
    }
}
