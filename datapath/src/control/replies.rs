//! The ways of answers, found again after routes have changed: on a thread of its own, since it walks the whole table of
//! connections, while requests go on.
//!
//! Invariant: when all is quiet again, the ways are those of the last routes.

use std::sync::Arc;

use crossbeam_channel::{Sender, unbounded};

use xvs_engine::engine::Shared;
use xvs_engine::route::Routes;

/// The way to the thread, which ends with this.
#[derive(Debug)]
pub(super) struct Replies {
    shared: Arc<Shared>,
    routes: Sender<Arc<Routes>>,
}

impl Replies {
    /// Starts the thread.
    pub(super) fn start(shared: Arc<Shared>) -> Replies {
        let (routes, inlet) = unbounded::<Arc<Routes>>();
        let walked = shared.clone();
        let work = move || {
            while let Ok(routes) = inlet.recv() {
                // Those before the last ones are old news.
                walked.reroute_replies(&inlet.try_iter().last().unwrap_or(routes));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("replies".into()).spawn(work) {
            tracing::warn!(%error, "no thread for the ways of answers: requests wait while they are found");
        }
        Replies { shared, routes }
    }

    /// Has the ways found again by these routes.
    pub(super) fn follow(&self, routes: &Arc<Routes>) {
        if self.routes.send(routes.clone()).is_err() {
            self.shared.reroute_replies(routes);
        }
    }
}
