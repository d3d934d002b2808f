//! The timeouts of `--set`: three of those that the engine has.

use xvs_engine::conn::{Class, Slot, tcp};
use xvs_engine::engine::Shared;

use super::protocol::Timeouts;

/// The timeouts in force.
pub fn get(shared: &Shared) -> Timeouts {
    let timeouts = &shared.timeouts;
    Timeouts {
        tcp: timeouts.tcp(Class::DIRECTOR, tcp::State::Established),
        tcpfin: timeouts.tcp(Class::DIRECTOR, tcp::State::FinWait),
        udp: timeouts.udp(Class::DIRECTOR),
    }
}

/// Sets them; 0 keeps one.
pub fn set(shared: &Shared, set: Timeouts) {
    let timeouts = &shared.timeouts;
    if set.tcp != 0 {
        timeouts.set(Class::DIRECTOR, Slot::tcp(tcp::State::Established), set.tcp);
    }
    if set.tcpfin != 0 {
        timeouts.set(Class::DIRECTOR, Slot::tcp(tcp::State::FinWait), set.tcpfin);
    }
    if set.udp != 0 {
        timeouts.set(Class::DIRECTOR, Slot::UDP, set.udp);
    }
}
