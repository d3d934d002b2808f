//! The rules for marks, and what is steered for them.
//!
//! A key names one address; marks ask for prefixes and ranges of ports, so they are steered as a list of ranges that is
//! told whole whenever it changes. Top to bottom: FTP's data ports of persistent services on port 21, retired rules,
//! then the rules in force, those whose mark has no service as exceptions of what stands below them.
//!
//! Invariant: new connections are steered by exactly the rules that lead to a service; a living one that was steered
//! stays so. When a change (of a rule, its order, its service) would leave one to the kernel, which resets what it does
//! not know, the rule that steered it is retired: it steers on until the last such connection is over (decision record
//! 0007). Which mark a packet has, the engine tells.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use xvs_engine::engine::Shared;
use xvs_engine::flow::Flow;
use xvs_engine::mark::{Marks, Rule};
use xvs_engine::real::RealId;
use xvs_redirect::Range;

use super::{Book, Outside};
use crate::config::{ServiceState, rules};
use crate::control::keys;
use crate::control::protocol::{MarkRule, MarkView, Prefix, Protocol, Refusal, RefusalKind, ServiceId, ServiceSpec};

/// Retired rules are looked at so often at most: it takes a walk through the connection table.
const RETIRED_MS: u64 = 5000;

/// FTP's data connections, as the engine's look-up of services has them.
const FTP_DATA: [(u16, u16); 2] = [(20, 20), (1024, u16::MAX)];

/// The rules, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Marking {
    rules: Vec<MarkRule>,
    compiled: Arc<Marks>,
    /// Rules that are not in force any more, or lead nowhere, and still have connections.
    retired: Vec<Rule>,
    retired_ms: u64,
    steered: Steered,
    /// A rule or a service that ranges are steered for is not as it was when they were told.
    pub(super) stale: bool,
}

/// A list of rules as it is steered.
#[derive(Debug, Default)]
struct Steered {
    /// The rules; the mark is 1 if what fits is steered, else 2.
    marks: Marks,
}

impl Steered {
    fn new(retired: &[Rule], wanted: &[Rule]) -> Self {
        Steered { marks: Marks::new([retired, wanted].concat()) }
    }

    /// The rule that steers the packets of this flow.
    fn rule(&self, flow: &Flow) -> Option<&Rule> {
        self.marks.rule(flow).map(|(_, rule)| rule).filter(|rule| rule.mark == STEERED)
    }

    fn ranges(&self) -> Vec<Range> {
        self.marks.rules().iter().flat_map(|rule| keys::ranges(rule, rule.mark == STEERED)).collect()
    }
}

const STEERED: u32 = 1;
const SPARED: u32 = 2;

/// What is to be steered for these rules and services, before what is retired: the same for all who ask.
fn wanted<'a>(rules: &[MarkRule], services: impl Iterator<Item = &'a ServiceSpec>) -> Vec<Rule> {
    let mut served = HashSet::new();
    let mut list = Vec::new();
    for spec in services {
        match spec.id {
            ServiceId::Mark { .. } => drop(served.insert(spec.id)),
            ServiceId::Address { protocol: Protocol::Tcp, address } if address.port() == keys::FTP => {
                list.extend(spec.persistence.map(|_| ftp_data(address.ip())));
            }
            ServiceId::Address { .. } => {}
        }
    }
    list.extend(rules.iter().map(|rule| {
        let mark = if served.contains(&rule.service()) { STEERED } else { SPARED };
        Rule { mark, ..keys::mark(rule) }
    }));
    list
}

fn ftp_data(vip: IpAddr) -> Rule {
    let (protocol, ports) = (Some(keys::number(Protocol::Tcp)), FTP_DATA.to_vec());
    Rule { mark: STEERED, destination: keys::prefix(Prefix::host(vip)), source: None, protocol, ports }
}

/// Would there be room for the ranges of these rules and services?
///
/// # Errors
/// A prefix has too many.
pub fn check_room(rules: &[MarkRule], services: &[ServiceState]) -> Result<(), Refusal> {
    let wanted = wanted(rules, services.iter().map(|state| &state.spec));
    xvs_redirect::Redirect::check_ranges(&Steered::new(&[], &wanted).ranges())
        .map_err(|error| Refusal::new(RefusalKind::Limit, error.to_string()))
}

impl Marking {
    fn set(&mut self, rules: Vec<MarkRule>) {
        self.compiled = Arc::new(Marks::new(rules.iter().map(keys::mark).collect()));
        self.rules = rules;
        self.stale = true;
    }

