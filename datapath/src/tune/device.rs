//! What `tune` asks of ethtool and tells it: a trait, so that tests can put a made-up NIC in the kernel's place.
//!
//! Invariant: an answer is the device's own at the time of the call, and an order is carried out or refused, never
//! bent: who gives it reads back what became of it. Not here: opinions about values.

use std::fmt;
use std::io;

use crate::kernel::ethtool::{Command, Ethtool, Table, WORDS, Words};
use crate::kernel::{Feature, Spread};

/// Counts of queues, or their greatest possible numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Queues that only receive.
    pub receive: u32,
    /// Queues that only send.
    pub transmit: u32,
    /// Pairs of both.
    pub combined: u32,
}

/// Sizes of the descriptor rings, or the greatest possible ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// For reception.
    pub receive: u32,
    /// For transmission.
    pub transmit: u32,
}

/// Flow control by pause frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pause {
    /// Negotiated with the other end.
    pub negotiated: bool,
    /// Obeys the other end's.
    pub receive: bool,
    /// Sends its own when it cannot keep up.
    pub transmit: bool,
}

/// A kind of packets with hash fields of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are ethtool's")]
pub enum Flow {
    Tcp4,
    Udp4,
    Sctp4,
    Tcp6,
    Udp6,
    Sctp6,
}

impl Flow {
    /// All of them.
    pub const ALL: [Flow; 6] = [Flow::Tcp4, Flow::Tcp6, Flow::Udp4, Flow::Udp6, Flow::Sctp4, Flow::Sctp6];

    /// The number of `linux/ethtool.h`.
    fn number(self) -> u32 {
        match self {
            Flow::Tcp4 => 1,
            Flow::Udp4 => 2,
            Flow::Sctp4 => 3,
            Flow::Tcp6 => 5,
            Flow::Udp6 => 6,
            Flow::Sctp6 => 7,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flow::Tcp4 => "tcp4",
            Flow::Udp4 => "udp4",
            Flow::Sctp4 => "sctp4",
            Flow::Tcp6 => "tcp6",
            Flow::Udp6 => "udp6",
            Flow::Sctp6 => "sctp6",
        })
    }
}

/// The fields that ethtool has letters for, in its order.
const FIELDS: [(char, u64); 8] = [
    ('m', 1 << 1),
    ('v', 1 << 2),
    ('t', 1 << 3),
    ('s', 1 << 4),
    ('d', 1 << 5),
    ('f', 1 << 6),
    ('n', 1 << 7),
    ('r', 1 << 31),
];

/// Source and destination, address and port.
pub const FOUR_FIELDS: u64 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7;

/// Hash fields as ethtool writes them, `sdfn`; `none` without any.
pub fn fields(mask: u64) -> String {
    let letters: String = FIELDS.iter().filter(|(_, bit)| mask & bit != 0).map(|(letter, _)| letter).collect();
    if letters.is_empty() { "none".to_owned() } else { letters }
}

/// The mask of hash fields that ethtool writes so.
pub fn mask(text: &str) -> Option<u64> {
    if text == "none" {
        return Some(0);
    }
    let bit = |letter| FIELDS.iter().find(|(other, _)| *other == letter).map(|(_, bit)| bit);
    text.chars().try_fold(0, |mask, letter| Some(mask | bit(letter)?))
}

/// Ethtool's view of the interfaces of a network namespace.
#[expect(missing_docs, reason = "the types say what is asked and told")]
pub trait Device {
    /// The interface's index, which names this device and no later one of the same name.
    fn index(&self, name: &str) -> io::Result<u32>;
    fn driver(&self, name: &str) -> io::Result<String>;
    /// In use, and possible.
    fn channels(&self, name: &str) -> io::Result<(Counts, Counts)>;
    fn set_channels(&self, name: &str, counts: Counts) -> io::Result<()>;
    /// In use, and possible.
    fn rings(&self, name: &str) -> io::Result<(Sizes, Sizes)>;
    fn set_rings(&self, name: &str, sizes: Sizes) -> io::Result<()>;
    fn features(&self, name: &str) -> io::Result<Vec<(String, Feature)>>;
    fn set_feature(&self, name: &str, feature: &str, on: bool) -> io::Result<()>;
    fn pause(&self, name: &str) -> io::Result<Pause>;
    fn set_pause(&self, name: &str, pause: Pause) -> io::Result<()>;
    /// See [`fields`].
    fn hash_fields(&self, name: &str, flow: Flow) -> io::Result<u64>;
    fn set_hash_fields(&self, name: &str, flow: Flow, mask: u64) -> io::Result<()>;
    fn spread(&self, name: &str) -> io::Result<Spread>;
    /// The queues of the indirection table; `None` for what the driver would choose.
    fn set_table(&self, name: &str, table: Option<&[u32]>) -> io::Result<()>;
    fn set_transform(&self, name: &str, transform: u8) -> io::Result<()>;
    /// Rules that steer flows by themselves.
    fn rule_count(&self, name: &str) -> io::Result<u32>;
}

/// The kernel.
#[derive(Debug)]
pub struct Kernel(Ethtool);

impl Kernel {
    /// Opens the door to the interfaces of the current network namespace.
    ///
    /// # Errors
    /// No socket can be had.
    pub fn open() -> io::Result<Kernel> {
        Ethtool::open().map(Kernel)
    }
}

impl Device for Kernel {
    fn index(&self, name: &str) -> io::Result<u32> {
        Ok(nix::net::if_::if_nametoindex(name)?)
    }

