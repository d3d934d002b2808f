//! Servers and flows that nobody has, for checks and measurements.

use std::fmt;

use xvs_sdk::abi::{Facts, Flow, ROW_OVERLOADED, ROW_QUIESCED, ROW_USABLE, Row};

/// Random numbers that repeat.
#[derive(Clone, Copy, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Numbers of this seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below this one, which is not 0.
    pub fn below(&mut self, end: u32) -> u32 {
        (((self.draw() >> 32) * u64::from(end)) >> 32) as u32
    }

    /// The flow of a new connection.
    pub fn flow(&mut self) -> Flow {
        let mut flow = Flow {
            virtual_address: mapped([192, 0, 2, 10]),
            client: mapped(self.below(1 << 24).to_be_bytes()),
            hash: self.draw(),
            client_port: 1024 + self.below(64_000) as u16,
            virtual_port: 80,
            protocol: 6,
            family: 4,
            ..Flow::default()
        };
        flow.client[12] = 198;
        flow
    }
}

fn mapped(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[10..12].fill(0xff);
    bytes[12..].copy_from_slice(&address);
    bytes
}

/// A state that servers can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// All alike.
    Even,
    /// Weights from 1 to 10, connections by the thousand.
    Mixed,
    /// As mixed, and some take nothing new.
    Troubled,
    /// None takes anything new but the last one.
    LastOne,
    /// None takes anything new.
    Closed,
    /// The largest numbers that there are.
    Extreme,
}

/// All of them.
pub const SCENES: [Scene; 6] =
    [Scene::Even, Scene::Mixed, Scene::Troubled, Scene::LastOne, Scene::Closed, Scene::Extreme];

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scene::Even => "all alike",
            Scene::Mixed => "of mixed weights",
            Scene::Troubled => "some quiesced or overloaded",
            Scene::LastOne => "all but one quiesced or overloaded",
            Scene::Closed => "all quiesced or overloaded",
            Scene::Extreme => "with the largest weights and counts",
        })
    }
}

impl Scene {
    /// The server at this index of so many.
    pub fn row(self, index: usize, count: usize, chance: &mut Chance) -> Row {
        let (address, port) = (address(index), 80);
        let mut row = Row {
            weight: 1,
            last_weight: 1,
            flags: ROW_USABLE,
            health: 100,
            id: xvs_sdk::identity(&address, port),
            ..Row::default()
        };
        match self {
            Scene::Even => {}
            Scene::Extreme => {
                row.weight = [1, 65_535, i32::MAX][chance.below(3) as usize];
                row.last_weight = row.weight;
                row.active = [0, 1, u32::MAX][chance.below(3) as usize];
                row.total = row.active.max([0, u32::MAX][chance.below(2) as usize]);
            }
            _ => {
                row.weight = 1 + chance.below(10) as i32;
                row.last_weight = row.weight;
                row.total = chance.below(5_000);
                row.active = chance.below(row.total + 1);
            }
        }
        let is_closed = match self {
            Scene::Troubled => chance.below(3) == 0,
            Scene::LastOne => index + 1 != count,
            Scene::Closed => true,
            _ => false,
        };
        if is_closed {
            row.health = 0;
            row.flags = ROW_OVERLOADED;
            if chance.below(2) == 0 {
                (row.weight, row.flags) = (0, ROW_QUIESCED);
            }
        }
        row
    }

    /// What is known of the server besides.
    pub fn facts(self, index: usize, chance: &mut Chance) -> Facts {
        let mut facts = Facts {
            address: address(index),
            port: 80,
            family: 4,
            method: 3,
            conns_per_s: chance.below(1_000),
            packets_in: u64::from(chance.below(100_000)),
            bytes_in: u64::from(chance.below(100_000_000)),
            metric: i64::from(chance.below(1_000)),
            ..Facts::NONE
        };
        let tags = [&b"rack=1,zone=a"[..], b"rack=2,zone=b", b"rack=3,zone=c"][index % 3];
        facts.tags[..tags.len()].copy_from_slice(tags);
        facts.tags_len = tags.len() as u32;
        facts
    }
}

fn address(index: usize) -> [u8; 16] {
    mapped([10, 0, (index >> 8) as u8, index as u8])
}
