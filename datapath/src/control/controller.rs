//! The controller: one thread that carries out requests in their order and follows the kernel.
//!
//! A change goes book -> snapshot to all workers -> XDP keys, and backwards for removals, so a packet reaches a worker
//! only when the worker knows what to do with it.
//!
//! Invariant: what is refused has changed nothing. The controller may block for a moment (a worker's mail, netlink);
//! packets never wait for it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use xvs_engine::engine::Shared;
use xvs_engine::flow::{Flow, Protocol as Number};
use xvs_engine::real::RealId;
use xvs_engine::sched::Builtin;
use xvs_engine::snapshot::Snapshot;
use xvs_redirect::{Key, Redirect};

use crate::config::{Desired, ServiceState, plan};

use super::book::{Book, Effect};
use super::estimate;
use super::network::{Network, Way};
use super::protocol::{self, Action, Answer, Outcome, Protocol, Refusal, RefusalKind, ServiceId, Timeouts};
use super::report;
use super::socket::Call;
use super::vips::Vips;
use super::workers::{self, Handle};

/// Next hops in use are confirmed by the kernel this often.
const REFRESH: Duration = Duration::from_secs(5);
/// What is over is looked for this often.
const TIDY: Duration = Duration::from_secs(1);

/// Everything that the controller holds. Dropped from top to bottom: frames are steered away before workers stop.
pub struct Controller {
    redirect: Redirect,
    vips: Vips,
    handles: Vec<Handle>,
    report: report::Facts,
    shared: Arc<Shared>,
    book: Book,
    network: Network,
    ways: std::collections::HashMap<RealId, Way>,
    desired: Desired,
    generation: u64,
    local: HashSet<IpAddr>,
}

/// Why the controller came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Read the configuration again.
    Reload,
    /// Leave.
    Stop,
}

/// Where the controller's work comes from.
#[derive(Debug)]
pub struct Inlets {
    /// Requests of tools.
    pub calls: Receiver<Call>,
    /// A worker needs a MAC.
    pub wanted: Receiver<()>,
    /// The kernel has news.
    pub news: Receiver<()>,
    /// Signals of the process.
    pub signals: Receiver<Signal>,
}

impl Controller {
    /// Puts the parts together.
    pub fn new(
        redirect: Redirect,
        handles: Vec<Handle>,
        report: report::Facts,
        shared: Arc<Shared>,
        network: Network,
        desired: Desired,
        vip_interface: &str,
    ) -> Self {
        let counters = handles.iter().map(|handle| handle.public.counters.clone()).collect();
        let book = Book::new(shared.clone(), counters);
        let vips = Vips::new(desired.director().own_vips.then(|| vip_interface.to_owned()));
        let (ways, local) = Default::default();
        let mut controller =
            Controller { redirect, vips, handles, report, shared, book, network, ways, desired, generation: 0, local };
        controller.steer_local();
        controller
    }

    /// Brings the configuration's services and timeouts into force.
    ///
    /// # Errors
    /// A rule was refused by the state of things (a table is full, say).
    pub fn apply_desired(&mut self) -> Result<Vec<String>, Refusal> {
        self.publish();
        let desired = self.desired.clone();
        self.apply(&desired, false)
    }

    /// Takes away what would outlive the process.
    pub fn leave(mut self) {
        self.vips.release(&mut self.network);
    }

