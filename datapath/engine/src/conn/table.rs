//! The connection table: one for all workers, of fixed size, read without locks.
//!
//! A packet's flow leads to its entry in either direction: the client's flow, and with NAT the server's flow, are both
//! in the index. Lookup costs one line of the index and one (IPv6: two) of the entry.
//!
//! Invariant: an entry is in the index under its keys exactly while it lives (and for the moment of being made or
//! ended); it is ended once, by whoever wins the compare-and-swap; a free entry is on the free list exactly once.
//! The table never allocates after it was made. It knows no real servers: whoever ends a connection is told which one
//! it was and settles the counts.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::flow::{Endpoint, Family, Flow, FlowHash, HashKey};
use crate::lines::prefetch;
use crate::real::{Method, Path, RealId};
use crate::time::Now;
use crate::wire::Glance;

use super::Side;
use super::calls::Calls;
use super::entry::{Conn, Flags, Status};
use super::index::Index;
use super::quick::Quick;
use super::slab::Slab;

/// Number of a connection: bit 31 tells IPv6 from IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);

pub(super) const IPV6: u32 = 1 << 31;
/// Entries that are looked at for one that can give way when the table is full.
const EVICT_PROBE: u32 = 64;
/// Seconds that a template lives on when it expires while it has children.
const WITH_CHILDREN_S: u32 = 60;
/// Keeps templates and connections of one key in different buckets.
const TEMPLATE_SALT: u64 = 0x5bd1_e995_9e37_79b9;

/// A connection to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewConn {
    /// The client's flow: CIP to VIP.
    pub flow: Flow,
    /// RIP and the port there.
    pub server: Endpoint,
    /// The real server.
    pub real: RealId,
    /// The service that scheduled it.
    pub service: u32,
    /// State and flags.
    pub status: Status,
    /// Seconds that it lives without a packet.
    pub timeout_s: u32,
    /// The way of the answers to the client.
    pub reply_path: Path,
    /// The class of its timeouts, below 128.
    pub class: u8,
    /// The template that led it here; the caller has [adopted](Conn::adopt) the child.
    pub parent: Option<ConnId>,
}

/// What there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Entries, or places in the index.
    Entries,
    /// Places for Call-IDs.
    Calls,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    pub(super) v4: Slab,
    pub(super) v6: Slab,
    index: Index,
    key: HashKey,
    live: AtomicU32,
    capacity: u32,
    rover: AtomicU32,
    pub(super) calls: Calls,
}

impl Table {
    /// The most connections that a table can be made for.
    pub const MAX_CAPACITY: u32 = 1 << 30;

    /// A table for this many connections, hashed under this key.
    pub fn new(capacity: u32, key: HashKey) -> Self {
        let capacity = capacity.clamp(1, Self::MAX_CAPACITY);
        Table {
            v4: Slab::new(capacity, Family::Inet),
            v6: Slab::new(capacity, Family::Inet6),
            // NAT connections are in the index twice.
            index: Index::new(capacity as usize * 2),
            key,
            live: AtomicU32::new(0),
            capacity,
            rover: AtomicU32::new(0),
            calls: Calls::new(capacity),
        }
    }

    /// How many connections fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of a flow in this table.
    #[inline]
    pub fn hash(&self, flow: &Flow) -> FlowHash {
        self.key.hash(flow)
    }

    /// The hash of a template's key: apart from that of the flow with the same numbers.
    pub(super) fn hash_of_key(&self, key: &Flow) -> FlowHash {
        FlowHash(self.hash(key).0.rotate_left(32) ^ TEMPLATE_SALT)
    }

    /// A hash that depends on these bytes, too.
    pub(super) fn mix(&self, hash: FlowHash, bytes: &[u8]) -> FlowHash {
        self.key.mix(hash, bytes)
    }

    /// Starts to bring the bucket of a hash into the cache.
    #[inline(always)]
    pub fn touch(&self, hash: FlowHash) {
        self.index.touch(hash);
    }

