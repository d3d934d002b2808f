//! The ethtool ioctl: the questions and orders of `linux/ethtool.h`, as words.
//!
//! Invariant: the kernel never writes beyond the memory that a call gives it. Each call here is built from a command
//! whose answer has a known greatest size, or whose size the kernel takes from the call itself; there is no door for
//! other commands. What it is not: it knows no meaning. [`Facts`](super::Facts) and `tune` read the words.
//!
//! Why not generic netlink, ethtool's other door: it is compiled out of some kernels, cannot tell the driver's name,
//! and sets neither hash fields nor the indirection table before Linux 6.17.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Words of a call of fixed size. The largest is `struct ethtool_drvinfo` with 196 bytes.
pub(crate) const WORDS: usize = 64;

/// A call of fixed size and its answer; word 0 is the command.
pub(crate) type Words = [u32; WORDS];

/// Commands whose call and answer have a fixed size, less than [`WORDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Command {
    Driver = 0x03,
    Rings = 0x10,
    SetRings = 0x11,
    Pause = 0x12,
    SetPause = 0x13,
    Tso = 0x1e,
    Flags = 0x25,
    HashFields = 0x29,
    SetHashFields = 0x2a,
    Gro = 0x2b,
    /// How many rules steer flows by themselves.
    RuleCount = 0x2e,
    Channels = 0x3c,
    SetChannels = 0x3d,
}

const GET_STRINGS: u32 = 0x1b;
const GET_SET_SIZE: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
const GET_RSS: u32 = 0x46;
const SET_RSS: u32 = 0x47;

/// `ETH_SS_FEATURES`: the names of offloads. Their number is a constant of the kernel, not of a driver.
const FEATURE_NAMES: u32 = 4;
/// Bytes of a name.
const NAME_BYTES: usize = 32;
/// Words before the table in `struct ethtool_rxfh`.
const RSS_HEADER: usize = 6;
/// More entries than any device has; a larger answer is taken for nonsense.
const RSS_MOST: u32 = 1 << 16;
/// `indir_size` for "leave the table as it is".
const NO_CHANGE: u32 = u32::MAX;

/// An offload as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feature {
    /// It acts.
    pub active: bool,
    /// It was asked for; it may wait for another one to go.
    pub requested: bool,
    /// It can be changed.
    pub changeable: bool,
}

/// How received packets are spread over the queues.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// The queue of each value of the hash, modulo the table's length.
    pub table: Vec<u32>,
    /// The key of the hash.
    pub key: Vec<u8>,
    /// What is done to the addresses and ports before they are hashed; 0 is nothing (`RXH_XFRM_*`).
    pub transform: u8,
}

/// What to do to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table<'a> {
    /// Leave it.
    Keep,
    /// What the driver would choose.
    Default,
    /// These queues.
    To(&'a [u32]),
}

/// The door. It sees the interfaces of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Ethtool {
    socket: OwnedFd,
}

