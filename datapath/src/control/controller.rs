//! The controller: one thread that carries out requests in their order and follows the kernel.
//!
//! A change goes book -> snapshot to all workers -> XDP keys, and backwards for removals, so a packet reaches a worker
//! only when the worker knows what to do with it.
//!
//! Invariant: what is refused has changed nothing. The controller may block for a moment (a worker's mail, netlink);
//! packets never wait for it. Nothing that comes from a socket makes it panic.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, never};

use xvs_engine::conn::Class;
use xvs_engine::engine::Shared;
use xvs_engine::flow::Flow;

use crate::config::{Desired, ServiceState, plan, plugins};

use super::book::{Book, Outside, check_room};
use super::change::Scene;
use super::datapath::Datapath;
use super::errands::{Errand, Errands, Ready, Silent};
use super::protocol::{Action, Answer, Outcome, Protocol, Refusal, RefusalKind, Services};
use super::socket::Call;
use super::vips::Vips;
use super::wanted::{self, Wanted};
use super::watch::Watch;
use super::workshop::{Machine, Workshop};
use super::{answer, estimate, keys, report, timeouts, ways, workers};

/// Next hops in use are confirmed by the kernel this often.
const REFRESH: Duration = Duration::from_secs(5);
/// What is over is looked for this often, and so is what was not told.
const TICK: Duration = Duration::from_secs(1);
/// Plugins are looked after this often.
const TEND: Duration = Duration::from_millis(100);
/// The longest that the controller waits without looking at its timers.
const WAIT: Duration = Duration::from_millis(200);
/// What concerns all services or servers is done for so many between two requests, which takes less than a millisecond.
const PIECE: usize = 1000;
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
    errands: Errands,
    /// Who wants to have all services listed.
    listers: VecDeque<Sender<Outcome>>,
    watch: Option<Watch>,
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
    /// Puts the parts together; `machine` makes plugins out of files.
    pub fn new(
        datapath: Datapath,
        report: report::Facts,
        shared: Arc<Shared>,
        desired: Desired,
        vip_interface: &str,
        machine: Machine,
    ) -> Self {
        let counters = datapath.handles.iter().map(|handle| handle.public.counters.clone()).collect();
        let mut book = Book::new(shared.clone(), counters);
        book.begin_with(desired.settings());
        book.observe_replies(desired.director().observe_replies);
        let director = desired.director();
        book.look_for_plugins_in(director.scheduler_dir.clone());
        let watch = director.scheduler_dir.as_deref().filter(|_| director.watch_schedulers).map(Watch::new);
        let (errands, listers) = (Errands::start(machine.clone()), VecDeque::new());
        *book.workshop() = Workshop::new(machine);
        let vips = Vips::new(director.own_vips.then(|| vip_interface.to_owned()));
        Controller {
            datapath,
            vips,
            report,
            shared,
            book,
            desired,
            errands,
            listers,
            watch,
            quiet_until: Instant::now(),
        }
    }

    /// Brings the configuration's services and timeouts into force.
    ///
    /// # Errors
    /// A rule was refused by the state of things (a table is full, say).
    pub fn apply_desired(&mut self) -> Result<(), Refusal> {
        let desired = self.desired.clone();
        let outcome = self.apply(&desired, Silent::default(), false, "configuration");
        self.book.workshop().clear();
        outcome.map(drop)
    }

    /// Works until told to reload or stop.
    pub fn run(&mut self, inlets: &mut Inlets) -> Signal {
        let (mut refreshed, mut ticked, mut sampled) = (Instant::now(), Instant::now(), Instant::now());
        let (mut tended, mut wait) = (Instant::now(), WAIT);
        let ready = self.errands.ready.clone();
        loop {
            // An inlet whose other end is gone would be ready for ever; it is closed instead.
            crossbeam_channel::select! {
                recv(inlets.calls) -> call => match call {
                    Ok(call) => {
                        self.take(Errand::of(call))
                    }
                    Err(_) => inlets.calls = never(),
                },
                recv(ready) -> ready => match ready {
                    // It was only read: which modules it needs, was not known.
                    Ok(Ready { errand, orders, .. }) if orders.is_empty() => self.take(errand),
                    Ok(Ready { errand, orders, outcomes }) => {
                        self.book.workshop().stock(orders, outcomes);
                        self.carry_out(errand);
                    }
                    Err(_) => {}
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
                default(wait) => {}
            }
            if due(&mut tended, TEND) {
                self.book.begin_to_tend();
            }
            if due(&mut sampled, Duration::from_secs(estimate::PERIOD_S)) {
                self.book.begin_sample();
            }
            wait = if self.go_on() { Duration::ZERO } else { WAIT };
            if due(&mut ticked, TICK) {
                self.book.defend(workers::now());
                self.book.begin_to_tidy(workers::now().millis(), &mut self.datapath);
                self.vips.tick(&mut self.datapath.network);
                self.look_at_plugins();
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

    /// Goes on with what concerns all services or servers, a piece of each. True if there is more to do.
    fn go_on(&mut self) -> bool {
        let samples = self.book.go_on_sampling(PIECE);
        let tends = self.book.go_on_tending(workers::now().millis(), PIECE);
        let finds = self.datapath.go_on_finding_ways(PIECE);
        let asks = self.datapath.network.go_on_resolving(PIECE / ways::FINDING);
        let tidies = self.book.go_on_tidying(workers::now().millis(), PIECE / 2, &mut self.datapath);
        let lists = self.go_on_listing();
        samples || tends || finds || asks || tidies || lists
    }

    /// Goes on with the listing for the first who asked. True if there is more to do.
    fn go_on_listing(&mut self) -> bool {
        let Controller { listers, book, datapath, shared, .. } = self;
        if listers.is_empty() {
            return false;
        }
        if !book.is_listing() {
            book.begin_listing();
        }
        if let Some((services, totals)) = book.go_on_listing(PIECE, |real| datapath.way(real))
            && let Some(lister) = listers.pop_front()
        {
            let size = shared.table.capacity().into();
            // A tool that went away does not want it any more.
            let _ = lister.send(Outcome::Ok(Answer::Services(Services { size, services, totals })));
        }
        !listers.is_empty()
    }

    /// Takes in what the kernel reports.
    fn follow(&mut self) {
        let begun = Instant::now();
        let (changes, outcome) = self.datapath.network.follow();
        if changes.topology || changes.addresses {
            self.datapath.follow(&changes, self.book.services());
        }
        self.quiet_until = Instant::now() + begun.elapsed() * NEWS_PAUSE;
        if let Err(error) = outcome {
            tracing::error!(%error, "the kernel's news can not be read; it is tried again in a second");
            self.quiet_until = Instant::now() + TICK;
        }
    }

    /// Carries out an errand, at once or when its modules are made.
    fn take(&mut self, errand: Errand) {
        let orders = errand.orders(&self.book);
        if orders.is_empty() && !matches!(errand, Errand::Unread(_)) {
            self.carry_out(errand);
        } else if let Err(errand) = self.errands.send(errand, orders) {
            self.carry_out(errand);
        }
    }

    fn carry_out(&mut self, errand: Errand) {
        match errand {
            Errand::Call(call) => {
                let Call { action, who, reply } = *call;
                match action {
                    Action::Connections => return self.list_connections(reply),
                    Action::Services(None) => return self.listers.push_back(reply),
                    _ => {}
                }
                let outcome = self.act(action, &who).map_or_else(Outcome::Refused, Outcome::Ok);
                // A tool that went away does not want it any more.
                let _ = reply.send(outcome);
            }
            // Nobody else would read it.
            Errand::Unread(_) => {
                if let Some(errand) = errand.read() {
                    self.carry_out(errand);
                }
            }
            Errand::Apply { desired, silent, dry_run, who, reply } => {
                let outcome = self.apply(&desired, silent, dry_run, &who).map(Answer::Plan);
                let _ = reply.send(outcome.map_or_else(Outcome::Refused, Outcome::Ok));
            }
            Errand::Reload(desired) => match self.apply(&desired, Silent::default(), false, "configuration") {
                Ok(changes) if changes.is_empty() => tracing::info!("configuration read again: nothing changes"),
                Ok(changes) => changes.iter().for_each(|change| tracing::info!(change, "configuration read again")),
                Err(refusal) => tracing::error!(refusal = refusal.message, "configuration refused; the rules stay"),
            },
            Errand::Watched(wanted) => {
                let Wanted { file, .. } = wanted.clone();
                if let Err(refusal) = self.scene("watched directory").follow_file(wanted) {
                    tracing::warn!(file = %file.display(), refusal = refusal.message, "a plugin's file is not taken");
                    self.book.note_refused(file, refusal.message);
                }
            }
        }
        self.book.workshop().clear();
    }

    /// Lists connections on a thread of its own, since that walks the whole table; other requests go on.
    fn list_connections(&self, reply: Sender<Outcome>) {
        let (shared, answer) = (self.shared.clone(), reply.clone());
        let list = move || {
            let connections = report::connections(&shared, workers::now());
            // A tool that went away does not want it any more.
            let _ = answer.send(Outcome::Ok(Answer::Connections(connections)));
        };
        if let Err(error) = std::thread::Builder::new().name("listing".into()).spawn(list) {
            let refusal = Refusal::new(RefusalKind::Limit, format!("no thread to list connections: {error}"));
            let _ = reply.send(Outcome::Refused(refusal));
        }
    }

    /// Looks after the directory of plugins, once a second.
    fn look_at_plugins(&mut self) {
        let Some(sight) = self.watch.as_mut().map(|watch| watch.look(SystemTime::now())) else { return };
        sight.gone.iter().for_each(|file| self.book.forget_refused(file));
        for file in sight.ready {
            let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            match plugins::check_name(&name) {
                Ok(()) => {
                    let grants = self.book.registry().grants(&name);
                    self.take(Errand::Watched(Wanted { place: String::new(), name, file, grants }));
                }
                Err(message) => {
                    tracing::warn!(file = %file.display(), message, "a plugin's file is not taken");
                    self.book.note_refused(file, message);
                }
            }
        }
    }

    /// Carries out one request.
    fn act(&mut self, action: Action, who: &str) -> Result<Answer, Refusal> {
        match action {
            Action::Status => {
                let alarms = self.book.alarms(workers::now().millis());
                Ok(Answer::Status(Box::new(self.report.status(&self.shared, &self.datapath, alarms))))
            }
            Action::Workers => Ok(Answer::Workers(self.report.pace(&self.datapath.handles))),
            Action::Drops => Ok(Answer::Drops(report::drops(&self.datapath.handles))),
            Action::Explain { protocol, client, virtual_address } => {
                self.explain(protocol, client, virtual_address).map(Answer::Text)
            }
            other => {
                let answer = answer::answer(&mut self.scene(who), other)?;
                self.follow_vips();
                Ok(answer)
            }
        }
    }

    fn scene<'a>(&'a mut self, who: &'a str) -> Scene<'a> {
        let Controller { book, shared, datapath, .. } = self;
        Scene { book, shared, outside: datapath, now_ms: workers::now().millis(), who }
    }

    /// Makes the rules what a configuration says. With `dry_run` only tells what that would change. Settings that the
    /// document is silent about are not compared with those in force.
    fn apply(&mut self, desired: &Desired, silent: Silent, dry_run: bool, who: &str) -> Result<Vec<String>, Refusal> {
        check_room(desired.marks(), desired.services())?;
        let found = self.find_plugins(desired)?;
        let mut plan = plan::diff(&self.states(), desired);
        // In front, to come into force together with the services.
        plan.steps.splice(0..0, plan::diff_marks(self.book.mark_rules(), desired));
        plan.steps.extend(plan::diff_timeouts(&timeouts::states(&self.shared, Class::DIRECTOR), desired));
        plan.steps.splice(0..0, plan::diff_plugins(&self.book.modules(), &found));
        // First: what comes after is carried out under them.
        plan.steps.splice(0..0, plan::diff_settings(self.book.settings(), desired));
        let mut sentences = plan.sentences();
        for setting in plan::needs_restart(&self.desired, desired).into_iter().filter(|setting| !silent.has(setting)) {
            sentences.push(format!("`{setting}` differs, and takes a restart to change."));
        }
        if !dry_run {
            self.scene(who).change_all(plan.steps.into_iter().map(|step| step.action).collect())?;
            self.follow_vips();
        }
        Ok(sentences)
    }

    /// The plugins that a configuration wants, as they are on disk.
    fn find_plugins(&mut self, desired: &Desired) -> Result<Vec<plan::Found>, Refusal> {
        let wanted = wanted::wanted(desired, self.book.registry(), self.book.plugin_directory());
        let (registry, workshop) = self.book.plugin_store();
        let found = wanted::find(desired, &wanted, registry, workshop);
        let found = found.map_err(|problems| Refusal::new(RefusalKind::Document, problems.join("\n")))?;
        Ok(found.into_iter().map(|(found, _)| found).collect())
    }

    /// Brings a configuration into force that came from a file and was read again; if it is refused, what was in force
    /// stays. The log tells what came of it.
    pub fn reload(&mut self, desired: Desired) {
        self.take(Errand::Reload(Box::new(desired)));
    }

    fn follow_vips(&mut self) {
        self.vips.follow(self.book.take_moved_addresses(), &mut self.datapath.network);
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
