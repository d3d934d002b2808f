//! The built-in schedulers, one a file, each with its rule on top.
//!
//! They implement the same trait as plugins do (`xvs_sdk::Scheduler`); [`Builtin`] makes one of them out of a name.
//! It is an enum and not a trait object, so that a pick costs no indirect call.

mod cache;
pub mod dh;
pub mod fo;
pub mod guest;
mod hash;
pub mod lblc;
pub mod lblcr;
pub mod lc;
pub mod mh;
pub mod nq;
pub mod ovf;
pub mod rr;
mod scan;
pub mod sed;
pub mod sh;
pub mod twos;
pub mod wlc;
pub mod wrr;

use xvs_sdk::{Change, Reals, Request, Scheduler};

macro_rules! builtins {
    ($($variant:ident($name:literal) = $type:ty;)+) => {
        /// A built-in scheduler with its state.
        #[derive(Clone, Debug)]
        pub enum Builtin {
            $(#[doc = concat!("`", $name, "`")] $variant($type),)+
        }

        impl Builtin {
            /// Names of all built-in schedulers.
            pub const NAMES: &'static [&'static str] = &[$($name,)+];

            /// A fresh scheduler of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Builtin::$variant(Default::default())),)+
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(&self) -> &'static str {
                match self { $(Builtin::$variant(_) => $name,)+ }
            }
        }

        impl Scheduler for Builtin {
            fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
                match self { $(Builtin::$variant(scheduler) => scheduler.reals_changed(reals, change),)+ }
            }

            fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
                match self { $(Builtin::$variant(scheduler) => scheduler.pick(request, reals),)+ }
            }
        }
    };
}

builtins! {
    RoundRobin("rr") = rr::RoundRobin;
    WeightedRoundRobin("wrr") = wrr::WeightedRoundRobin;
    LeastConnection("lc") = lc::LeastConnection;
    WeightedLeastConnection("wlc") = wlc::WeightedLeastConnection;
    ShortestExpectedDelay("sed") = sed::ShortestExpectedDelay;
    NeverQueue("nq") = nq::NeverQueue;
    WeightedFailover("fo") = fo::WeightedFailover;
    Overflow("ovf") = ovf::Overflow;
    TwoChoices("twos") = twos::TwoChoices;
    DestinationHash("dh") = dh::DestinationHash;
    SourceHash("sh") = sh::SourceHash;
    Maglev("mh") = mh::Maglev;
    Locality("lblc") = lblc::Locality;
    LocalityWithReplication("lblcr") = lblcr::LocalityWithReplication;
}

/// What is asked where nobody looks at it.
static ANYBODY: Request = Request {
    client: [0; 16],
    virtual_address: [0; 16],
    client_port: 0,
    virtual_port: 0,
    protocol: 0,
    flags: 0,
    family: 0,
    hash: 0,
    service: 0,
    mark: 0,
    interface: 0,
    queue: 0,
    breath: 0,
    now_ms: 0,
    random: 0,
};

impl Builtin {
    /// Sets for how long `lblc` and `lblcr` remember (`lblc_expiration`, `lblcr_expiration`); others remember nothing.
    pub fn remember_for(&mut self, lblc_s: u32, lblcr_s: u32) {
        match self {
            Builtin::Locality(scheduler) => scheduler.remember_for(lblc_s.into()),
            Builtin::LocalityWithReplication(scheduler) => scheduler.remember_for(lblcr_s.into()),
            _ => {}
        }
    }

    /// The pick of one that chooses by the servers alone, whoever asks. None of another, which was not asked.
    #[inline]
    pub fn pick_by_servers<R: Reals + ?Sized>(&mut self, reals: &R) -> Option<Option<usize>> {
        let anybody = &ANYBODY;
        match self {
            Builtin::RoundRobin(scheduler) => Some(scheduler.pick(anybody, reals)),
            Builtin::WeightedRoundRobin(scheduler) => Some(scheduler.pick(anybody, reals)),
            Builtin::LeastConnection(scheduler) => Some(scheduler.pick(anybody, reals)),
            Builtin::WeightedLeastConnection(scheduler) => Some(scheduler.pick(anybody, reals)),
            Builtin::ShortestExpectedDelay(scheduler) => Some(scheduler.pick(anybody, reals)),
            Builtin::NeverQueue(scheduler) => Some(scheduler.pick(anybody, reals)),
            Builtin::WeightedFailover(scheduler) => Some(scheduler.pick(anybody, reals)),
            Builtin::Overflow(scheduler) => Some(scheduler.pick(anybody, reals)),
            _ => None,
        }
    }

    /// May this pick of it stand? A usable server may. `lblc` may also send an address to the server where it was,
    /// although that is at its threshold: the kernel's habit.
    #[inline(always)]
    pub fn accepts<R: Reals + ?Sized>(&self, reals: &R, index: usize) -> bool {
        let keeps = || matches!(self, Builtin::Locality(_)) && reals.weight(index) > 0;
        index < reals.len() && (reals.is_usable(index) || keeps())
    }
}

/// Where a cursor points after a change of the list: it follows its server, and steps back when that one is removed.
fn follow(cursor: Option<usize>, change: Change) -> Option<usize> {
    match (cursor, change) {
        (_, Change::All) => None,
        (Some(cursor), Change::Added(index)) if index <= cursor => Some(cursor + 1),
        (Some(cursor), Change::Removed(index)) if index <= cursor => cursor.checked_sub(1),
        (cursor, _) => cursor,
    }
}

