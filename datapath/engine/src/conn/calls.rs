//! Templates of calls: those that are known by a Call-ID besides their key (`--pe sip`), and the store of the Call-IDs.
//!
//! An entry of the table has no room for a Call-ID, so it names a place in this store, in the word where a connection
//! keeps the way of its answers. The store's lock is taken when such a template is made, looked up, listed or ended:
//! once per new connection of a service with the engine (with one-packet scheduling that is every packet), never for a
//! packet of a known connection, and never for another service.
//!
//! Invariant: of fixed size; a place belongs to one template from before it is published until after it is out of the
//! index. Not here: what a Call-ID is ([`crate::wire::sip`]), and where a call goes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::flow::{Flow, FlowHash};
use crate::real::Path;
use crate::time::Now;
use crate::wire::sip::CALL_ID_MAX;

use super::entry::{Conn, Flags, Status};
use super::table::{Full, NewConn, Table};

/// Bytes of a place: the length, and the Call-ID.
const PLACE: usize = 1 + CALL_ID_MAX;
/// The most Call-IDs that are kept, however large the table is: 64 MiB.
const MOST: u32 = 1 << 18;

impl Flags {
    /// A template of a call: it has a Call-ID in the store. (Ours: IPVS has a pointer for it.)
    pub const CALL: u16 = 0x8000;
}

/// The store.
#[derive(Debug)]
pub(super) struct Calls(Mutex<Store>);

#[derive(Debug)]
struct Store {
    bytes: Vec<u8>,
    free: Vec<u32>,
    /// Places below were used at some time; memory above is not touched.
    used: u32,
    capacity: u32,
}

/// How many calls a table may have with room for so many entries: a quarter of them.
fn places(entries: u32) -> u32 {
    entries.div_ceil(4).min(MOST)
}

impl Store {
    fn get(&self, place: u32) -> &[u8] {
        let bytes = &self.bytes[place as usize * PLACE..][..PLACE];
        &bytes[1..][..usize::from(bytes[0])]
    }
}

impl Calls {
    /// The store of a table with room for so many entries.
    pub(super) fn new(entries: u32) -> Self {
        let capacity = places(entries);
        let (bytes, free) = (vec![0; capacity as usize * PLACE], Vec::with_capacity(capacity as usize));
        Calls(Mutex::new(Store { bytes, free, used: 0, capacity }))
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // A panic elsewhere leaves it whole: places are filled before they are given away.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a Call-ID; `None` if there is no room, or it is too long.
    fn keep(&self, id: &[u8]) -> Option<u32> {
        let length = u8::try_from(id.len()).ok()?;
        let store = &mut *self.store();
        let place = match store.free.pop() {
            Some(place) => place,
            None if store.used < store.capacity => {
                store.used += 1;
                store.used - 1
            }
            None => return None,
        };
        let bytes = &mut store.bytes[place as usize * PLACE..][..PLACE];
        bytes[0] = length;
        bytes[1..][..id.len()].copy_from_slice(id);
        Some(place)
    }

    fn forget(&self, place: u32) {
        self.store().free.push(place);
    }
}

impl Conn<'_> {
    /// Of a template of a call: its place in the store.
    fn call_place(&self) -> Option<u32> {
        self.status().flags.has(Flags::CALL).then(|| self.reply_path().bits())
    }
}

impl Table {
    /// Bytes that the store takes in a table of this capacity.
    pub fn call_bytes(capacity: u32) -> u64 {
        u64::from(places(capacity)) * (PLACE + size_of::<u32>()) as u64
    }

    fn hash_of_call(&self, key: &Flow, id: &[u8]) -> FlowHash {
        self.mix(self.hash_of_key(key), id)
    }

