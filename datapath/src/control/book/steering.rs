//! What is steered for servers: answers of NAT servers, errors about tunnels; and for how long.
//!
//! Invariant: what a server is scheduled with is steered before; what fails has steered nothing.

use std::collections::HashSet;
use std::net::SocketAddr;

use xvs_redirect::Key;

use super::{Member, Outside};
use crate::control::keys;
use crate::control::protocol::{Refusal, ServerSpec, ServiceId, ServiceSpec};

/// Lets the workers have what a server of this kind needs, as far as they do not have it already. Gives the keys that are
/// new.
pub(super) fn steer_server(
    service: &ServiceSpec,
    spec: &ServerSpec,
    steered: &[Key],
    observes: bool,
    outside: &mut dyn Outside,
) -> Result<Vec<Key>, Refusal> {
    let mut new = keys::of_server(service, spec, observes);
    new.retain(|key| !steered.contains(key));
    for (number, key) in new.iter().enumerate() {
        if let Err(refusal) = outside.steer(key) {
            new[..number].iter().for_each(|key| outside.unsteer(key));
            return Err(refusal);
        }
    }
    Ok(new)
}

/// Writes down if a server's older connections want more to be steered than its new ones do.
pub(super) fn note_steered(
    leaving: &mut HashSet<(ServiceId, SocketAddr)>,
    service: &ServiceSpec,
    member: &Member,
    observes: bool,
) {
    let wanted = keys::of_server(service, &member.spec, observes);
    let place = (service.id, member.spec.address);
    if member.steered.iter().all(|key| wanted.contains(key)) {
        leaving.remove(&place);
    } else {
        leaving.insert(place);
    }
}

/// The same for all servers of a service that is about to be as this one: the new keys of each.
pub(super) fn steer_all(
    service: &ServiceSpec,
    members: &[Member],
    observes: bool,
    outside: &mut dyn Outside,
) -> Result<Vec<Vec<Key>>, Refusal> {
    let mut steered: Vec<Vec<Key>> = Vec::with_capacity(members.len());
    for member in members {
        match steer_server(service, &member.spec, &member.steered, observes, outside) {
            Ok(new) => steered.push(new),
            Err(refusal) => {
                steered.iter().flatten().for_each(|key| outside.unsteer(key));
                return Err(refusal);
            }
        }
    }
    Ok(steered)
}