    /// Works until told to reload or stop.
    pub fn run(&mut self, inlets: &Inlets) -> Signal {
        let (mut refreshed, mut tidied, mut sampled) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            crossbeam_channel::select! {
                recv(inlets.calls) -> call => if let Ok(Call { action, reply }) = call {
                    let outcome = match self.act(action) {
                        Ok(answer) => Outcome::Ok(answer),
                        Err(refusal) => Outcome::Refused(refusal),
                    };
                    // A tool that went away does not want it any more.
                    let _ = reply.send(outcome);
                },
                recv(inlets.wanted) -> _ => self.network.resolve_wanted(),
                recv(inlets.news) -> _ => self.follow(),
                recv(inlets.signals) -> signal => return signal.unwrap_or(Signal::Stop),
                default(Duration::from_millis(200)) => {}
            }
            if sampled.elapsed() >= Duration::from_secs(estimate::PERIOD_S) {
                sampled += Duration::from_secs(estimate::PERIOD_S);
                self.book.sample();
            }
            if tidied.elapsed() >= TIDY {
                tidied = Instant::now();
                let effects = self.book.tidy(workers::now().millis());
                self.unsteer(&effects);
                self.vips.tick(&self.network);
            }
            if refreshed.elapsed() >= REFRESH {
                refreshed = Instant::now();
                self.network.refresh_used();
            }
        }
    }

    /// Takes in what the kernel reports.
    fn follow(&mut self) {
        let changes = match self.network.follow() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(%error, "the kernel's news can not be read");
                return;
            }
        };
        if changes.addresses {
            self.steer_local();
        }
        if changes.topology {
            for (real, address) in self.book.reals() {
                self.find_way(real, address.ip());
            }
            self.publish();
        }
    }

    /// Tells the XDP program the director's own addresses, whose packets are the kernel's.
    fn steer_local(&mut self) {
        let now: HashSet<IpAddr> = self.network.view().addresses().map(|address| address.address).collect();
        let gone: Vec<Effect> =
            self.local.difference(&now).map(|&address| Effect::Unsteer(Key::Local { address })).collect();
        self.unsteer(&gone);
        for &address in now.difference(&self.local) {
            if let Err(error) = self.redirect.steer(Key::Local { address }) {
                tracing::warn!(%error, %address, "an address of the director is not known to the XDP program");
            }
        }
        self.local = now;
    }

    fn find_way(&mut self, real: RealId, server: IpAddr) {
        let way = self.network.way_to(server);
        self.shared.arena.get(real).set_path(way.path, way.mtu, way.source);
        if self.ways.get(&real).map(|old| &old.path) != Some(&way.path) {
            tracing::debug!(%server, way = way.text, "the way to a real server");
        }
        self.ways.insert(real, way);
    }

    /// Gives all workers a new snapshot and waits until they use it.
    fn publish(&mut self) {
        self.generation += 1;
        let services = self.book.services();
        let snapshot = Snapshot::new(self.generation, &services, self.network.interfaces(), self.network.routes());
        let snapshot = Arc::new(snapshot);
        for handle in &self.handles {
            handle.send(snapshot.clone());
        }
        for (index, handle) in self.handles.iter().enumerate() {
            if !handle.taken() {
                tracing::error!(worker = index, "a worker does not answer; its queue may be dead");
            }
        }
    }

    /// Carries out what an action of the book needs outside of it. If a key can not be steered, says why.
    fn settle(&mut self, effects: &[Effect]) -> Result<(), Refusal> {
        for effect in effects {
            if let Effect::Route(real) = effect {
                let address = self.shared.arena.get(*real).endpoint().address;
                self.find_way(*real, address.into());
            }
        }
        if effects.contains(&Effect::Publish) {
            self.publish();
        }
        for effect in effects {
            if let Effect::Steer(key) = effect {
                let steered = self.redirect.steer(key.clone());
                steered.map_err(|error| Refusal::new(RefusalKind::Limit, error.to_string()))?;
            }
        }
        self.unsteer(effects);
        Ok(())
    }

    fn unsteer(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Unsteer(key) = effect
                && let Err(error) = self.redirect.unsteer(key)
            {
                tracing::warn!(%error, ?key, "a key stays steered");
            }
        }
    }

    /// Carries out one request.
    fn act(&mut self, action: Action) -> Result<Answer, Refusal> {
        match action {
            Action::Services(id) => self.services(id.as_ref()),
            Action::Connections => Ok(Answer::Connections(report::connections(&self.shared, workers::now()))),
            Action::Timeouts => Ok(Answer::Timeouts(self.timeouts())),
            Action::Status => Ok(Answer::Status(Box::new(self.status()))),
            Action::Drops => Ok(Answer::Drops(report::drops(&self.handles))),
            Action::Explain { protocol, client, virtual_address } => {
                Ok(Answer::Text(self.explain(protocol, client, virtual_address)))
            }
            Action::Apply { document, dry_run } => {
                let desired = Desired::read(&document, "", Builtin::NAMES)
                    .map_err(|problems| Refusal::from(problems.as_slice()))?;
                self.apply(&desired, dry_run).map(Answer::Plan)
            }
            change => self.change(change).map(|()| Answer::Done),
        }
    }

    /// Carries out one change of the rules.
    fn change(&mut self, action: Action) -> Result<(), Refusal> {
        let now_ms = workers::now().millis();
        tracing::info!(?action, "change");
        let effects = match action {
            Action::AddService(spec) => {
                let id = spec.id;
                let effects = self.book.add_service(spec)?;
                if let Err(refusal) = self.settle(&effects) {
                    // Nothing may stay of a refused change.
                    let undo = self.book.delete_service(&id, now_ms).unwrap_or_default();
                    self.settle(&undo)?;
                    return Err(refusal);
                }
                self.follow_vips();
                return Ok(());
            }
            Action::EditService(spec) => self.book.edit_service(spec)?,
            Action::DeleteService(id) => self.book.delete_service(&id, now_ms)?,
            Action::Flush => self.book.flush(now_ms),
            Action::AddServer { service, server } => {
                let effects = self.book.add_server(&service, server)?;
                if let Err(refusal) = self.settle(&effects) {
                    let undo = self.book.delete_server(&service, server.address, now_ms).unwrap_or_default();
                    self.settle(&undo)?;
                    return Err(refusal);
                }
                return Ok(());
            }
            Action::EditServer { service, server } => self.book.edit_server(&service, server)?,
            Action::DeleteServer { service, address } => self.book.delete_server(&service, address, now_ms)?,
            Action::Zero(id) => {
                self.book.zero(id.as_ref())?;
                Vec::new()
            }
            Action::SetTimeouts(timeouts) => {
                crate::config::rules::check_timeouts(&timeouts)?;
                report::set_timeouts(&self.shared, timeouts);
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.settle(&effects)?;
        self.follow_vips();
        Ok(())
    }

    /// Makes the rules what a configuration says. With `dry_run` only tells what that would change.
    fn apply(&mut self, desired: &Desired, dry_run: bool) -> Result<Vec<String>, Refusal> {
        let current = self.states();
        let mut plan = plan::diff(&current, desired);
        plan.steps.extend(plan::diff_timeouts(self.timeouts(), desired));
        let mut sentences = plan.sentences();
        for setting in plan::needs_restart(&self.desired, desired) {
            sentences.push(format!("`{setting}` differs, and takes a restart to change."));
        }
        if !dry_run {
            for step in plan.steps {
                self.change(step.action)?;
            }
        }
        Ok(sentences)
    }

    /// Reads a configuration again that came from a file.
    ///
    /// # Errors
    /// It is wrong, or refused; what was in force stays.
    pub fn reload(&mut self, desired: &Desired) -> Result<Vec<String>, Refusal> {
        self.apply(desired, false)
    }

    fn follow_vips(&mut self) {
        let wanted = self.book.entries().filter_map(|entry| match entry.spec.id {
            ServiceId::Address { address, .. } => Some(address.ip()),
            ServiceId::Mark { .. } => None,
        });
        self.vips.follow(wanted.collect(), &mut self.network);
    }

    /// The rules in force, in the order in which a file has them.
    fn states(&self) -> Vec<ServiceState> {
        let state = |entry: &super::book::Entry| ServiceState {
            spec: entry.spec.clone(),
            servers: entry.members.iter().rev().map(|member| member.spec).collect(),
        };
        self.book.entries().map(state).collect()
    }

    fn timeouts(&self) -> Timeouts {
        report::timeouts(&self.shared)
    }

    fn services(&self, id: Option<&ServiceId>) -> Result<Answer, Refusal> {
        let path = |real| self.ways.get(&real).map(|way| way.text.clone()).unwrap_or_default();
        let size = self.shared.table.capacity().into();
        let services = match id {
            None => self.book.entries().map(|entry| self.book.view(entry, path)).collect(),
            Some(id) => {
                let entry = self.book.entry(id).ok_or_else(|| {
                    let message = format!("there is no service {}", crate::config::rules::describe(id));
                    Refusal::new(RefusalKind::NoSuchService, message)
                })?;
                vec![self.book.view(entry, path)]
            }
        };
        Ok(Answer::Services(protocol::Services { size, services }))
    }

    fn status(&self) -> protocol::Status {
        self.report.status(&self.shared, &self.handles, &self.redirect, self.generation)
    }

    fn explain(&self, protocol: Protocol, client: SocketAddr, virtual_address: SocketAddr) -> String {
        let number = match protocol {
            Protocol::Tcp => Number::TCP,
            Protocol::Udp => Number::UDP,
            Protocol::Sctp => Number::SCTP,
        };
        let flow = Flow { protocol: number, src: client.into(), dst: virtual_address.into() };
        let services = self.book.services();
        let snapshot = Snapshot::new(self.generation, &services, self.network.interfaces(), self.network.routes());
        xvs_engine::explain::explain(&self.shared, &snapshot, &flow, workers::now())
    }
}