impl Ethtool {
    pub(crate) fn open() -> io::Result<Ethtool> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Ethtool { socket })
    }

    /// A question that needs no more than its command.
    pub(crate) fn ask(&self, name: &str, command: Command) -> io::Result<Words> {
        self.tell(name, command, [0; WORDS])
    }

    /// A question or an order; word 0 is set here.
    pub(crate) fn tell(&self, name: &str, command: Command, mut words: Words) -> io::Result<Words> {
        words[0] = command as u32;
        self.call(name, &mut words)?;
        Ok(words)
    }

    /// All offloads, with their names, in the kernel's order.
    pub(crate) fn features(&self, name: &str) -> io::Result<Vec<(String, Feature)>> {
        let names = self.feature_names(name)?;
        let blocks = names.len().div_ceil(32);
        let mut words = vec![0; 2 + 4 * blocks];
        // The kernel copies no more blocks than it is given room for.
        (words[0], words[1]) = (GET_FEATURES, count(blocks));
        self.call(name, &mut words)?;
        let feature = |at: usize| {
            let block = &words[2 + 4 * (at / 32)..][..4];
            let bit = |word: usize| block[word] & (1 << (at % 32)) != 0;
            Feature { changeable: bit(0) && !bit(3), requested: bit(1), active: bit(2) }
        };
        Ok(names.into_iter().enumerate().map(|(at, name)| (name, feature(at))).collect())
    }

    /// Asks for an offload, or for it to go. The kernel may grant it later or not at all: ask again what there is.
    pub(crate) fn set_feature(&self, name: &str, feature: &str, on: bool) -> io::Result<()> {
        let names = self.feature_names(name)?;
        let at = names.iter().position(|other| other == feature).ok_or(io::ErrorKind::NotFound)?;
        let blocks = names.len().div_ceil(32);
        let mut words = vec![0; 2 + 2 * blocks];
        (words[0], words[1]) = (SET_FEATURES, count(blocks));
        words[2 + 2 * (at / 32)] = 1 << (at % 32);
        words[3 + 2 * (at / 32)] = u32::from(on) << (at % 32);
        self.call(name, &mut words)
    }

    fn feature_names(&self, name: &str) -> io::Result<Vec<String>> {
        let mut words = [0; WORDS];
        // A mask of 64 bits in the machine's order, of which only one of the low eight is set.
        (words[0], words[if cfg!(target_endian = "little") { 2 } else { 3 }]) = (GET_SET_SIZE, 1 << FEATURE_NAMES);
        self.call(name, &mut words)?;
        let names = words[4] as usize;
        if names == 0 || names > 4096 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut words = vec![0; 3 + names * NAME_BYTES / 4];
        (words[0], words[1], words[2]) = (GET_STRINGS, FEATURE_NAMES, count(names));
        self.call(name, &mut words)?;
        let bytes: Vec<u8> = words[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let text = |name: &[u8]| {
            String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
        };
        Ok(bytes.chunks_exact(NAME_BYTES).map(text).collect())
    }

    /// How packets are spread over the queues.
    pub(crate) fn spread(&self, name: &str) -> io::Result<Spread> {
        let mut sizes = [0; WORDS];
        sizes[0] = GET_RSS;
        self.call(name, &mut sizes)?;
        let (entries, key) = (sizes[2], sizes[3]);
        if entries > RSS_MOST || key > RSS_MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut words = vec![0; RSS_HEADER + entries as usize + (key as usize).div_ceil(4)];
        // The kernel refuses other sizes than the device's, so a device that changed meanwhile does no harm.
        (words[0], words[2], words[3]) = (GET_RSS, entries, key);
        self.call(name, &mut words)?;
        let (table, rest) = words[RSS_HEADER..].split_at(entries as usize);
        let key = rest.iter().flat_map(|word| word.to_ne_bytes()).take(key as usize).collect();
        Ok(Spread { table: table.to_vec(), key, transform: words[4].to_ne_bytes()[1] })
    }

    /// Changes the table, or what is done before hashing; the key and the function stay.
    pub(crate) fn set_spread(&self, name: &str, table: Table<'_>, transform: u8) -> io::Result<()> {
        let (size, entries) = match table {
            Table::Keep => (NO_CHANGE, &[][..]),
            Table::Default => (0, &[][..]),
            Table::To(entries) => (count(entries.len()), entries),
        };
        let mut words = vec![0; RSS_HEADER];
        (words[0], words[2]) = (SET_RSS, size);
        // The function 0 stands for "no change". Kernels before 6.8 know no transformation and want 0.
        words[4] = u32::from_ne_bytes([0, transform, 0, 0]);
        words.extend_from_slice(entries);
        self.call(name, &mut words)
    }

    fn call(&self, name: &str, words: &mut [u32]) -> io::Result<()> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let mut padded = [0_u8; libc::IFNAMSIZ];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        let mut request = Request { name: padded, data: words.as_mut_ptr(), rest: [0; 24 - size_of::<*mut u32>()] };
        const { assert!(size_of::<Request>() == libc::IFNAMSIZ + 24) };
        // SAFETY: the descriptor is open; `request` has the size and layout of `struct ifreq`; its pointer leads to
        // words that may be written, and of which the kernel writes no more than there are: 196 bytes at most for what
        // `Command` has (given 256), for the rest as many as the sizes in the call say, which match the length of
        // `words`, or a number of names that is a constant of the running kernel. Both live until the call returns.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// The argument of the ioctl, `struct ifreq` with its pointer in use.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    // The kernel copies the whole union, which is 24 bytes; the pointer is its first member.
    rest: [u8; 24 - size_of::<*mut u32>()],
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the layout of names and bits: with a shift of one every offload would bear its neighbour's name.
    #[test]
    fn offloads_of_the_loopback_device_bear_their_names() {
        let features = Ethtool::open().and_then(|door| door.features("lo")).expect("the loopback device has offloads");
        let find = |name: &str| features.iter().find(|(other, _)| other == name).map(|(_, feature)| *feature);
        // What every kernel's drivers/net/loopback.c says: never changed, and on.
        let lockless = find("loopback").or_else(|| find("tx-lockless")).expect("named");
        assert!(lockless.active && !lockless.changeable, "{lockless:?}");
        let lro = find("rx-lro").expect("named");
        assert!(!lro.active && !lro.changeable, "{lro:?}");
        assert!(find("rx-gro").expect("named").changeable);
    }

    /// Guards that a name which cannot exist is refused here and not cut to the name of another interface.
    #[test]
    fn names_that_cannot_exist() {
        let door = Ethtool::open().expect("a socket");
        for name in ["", "a-name-that-is-too-long-for-linux", "nul\0byte", "no-such-if"] {
            let error = door.ask(name, Command::Channels).expect_err(name);
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }
}