    /// Steers what is wanted, and what living connections would lose.
    fn steer(
        &mut self,
        wanted: &[Rule],
        living: impl Iterator<Item = Flow>,
        outside: &mut dyn Outside,
    ) -> Result<(), Refusal> {
        let mut next = Steered::new(&self.retired, wanted);
        if next.marks.rules() == self.steered.marks.rules() {
            return Ok(());
        }
        let mut retired = self.retired.clone();
        if self.steered.marks.rules().iter().any(|rule| rule.mark == STEERED) {
            for flow in living {
                let Some(rule) = self.steered.rule(&flow).filter(|_| next.rule(&flow).is_none()) else { continue };
                if !retired.contains(rule) {
                    retired.push(rule.clone());
                }
            }
            next = Steered::new(&retired, wanted);
        }
        outside.ranges(&next.ranges())?;
        (self.retired, self.steered) = (retired, next);
        Ok(())
    }

    /// Forgets retired rules that no living connection needs.
    fn fade(&mut self, wanted: &[Rule], living: impl Iterator<Item = Flow>, outside: &mut dyn Outside) {
        let without = Steered::new(&[], wanted);
        let mut needed = vec![false; self.retired.len()];
        for flow in living.filter(|flow| without.rule(flow).is_none()) {
            needed.iter_mut().zip(&self.retired).for_each(|(needed, rule)| *needed |= rule.fits(&flow));
        }
        if needed.iter().all(|needed| *needed) {
            return;
        }
        let retired: Vec<Rule> =
            self.retired.iter().zip(needed).filter(|(_, needed)| *needed).map(|(rule, _)| rule.clone()).collect();
        let next = Steered::new(&retired, wanted);
        match outside.ranges(&next.ranges()) {
            Ok(()) => (self.retired, self.steered) = (retired, next),
            Err(refusal) => tracing::warn!(refusal = refusal.message, "ranges of ended connections stay steered"),
        }
    }
}

/// The flows of living connections whose packets only ranges steer: those of the servers of mark services, and of FTP's.
fn living(shared: &Shared, reals: HashSet<RealId>) -> impl Iterator<Item = Flow> {
    shared.table.iter().filter(move |conn| reals.contains(&conn.real())).map(|conn| conn.flow())
}

/// Are packets of this service's connections steered by ranges?
pub fn is_ranged(id: &ServiceId) -> bool {
    match id {
        ServiceId::Mark { .. } => true,
        ServiceId::Address { protocol, address } => *protocol == Protocol::Tcp && address.port() == keys::FTP,
    }
}

impl Book {
    /// The rules for marks, in their order.
    pub fn mark_rules(&self) -> &[MarkRule] {
        &self.marking.rules
    }

    /// The same for the engine.
    pub fn marks(&self) -> &Arc<Marks> {
        &self.marking.compiled
    }

    /// The same for a listing.
    pub fn mark_views(&self) -> Vec<MarkView> {
        let view = |rule: &MarkRule| MarkView { rule: rule.clone(), served: self.entry(&rule.service()).is_some() };
        self.marking.rules.iter().map(view).collect()
    }

    /// Adds a rule, behind all others or before them.
    ///
    /// # Errors
    /// It breaks a rule of rules, or there is no room for its ranges.
    pub fn add_mark(&mut self, rule: MarkRule, first: bool, outside: &mut dyn Outside) -> Result<(), Refusal> {
        let mut next = self.marking.rules.clone();
        next.insert(if first { 0 } else { next.len() }, rule);
        self.change_marks(next, outside)
    }

    /// Makes these the rules, and brings them into force.
    ///
    /// # Errors
    /// They break a rule of rules, or there is no room for their ranges.
    pub fn change_marks(&mut self, next: Vec<MarkRule>, outside: &mut dyn Outside) -> Result<(), Refusal> {
        let before = self.marking.rules.clone();
        self.replace_marks(next)?;
        self.announce(outside);
        self.steer_marks(outside).inspect_err(|_| {
            self.marking.set(before);
            self.changed = true;
            self.announce(outside);
        })
    }

    /// Makes these the rules, in force from the next [`settle`](Book::settle) on.
    ///
    /// # Errors
    /// They break a rule of rules.
    pub fn replace_marks(&mut self, next: Vec<MarkRule>) -> Result<(), Refusal> {
        rules::check_marks(&next)?;
        if next != self.marking.rules {
            self.marking.set(next);
            self.changed = true;
        }
        Ok(())
    }

