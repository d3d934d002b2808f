//! Requests that need modules first, or a configuration read: that is done on a thread of its own, while the controller
//! goes on.
//!
//! ```text
//! controller --errand, orders--> thread "workshop" (reads, compiles) --errand, modules--> controller carries it out
//! ```
//!
//! Invariant: an errand comes back once, with an outcome for each of its orders; a configuration that is wrong does not, its
//! tool has the answer. What needs nothing does not come here, so it overtakes what does; a tool waits for its own answer before it asks again.

use std::collections::HashSet;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::config::document::Document;
use crate::config::{Desired, Problem};

use xvs_engine::sched::Builtin;

use super::book::Book;
use super::protocol::schedulers::{Candidate, SwapTo, plugin};
use super::protocol::{Action, Outcome, Refusal, RefusalKind, SchedulerAction};
use super::socket::Call;
use super::wanted::{self, Wanted};
use super::workshop::{self, Machine, Order};

/// Something to carry out.
#[derive(Debug)]
pub(super) enum Errand {
    /// A tool's request.
    Call(Box<Call>),
    /// A tool's configuration that was not read yet.
    Unread(Box<Call>),
    /// A tool's configuration.
    Apply {
        /// What it says.
        desired: Box<Desired>,
        /// What it has no word about.
        silent: Silent,
        /// Only tell.
        dry_run: bool,
        /// Who asks.
        who: String,
        /// Where the outcome goes.
        reply: Sender<Outcome>,
    },
    /// The director's own configuration, read again.
    Reload(Box<Desired>),
    /// A file in the watched directory.
    Watched(Wanted),
}

/// The settings that a document has no word about: whoever sends only services does not ask for other interfaces.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Silent {
    director: bool,
    connections: bool,
    frames: bool,
    interface: bool,
}

impl Silent {
    fn about(document: &Document) -> Silent {
        Silent {
            director: document.director == Default::default(),
            connections: document.connections == Default::default(),
            frames: document.frames == Default::default(),
            interface: document.interface.is_empty(),
        }
    }

    /// Is it about the table of this setting?
    pub(super) fn has(self, setting: &str) -> bool {
        match setting.split('.').next() {
            Some("director") => self.director,
            Some("connections") => self.connections,
            Some("frames") => self.frames,
            Some("interface") => self.interface,
            _ => false,
        }
    }
}

impl Errand {
    /// What a tool asks for.
    pub(super) fn of(call: Call) -> Errand {
        let is_text = matches!(call.action, Action::Apply { .. });
        if is_text { Errand::Unread(Box::new(call)) } else { Errand::Call(Box::new(call)) }
    }

    /// Reads the configuration, if that was not done: a large one takes a quarter of a second. None, and the tool has its
    /// answer, if it is wrong.
    pub(super) fn read(self) -> Option<Errand> {
        let Errand::Unread(call) = self else { return Some(self) };
        let Call { action: Action::Apply { document, dry_run, directory }, who, reply } = *call else {
            return Some(Errand::Call(call));
        };
        let wrong = |problems: Vec<Problem>| Refusal::from(problems.as_slice());
        let read = || -> Result<(Desired, Silent), Refusal> {
            let document = Document::parse(&document, "").map_err(wrong)?;
            let silent = Silent::about(&document);
            let mut desired = Desired::validate(document, Builtin::NAMES).map_err(wrong)?;
            if let Some(directory) = directory.filter(|directory| directory.is_absolute()) {
                desired.start_from(&directory);
            }
            if let Some(path) = desired.relative_path() {
                let message = format!("{} is a relative path, and the request does not say from where", path.display());
                return Err(Refusal::new(RefusalKind::Document, message));
            }
            Ok((desired, silent))
        };
        match read() {
            Ok((desired, silent)) => Some(Errand::Apply { desired: Box::new(desired), silent, dry_run, who, reply }),
            Err(refusal) => {
                // A tool that went away does not want it any more.
                let _ = reply.send(Outcome::Refused(refusal));
                None
            }
        }
    }

