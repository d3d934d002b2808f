//! What stands beside a service: its plugin and the candidate that it tries. The one place that knows the host's
//! [`Post`].
//!
//! Invariant: what [`Beside`] says is live or on trial is what its post was given last. A service that never had a
//! plugin has no post, and costs nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use xvs_engine::real::{Arena, RealId};
use xvs_engine::sched::guest::Site;
use xvs_engine::service::Service;
use xvs_host::{Fault, Post, Standing, Trial, Trust, Version};
use xvs_sdk::abi;

use crate::config::{plugins, rules};

use super::protocol::schedulers::{
    ComparisonView, PluginState, PluginView, ServerShare, StandingView, TrialKind, TrialView,
};
use super::protocol::{Options, Refusal, RefusalKind, ServiceSpec, Stats, Tags};

pub use xvs_host::{Event, EventKind};

/// A candidate of a service.
#[derive(Debug, Clone)]
pub struct OnTrial {
    /// Which.
    pub version: Arc<Version>,
    /// How it is tried.
    pub kind: TrialKind,
    /// Its options.
    pub options: Options,
}

/// What stands beside a service.
#[derive(Debug, Default)]
pub struct Beside {
    post: Option<Arc<Post>>,
    live: Option<Arc<Version>>,
    trial: Option<OnTrial>,
}

/// What plugins may know of a server beyond what the engine does.
#[derive(Debug, Clone, Copy)]
pub struct Fact {
    /// Its record.
    pub real: RealId,
    /// Its address.
    pub address: SocketAddr,
    /// Its rates.
    pub stats: Stats,
    /// A number that a person's script feeds.
    pub metric: i64,
    /// Its tags.
    pub tags: Tags,
}

/// Where an exchange happens.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The service.
    pub service: &'a Service,
    /// The records of all servers.
    pub arena: &'a Arena,
    /// Workers.
    pub seats: usize,
}

impl Beside {
    /// The live plugin.
    pub fn live(&self) -> Option<&Arc<Version>> {
        self.live.as_ref()
    }

    /// The candidate.
    pub fn trial(&self) -> Option<&OnTrial> {
        self.trial.as_ref()
    }

    /// Is anything live here, or on trial?
    pub fn is_busy(&self) -> bool {
        self.live.is_some() || self.trial.is_some()
    }

    /// Is this version live here, or on trial?
    pub fn uses(&self, version: &Arc<Version>) -> bool {
        let is = |other: &Arc<Version>| Arc::ptr_eq(other, version);
        self.live.as_ref().is_some_and(is) || self.trial.as_ref().is_some_and(|trial| is(&trial.version))
    }

    /// The post; `facts` are told to one that is made now.
    fn post(&mut self, ground: Ground<'_>, facts: &[Fact]) -> Arc<Post> {
        let Ground { service, arena, seats } = ground;
        let post = self.post.get_or_insert_with(|| {
            let post = Post::new(seats, service.number);
            service.set_guest(post.clone());
            service.with_site(arena, |site| tell(&post, site, facts));
            post
        });
        post.clone()
    }

    /// Makes a version the live one; none for the native scheduler alone.
    ///
    /// # Errors
    /// It can not be: what was live is. A sentence.
    pub fn set_live(
        &mut self,
        ground: Ground<'_>,
        facts: &[Fact],
        version: Option<Arc<Version>>,
        options: &Options,
    ) -> Result<(), String> {
        if version.is_none() && self.live.is_none() {
            return Ok(());
        }
        let post = self.post(ground, facts);
        let text = plugins::text(options);
        let outcome = ground.service.with_site(ground.arena, |site| post.set_live(site, version.clone(), &text));
        outcome.map_err(|fault| refused(version.as_deref(), &fault))?;
        self.live = version;
        Ok(())
    }