    #[inline]
    fn slab(&self, id: ConnId) -> &Slab {
        if id.0 & IPV6 == 0 { &self.v4 } else { &self.v6 }
    }

    #[inline]
    fn entry(&self, id: ConnId) -> Conn<'_> {
        self.slab(id).entry(id.0 & !IPV6)
    }

    /// The connection of a packet, and which way the packet goes.
    #[inline]
    pub fn lookup(&self, flow: &Flow, hash: FlowHash) -> Option<(Conn<'_>, Side)> {
        self.index.find(hash, |id| {
            let conn = self.entry(ConnId(id));
            (conn.family() == flow.family()).then(|| conn.side_of(flow)).flatten().map(|side| (conn, side))
        })
    }

    /// Tells of a hash what is probably its IPv4 connection, with the entry on the way into the cache.
    #[inline(always)]
    pub(crate) fn guesser(&self) -> impl Fn(FlowHash) -> ConnId {
        let (guess, entries) = (self.index.guesser(), self.v4.all());
        move |hash| {
            let id = guess(hash);
            if let Some(entry) = entries.get(id as usize) {
                prefetch(entry);
            }
            ConnId(id)
        }
    }

    /// The IPv4 entry of a [guess](Table::guess), if there is one of that number.
    #[inline(always)]
    pub(crate) fn quick(&self, id: ConnId) -> Option<Quick<'_>> {
        self.v4.quick(id.0)
    }

    /// The hash of an IPv4 packet by [its words](crate::wire::Glance).
    #[inline(always)]
    pub(crate) fn hash_of(&self, glance: &Glance) -> FlowHash {
        self.key.hash4(glance.addresses, glance.rest & 0xffff_ffff_0000_ff00)
    }

    /// The template under a key: client network and port 0, to VIP (or mark) and port. One that expired is found, too.
    pub fn template(&self, key: &Flow) -> Option<Conn<'_>> {
        self.find_template(key, self.hash_of_key(key), |conn| !conn.status().flags.has(Flags::CALL))
    }

    /// The template under a key that the caller accepts, of those under this hash.
    pub(super) fn find_template(
        &self,
        key: &Flow,
        hash: FlowHash,
        accepts: impl Fn(&Conn<'_>) -> bool,
    ) -> Option<Conn<'_>> {
        self.index.find(hash, |id| {
            let conn = self.entry(ConnId(id));
            (conn.family() == key.family() && conn.is_template_of(key) && accepts(&conn)).then_some(conn)
        })
    }

    /// Makes a template; its flow is its key. As for [`insert`](Table::insert).
    ///
    /// # Errors
    /// [`Full`] when no entry is free.
    pub fn insert_template(&self, new: &NewConn, now: Now) -> Result<Conn<'_>, Full> {
        self.insert(new, self.hash_of_key(&new.flow), now)
    }

    /// Makes a connection. The caller has looked it up before, and sees to it that nobody else makes the same one.
    ///
    /// # Errors
    /// [`Full`] when no entry is free; see [`evict`](Table::evict).
    pub fn insert(&self, new: &NewConn, hash: FlowHash, now: Now) -> Result<Conn<'_>, Full> {
        let reply = Flow { protocol: new.flow.protocol, src: new.server, dst: new.flow.src };
        let flags = new.status.flags;
        let answers_pass = flags.method() == Method::Nat && !flags.has(Flags::TEMPLATE);
        let hashes = [hash, if answers_pass { self.hash(&reply) } else { hash }];
        self.enter(new, &hashes[..1 + usize::from(answers_pass)], now)
    }

    /// Makes an entry under these hashes.
    pub(super) fn enter(&self, new: &NewConn, hashes: &[FlowHash], now: Now) -> Result<Conn<'_>, Full> {
        if self.live.fetch_add(1, Relaxed) >= self.capacity {
            self.live.fetch_sub(1, Relaxed);
            return Err(Full::Entries);
        }
        let slab = if new.flow.family() == Family::Inet { &self.v4 } else { &self.v6 };
        let Some(entry) = slab.take() else {
            self.live.fetch_sub(1, Relaxed);
            return Err(Full::Entries);
        };
        let conn = entry.prepare(new, now);
        // Into the index first, alive second: a sweep or an eviction that met a live entry which is not yet in the
        // index would free it, and the index would keep its key for good.
        let id = conn.id().0;
        let entered = hashes.iter().take_while(|&&hash| self.index.insert(hash, id)).count();
        if entered == hashes.len() {
            conn.publish();
            return Ok(conn);
        }
        for &hash in &hashes[..entered] {
            self.index.remove(hash, id);
        }
        self.free(&conn);
        Err(Full::Entries)
    }

    /// Lets go of a NAT server's answers that an older connection had until now: the same port of the same client came by
    /// another address or port of ours. To the server both are one, and what it answers is for the newer one, as in IPVS.
    /// The older one lives on for its client's packets.
    pub fn yield_answers(&self, answers: &Flow) {
        let hash = self.hash(answers);
        if let Some((older, Side::Out)) = self.lookup(answers, hash) {
            self.index.remove(hash, older.id().0);
        }
    }

    /// Makes a note for answers: an entry that only the server's flow leads to. As for [`insert`](Table::insert).
    ///
    /// # Errors
    /// [`Full`] when no entry is free.
    pub fn insert_note(&self, new: &NewConn, now: Now) -> Result<Conn<'_>, Full> {
        let reply = Flow { protocol: new.flow.protocol, src: new.server, dst: new.flow.src };
        self.enter(new, &[self.hash(&reply)], now)
    }

    /// Ends a connection, or a template without children. `true` for the one caller that ended it, who then settles the
    /// counts by its [`status`](Conn::status), [`real`](Conn::real) and [`parent`](Conn::parent).
    pub fn remove(&self, conn: &mut Conn<'_>) -> bool {
        let ended = if conn.is_template() { conn.end_childless() } else { conn.end() };
        if ended {
            self.bury(conn);
        }
        ended
    }

    /// Ends what has expired, and shows it to the caller, who settles the counts. A template with children lives on, and
    /// from now on a minute at a time, whatever its timeout was: so does IPVS (IPVS-REFERENCE 3.4 and 3.5).
    pub fn lapse(&self, conn: &mut Conn<'_>, now: Now) -> bool {
        if conn.is_template() && conn.children() > 0 {
            conn.touch(now, WITH_CHILDREN_S);
            return false;
        }
        self.remove(conn)
    }

    /// Takes an ended entry from the index and gives it back.
    fn bury(&self, conn: &Conn<'_>) {
        let flow = conn.flow();
        if !conn.is_note() {
            let hash = if conn.is_template() { self.hash_of_template(conn) } else { self.hash(&flow) };
            self.index.remove(hash, conn.id().0);
            self.forget_call(conn);
        }
        if let Some(reply) = conn.reply_flow() {
            self.index.remove(self.hash(&reply), conn.id().0);
        }
        self.free(conn);
    }

    fn free(&self, conn: &Conn<'_>) {
        // In this order, so that whoever is let in by the count finds a free entry.
        self.slab(conn.id()).give_back(conn);
        self.live.fetch_sub(1, Relaxed);
    }

    /// Ends the half-open connection that was quiet for longest, of a few that it looks at, to make room; one of the
    /// other family if this one has none, because both share the capacity. Established ones never give way to new
    /// ones. The caller settles the counts.
    pub fn evict(&self, family: Family, ended: impl FnOnce(&Conn<'_>)) -> bool {
        let slabs = if family == Family::Inet { [&self.v4, &self.v6] } else { [&self.v6, &self.v4] };
        let Some(mut conn) = slabs.into_iter().find_map(|slab| self.oldest_half_open(slab)) else { return false };
        let won = self.remove(&mut conn);
        if won {
            ended(&conn);
        }
        won
    }

    fn oldest_half_open<'t>(&self, slab: &'t Slab) -> Option<Conn<'t>> {
        let used = slab.used.load(Relaxed);
        let start = self.rover.fetch_add(EVICT_PROBE, Relaxed);
        let candidates = (0..EVICT_PROBE.min(used)).map(|step| slab.entry(start.wrapping_add(step) % used));
        candidates
            .filter(|conn| conn.is_live() && !conn.is_template() && conn.is_half_open())
            .min_by_key(Conn::last_seen)
    }

    /// The connection of this number, if it lives.
    #[inline]
    pub fn get(&self, id: ConnId) -> Option<Conn<'_>> {
        let slab = self.slab(id);
        let index = id.0 & !IPV6;
        (index < slab.used.load(Relaxed)).then(|| slab.entry(index)).filter(Conn::is_live)
    }

    /// Entries that were used at some time, for walks by [`at`](Table::at).
    pub fn used(&self) -> u32 {
        self.v4.used.load(Relaxed) + self.v6.used.load(Relaxed)
    }

    /// The connection at a place of a walk, if one lives there.
    pub fn at(&self, place: u32) -> Option<Conn<'_>> {
        let v4 = self.v4.used.load(Relaxed);
        let (slab, index) = if place < v4 { (&self.v4, place) } else { (&self.v6, place - v4) };
        (index < slab.used.load(Relaxed)).then(|| slab.entry(index)).filter(Conn::is_live)
    }

    /// Every connection, for listings and for the control side's sweeps.
    pub fn iter(&self) -> impl Iterator<Item = Conn<'_>> {
        let of = |slab: &'_ Slab| 0..slab.used.load(Relaxed);
        let v4 = of(&self.v4).map(|index| self.v4.entry(index));
        let v6 = of(&self.v6).map(|index| self.v6.entry(index));
        v4.chain(v6).filter(Conn::is_live)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicI64;

    use super::super::Sweep;
    use super::super::entry::Flags;
    use super::*;
    use crate::flow::{Address, Protocol};
    use crate::real::Method;

    const NOW: Now = Now::from_secs(100);

    /// Everything of a connection follows from its number, so that a mix of two is noticed.
    fn new_conn(number: u32) -> NewConn {
        let make = |v4: [u8; 4]| match number % 2 {
            0 => Address::v4(v4),
            _ => Address::from_bits((0x2001_0db8 << 96) | (u128::from(u32::from_be_bytes(v4)) * 0x1_0000_0001)),
        };
        let [a, b, c, d] = number.to_be_bytes();
        let method = if number.is_multiple_of(3) { Method::Dr } else { Method::Nat };
        NewConn {
            flow: Flow {
                protocol: Protocol::UDP,
                src: Endpoint::new(make([10 | a, b, c, d]), number as u16),
                dst: Endpoint::new(make([192, 0, 2, 1]), 53),
            },
            server: Endpoint::new(make([172, 16, c, d]), !number as u16),
            real: RealId(number % 7),
            service: number,
            status: Status { state: 0, flags: Flags::new(method) },
            timeout_s: 60,
            reply_path: Path::NoRoute,
            class: (number % 128) as u8,
            parent: None,
        }
    }

    fn is(conn: &Conn<'_>, new: &NewConn) -> bool {
        conn.flow() == new.flow
            && (conn.server(), conn.real(), conn.service()) == (new.server, new.real, new.service)
            && (conn.status().flags.method(), conn.class()) == (new.status.flags.method(), new.class)
    }

    fn insert<'t>(table: &'t Table, new: &NewConn) -> Result<Conn<'t>, Full> {
        table.insert(new, table.hash(&new.flow), NOW)
    }

    fn lookup<'t>(table: &'t Table, flow: &Flow) -> Option<(Conn<'t>, Side)> {
        table.lookup(flow, table.hash(flow))
    }

    fn reply(new: &NewConn) -> Option<Flow> {
        let nat = new.status.flags.method() == Method::Nat;
        nat.then_some(Flow { protocol: new.flow.protocol, src: new.server, dst: new.flow.src })
    }

    /// A connection is found by both of its flows, by the right side, and by neither once it is removed.
    #[test]
    fn both_flows_lead_to_a_connection() {
        let table = Table::new(64, HashKey::from_bytes([1; 32]));
        for number in 0..64 {
            let new = new_conn(number);
            assert!(is(&insert(&table, &new).unwrap(), &new));
            let (found, side) = lookup(&table, &new.flow).unwrap();
            assert!(is(&found, &new));
            assert_eq!(side, if reply(&new).is_some() { Side::In } else { Side::InOnly });
            if let Some(reply) = reply(&new) {
                let (found, side) = lookup(&table, &reply).unwrap();
                assert_eq!((is(&found, &new), side), (true, Side::Out));
            }
            assert!(lookup(&table, &new.flow.reversed()).is_none());
        }
        assert!(insert(&table, &new_conn(64)).is_err());
        assert_eq!((table.len(), table.iter().count()), (64, 64));
        for number in 0..64 {
            let new = new_conn(number);
            let (mut conn, _) = lookup(&table, &new.flow).unwrap();
            assert!(table.remove(&mut conn));
            assert!(!table.remove(&mut conn), "nobody ends a connection twice");
            assert!(lookup(&table, &new.flow).is_none() && table.get(conn.id()).is_none());
        }
        assert!(table.is_empty() && table.index.is_clear());
    }

    /// Who holds a connection that ended and whose entry is another one's now can tell, changes nothing of the other
    /// one, and still knows its own real server: the counts are settled by it, after the entry is free. (It once read
    /// the new one's number, and took the wrong server's count down.)
    #[test]
    fn a_connection_in_hand_stays_what_it_was() {
        let table = Table::new(1, HashKey::from_bytes([1; 32]));
        let (old, new) = (new_conn(2), new_conn(4));
        let mut held = insert(&table, &old).unwrap();
        let late = held;
        assert!(table.remove(&mut held));
        let other = insert(&table, &new).unwrap();
        assert_eq!(other.id(), held.id());
        assert_eq!((held.real(), late.real(), other.real()), (old.real, old.real, new.real));
        assert_eq!((held.is_current(), late.is_current(), other.is_current()), (false, false, true));
        let mut late = late;
        assert!(late.update(|status| Status { state: 9, ..status }).is_none());
        assert!(!table.remove(&mut late));
        late.set_reply_path(Path::Local);
        assert!(is(&lookup(&table, &new.flow).unwrap().0, &new));
        assert_eq!(lookup(&table, &new.flow).unwrap().0.reply_path(), Path::NoRoute);
    }

    /// Threads make, find and end connections of their own and of everybody in a table that is too small for all:
    /// what a thread made by itself is always found, no reader sees a mix of two, every end is counted for the right
    /// server, and nothing is left.
    #[test]
    fn threads_agree() {
        const THREADS: u32 = 4;
        const ROUNDS: u32 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
        const SHARED: u32 = 64;
        let table = Table::new(96, HashKey::from_bytes([7; 32]));
        let turn = Mutex::new(());
        let counts: [AtomicI64; 7] = Default::default();
        let settle = |conn: &Conn<'_>| counts[conn.real().0 as usize].fetch_sub(1, Relaxed);
        let work = |thread: u32| {
            let mut state = thread + 1;
            for round in 0..ROUNDS {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let own = new_conn(1 << 16 | thread << 12 | (round % 8));
                if let Ok(mut conn) = insert(&table, &own) {
                    counts[own.real.0 as usize].fetch_add(1, Relaxed);
                    let (found, _) = lookup(&table, &own.flow).expect("its maker finds it");
                    assert_eq!(found.id(), conn.id());
                    if let Some(reply) = reply(&own) {
                        assert!(
                            lookup(&table, &reply).is_some_and(|(conn, side)| is(&conn, &own) && side == Side::Out)
                        );
                    }
                    assert!(table.remove(&mut conn));
                    assert!(lookup(&table, &own.flow).is_none());
                    settle(&conn);
                }
                let common = new_conn((state >> 16) % SHARED);
                match lookup(&table, &common.flow) {
                    Some((mut conn, _)) => {
                        assert!(is(&conn, &common) || !conn.is_current(), "{conn:?}");
                        assert_eq!(conn.real(), common.real);
                        if state & 0x8000 != 0 && table.remove(&mut conn) {
                            settle(&conn);
                        }
                    }
                    None => {
                        let _turn = turn.lock().unwrap();
                        if lookup(&table, &common.flow).is_none() && insert(&table, &common).is_ok() {
                            counts[common.real.0 as usize].fetch_add(1, Relaxed);
                        }
                    }
                }
                for conn in table.iter().take(3) {
                    assert!(is(&conn, &new_conn(conn.service())) || !conn.is_current(), "{conn:?}");
                }
            }
        };
        let work = &work;
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || work(thread));
            }
        });
        for number in 0..SHARED {
            let new = new_conn(number);
            if let Some((mut conn, _)) = lookup(&table, &new.flow) {
                assert!(table.remove(&mut conn));
                settle(&conn);
            }
            assert!(lookup(&table, &new.flow).is_none(), "{number} was there twice");
        }
        assert!(table.is_empty() && table.iter().next().is_none());
        assert!(table.index.is_clear(), "a key was left in the index");
        assert!(counts.iter().all(|count| count.load(Relaxed) == 0), "{counts:?}");
        for number in (0..192).step_by(2) {
            assert!(insert(&table, &new_conn(number)).is_ok(), "an entry was lost: {number}");
        }
    }

    /// Evictions and sweeps run beside the making of connections: neither may meet one that is half made.
    #[test]
    fn evictions_meet_no_half_made_connection() {
        const ROUNDS: u32 = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
        let table = Table::new(4, HashKey::from_bytes([7; 32]));
        let work = |thread: u32| {
            let mut sweep = Sweep::new(0, 1);
            for round in 0..ROUNDS {
                let mut new = new_conn((thread << 12) | (round % 8));
                new.flow.protocol = Protocol::TCP; // half open, so it may be evicted
                if insert(&table, &new).is_err() {
                    table.evict(new.flow.family(), |conn| assert_eq!(conn.protocol(), Protocol::TCP));
                }
                sweep.step(&table, NOW.plus_millis(u64::from(round)), |_| ());
                if let Some((mut conn, _)) = lookup(&table, &new.flow) {
                    table.remove(&mut conn);
                }
            }
        };
        let work = &work;
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || work(thread));
            }
        });
        while table.evict(Family::Inet, |_| ()) {}
        assert!(table.is_empty() && table.index.is_clear());
    }

    /// Each worker sweeps its share and all of them the whole table, about once a second.
    #[test]
    fn sweeps_find_every_expired_connection() {
        let table = Table::new(2000, HashKey::from_bytes([7; 32]));
        for number in 0..2000 {
            insert(&table, &new_conn(number)).unwrap();
        }
        let mut sweeps = [0, 1, 2].map(|worker| Sweep::new(worker, 3));
        let mut ended = 0;
        for step in 0..600 {
            for sweep in &mut sweeps {
                sweep.step(&table, NOW.plus_millis(step * 100), |_| ended += 1);
            }
        }
        assert_eq!(ended, 0, "60 s are not over");
        for step in 600..616 {
            for sweep in &mut sweeps {
                sweep.step(&table, NOW.plus_millis(step * 100), |_| ended += 1);
            }
        }
        assert_eq!((ended, table.len(), table.index.is_clear()), (2000, 0, true));
    }
}
