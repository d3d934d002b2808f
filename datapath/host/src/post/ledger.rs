//! What is known of servers besides their counts: rates, metrics and tags, by their records.
//!
//! Kept by the control side, which samples the rates and reads the configuration; plugins get copies of it.

use std::collections::HashMap;

use xvs_engine::flow::Family;
use xvs_engine::real::{Arena, RealId};
use xvs_sdk::abi;

/// Facts by server.
#[derive(Debug, Default)]
pub(super) struct FactBook(HashMap<RealId, abi::Facts>);

impl FactBook {
    /// Replaces all that is known.
    pub(super) fn replace(&mut self, members: &[RealId], facts: &dyn Fn(RealId) -> abi::Facts) {
        self.0.clear();
        self.0.extend(members.iter().map(|&id| (id, facts(id))));
    }

    /// What is known of a server, with what its record says.
    pub(super) fn of(&self, arena: &Arena, id: RealId) -> abi::Facts {
        let real = arena.get(id);
        let (endpoint, (upper, lower)) = (real.endpoint(), real.thresholds());
        abi::Facts {
            address: endpoint.address.octets16(),
            port: endpoint.port,
            family: if endpoint.address.family() == Family::Inet { 4 } else { 6 },
            method: real.method() as u8,
            upper,
            lower,
            ..self.0.get(&id).copied().unwrap_or(abi::Facts::NONE)
        }
    }
}
