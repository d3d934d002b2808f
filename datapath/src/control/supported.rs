//! What this version of the director serves, of all that LVS's rules can say.
//!
//! A rule may be right and still not be served. Whoever takes rules in (a command, a file, `xvs check`) asks here, so
//! that all of them say the same. Invariant: pure; what is accepted here, the [`Book`](super::book::Book) can carry out
//! but for its limits.

use xvs_engine::sched::Builtin;

use super::book::check_room;
use super::protocol::{MarkRule, Refusal, RefusalKind, ServerSpec, ServiceSpec};
use crate::config::{ServiceState, rules};

/// May this service be added, or an existing one be changed to it? Gives its scheduler.
///
/// # Errors
/// It breaks a rule, or asks for what this version does not serve.
pub fn service(spec: &ServiceSpec) -> Result<Builtin, Refusal> {
    rules::check_service(spec, Builtin::NAMES)?;
    let unknown = || Refusal::new(RefusalKind::NoSuchScheduler, format!("no scheduler is called {:?}", spec.scheduler));
    Builtin::from_name(&spec.scheduler).ok_or_else(unknown)
}

/// May this server be added to the service, or an existing one be changed to it?
///
/// # Errors
/// It breaks a rule.
pub fn server(service: &ServiceSpec, spec: &ServerSpec) -> Result<(), Refusal> {
    rules::check_server(service, spec)
}

/// Everything in these rules that is not served, and more ranges of marks than there is room for.
pub fn refusals(marks: &[MarkRule], services: &[ServiceState]) -> Vec<Refusal> {
    let of = |state: &ServiceState| {
        let servers = state.servers.iter().filter_map(|spec| server(&state.spec, spec).err()).collect::<Vec<_>>();
        service(&state.spec).err().into_iter().chain(servers)
    };
    let room = check_room(marks, services.iter().map(|state| &state.spec));
    services.iter().flat_map(of).chain(room.err()).collect()
}
