//! What a network interface can do: queues, rings, driver, offloads.
//!
//! Invariant: every fact is the kernel's word at the time of the call; what the driver does not tell is `None` (or
//! `false` for an offload), never a guess. Asked by the ethtool ioctl, which every kernel and driver has, and for what
//! the driver refuses by sysfs. What it is not: it changes nothing.
//!
//! An offload that matters more than the others: with `rx_vlan_offload` the tag of a received frame is not in the
//! frame, and an XDP program cannot see it. Interfaces that carry VLANs for the director need it off (`ethtool -K NAME
//! rxvlan off`).

use std::fs;
use std::path::PathBuf;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::channel::Channel;
use super::decode::Message;
use super::error::Error;
use super::ethtool::{Command, Ethtool, Words};
use super::link::Link;

/// Flags in the answer to `Command::Flags`.
const FLAG_TX_VLAN: u32 = 1 << 7;
const FLAG_RX_VLAN: u32 = 1 << 8;
const FLAG_LRO: u32 = 1 << 15;

/// Queues of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Queues that only receive.
    pub receive: u32,
    /// Queues that only send.
    pub transmit: u32,
    /// Pairs of both.
    pub combined: u32,
    /// How many receive queues, pairs included, the hardware could have.
    pub receive_max: u32,
}

/// Sizes of a queue's descriptor rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings {
    /// Receive ring.
    pub receive: u32,
    /// Transmit ring.
    pub transmit: u32,
    /// Largest possible receive ring.
    pub receive_max: u32,
    /// Largest possible transmit ring.
    pub transmit_max: u32,
}

/// What there is to know about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name, address, MTU, kind and state.
    pub link: Link,
    /// Name of the driver ("veth", "mlx5_core", "virtio_net", ...).
    pub driver: Option<String>,
    /// The bus that its hardware is on ("pci", "virtio", ...); none of a device that is only software.
    pub bus: Option<String>,
    /// Queues in use, if the driver tells.
    pub channels: Option<Channels>,
    /// Receive queues in use, at least 1: an AF_XDP socket is needed for each.
    pub receive_queues: u32,
    /// Ring sizes, if the driver tells.
    pub rings: Option<Rings>,
    /// Generic receive offload: the kernel merges received packets (after XDP).
    pub gro: bool,
    /// Large receive offload: the NIC merges received packets, which XDP cannot take apart.
    pub lro: bool,
    /// TCP segmentation offload.
    pub tso: bool,
    /// VLAN tags are taken out of received frames, where XDP cannot see them.
    pub rx_vlan_offload: bool,
    /// VLAN tags are put into sent frames by the NIC.
    pub tx_vlan_offload: bool,
}

impl Facts {
    /// Asks about an interface of the current network namespace.
    pub fn read(name: &str) -> Result<Facts, Error> {
        let doing = || format!("ask about the interface {name}");
        let link = find_link(name)?;
        let door = Ethtool::open().map_err(|error| Error::from_io(doing(), error))?;
        let answer = |command| match door.ask(name, command) {
            Ok(words) => Ok(Some(words)),
            // The driver does not know the question. (EINVAL: some old drivers say it so.)
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(None),
            Err(error) => Err(Error::about_link(link.index, doing(), error)),
        };
        let bit = |command, mask: u32| Ok::<_, Error>(answer(command)?.is_some_and(|words| words[1] & mask != 0));
        let channels = answer(Command::Channels)?.map(|words| channels(&words));
        let counted = channels.map(|channels| channels.receive + channels.combined).filter(|queues| *queues > 0);
        Ok(Facts {
            driver: answer(Command::Driver)?.map(|words| driver(&words)).filter(|driver| !driver.is_empty()),
            bus: sysfs_bus(&link),
            channels,
            receive_queues: counted.or_else(|| sysfs_queues(&link)).unwrap_or(link.receive_queues).max(1),
            rings: answer(Command::Rings)?.map(|words| rings(&words)),
            gro: bit(Command::Gro, 1)?,
            lro: bit(Command::Flags, FLAG_LRO)?,
            tso: bit(Command::Tso, 1)?,
            rx_vlan_offload: bit(Command::Flags, FLAG_RX_VLAN)?,
            tx_vlan_offload: bit(Command::Flags, FLAG_TX_VLAN)?,
            link,
        })
    }

    /// Do packets come in as they were on a wire? Software leaves the checksums of its neighbours' packets to hardware that
    /// there is not (veth, taps; hypervisors of VMs on one host, as behind vmxnet3 and what is on other buses); a NIC sees
    /// only what somebody's hardware has sent.
    pub fn is_nic(&self) -> bool {
        self.bus.as_deref() == Some("pci") && self.driver.as_deref().is_some_and(|driver| driver != "vmxnet3")
    }
}

