//! The devices that the workers serve, and how they are.
//!
//! Invariant: a device keeps its port number for as long as the director runs. A change between up, down and gone is told
//! in the log once, and nothing else is done about it here.

use xvs_engine::hop::Port;

use crate::kernel::View;

/// The devices.
#[derive(Debug)]
pub(super) struct Devices {
    /// Their link indices, by their port numbers.
    indices: Vec<u32>,
    /// How they were when last seen.
    states: Vec<State>,
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Down,
    Gone,
}

impl Devices {
    /// These, in the order of their ports.
    pub(super) fn new(indices: Vec<u32>) -> Self {
        let states = vec![State::Running; indices.len()];
        Devices { indices, states }
    }

    /// Their link indices, by their port numbers.
    pub(super) fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Whether this link is one of them.
    pub(super) fn serve(&self, link: u32) -> bool {
        self.indices.contains(&link)
    }

    /// The port number of a link.
    pub(super) fn port_of(&self, link: u32) -> Option<Port> {
        self.indices.iter().position(|&index| index == link).map(|at| Port(at as u8))
    }

    /// Tells of those that have gone, or changed between up and down.
    pub(super) fn look(&mut self, view: &View) {
        for (&index, was) in self.indices.iter().zip(&mut self.states) {
            let link = view.link(index);
            let is = match link {
                None => State::Gone,
                Some(link) if link.up && link.running => State::Running,
                Some(_) => State::Down,
            };
            if std::mem::replace(was, is) == is {
                continue;
            }
            let interface = link.map(|link| link.name.as_str());
            match is {
                State::Running => tracing::info!(interface, "the interface carries packets again"),
                State::Down => tracing::warn!(interface, "the interface is down, or has no carrier"),
                State::Gone => {
                    tracing::error!(index, "an interface is gone; start the director again when it is back");
                }
            }
        }
    }
}
