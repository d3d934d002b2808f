//! The datapath as the control side moves it: snapshots to the workers, keys to the XDP program, ways to the servers.
//!
//! Invariant: what the workers use is the last snapshot that was made here, unless one of them does not answer, which
//! is noticed and told. Dropped from top to bottom: frames are steered away before the workers stop. Why something is
//! published or steered, it does not know; that is the book's business.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use xvs_engine::engine::Shared;
use xvs_engine::hop::Interface;
use xvs_engine::mark::Marks;
use xvs_engine::real::RealId;
use xvs_engine::route::Routes;
use xvs_engine::snapshot::{Services, Snapshot};
use xvs_redirect::{Error, Key, Range, Redirect};

use super::book::Outside;
use super::network::{Changes, Network, Way};
use super::protocol::{Refusal, RefusalKind};
use super::replies::Replies;
use super::ways::Ways;
use super::workers::{Handle, Health};

/// Workers, XDP program, network.
pub struct Datapath {
    /// The XDP programs.
    pub redirect: Redirect,
    /// The workers.
    pub handles: Vec<Handle>,
    /// The network.
    pub network: Network,
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    /// What the snapshots are made of besides services.
    interfaces: Arc<[Interface]>,
    routes: Arc<Routes>,
    marks: Arc<Marks>,
    generation: u64,
    ways: Ways,
    replies: Replies,
    local: HashSet<IpAddr>,
}

impl Datapath {
    /// Puts the parts together. Nothing is steered but the director's own addresses.
    pub fn new(redirect: Redirect, handles: Vec<Handle>, network: Network, shared: Arc<Shared>) -> Self {
        let (snapshot, marks, ways, local) = Default::default();
        let (interfaces, routes) = (network.interfaces().into(), network.routes().into());
        let (generation, replies) = (0, Replies::start(shared.clone()));
        let mut datapath = Datapath {
            redirect,
            handles,
            network,
            shared,
            snapshot,
            interfaces,
            routes,
            marks,
            generation,
            ways,
            replies,
            local,
        };
        datapath.steer_local();
        datapath.tell_macs();
        datapath.publish(&Services::default(), &Arc::default());
        datapath
    }

    /// What the workers use.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes in what the network reported. `services` are all that there are. Ways that this may have changed are found
    /// again by [`go_on_finding_ways`](Datapath::go_on_finding_ways).
    pub fn follow(&mut self, changes: &Changes, services: &Services) {
        if changes.addresses {
            self.steer_local();
        }
        if !changes.topology {
            return;
        }
        (self.interfaces, self.routes) = (self.network.interfaces().into(), self.network.routes().into());
        self.tell_macs();
        // First, so that the workers know of an interface before a way goes there.
        self.publish(services, &self.marks.clone());
        if changes.all_ways {
            self.ways.stale.add_all();
        }
        changes.prefixes.iter().for_each(|&(prefix, length)| self.ways.stale.add_prefix(prefix, length));
        self.replies.follow(&self.routes);
    }

    /// Finds the ways of some servers again, as much as takes to write so many records. True if there is more to do.
    pub fn go_on_finding_ways(&mut self, records: usize) -> bool {
        let Datapath { ways, network, shared, .. } = self;
        let write = |real, way: &Way| shared.arena.get(real).set_path(way.path, way.mtu, way.source);
        ways.go_on(records, |server| network.way_to(server.into()), write)
    }

    /// Looks after the workers, once a second: one that has ended or does not breathe is told of once.
    pub fn look_after_workers(&mut self) {
        for (queue, handle) in (0..).zip(&mut self.handles) {
            let Some(health) = handle.look() else { continue };
            match health {
                Health::Well => tracing::info!(worker = queue, "the worker breathes again"),
                Health::Silent => {
                    tracing::error!(worker = queue, "the worker does not breathe; its queues are not served")
                }
                Health::Ended => {
                    tracing::error!(
                        worker = queue,
                        "the worker has ended; start the director again to serve its queues"
                    );
                    // Else packets would go to sockets that nobody reads, whatever was asked for absent workers.
                    for &link in self.network.devices() {
                        if let Err(error) = self.redirect.unregister(link, queue) {
                            tracing::warn!(%error, worker = queue, "its queue could not be taken away from it");
                        }
                    }
                }
            }
        }
    }

    /// Tells the XDP program the director's own addresses, whose packets are the kernel's.
    fn steer_local(&mut self) {
        let now: HashSet<IpAddr> = self.network.view().addresses().map(|address| address.address).collect();
        let gone: Vec<IpAddr> = self.local.difference(&now).copied().collect();
        for address in gone {
            self.unsteer(&Key::Local { address });
            self.local.remove(&address);
        }
        for address in now {
            if self.local.contains(&address) {
                continue;
            }
            match self.redirect.steer(Key::Local { address }) {
                Ok(()) => drop(self.local.insert(address)),
                // It is tried again with the next change of addresses.
                Err(error) => {
                    tracing::warn!(%error, %address, "an address of the director is not known to the XDP program")
                }
            }
        }
    }

    /// Tells the XDP program which MACs are ours: what a switch floods to us is not for us.
    fn tell_macs(&mut self) {
        for &device in self.network.devices() {
            let mut macs = self.network.macs_of(device);
            if macs.len() > Redirect::MACS_MAX {
                tracing::warn!(device, count = macs.len(), "too many MACs on one interface: frames for any are taken");
                macs.clear();
            }
            if let Err(error) = self.redirect.set_macs(device, &macs) {
                tracing::warn!(%error, device, "the MACs of an interface are not known to the XDP program");
            }
        }
    }
}

/// What the XDP program did not take.
fn no_room(error: &Error) -> Refusal {
    let full = matches!(error, Error::MapFull { .. } | Error::TooManyRanges { .. });
    Refusal::new(if full { RefusalKind::Limit } else { RefusalKind::Invalid }, error.to_string())
}

impl Outside for Datapath {
    fn publish(&mut self, services: &Services, marks: &Arc<Marks>) {
        self.generation += 1;
        self.marks = marks.clone();
        let Datapath { generation, interfaces, routes, .. } = &*self;
        let snapshot = Snapshot::of(*generation, services.clone(), interfaces.clone(), routes.clone());
        self.snapshot = Arc::new(snapshot.with_marks(marks.clone()));
        for handle in &mut self.handles {
            handle.send(self.snapshot.clone());
        }
        for (index, handle) in self.handles.iter_mut().enumerate() {
            if !handle.taken() && handle.health() == Health::Well {
                tracing::error!(worker = index, "the worker did not take its new snapshot");
            }
        }
    }

    fn steer(&mut self, key: &Key) -> Result<(), Refusal> {
        self.redirect.steer(*key).map_err(|error| no_room(&error))
    }

    fn unsteer(&mut self, key: &Key) {
        if let Err(error) = self.redirect.unsteer(key) {
            tracing::warn!(%error, ?key, "a key stays steered");
        }
    }

    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Refusal> {
        self.redirect.set_ranges(ranges).map_err(|error| no_room(&error))
    }

    fn route(&mut self, real: RealId, server: IpAddr) {
        let way = self.network.way_to(server);
        self.shared.arena.get(real).set_path(way.path, way.mtu, way.source);
        self.ways.add(real, server.into(), way);
    }

    fn unroute(&mut self, real: RealId) {
        self.ways.forget(real);
    }

    fn way(&self, real: RealId) -> String {
        self.ways.get(real).map(|way| way.text.clone()).unwrap_or_default()
    }
}