    /// The modules that it needs.
    pub(super) fn orders(&self, book: &Book) -> Vec<Order> {
        let registry = book.registry();
        let of_desired = |desired: &Desired| -> Vec<Order> {
            let wanted = wanted::wanted(desired, registry, book.plugin_directory());
            wanted.iter().map(|wanted| wanted.order(registry)).collect()
        };
        match self {
            Errand::Call(call) => match &call.action {
                Action::Many(actions) => {
                    let mut orders: Vec<Order> = actions.iter().filter_map(|action| of_action(action, book)).collect();
                    let mut files = HashSet::new();
                    orders.retain(|order| files.insert(order.file.clone()));
                    orders
                }
                action => of_action(action, book).into_iter().collect(),
            },
            Errand::Unread(_) => Vec::new(),
            Errand::Apply { desired, .. } | Errand::Reload(desired) => of_desired(desired),
            Errand::Watched(wanted) => vec![wanted.order(registry)],
        }
    }
}

/// The module that an action needs, if it does.
fn of_action(action: &Action, book: &Book) -> Option<Order> {
    let registry = book.registry();
    let order = |name: &str, file: &std::path::Path| Order {
        file: file.to_owned(),
        grants: registry.grants(name),
        known: registry.modules(name),
    };
    match action {
        Action::Scheduler(SchedulerAction::Load { name, file, grants }) => {
            Some(Order { grants: *grants, ..order(name, file) })
        }
        Action::Scheduler(SchedulerAction::Swap { name, to: SwapTo::File(file) }) => Some(order(name, file)),
        Action::Scheduler(SchedulerAction::Try { service, candidate: Candidate::File(file), .. }) => {
            let live = book.entry(service).and_then(|entry| plugin(&entry.spec.scheduler));
            Some(order(&super::book::candidate_name(file, live).ok()?, file))
        }
        Action::AddService(spec) | Action::EditService(spec) => {
            let name = plugin(&spec.scheduler).filter(|name| !registry.has(name))?;
            Some(order(name, &book.plugin_file(name)?))
        }
        _ => None,
    }
}

/// An errand that may be carried out.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) errand: Errand,
    pub(super) orders: Vec<Order>,
    pub(super) outcomes: Vec<workshop::Outcome>,
}

/// The way to the thread and back.
#[derive(Debug)]
pub(super) struct Errands {
    orders: Sender<(Errand, Vec<Order>)>,
    /// Those that may be carried out.
    pub(super) ready: Receiver<Ready>,
}

impl Errands {
    /// Starts the thread. It ends with this.
    pub(super) fn start(machine: Machine) -> Errands {
        let (orders, inlet) = unbounded::<(Errand, Vec<Order>)>();
        let (done, ready) = unbounded();
        let work = move || {
            for (errand, orders) in inlet {
                let Some(errand) = Errand::read(errand) else { continue };
                let outcomes = orders.iter().map(|order| machine.make(order)).collect();
                if done.send(Ready { errand, orders, outcomes }).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("workshop".into()).spawn(work) {
            tracing::warn!(%error, "no thread for plugins: the controller waits while they are compiled");
        }
        Errands { orders, ready }
    }

    /// Has these made, and the errand read.
    ///
    /// # Errors
    /// There is no thread: the errand comes back, to be carried out as it is.
    pub(super) fn send(&self, errand: Errand, orders: Vec<Order>) -> Result<(), Errand> {
        self.orders.send((errand, orders)).map_err(|error| error.into_inner().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Grants;

    /// Guards the thread: what is sent comes back once, in its order, with an outcome for each order, also where there is
    /// nothing to make.
    #[test]
    fn errands_come_back_with_their_outcomes() {
        let errands = Errands::start(Machine::default());
        for name in ["one", "two"] {
            let file = std::path::PathBuf::from(format!("/nonexistent/{name}.wasm"));
            let wanted =
                Wanted { place: String::new(), name: name.into(), file: file.clone(), grants: Grants::default() };
            let orders = vec![Order { file, ..Order::default() }; 2];
            assert!(errands.send(Errand::Watched(wanted), orders).is_ok());
        }
        for name in ["one", "two"] {
            let Ready { errand, orders, outcomes } = errands.ready.recv().expect("it comes back");
            assert!(matches!(errand, Errand::Watched(wanted) if wanted.name == name));
            assert_eq!((orders.len(), outcomes.len()), (2, 2));
            assert!(
                outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|message| message.contains("can not read")))
            );
        }
    }
}