    fn driver(&self, name: &str) -> io::Result<String> {
        let words = self.0.ask(name, Command::Driver)?;
        // `struct ethtool_drvinfo`: the command, then 32 bytes of name.
        let bytes: Vec<u8> =
            words[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn channels(&self, name: &str) -> io::Result<(Counts, Counts)> {
        // `struct ethtool_channels`: receive, transmit, other, combined; what is possible, then what is in use.
        let words = self.0.ask(name, Command::Channels)?;
        let counts = |at: usize| Counts { receive: words[at], transmit: words[at + 1], combined: words[at + 3] };
        Ok((counts(5), counts(1)))
    }

    fn set_channels(&self, name: &str, counts: Counts) -> io::Result<()> {
        let mut words = self.0.ask(name, Command::Channels)?;
        (words[5], words[6], words[8]) = (counts.receive, counts.transmit, counts.combined);
        self.0.tell(name, Command::SetChannels, words).map(drop)
    }

    fn rings(&self, name: &str) -> io::Result<(Sizes, Sizes)> {
        // `struct ethtool_ringparam`: receive, mini, jumbo, transmit; what is possible, then what is in use.
        let words = self.0.ask(name, Command::Rings)?;
        let sizes = |at: usize| Sizes { receive: words[at], transmit: words[at + 3] };
        Ok((sizes(5), sizes(1)))
    }

    fn set_rings(&self, name: &str, sizes: Sizes) -> io::Result<()> {
        let mut words = self.0.ask(name, Command::Rings)?;
        (words[5], words[8]) = (sizes.receive, sizes.transmit);
        self.0.tell(name, Command::SetRings, words).map(drop)
    }

    fn features(&self, name: &str) -> io::Result<Vec<(String, Feature)>> {
        self.0.features(name)
    }

    fn set_feature(&self, name: &str, feature: &str, on: bool) -> io::Result<()> {
        self.0.set_feature(name, feature, on)
    }

    fn pause(&self, name: &str) -> io::Result<Pause> {
        let words = self.0.ask(name, Command::Pause)?;
        Ok(Pause { negotiated: words[1] != 0, receive: words[2] != 0, transmit: words[3] != 0 })
    }

    fn set_pause(&self, name: &str, pause: Pause) -> io::Result<()> {
        let mut words = [0; WORDS];
        words[1..4].copy_from_slice(&[pause.negotiated, pause.receive, pause.transmit].map(u32::from));
        self.0.tell(name, Command::SetPause, words).map(drop)
    }

    fn hash_fields(&self, name: &str, flow: Flow) -> io::Result<u64> {
        let words = self.0.tell(name, Command::HashFields, hash_call(flow, 0))?;
        Ok(u64::from_ne_bytes(bytes(words[2], words[3])))
    }

    fn set_hash_fields(&self, name: &str, flow: Flow, mask: u64) -> io::Result<()> {
        self.0.tell(name, Command::SetHashFields, hash_call(flow, mask)).map(drop)
    }

    fn spread(&self, name: &str) -> io::Result<Spread> {
        self.0.spread(name)
    }

    fn set_table(&self, name: &str, table: Option<&[u32]>) -> io::Result<()> {
        let transform = self.0.spread(name)?.transform;
        self.0.set_spread(name, table.map_or(Table::Default, Table::To), transform)
    }

    fn set_transform(&self, name: &str, transform: u8) -> io::Result<()> {
        self.0.set_spread(name, Table::Keep, transform)
    }

    fn rule_count(&self, name: &str) -> io::Result<u32> {
        // `struct ethtool_rxnfc`: command, flow, 8 bytes of data, 168 bytes of a rule, the count.
        Ok(self.0.ask(name, Command::RuleCount)?[RULE_COUNT])
    }
}

/// Where `struct ethtool_rxnfc` has the number of rules.
const RULE_COUNT: usize = size_of_rule_head() / 4;

/// Command, flow and data; a flow specification of type, two unions of 52 bytes, two extensions of 20, cookie, place.
const fn size_of_rule_head() -> usize {
    let specification = (4_usize + 52 + 20 + 52 + 20).next_multiple_of(8) + 8 + 8;
    16 + specification
}

/// `struct ethtool_rxnfc` with a kind of packets and a mask.
fn hash_call(flow: Flow, mask: u64) -> Words {
    let mut words = [0; WORDS];
    let [a, b, c, d, e, f, g, h] = mask.to_ne_bytes();
    (words[1], words[2], words[3]) =
        (flow.number(), u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    words
}

/// Two words as the eight bytes that they are in memory.
fn bytes(first: u32, second: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards that hash fields are written as ethtool writes them, and read back, since a state file keeps the text.
    #[test]
    fn hash_fields_are_letters() {
        assert_eq!(fields(FOUR_FIELDS), "sdfn");
        assert_eq!(fields(0), "none");
        for text in ["none", "sd", "sdfn", "vsd", "mvtsdfnr"] {
            assert_eq!(mask(text).map(fields).as_deref(), Some(text));
        }
        assert_eq!(mask("sdx"), None);
    }

    /// Guards the layout of the call: a mask at the wrong place would hash by something else.
    #[test]
    fn a_mask_is_where_the_kernel_looks_for_it() {
        let words = hash_call(Flow::Udp6, FOUR_FIELDS | 1 << 40);
        assert_eq!(words[1], 6);
        assert_eq!(u64::from_ne_bytes(bytes(words[2], words[3])), FOUR_FIELDS | 1 << 40);
        assert_eq!(RULE_COUNT * 4, 184, "offsetof(struct ethtool_rxnfc, rule_cnt)");
    }
}
