//! `mh`: Maglev hashing. The director's own `mh`, as a plugin: the client's address names a slot of a table, which is
//! filled so that a change of the list moves few clients.
//!
//! Each server has its own order of preference over the 4093 slots, given by two hashes of its address and port; in
//! turns, in the order of the list, each takes the next free slot of its order, as many a turn as its weight says. Flags:
//! with `mh-port` (`flag-2`) the client's port is hashed too; with `mh-fallback` (`flag-1`) the client is hashed again,
//! with another offset each time, until a server is usable. The *last* weight counts, so quiescing a server moves nobody
//! else's client.
//!
//! This is a plugin whose list is dear and whose pick is cheap: it says [`Needs::REBUILD`], and the director fills the
//! table in a new instance, off the workers.
//!
//! Invariant: it picks what the built-in `mh` picks, for up to 1024 servers.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Change, Needs, Reals, Request, Scheduler};

/// Slots: a prime, so that any step leads through all of them.
const SLOTS: u32 = 4093;
/// Most servers.
const SERVERS: usize = 1024;
/// Bits that the largest weight may have: half of the table's twelve.
const WEIGHT_BITS: u32 = 6;
const FIRST_KEY: u64 = 2_654_435_761;
const SECOND_KEY: u64 = 2_654_446_892;
/// `mh-fallback`.
const FALLBACK: u8 = 1;
/// `mh-port`.
const PORT: u8 = 2;
/// A slot that nobody has.
const NOBODY: u16 = u16::MAX;

/// A server while the table is filled.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// The next slot of its order.
    at: u32,
    /// From one slot of its order to the next.
    step: u32,
    /// Slots it takes a turn.
    turns: u32,
}

/// State of `mh`.
#[derive(Clone, Debug)]
pub struct Maglev {
    slots: [u16; SLOTS as usize],
    orders: [Order; SERVERS],
    is_filled: bool,
}

impl Maglev {
    /// An empty table: zeros, which take no room in a module's file.
    pub const fn new() -> Self {
        let order = Order { at: 0, step: 0, turns: 0 };
        Maglev { slots: [0; SLOTS as usize], orders: [order; SERVERS], is_filled: false }
    }

    /// Sets the orders; gives how many servers take part.
    fn measure<R: Reals + ?Sized>(&mut self, reals: &R) -> usize {
        let count = reals.len().min(SERVERS);
        let weight = |index: usize| reals.last_weight(index).max(0);
        let divisor = (0..count).map(weight).fold(0, gcd);
        let largest = (0..count).map(weight).max().unwrap_or(0).checked_div(divisor).unwrap_or(0);
        let shift = (i32::BITS - largest.leading_zeros()).saturating_sub(WEIGHT_BITS);
        for (index, order) in self.orders[..count].iter_mut().enumerate() {
            let (address, port) = reals.address(index);
            let address = fold(&address);
            let turns = match weight(index) {
                0 => 0,
                weight => ((weight / divisor) >> shift).max(1) as u32,
            };
            let at = hash(FIRST_KEY, 0, port, address) % SLOTS;
            *order = Order { at, step: hash(SECOND_KEY, 0, port, address) % (SLOTS - 1) + 1, turns };
        }
        count
    }

    fn fill(&mut self, count: usize) {
        let orders = &mut self.orders[..count];
        self.is_filled = orders.iter().any(|order| order.turns != 0);
        if !self.is_filled {
            return;
        }
        self.slots = [NOBODY; SLOTS as usize];
        let mut free = SLOTS;
        loop {
            for (index, order) in orders.iter_mut().enumerate() {
                for _ in 0..order.turns {
                    while self.slots[order.at as usize] != NOBODY {
                        order.at = (order.at + order.step) % SLOTS;
                    }
                    self.slots[order.at as usize] = index as u16;
                    free -= 1;
                    if free == 0 {
                        return;
                    }
                }
            }
        }
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Maglev::new()
    }
}

impl Scheduler for Maglev {
    const NEEDS: Needs = Needs::FACTS.and(Needs::REBUILD).and(Needs::DENY);

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, _change: Change) {
        let count = self.measure(reals);
        self.fill(count);
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        if !self.is_filled {
            return None;
        }
        let port = if request.flags & PORT != 0 { client_port(request) } else { 0 };
        let client = fold(&request.client);
        let slot = |offset: u32| hash(FIRST_KEY, offset, port, client) % SLOTS;
        let usable = |slot: u32| {
            let index = usize::from(self.slots[slot as usize]);
            if index < reals.len() && reals.is_usable(index) {
                Some(index)
            } else {
                None
            }
        };
        let first = slot(0);
        let picked = usable(first);
        if picked.is_some() || request.flags & FALLBACK == 0 {
            return picked;
        }
        (0..SLOTS).find_map(|step| usable(slot((step + first) % SLOTS)))
    }
}

fn hash(key: u64, offset: u32, port: u16, address: u32) -> u32 {
    siphash13(offset.wrapping_add(u32::from(port)).wrapping_add(address), key)
}

/// The port that a hash of the client takes in: only of protocols that have ports.
fn client_port(request: &Request) -> u16 {
    match request.protocol {
        6 | 17 | 132 => request.client_port,
        _ => 0,
    }
}

/// An address in 32 bits: IPv4 as it is, IPv6 folded by XOR of its four words.
fn fold(address: &[u8; 16]) -> u32 {
    let word = |at: usize| u32::from_be_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]]);
    match (word(0), word(4), word(8)) {
        (0, 0, 0xffff) => word(12),
        (a, b, c) => a ^ b ^ c ^ word(12),
    }
}

/// SipHash-1-3 of four bytes, its low 32 bits, with a key whose two words are equal: the kernel's `hsiphash_1u32`.
fn siphash13(value: u32, key: u64) -> u32 {
    let last = 4 << 56 | u64::from(value);
    let mut state = [
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573 ^ last,
    ];
    round(&mut state);
    state[0] ^= last;
    state[2] ^= 0xff;
    round(&mut state);
    round(&mut state);
    round(&mut state);
    (state[0] ^ state[1] ^ state[2] ^ state[3]) as u32
}

fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

/// Greatest common divisor; of 0 and a number, the number.
fn gcd(a: i32, b: i32) -> i32 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

export_scheduler!(Maglev, new = Maglev::new());

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is the kernel's (IPVS-REFERENCE 2.12): the values of 10.0.0.1:80 with both keys.
    #[test]
    fn the_hash_is_the_kernels() {
        let value = 0x0a00_0001 + 80;
        assert_eq!((siphash13(value, FIRST_KEY), siphash13(value, SECOND_KEY)), (1_134_300_350, 2_545_146_951));
    }

    /// Addresses of IPv6 are folded over all of their words, those of IPv4 are themselves.
    #[test]
    fn addresses_fold() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(fold(&mapped), 0x0a00_0001);
        assert_eq!(fold(&[1; 16]), 0);
    }
}