    /// The template of a call: its key, and its Call-ID. One that expired is found, too.
    pub fn call_template(&self, key: &Flow, id: &[u8]) -> Option<Conn<'_>> {
        self.find_template(key, self.hash_of_call(key, id), |conn| {
            let Some(place) = conn.call_place() else { return false };
            // In this order: if it still lives, the place was its own when it was read.
            self.calls.store().get(place) == id && conn.is_current()
        })
    }

    /// Makes the template of a call. As for [`insert_template`](Table::insert_template).
    ///
    /// # Errors
    /// [`Full`] when no entry is free, or no place for its Call-ID.
    pub fn insert_call_template(&self, new: &NewConn, id: &[u8], now: Now) -> Result<Conn<'_>, Full> {
        let place = self.calls.keep(id).ok_or(Full::Calls)?;
        let flags = new.status.flags.with(Flags::CALL, true);
        let new = NewConn { reply_path: Path::from_bits(place), status: Status { flags, ..new.status }, ..*new };
        self.enter(&new, self.hash_of_call(&new.flow, id), None, now).inspect_err(|_| self.calls.forget(place))
    }

    /// The Call-ID by which a template is known, if it is one of a call and still lives.
    pub fn call_id(&self, conn: &Conn<'_>) -> Option<String> {
        let id = self.calls.store().get(conn.call_place()?).to_vec();
        conn.is_current().then(|| String::from_utf8_lossy(&id).into_owned())
    }

    /// The hash of an ended template.
    pub(super) fn hash_of_template(&self, conn: &Conn<'_>) -> FlowHash {
        let key = conn.flow();
        match conn.call_place() {
            None => self.hash_of_key(&key),
            Some(place) => self.hash_of_call(&key, self.calls.store().get(place)),
        }
    }

    /// An ended template is out of the index: its place in the store is free.
    pub(super) fn forget_call(&self, conn: &Conn<'_>) {
        if let Some(place) = conn.call_place() {
            self.calls.forget(place);
        }
    }

    /// How many Call-IDs are kept.
    pub fn calls(&self) -> u32 {
        let store = self.calls.store();
        store.used - store.free.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::flow::{Address, Endpoint, HashKey, Protocol};
    use crate::real::{Method, RealId};

    const NOW: Now = Now::from_secs(1000);

    fn key(client: u8) -> Flow {
        let endpoint = |last, port| Endpoint::new(Address::v4([192, 0, 2, last]), port);
        Flow { protocol: Protocol::UDP, src: endpoint(client, 0), dst: endpoint(200, 5060) }
    }

    fn template(flow: Flow, real: u32) -> NewConn {
        NewConn {
            flow,
            server: Endpoint::new(Address::v4([10, 0, 0, 1]), 5060),
            real: RealId(real),
            service: 0,
            status: Status { state: 0, flags: Flags::template(Method::Nat) },
            timeout_s: 60,
            reply_path: Path::NoRoute,
            class: 0,
            parent: None,
        }
    }

    /// A call is found by its key and its whole Call-ID; a template without one is apart from it, and its place comes back.
    #[test]
    fn calls_are_found_by_their_id() {
        let table = Table::new(64, HashKey::from_bytes([7; 32]));
        let longest = [b'x'; CALL_ID_MAX];
        let ids: [&[u8]; 4] = [b"a@b", b"a@bc", b"A@b", &longest];
        for (real, id) in (1..).zip(ids) {
            table.insert_call_template(&template(key(1), real), id, NOW).unwrap();
        }
        table.insert_template(&template(key(1), 9), NOW).unwrap();
        for (real, id) in (1..).zip(ids) {
            assert_eq!(table.call_template(&key(1), id).map(|conn| conn.real()), Some(RealId(real)));
            assert!(table.call_template(&key(2), id).is_none());
        }
        assert_eq!(table.template(&key(1)).map(|conn| conn.real()), Some(RealId(9)));
        assert!(table.call_template(&key(1), b"a@").is_none() && table.call_template(&key(1), b"").is_none());
        let mut call = table.call_template(&key(1), b"a@b").unwrap();
        assert_eq!((table.call_id(&call).as_deref(), table.calls()), (Some("a@b"), 4));
        call.retire();
        assert!(table.call_template(&key(1), b"a@b").is_none(), "it leads nowhere");
        assert!(table.remove(&mut call) && !table.remove(&mut call));
        assert_eq!((table.call_id(&call), table.calls()), (None, 3));
        while let Some(mut conn) = table.iter().next() {
            assert!(table.remove(&mut conn));
        }
        assert!(table.calls() == 0 && table.is_empty());
    }

    /// A full store makes no template and leaves nothing behind, nor does a full table; whoever goes makes room.
    #[test]
    fn a_full_store_says_so() {
        let table = Table::new(16, HashKey::from_bytes([7; 32]));
        let insert = |last: u8| table.insert_call_template(&template(key(last), 1), &[last; 9], NOW).map(|_| ());
        assert_eq!([1, 2, 3, 4, 5].map(insert), [Ok(()), Ok(()), Ok(()), Ok(()), Err(Full::Calls)]);
        assert_eq!((table.len(), table.calls()), (4, 4));
        assert!(table.remove(&mut table.call_template(&key(2), &[2; 9]).unwrap()));
        for last in 100..112 {
            table.insert_template(&template(key(last), 1), NOW).unwrap();
        }
        assert_eq!((insert(6), insert(7)), (Ok(()), Err(Full::Calls)));
        assert!(table.remove(&mut table.call_template(&key(6), &[6; 9]).unwrap()));
        table.insert_template(&template(key(112), 1), NOW).unwrap();
        assert_eq!((insert(8), table.calls()), (Err(Full::Entries), 3), "what was kept for it is given back");
    }

    /// Calls come and go on several threads over few places: nobody is led by another call's place.
    #[test]
    fn a_place_that_changes_hands_leads_nobody_astray() {
        const ROUNDS: u32 = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
        let table = Table::new(8, HashKey::from_bytes([7; 32]));
        let found = AtomicU32::new(0);
        let work = |thread: u32| {
            for round in 0..ROUNDS {
                let id = [b'a' + (round % 5) as u8; 3];
                let real = u32::from(id[0]);
                if let Some(mut conn) = table.call_template(&key(1), &id) {
                    assert_eq!(conn.real(), RealId(real));
                    assert!(table.call_id(&conn).is_none_or(|kept| kept.as_bytes() == id));
                    found.fetch_add(1, Relaxed);
                    table.remove(&mut conn);
                } else if (round + thread).is_multiple_of(2) {
                    let _ = table.insert_call_template(&template(key(1), real), &id, NOW);
                }
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|thread| drop(scope.spawn(move || work(thread)))));
        assert!(found.into_inner() > 0);
        while let Some(mut conn) = table.iter().next() {
            assert!(table.remove(&mut conn));
        }
        assert!(table.calls() == 0 && table.is_empty());
    }
}