/// Greatest common divisor; of 0 and a number, the number.
fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A real server by name, as the reference's vectors tell of them.
    #[derive(Clone, Debug)]
    pub(crate) struct Named {
        name: &'static str,
        weight: i32,
        last_weight: i32,
        active: u32,
        total: u32,
        overloaded: bool,
    }

    /// Real servers in the director's order.
    #[derive(Default)]
    pub(crate) struct List(Vec<Named>);

    impl Reals for List {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn weight(&self, index: usize) -> i32 {
            self.0[index].weight
        }
        fn active(&self, index: usize) -> u32 {
            self.0[index].active
        }
        fn total(&self, index: usize) -> u32 {
            self.0[index].total
        }
        fn is_overloaded(&self, index: usize) -> bool {
            self.0[index].overloaded
        }
        fn last_weight(&self, index: usize) -> i32 {
            self.0[index].last_weight
        }
        /// A is 10.0.0.1:80, B is 10.0.0.2:80 and so on.
        fn address(&self, index: usize) -> ([u8; 16], u16) {
            (v4([10, 0, 0, self.0[index].name.as_bytes()[0] - b'A' + 1]), 80)
        }
    }

    /// The clients of the reference's vectors for `sh` and `mh`.
    pub(crate) const CLIENTS: [[u8; 4]; 5] =
        [[192, 168, 1, 10], [192, 168, 1, 11], [10, 1, 2, 3], [203, 0, 113, 77], [8, 8, 8, 8]];

    /// An IPv4 address as a request has it.
    pub(crate) fn v4([a, b, c, d]: [u8; 4]) -> [u8; 16] {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    /// A request of a client.
    pub(crate) fn from_v4(client: [u8; 4]) -> Request {
        Request { client: v4(client), ..Request::default() }
    }

    /// A request for a virtual address.
    pub(crate) fn to_v4(virtual_address: [u8; 4]) -> Request {
        Request { virtual_address: v4(virtual_address), ..Request::default() }
    }

    /// A scheduler and its servers; every pick opens a connection that never closes.
    pub(crate) struct Bench<S> {
        pub(crate) scheduler: S,
        reals: List,
        pub(crate) udp: bool,
    }

    impl<S: Scheduler> Bench<S> {
        pub(crate) fn new(scheduler: S, servers: &[(&'static str, i32)]) -> Self {
            let mut bench = Bench { scheduler, reals: List::default(), udp: false };
            bench.scheduler.reals_changed(&bench.reals, Change::All);
            for &(name, weight) in servers {
                bench.add(name, weight);
            }
            bench
        }

        fn index(&self, name: &str) -> usize {
            self.reals.0.iter().position(|real| real.name == name).unwrap()
        }

        /// The name of the server at an index.
        pub(crate) fn name(&self, index: usize) -> &'static str {
            self.reals.0[index].name
        }

        pub(crate) fn reals(&self) -> &List {
            &self.reals
        }

        /// Adds a server, and the scheduler does not hear of it.
        pub(crate) fn add_silently(&mut self, name: &'static str, weight: i32) {
            let last_weight = weight;
            self.reals.0.insert(0, Named { name, weight, last_weight, active: 0, total: 0, overloaded: false });
        }

        pub(crate) fn add(&mut self, name: &'static str, weight: i32) {
            self.add_silently(name, weight);
            self.scheduler.reals_changed(&self.reals, Change::Added(0));
        }

        pub(crate) fn remove(&mut self, name: &str) {
            let index = self.index(name);
            self.reals.0.remove(index);
            self.scheduler.reals_changed(&self.reals, Change::Removed(index));
        }

        /// Changes a weight, and the scheduler does not hear of it.
        pub(crate) fn edit_silently(&mut self, name: &str, weight: i32) {
            let index = self.index(name);
            let real = &mut self.reals.0[index];
            real.weight = weight;
            real.last_weight = if weight == 0 { real.last_weight } else { weight };
        }

        pub(crate) fn edit(&mut self, name: &str, weight: i32) {
            self.edit_silently(name, weight);
            let index = self.index(name);
            self.scheduler.reals_changed(&self.reals, Change::Edited(index));
        }

        pub(crate) fn overload(&mut self, name: &str, overloaded: bool) {
            let index = self.index(name);
            self.reals.0[index].overloaded = overloaded;
        }

        /// Sets a server's numbers of connections.
        pub(crate) fn load(&mut self, name: &str, active: u32, total: u32) {
            let index = self.index(name);
            let real = &mut self.reals.0[index];
            (real.active, real.total) = (active, total);
        }

        /// The name that a request gets, `-` for none; no connection is counted.
        pub(crate) fn ask(&mut self, request: &Request) -> &'static str {
            self.scheduler.pick(request, &self.reals).map_or("-", |index| self.name(index))
        }
    }

    /// The names of the next picks; `-` where there was none.
    pub(crate) fn picks<S: Scheduler>(bench: &mut Bench<S>, count: usize) -> String {
        let pick = |_| match bench.scheduler.pick(&Request::default(), &bench.reals) {
            None => "-",
            Some(index) => {
                let real = &mut bench.reals.0[index];
                real.total += 1;
                real.active += u32::from(!bench.udp);
                real.name
            }
        };
        (0..count).map(pick).collect()
    }

    /// Every built-in must be reachable by the name it says it has.
    #[test]
    fn names_lead_to_their_schedulers() {
        for name in Builtin::NAMES {
            assert_eq!(Builtin::from_name(name).map(|builtin| builtin.name()), Some(*name));
        }
        assert!(Builtin::from_name("none").is_none());
    }
}
