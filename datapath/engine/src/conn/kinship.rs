//! Templates and their children: what keeps a template alive.
//!
//! One word of an entry says it. Of a template it holds the generation and the number of children, of a connection its
//! parent. Making a child and ending the template may happen at the same time on two workers; both
//! are one compare-and-swap of this word, which fails if the entry was given to another one meanwhile.
//!
//! Invariant: a template that has children is not ended, so a parent's number is good for as long as the child lives.
//! Not here: which template a connection belongs to, and what becomes of the counts of real servers.

use std::sync::atomic::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

use crate::flow::Family;

use super::entry::{Conn, Flags, Status, tail};
use super::table::{ConnId, IPV6};

/// The word is a template's.
const TEMPLATE: u64 = 1 << 63;
/// In the place of the number of children: the template is about to end.
const SEALED: u64 = 0xffff_ffff;
/// The half of a template's word that counts children.
const COUNT: u64 = 0xffff_ffff;
/// The state of a template one of whose children was seen to be established.
const ASSURED: u8 = 1;

impl Conn<'_> {
    /// The word of a new connection with this parent. Child and parent are of one family.
    pub(super) fn link_to(parent: Option<ConnId>) -> u64 {
        parent.map_or(0, |parent| (u64::from(parent.0 & !IPV6) + 1) << 32)
    }

    /// The word of this entry as a template, with so many children.
    pub(super) fn link_of_template(&self, children: u64) -> u64 {
        TEMPLATE | u64::from(self.generation() << 1 >> 1) << 32 | children
    }

    /// The template that led it here.
    pub fn parent(&self) -> Option<ConnId> {
        let link = self.link_at_end().unwrap_or_else(|| (self.tail(tail::LINK).load(Relaxed) >> 32) as u32);
        let bit = if self.family() == Family::Inet { 0 } else { IPV6 };
        link.checked_sub(1).filter(|_| u64::from(link) << 32 & TEMPLATE == 0).map(|index| ConnId(index | bit))
    }

    /// Children of a template.
    pub fn children(&self) -> u32 {
        if self.is_template() { self.tail(tail::LINK).load(Relaxed) as u32 } else { 0 }
    }

    /// Counts a child in; `false` if the template has ended.
    pub fn adopt(&self) -> bool {
        self.change_children(|children| (children != SEALED).then_some(children + 1))
    }

    /// Counts a child out that was [adopted](Conn::adopt).
    pub fn release(&self) {
        self.change_children(|children| (children != SEALED).then_some(children.saturating_sub(1)));
    }

    /// Ends a template, unless it has children.
    pub(super) fn end_childless(&mut self) -> bool {
        self.change_children(|children| (children == 0).then_some(SEALED)) && self.end()
    }

    /// Changes the number of children, if it is still this template's and the change is one.
    fn change_children(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        let ours = self.link_of_template(0);
        let changed = self.tail(tail::LINK).fetch_update(AcqRel, Acquire, |word| {
            let is_ours = word & !COUNT == ours;
            change(word & COUNT).filter(|_| is_ours).map(|children| ours | children)
        });
        changed.is_ok()
    }

    /// The template leads nowhere any more: it is not found again, and ends with its timer and its last child.
    pub fn retire(&mut self) {
        self.update(|status| Status { flags: status.flags.with(Flags::RETIRED, true), ..status });
    }

    /// A child has shown that the client is real.
    pub fn assure(&mut self) {
        self.update(|status| Status { state: ASSURED, ..status });
    }

    /// Has a child shown that the client is real?
    pub fn is_assured(&self) -> bool {
        self.is_template() && self.status().state == ASSURED
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::super::{Flags, NewConn, Status, Table};
    use crate::flow::{Address, Endpoint, Flow, HashKey, Protocol};
    use crate::real::{Method, Path, RealId};
    use crate::time::Now;

    const NOW: Now = Now::from_secs(1000);

    fn key() -> Flow {
        let endpoint = |last, port| Endpoint::new(Address::v4([192, 0, 2, last]), port);
        Flow { protocol: Protocol::TCP, src: endpoint(1, 0), dst: endpoint(2, 80) }
    }

    fn template() -> NewConn {
        NewConn {
            flow: key(),
            server: Endpoint::new(Address::v4([10, 0, 0, 1]), 80),
            real: RealId(1),
            service: 0,
            status: Status { state: 0, flags: Flags::template(Method::Nat) },
            timeout_s: 60,
            reply_path: Path::NoRoute,
            class: 0,
            parent: None,
        }
    }

    /// A template is found by its key only, never by a packet with the same numbers, and not once it is retired.
    #[test]
    fn templates_are_found_by_their_key() {
        let table = Table::new(8, HashKey::from_bytes([7; 32]));
        let mut made = table.insert_template(&template(), NOW).unwrap();
        assert!(table.lookup(&key(), table.hash(&key())).is_none());
        let mut client = template();
        client.status.flags = Flags::new(Method::Nat);
        table.insert(&client, table.hash(&key()), NOW).unwrap();
        assert!(table.lookup(&key(), table.hash(&key())).is_some_and(|(conn, _)| !conn.is_template()));
        assert!(table.template(&key()).is_some_and(|conn| conn.id() == made.id()));
        made.retire();
        assert!(table.template(&key()).is_none());
    }

    /// A template does not end while it has children, and a child is not taken in once it has ended.
    #[test]
    fn children_keep_their_template() {
        let table = Table::new(8, HashKey::from_bytes([7; 32]));
        let mut made = table.insert_template(&template(), NOW).unwrap();
        assert!(made.adopt() && made.adopt());
        assert_eq!((made.children(), table.remove(&mut made)), (2, false));
        made.release();
        assert_eq!((made.children(), table.remove(&mut made)), (1, false));
        let stale = table.template(&key()).unwrap();
        made.release();
        assert_eq!((made.children(), table.remove(&mut made)), (0, true));
        assert!(!stale.adopt() && table.is_empty());
        // The entry is another one's now, and as it was: the attempt left no trace.
        let next = table.insert_template(&template(), NOW).unwrap();
        assert_eq!((next.id(), next.children()), (stale.id(), 0));
        assert!(!stale.adopt());
        assert_eq!(next.children(), 0);
    }

    /// Children are made and a template is ended on several threads: whoever was taken in finds the template alive.
    #[test]
    fn nobody_is_orphaned_by_a_race() {
        const ROUNDS: u32 = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
        let table = Table::new(64, HashKey::from_bytes([7; 32]));
        let (taken_in, ended) = (AtomicU32::new(0), AtomicU32::new(0));
        let found = || table.template(&key());
        let parent = || {
            let mut own = 0;
            while own < ROUNDS {
                let Some(template) = found() else { continue };
                if template.adopt() {
                    assert!(template.is_current(), "ended with a child");
                    own += 1;
                    template.release();
                }
            }
            taken_in.fetch_add(1, Relaxed);
        };
        let reaper = || {
            while taken_in.load(Relaxed) < 2 {
                match found() {
                    Some(mut template) => ended.fetch_add(table.remove(&mut template).into(), Relaxed),
                    None => table.insert_template(&template(), NOW).map_or(0, |_| 0),
                };
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(parent);
            scope.spawn(parent);
            scope.spawn(reaper);
        });
        assert!(ended.into_inner() > 0);
        if let Some(mut template) = found() {
            assert_eq!(template.children(), 0);
            assert!(table.remove(&mut template));
        }
        assert!(table.is_empty());
    }
}