    /// Begins a trial, or ends it.
    ///
    /// # Errors
    /// The candidate can not be tried: the trial that was goes on. A sentence.
    pub fn set_trial(&mut self, ground: Ground<'_>, facts: &[Fact], trial: Option<OnTrial>) -> Result<(), String> {
        if trial.is_none() && self.trial.is_none() {
            return Ok(());
        }
        let post = self.post(ground, facts);
        let candidate = trial.as_ref().map(|trial| (trial.version.clone(), kind(trial.kind)));
        let text = trial.as_ref().map(|trial| plugins::text(&trial.options)).unwrap_or_default();
        let outcome = ground.service.with_site(ground.arena, |site| post.set_trial(site, candidate, &text));
        outcome.map_err(|fault| refused(trial.as_ref().map(|trial| &*trial.version), &fault))?;
        self.trial = trial;
        Ok(())
    }

    /// The candidate becomes the live one, with its instances and what they know.
    ///
    /// # Errors
    /// There is none, or it was withdrawn: nothing has changed. A sentence.
    pub fn promote(&mut self) -> Result<OnTrial, String> {
        let (Some(post), Some(trial)) = (&self.post, &self.trial) else {
            return Err("there is no candidate: `xvs scheduler shadow` or `canary` begins a trial".to_owned());
        };
        let trial = trial.clone();
        post.promote()?;
        self.trial = None;
        self.live = Some(trial.version.clone());
        Ok(trial)
    }

    /// Lets back what is in quarantine or stopped. False if there is nothing to let back.
    pub fn retry(&self) -> bool {
        let post = self.post.as_ref().filter(|_| self.is_busy());
        post.inspect(|post| post.retry()).is_some()
    }

    /// Tells the plugins what is known of the servers, of those too that are about to come: a plugin knows them when it
    /// hears that they came.
    pub fn set_facts(&self, ground: Ground<'_>, facts: &[Fact]) {
        let Some(post) = &self.post else { return };
        ground.service.with_site(ground.arena, |site| tell(post, site, facts));
    }

    /// Live plugin and candidate, in a sentence.
    pub fn told(&self) -> String {
        let trial = self.trial.as_ref().map(|trial| &trial.version);
        let names: Vec<String> = self.live.iter().chain(trial).map(|version| name(version)).collect();
        names.join(", beside it ")
    }

    /// Looks after the plugins: broken instances are replaced, quarantines end. Gives what happened.
    pub fn tick(&self, ground: Ground<'_>, now_ms: u64) -> Vec<Event> {
        let Some(post) = self.post.as_ref().filter(|_| self.is_busy()) else { return Vec::new() };
        ground.service.with_site(ground.arena, |site| post.tick(site, now_ms));
        post.take_events()
    }

    /// How the plugin is. None if there is neither a plugin nor a candidate.
    pub fn view(&self, spec: &ServiceSpec, now_ms: u64) -> Option<PluginView> {
        let status = self.post.as_ref().filter(|_| self.is_busy())?.status();
        let trial =
            |(standing, trial): &(Standing, Trial)| TrialView { standing: shown(standing, now_ms), kind: told(*trial) };
        Some(PluginView {
            service: spec.id,
            scheduler: spec.scheduler.clone(),
            fallback: spec.native().to_owned(),
            options: spec.options.clone().unwrap_or_default(),
            live: status.live.as_ref().map(|live| shown(live, now_ms)),
            trial: status.candidate.as_ref().map(trial),
            picks: status.picks,
            fallback_picks: status.fallback,
            overruled: status.overruled,
        })
    }

    /// What the trial came to so far.
    ///
    /// # Errors
    /// There is none.
    pub fn comparison(
        &self,
        ground: Ground<'_>,
        spec: &ServiceSpec,
        facts: &[Fact],
        now_ms: u64,
    ) -> Result<ComparisonView, Refusal> {
        let none = || {
            let id = rules::describe(&spec.id);
            let message = format!("service {id} tries nothing: `xvs scheduler shadow` or `canary` begins a trial");
            Refusal::new(RefusalKind::NoSuchPlugin, message)
        };
        let post = self.post.as_ref().ok_or_else(none)?;
        let seen = ground.service.with_site(ground.arena, |site| post.comparison(site)).ok_or_else(none)?;
        let PluginView { scheduler, live, trial, .. } = self.view(spec, now_ms).ok_or_else(none)?;
        let server = |share: &xvs_host::Share| {
            let address = facts.iter().find(|fact| fact.real == share.real)?.address;
            Some(ServerShare { server: address, fair: share.fair, live: share.live, candidate: share.candidate })
        };
        Ok(ComparisonView {
            service: spec.id,
            scheduler,
            live,
            trial: trial.ok_or_else(none)?,
            asked: seen.asked,
            agreed: seen.agreed,
            live_skew: seen.live_skew,
            candidate_skew: seen.candidate_skew,
            live_nobody: seen.live_nobody,
            candidate_nobody: seen.candidate_nobody,
            servers: seen.servers.iter().filter_map(server).collect(),
        })
    }
}