/// One link by its name.
fn find_link(name: &str) -> Result<Link, Error> {
    let unknown = || Error::NoSuchInterface { name: name.to_owned() };
    // Longer names cannot exist, and would be refused by the kernel as a malformed question.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(unknown());
    }
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match Channel::open()?.get(RouteNetlinkMessage::GetLink(request)) {
        Ok(Message::Link(link)) => Ok(link),
        Ok(_) => Err(Error::Protocol { doing: format!("find the interface {name}"), what: "no link in it" }),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(unknown()),
        Err(error) => Err(Error::from_io(format!("find the interface {name}"), error)),
    }
}

/// `struct ethtool_channels`: maxima of receive, transmit, other, combined; then what is in use.
fn channels(words: &Words) -> Channels {
    Channels {
        receive: words[5],
        transmit: words[6],
        combined: words[8],
        // Each maximum holds if only that kind of queue is used.
        receive_max: words[1].max(words[4]),
    }
}

/// `struct ethtool_ringparam`: maxima of receive, mini, jumbo, transmit; then what is in use.
fn rings(words: &Words) -> Rings {
    Rings { receive: words[5], transmit: words[8], receive_max: words[1], transmit_max: words[4] }
}

/// `struct ethtool_drvinfo`: the command, then 32 bytes of name.
fn driver(words: &Words) -> String {
    let bytes = words[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

/// The directory of an interface in sysfs.
///
/// The mounted sysfs may show another network namespace, where the name may be another interface: the index tells.
fn sysfs(link: &Link) -> Option<PathBuf> {
    let directory = PathBuf::from(format!("/sys/class/net/{}", link.name));
    let index: u32 = fs::read_to_string(directory.join("ifindex")).ok()?.trim().parse().ok()?;
    (index == link.index).then_some(directory)
}

/// The bus of its device.
fn sysfs_bus(link: &Link) -> Option<String> {
    let bus = fs::read_link(sysfs(link)?.join("device/subsystem")).ok()?;
    Some(bus.file_name()?.to_string_lossy().into_owned())
}

/// Counts the receive queues in sysfs.
fn sysfs_queues(link: &Link) -> Option<u32> {
    let queues = fs::read_dir(sysfs(link)?.join("queues")).ok()?.flatten();
    let count = queues.filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-")).count();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::super::ethtool::WORDS;
    use super::*;

    /// Guards the layout of the answers: a shifted field would give queue numbers that look plausible.
    #[test]
    fn answers_are_read_at_their_places() {
        let mut words = [0; WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = at as u32;
        }
        assert_eq!(channels(&words), Channels { receive: 5, transmit: 6, combined: 8, receive_max: 4 });
        assert_eq!(rings(&words), Rings { receive: 5, transmit: 8, receive_max: 1, transmit_max: 4 });
        words[1] = u32::from_ne_bytes(*b"veth");
        words[2] = 0;
        assert_eq!(driver(&words), "veth");
    }

    /// Guards the loopback device, which every machine has and no driver describes, and names that cannot exist.
    #[test]
    fn facts_without_a_driver_and_unknown_names() {
        let facts = Facts::read("lo").expect("the loopback device");
        assert!(facts.link.loopback && !facts.is_nic());
        assert_eq!(facts.receive_queues, 1);
        for name in ["", "no-such-if", "a-name-that-is-too-long-for-linux", "nul\0byte"] {
            assert!(matches!(Facts::read(name), Err(Error::NoSuchInterface { .. })), "{name:?}");
        }
    }

    /// Guards packets with half checksums, which only hardware on its own bus never hands over: in doubt they are looked for.
    #[test]
    fn only_a_nic_has_whole_checksums() {
        let facts = Facts::read("lo").expect("the loopback device");
        let is_nic = |driver: Option<&str>, bus: Option<&str>| {
            let [driver, bus] = [driver, bus].map(|word| word.map(str::to_owned));
            Facts { driver, bus, ..facts.clone() }.is_nic()
        };
        assert!(is_nic(Some("ice"), Some("pci")) && is_nic(Some("mlx5_core"), Some("pci")));
        for (driver, bus) in [("veth", None), ("tun", None), ("virtio_net", Some("virtio")), ("vmxnet3", Some("pci"))] {
            assert!(!is_nic(Some(driver), bus), "{driver}");
        }
        assert!(!is_nic(None, Some("pci")) && !is_nic(Some("hv_netvsc"), Some("vmbus")));
    }
}
