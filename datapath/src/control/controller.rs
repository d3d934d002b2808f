//! The controller: one thread that carries out requests in their order and follows the kernel.
//!
//! A change goes book -> snapshot to all workers -> XDP keys, and backwards for removals, so a packet reaches a worker
//! only when the worker knows what to do with it.
//!
//! Invariant: what is refused has changed nothing. The controller may block for a moment (a worker's mail, netlink);
//! packets never wait for it. Nothing that comes from a socket makes it panic.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never};

use xvs_engine::conn::Class;
use xvs_engine::engine::Shared;
use xvs_engine::flow::Flow;
use xvs_engine::sched::Builtin;

use crate::config::document::Document;
use crate::config::{Desired, Problem, ServiceState, plan};

use super::book::{Book, check_room};
use super::change::Scene;
use super::datapath::Datapath;
use super::protocol::{Action, Answer, Outcome, Protocol, Refusal, RefusalKind, ServiceId};
use super::socket::Call;
use super::vips::Vips;
use super::{answer, estimate, keys, report, timeouts, workers};

/// Next hops in use are confirmed by the kernel this often.
const REFRESH: Duration = Duration::from_secs(5);
/// What is over is looked for this often, and so is what was not told.
const TICK: Duration = Duration::from_secs(1);
/// The longest that the controller waits without looking at its timers.
const WAIT: Duration = Duration::from_millis(200);
/// After news from the kernel, further news wait so many times as long as these took: a storm of changes leaves time
/// for requests.
const NEWS_PAUSE: u32 = 4;

