//! Timeouts by name: the three of `--set`, and each state's.
//!
//! A name is the state's as listings print it, in lower case: `established`, `syn_recv`; `udp`; SCTP's begin with `sctp_`.
//! `tcp` and `tcpfin` are ipvsadm's words for `established` and `fin_wait`.
//!
//! Invariant: a value that is set is in its range. Whose class is whose is the [`Book`](super::book::Book)'s business.

use std::sync::LazyLock;

use xvs_engine::conn::{Class, Slot, sctp, tcp};
use xvs_engine::engine::Shared;

use super::protocol::{ByState, Refusal, RefusalKind, StateTimeout, Timeouts};
use crate::config::problem::{did_you_mean, quote};
use crate::config::rules::TIMEOUT_MAX_S;

/// ipvsadm's words.
const ALIASES: [(&str, &str); 2] = [("tcp", "established"), ("tcpfin", "fin_wait")];

static SLOTS: LazyLock<Vec<(String, Slot)>> = LazyLock::new(|| {
    let tcp = tcp::STATES.map(|state| (state.name().to_lowercase(), Slot::tcp(state)));
    let sctp = sctp::STATES.map(|state| {
        let name = state.name().to_lowercase().replace('-', "_");
        (format!("sctp_{name}"), Slot::sctp(state))
    });
    tcp.into_iter().chain([("udp".to_owned(), Slot::UDP)]).chain(sctp).collect()
});

static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let aliases = ALIASES.map(|(alias, _)| alias);
    aliases.into_iter().chain(SLOTS.iter().map(|(name, _)| name.as_str())).collect()
});

/// All names, ipvsadm's words included.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// A state's own name for one of these words; none if there is no such state.
pub fn canonical(word: &str) -> Option<&'static str> {
    let word = ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, name)| name);
    SLOTS.iter().find(|(name, _)| name == word).map(|(name, _)| name.as_str())
}

/// IPVS's timeouts of all states.
pub fn defaults() -> ByState {
    SLOTS.iter().map(|(name, slot)| (name.clone(), slot.default_s())).collect()
}

/// Checks timeouts by name, and calls the states by their own names.
///
/// # Errors
/// Everything that is wrong with them, in one sentence after the other.
pub fn check(timeouts: &ByState) -> Result<ByState, Refusal> {
    let mut right = ByState::new();
    let mut wrong = Vec::new();
    for (word, &seconds) in timeouts {
        let Some(name) = canonical(word) else {
            wrong.push(format!("there is no timeout {}{}", quote(word), did_you_mean(word, names())));
            continue;
        };
        if seconds > TIMEOUT_MAX_S {
            wrong.push(format!(
                "{word} {seconds} is out of range: 0 (as if it was never set) to {TIMEOUT_MAX_S} seconds"
            ));
        } else if right.insert(name.to_owned(), seconds).is_some_and(|before| before != seconds) {
            wrong.push(format!("{name} stands here twice, once by ipvsadm's word for it"));
        }
    }
    if wrong.is_empty() { Ok(right) } else { Err(Refusal::new(RefusalKind::Invalid, wrong.join("; "))) }
}

/// Sets these of a class; 0 takes a value back. Names that do not exist are passed over: [`check`] has found them.
pub fn set_states(shared: &Shared, class: Class, timeouts: &ByState) {
    for (name, slot) in SLOTS.iter() {
        if let Some(&seconds) = timeouts.get(name) {
            shared.timeouts.set(class, *slot, seconds);
        }
    }
}

/// What was set of a class, and nothing else.
pub fn own(shared: &Shared, class: Class) -> ByState {
    let own = |(name, slot): &(String, Slot)| Some((name.clone(), shared.timeouts.own(class, *slot)?));
    SLOTS.iter().filter_map(own).collect()
}

/// All timeouts in force for a class.
pub fn states(shared: &Shared, class: Class) -> Vec<StateTimeout> {
    let state = |(name, slot): &(String, Slot)| StateTimeout {
        state: name.clone(),
        seconds: shared.timeouts.get(class, *slot),
        own: shared.timeouts.own(class, *slot).is_some(),
    };
    SLOTS.iter().map(state).collect()
}

/// The timeouts of `--set` in force.
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
    for (word, seconds) in [("tcp", set.tcp), ("tcpfin", set.tcpfin), ("udp", set.udp)] {
        if let Some(name) = canonical(word).filter(|_| seconds != 0) {
            set_states(shared, Class::DIRECTOR, &ByState::from([(name.to_owned(), seconds)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the names that stand in files: a state that is renamed in a listing would rename them, too.
    #[test]
    fn names_are_those_of_listings() {
        let own: Vec<&str> = SLOTS.iter().map(|(name, _)| name.as_str()).collect();
        let tcp = "none established syn_sent syn_recv fin_wait time_wait close close_wait last_ack listen synack";
        let sctp = "sctp_none sctp_init1 sctp_init sctp_c_sent sctp_c_replied sctp_c_wait sctp_cookie sctp_c_echoed \
                    sctp_established sctp_s_sent sctp_s_received sctp_s_ack_sent sctp_rejected sctp_closed";
        assert_eq!(own.join(" "), format!("{tcp} udp {sctp}"));
        assert_eq!((canonical("tcp"), canonical("tcpfin")), (Some("established"), Some("fin_wait")));
        assert_eq!((canonical("udp"), canonical("tcp_fin")), (Some("udp"), None));
        assert_eq!(defaults().len(), own.len());
    }
}
