//! A scheduler that lives outside the engine, as the engine knows it: a plugin, or a candidate beside the live one.
//!
//! The engine asks it once for a new connection, without any lock of the service, and from as many threads as there are
//! workers. Its word is advice: what it names is taken only if it is a usable server of the service at that moment, else
//! the service's native scheduler serves the same connection.
//!
//! Invariant: a guest never blocks for longer than its own budget, and never sees half a change of the list: it tells
//! for which version of the list it spoke. Not here: how a plugin runs, and what it may do.

use std::fmt::Debug;

use xvs_sdk::{Change, Request};

use crate::real::{Arena, RealId};

/// What a guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// This server.
    Real(RealId),
    /// No server, and that stands.
    Nobody,
    /// The native scheduler shall choose.
    Native,
}

/// A guest's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// What it says.
    pub advice: Advice,
    /// The version of the list that it knows.
    pub version: u64,
    /// It wants to hear what was chosen in the end.
    pub listens: bool,
}

/// The list of servers that a guest chooses from.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The records of all servers.
    pub arena: &'a Arena,
    /// The service's servers, newest first.
    pub members: &'a [RealId],
    /// Version of the list: grows with every server that comes or goes.
    pub version: u64,
}

/// A scheduler outside the engine, of one service. What a worker calls takes its number from [`Request::queue`].
pub trait Guest: Send + Sync + Debug {
    /// Has it anything to say now? Without, the native scheduler is asked as if there were no guest.
    fn is_active(&self) -> bool;

    /// Chooses for a new connection. Called by a worker, without the service's lock.
    fn advise(&self, arena: &Arena, request: &Request) -> Opinion;

    /// The connection goes there, whoever chose. Called by a worker that asked before and was told that it listens.
    fn hear(&self, arena: &Arena, request: &Request, chosen: Option<RealId>);

    /// What it named was no usable server any more.
    fn overruled(&self, request: &Request);

    /// The list changed. Called by the control side, after the change.
    fn changed(&self, site: &Site<'_>, change: Change);

    /// What it would say, asked by the control side of a copy; nothing changes.
    fn preview(&self, site: &Site<'_>, request: &Request) -> Advice;
}