/// Everything that the controller holds.
pub struct Controller {
    datapath: Datapath,
    vips: Vips,
    report: report::Facts,
    shared: Arc<Shared>,
    book: Book,
    desired: Desired,
    /// News from the kernel are not looked at before.
    quiet_until: Instant,
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
        datapath: Datapath,
        report: report::Facts,
        shared: Arc<Shared>,
        desired: Desired,
        vip_interface: &str,
    ) -> Self {
        let counters = datapath.handles.iter().map(|handle| handle.public.counters.clone()).collect();
        let mut book = Book::new(shared.clone(), counters);
        book.begin_with(desired.settings());
        book.observe_replies(desired.director().observe_replies);
        let vips = Vips::new(desired.director().own_vips.then(|| vip_interface.to_owned()));
        Controller { datapath, vips, report, shared, book, desired, quiet_until: Instant::now() }
    }

    /// Brings the configuration's services and timeouts into force.
    ///
    /// # Errors
    /// A rule was refused by the state of things (a table is full, say).
    pub fn apply_desired(&mut self) -> Result<(), Refusal> {
        let desired = self.desired.clone();
        self.apply(&desired, |_| false, false).map(drop)
    }

    /// Works until told to reload or stop.
    pub fn run(&mut self, inlets: &mut Inlets) -> Signal {
        let (mut refreshed, mut ticked, mut sampled) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            // An inlet whose other end is gone would be ready for ever; it is closed instead.
            crossbeam_channel::select! {
                recv(inlets.calls) -> call => match call {
                    Ok(Call { action, reply }) => {
                        let outcome = self.act(action).map_or_else(Outcome::Refused, Outcome::Ok);
                        // A tool that went away does not want it any more.
                        let _ = reply.send(outcome);
                    }
                    Err(_) => inlets.calls = never(),
                },
                recv(inlets.wanted) -> wanted => match wanted {
                    Ok(()) => self.datapath.network.resolve_wanted(),
                    Err(_) => inlets.wanted = never(),
                },
                recv(inlets.news) -> news => match news {
                    Ok(()) if Instant::now() < self.quiet_until => {}
                    Ok(()) => self.follow(),
                    Err(_) => inlets.news = never(),
                },
                recv(inlets.signals) -> signal => return signal.unwrap_or(Signal::Stop),
                default(WAIT) => {}
            }
            if due(&mut sampled, Duration::from_secs(estimate::PERIOD_S)) {
                self.book.sample();
            }
            if due(&mut ticked, TICK) {
                self.book.defend(workers::now());
                self.book.tidy(workers::now().millis(), &mut self.datapath);
                self.vips.tick(&mut self.datapath.network);
                self.datapath.look_after_workers();
                self.datapath.network.tick();
                // Also without news: something may have been left, or gone wrong, the last time.
                self.follow();
            }
            if due(&mut refreshed, REFRESH) {
                self.datapath.network.refresh_used();
            }
        }
    }

    /// Takes in what the kernel reports.
    fn follow(&mut self) {
        let begun = Instant::now();
        let (changes, outcome) = self.datapath.network.follow();
        if changes.topology || changes.addresses {
            self.datapath.follow(changes, &self.book.services(), self.book.reals());
        }
        self.quiet_until = Instant::now() + begun.elapsed() * NEWS_PAUSE;
        if let Err(error) = outcome {
            tracing::error!(%error, "the kernel's news can not be read; it is tried again in a second");
            self.quiet_until = Instant::now() + TICK;
        }
    }

    /// Carries out one request.
    fn act(&mut self, action: Action) -> Result<Answer, Refusal> {
        match action {
            Action::Status => Ok(Answer::Status(Box::new(self.report.status(&self.shared, &self.datapath)))),
            Action::Drops => Ok(Answer::Drops(report::drops(&self.datapath.handles))),
            Action::Explain { protocol, client, virtual_address } => {
                self.explain(protocol, client, virtual_address).map(Answer::Text)
            }
            Action::Apply { document, dry_run } => {
                let wrong = |problems: Vec<Problem>| Refusal::from(problems.as_slice());
                let document = Document::parse(&document, "").map_err(wrong)?;
                let silent = silent_about(&document);
                let desired = Desired::validate(document, Builtin::NAMES).map_err(wrong)?;
                self.apply(&desired, silent, dry_run).map(Answer::Plan)
            }
            other => {
                // Only these bring or take away addresses.
                let services = matches!(other, Action::AddService(_) | Action::DeleteService(_) | Action::Flush);
                let answer = answer::answer(&mut self.scene(), other)?;
                if services {
                    self.follow_vips();
                }
                Ok(answer)
            }
        }
    }

    fn scene(&mut self) -> Scene<'_> {
        let Controller { book, shared, datapath, .. } = self;
        Scene { book, shared, outside: datapath, now_ms: workers::now().millis() }
    }

    /// Makes the rules what a configuration says. With `dry_run` only tells what that would change. Settings that the
    /// document is silent about are not compared with those in force.
    fn apply(
        &mut self,
        desired: &Desired,
        silent: impl Fn(&str) -> bool,
        dry_run: bool,
    ) -> Result<Vec<String>, Refusal> {
        check_room(desired.marks(), desired.services())?;
        let mut plan = plan::diff(&self.states(), desired);
        // In front, to come into force together with the services.
        plan.steps.splice(0..0, plan::diff_marks(self.book.mark_rules(), desired));
        plan.steps.extend(plan::diff_timeouts(&timeouts::states(&self.shared, Class::DIRECTOR), desired));
        // First: what comes after is carried out under them.
        plan.steps.splice(0..0, plan::diff_settings(self.book.settings(), desired));
        let mut sentences = plan.sentences();
        for setting in plan::needs_restart(&self.desired, desired).into_iter().filter(|setting| !silent(setting)) {
            sentences.push(format!("`{setting}` differs, and takes a restart to change."));
        }
        if !dry_run {
            self.scene().change_all(plan.steps.into_iter().map(|step| step.action).collect())?;
            self.follow_vips();
        }
        Ok(sentences)
    }

    /// Reads a configuration again that came from a file.
    ///
    /// # Errors
    /// It is wrong, or refused; what was in force stays.
    pub fn reload(&mut self, desired: &Desired) -> Result<Vec<String>, Refusal> {
        self.apply(desired, |_| false, false)
    }

    fn follow_vips(&mut self) {
        if !self.vips.are_ours() {
            return;
        }
        let wanted = self.book.entries().filter_map(|entry| match entry.spec.id {
            ServiceId::Address { address, .. } => Some(address.ip()),
            ServiceId::Mark { .. } => None,
        });
        self.vips.follow(wanted.collect(), &mut self.datapath.network);
    }

    /// The rules in force, in the order in which a file has them.
    fn states(&self) -> Vec<ServiceState> {
        let state = |entry: &super::entry::Entry| ServiceState {
            spec: entry.spec.clone(),
            timeouts: entry.timeouts.clone(),
            servers: entry.members().rev().map(|member| member.spec).collect(),
        };
        self.book.entries().map(state).collect()
    }

    fn explain(&self, protocol: Protocol, client: SocketAddr, virtual_address: SocketAddr) -> Result<String, Refusal> {
        if client.is_ipv4() != virtual_address.is_ipv4() {
            let message = format!("no packet goes from {client} to {virtual_address}: one is IPv4 and one IPv6");
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        let flow = Flow { protocol: keys::number(protocol), src: client.into(), dst: virtual_address.into() };
        Ok(xvs_engine::explain::explain(&self.shared, self.datapath.snapshot(), &flow, workers::now()))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Before the datapath goes, whichever way the director ends: they would outlive the process.
        self.vips.release(&mut self.datapath.network);
    }
}

/// Has this much time passed? Then it begins again. After a long pause (a suspended machine) once, and not as often as
/// it would have been in that time.
fn due(since: &mut Instant, period: Duration) -> bool {
    let elapsed = since.elapsed();
    if elapsed < period {
        return false;
    }
    *since = if elapsed < 2 * period { *since + period } else { Instant::now() };
    true
}

/// The settings that a document has no word about: whoever sends only services does not ask for other interfaces.
fn silent_about(document: &Document) -> impl Fn(&str) -> bool + use<> {
    let director = document.director == Default::default();
    let connections = document.connections == Default::default();
    let frames = document.frames == Default::default();
    let interface = document.interface.is_empty();
    move |setting| match setting.split('.').next() {
        Some("director") => director,
        Some("connections") => connections,
        Some("frames") => frames,
        Some("interface") => interface,
        _ => false,
    }
}