    /// Deletes a rule. Connections that it brought stay.
    ///
    /// # Errors
    /// There is no such rule.
    pub fn delete_mark(&mut self, rule: &MarkRule, outside: &mut dyn Outside) -> Result<(), Refusal> {
        let mut next = self.marking.rules.clone();
        let Some(at) = next.iter().position(|other| other == rule) else {
            let message = format!("there is no rule {rule}; `xvs mark list` lists those that are");
            return Err(Refusal::new(RefusalKind::NoSuchMark, message));
        };
        next.remove(at);
        self.marking.set(next);
        self.changed = true;
        self.unsteer_marks(outside);
        self.announce(outside);
        Ok(())
    }

    /// Steers what rules and services ask for now. The workers know both already.
    pub(super) fn steer_marks(&mut self, outside: &mut dyn Outside) -> Result<(), Refusal> {
        if !std::mem::take(&mut self.marking.stale) {
            return Ok(());
        }
        let reals = self.ranged_reals();
        let Book { shared, entries, marking, .. } = self;
        let wanted = wanted(&marking.rules, entries.values().map(|entry| &entry.spec));
        marking.steer(&wanted, living(shared, reals), outside)
    }

    /// The same where it can only become less: a failure leaves more steered than need be.
    pub(super) fn unsteer_marks(&mut self, outside: &mut dyn Outside) {
        if let Err(refusal) = self.steer_marks(outside) {
            tracing::warn!(refusal = refusal.message, "ranges of removed rules stay steered");
        }
    }

    /// Looks after retired rules, now and then.
    pub(super) fn tidy_marks(&mut self, now_ms: u64, outside: &mut dyn Outside) {
        if self.marking.retired.is_empty() || now_ms.saturating_sub(self.marking.retired_ms) < RETIRED_MS {
            return;
        }
        self.marking.retired_ms = now_ms;
        let reals = self.ranged_reals();
        let Book { shared, entries, marking, .. } = self;
        let wanted = wanted(&marking.rules, entries.values().map(|entry| &entry.spec));
        marking.fade(&wanted, living(shared, reals), outside);
    }

    /// The servers, removed ones included, of services that ranges are steered for.
    fn ranged_reals(&self) -> HashSet<RealId> {
        let entries = self.entries().filter(|entry| is_ranged(&entry.spec.id));
        let present = entries.flat_map(|entry| &entry.members).map(|member| member.real);
        present.chain(self.trash.reals_of(is_ranged)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Family, Mask, Persistence, SchedFlags};

    fn spec(id: ServiceId, persistent: bool) -> ServiceSpec {
        let persistence = persistent.then_some(Persistence { timeout_s: 300, mask: Mask::leading(Family::Inet, 32) });
        let (scheduler, flags) = ("rr".to_owned(), SchedFlags::default());
        ServiceSpec {
            id,
            scheduler,
            flags,
            persistence,
            engine: None,
            one_packet: false,
            fallback: None,
            options: None,
        }
    }

    fn at(protocol: Protocol, address: &str) -> ServiceId {
        ServiceId::Address { protocol, address: address.parse().unwrap() }
    }

    /// Guards FTP's data connections (IPVS-REFERENCE 4.2): those of persistent TCP services on port 21 are steered, before
    /// any exception of a mark, and no other service's are.
    #[test]
    fn persistent_ftp_services_have_their_data_ports() {
        let rule = MarkRule {
            mark: 5,
            destination: "192.0.2.0/24".parse().unwrap(),
            source: None,
            protocol: None,
            ports: None,
        };
        let services = [
            spec(at(Protocol::Tcp, "192.0.2.1:21"), true),
            spec(at(Protocol::Tcp, "192.0.2.2:21"), false),
            spec(at(Protocol::Udp, "192.0.2.3:21"), true),
            spec(at(Protocol::Tcp, "192.0.2.4:22"), true),
            spec(at(Protocol::Tcp, "[2001:db8::1]:21"), true),
            spec(ServiceId::Mark { mark: 5, family: Family::Inet6 }, true),
        ];
        let told = |list: &[Rule]| -> Vec<String> { list.iter().map(|rule| format!("{} {rule}", rule.mark)).collect() };
        let list = wanted(std::slice::from_ref(&rule), services.iter());
        assert_eq!(
            told(&list),
            [
                "1 TCP to 192.0.2.1/32 port 20,1024-65535",
                "1 TCP to 2001:db8::1/128 port 20,1024-65535",
                "2 to 192.0.2.0/24",
            ]
        );
        let ranges = Steered::new(&[], &list).ranges();
        let told: Vec<_> = ranges.iter().map(|range| (range.first, range.last, range.steer)).collect();
        let ftp = [(20, 20, true), (1024, 65535, true)];
        assert_eq!(told, [ftp.as_slice(), ftp.as_slice(), &[(0, 65535, false)]].concat());
    }
}