fn tell(post: &Post, site: &Site<'_>, facts: &[Fact]) {
    let all: HashMap<RealId, abi::Facts> = facts.iter().map(|fact| (fact.real, fact.told())).collect();
    let members: Vec<RealId> = facts.iter().map(|fact| fact.real).collect();
    post.set_facts(&Site { members: &members, ..*site }, &|real| all.get(&real).copied().unwrap_or(abi::Facts::NONE));
}

/// Why a plugin does not take its place.
fn refused(version: Option<&Version>, fault: &Fault) -> String {
    match version {
        Some(version) => format!("{}: {fault}", name(version)),
        None => fault.to_string(),
    }
}

/// A version in a sentence.
pub fn name(version: &Version) -> String {
    let sha256 = version.module.sha256();
    format!("wasm:{} version {} (sha256 {})", version.name, version.number, sha256.get(..12).unwrap_or(sha256))
}

fn shown(standing: &Standing, now_ms: u64) -> StandingView {
    let version = &standing.version;
    StandingView {
        name: version.name.clone(),
        version: version.number,
        sha256: version.module.sha256().to_owned(),
        state: match standing.trust {
            Trust::Live => PluginState::Live,
            Trust::Quarantined { until_ms } => {
                PluginState::Quarantined { for_s: until_ms.saturating_sub(now_ms).div_ceil(1000) }
            }
            Trust::Stopped => PluginState::Stopped,
        },
        quarantines: standing.quarantines,
        faults: standing.faults.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        last_fault: standing.last_fault.clone(),
        worst_fuel: standing.worst_fuel,
        budget: standing.budget,
        memory_bytes: standing.memory_bytes as u64,
        instances: standing.instances as u64,
    }
}

fn kind(kind: TrialKind) -> Trial {
    match kind {
        TrialKind::Shadow { one_in } => Trial::Shadow { one_in },
        TrialKind::Canary { per_mille } => Trial::Canary { per_mille },
    }
}

fn told(trial: Trial) -> TrialKind {
    match trial {
        Trial::Shadow { one_in } => TrialKind::Shadow { one_in },
        Trial::Canary { per_mille } => TrialKind::Canary { per_mille },
    }
}

impl Fact {
    /// As plugins read it. Address, method and thresholds are in the server's record.
    fn told(&self) -> abi::Facts {
        let Fact { stats, metric, tags, .. } = *self;
        let text = tags.as_str().as_bytes();
        let mut facts = abi::Facts {
            conns_per_s: u32::try_from(stats.cps).unwrap_or(u32::MAX),
            packets_in: stats.in_pps,
            packets_out: stats.out_pps,
            bytes_in: stats.in_bps,
            bytes_out: stats.out_bps,
            metric,
            tags_len: text.len() as u32,
            ..abi::Facts::NONE
        };
        facts.tags[..text.len()].copy_from_slice(text);
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards what plugins read of a server: rates in their places, tags whole.
    #[test]
    fn facts_are_told_whole() {
        let stats = Stats { cps: u64::MAX, in_pps: 2, out_pps: 3, in_bps: 5, out_bps: 7, ..Stats::default() };
        let longest: Tags = format!("a={}", "x".repeat(Tags::MAX - 2)).parse().expect("it fits");
        let address = "10.0.0.1:80".parse().expect("an address");
        let facts = Fact { real: RealId(0), address, stats, metric: -4, tags: longest }.told();
        assert_eq!((facts.conns_per_s, facts.packets_in, facts.packets_out), (u32::MAX, 2, 3));
        assert_eq!((facts.bytes_in, facts.bytes_out, facts.metric), (5, 7, -4));
        assert_eq!(&facts.tags[..facts.tags_len as usize], longest.as_str().as_bytes());
    }
}
