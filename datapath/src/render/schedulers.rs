//! What `xvs scheduler` prints for people.

use std::fmt::Write;

use super::table;
use crate::config::rules::describe;
use crate::control::protocol::schedulers::{
    ComparisonView, Loaded, ModuleView, PluginState, PluginStatus, PluginView, StandingView, TrialKind, TrialView,
};
use crate::control::protocol::{Options, SchedulerAnswer, ServiceId};

/// An answer of the director.
pub fn answer(answer: &SchedulerAnswer) -> String {
    match answer {
        SchedulerAnswer::Loaded(told) => loaded(told),
        SchedulerAnswer::Modules(all) => modules(all),
        SchedulerAnswer::Status(told) => status(told),
        SchedulerAnswer::Options(all) => options(all),
        SchedulerAnswer::Comparison(told) => comparison(told),
    }
}

/// So much of a hash that a person tells two apart.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn loaded(told: &Loaded) -> String {
    let Loaded { name, version, sha256, known, current, services } = told;
    let known = if *known { ", which was loaded already" } else { "" };
    let current = if *current { "current" } else { "not current: `xvs scheduler swap` makes it so" };
    let services = match services.as_slice() {
        [] => String::new(),
        some => format!("; in {}", list(some)),
    };
    format!("wasm:{name} version {version} (sha256 {}){known}; {current}{services}\n", short(sha256))
}

fn list(services: &[ServiceId]) -> String {
    services.iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn modules(modules: &[ModuleView]) -> String {
    if modules.is_empty() {
        return "no plugin is loaded; `xvs scheduler load NAME FILE` loads one\n".to_owned();
    }
    let head = ["name", "version", "sha256", "bytes", "servers", "grants", "state", "used by", "file"];
    let mut rows = vec![head.map(str::to_owned)];
    for module in modules {
        for version in &module.versions {
            let state = match (version.current, version.before) {
                (true, _) => "current",
                (_, true) => "before",
                _ => "kept",
            };
            let live = version.live.iter().map(describe);
            let users: Vec<String> = live.chain(version.on_trial.iter().map(|id| describe(id) + " (trial)")).collect();
            let grants = version.grants.to_string();
            rows.push([
                module.name.clone(),
                version.version.to_string(),
                short(&version.sha256).to_owned(),
                version.size.to_string(),
                version.capacity.to_string(),
                if grants.is_empty() { "none".to_owned() } else { grants },
                state.to_owned(),
                if users.is_empty() { "nobody".to_owned() } else { users.join(", ") },
                version.file.display().to_string(),
            ]);
        }
    }
    table(&rows)
}

fn status(status: &PluginStatus) -> String {
    let mut text: String = status.services.iter().map(service).collect();
    if text.is_empty() {
        text.push_str("no service has a plugin or tries one\n");
    }
    for refused in &status.refused {
        // Writing to a string can not fail.
        let _ = writeln!(text, "not taken: {}: {}", refused.file.display(), refused.message);
    }
    text
}

fn service(view: &PluginView) -> String {
    let mut text = format!("{}: {}", describe(&view.service), view.scheduler);
    if view.live.is_some() {
        text += &format!(", fallback {}", view.fallback);
    }
    text.push('\n');
    if !view.options.is_empty() {
        let words: Vec<String> = view.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let _ = writeln!(text, "  options    {}", words.join(" "));
    }
    if let Some(live) = &view.live {
        text += &standing("live", live);
        let _ = writeln!(
            text,
            "  choices    {} by the plugin, {} by the fallback; {} came too late",
            view.picks, view.fallback_picks, view.overruled
        );
    }
    if let Some(TrialView { standing: candidate, kind }) = &view.trial {
        text += &standing(&trial(*kind), candidate);
    }
    text
}

fn standing(title: &str, standing: &StandingView) -> String {
    let StandingView { name, version, sha256, .. } = standing;
    let state = match standing.state {
        PluginState::Live => "live".to_owned(),
        PluginState::Quarantined { for_s } => format!("in quarantine for {for_s} s more"),
        PluginState::Stopped => "stopped: `xvs scheduler retry` or `swap` brings it back".to_owned(),
    };
    let mut text = format!("  {title:<10} wasm:{name} version {version} (sha256 {}), {state}\n", short(sha256));
    let _ = writeln!(
        text,
        "  cost       worst choice {} of {} fuel; {} instances, {} KiB",
        standing.worst_fuel,
        standing.budget,
        standing.instances,
        standing.memory_bytes.div_ceil(1024)
    );
    text += &faults(&standing.faults, standing.quarantines);
    if let Some(fault) = &standing.last_fault {
        let _ = writeln!(text, "  last fault {fault}");
    }
    text
}

fn faults(faults: &[(String, u64)], quarantines: u32) -> String {
    let told: Vec<String> =
        faults.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| format!("{reason} {count}")).collect();
    if told.is_empty() {
        return "  faults     none\n".to_owned();
    }
    format!("  faults     {}; {quarantines} times in quarantine\n", told.join(", "))
}

fn trial(kind: TrialKind) -> String {
    match kind {
        TrialKind::Shadow { one_in } => format!("shadow 1/{one_in}"),
        TrialKind::Canary { per_mille } => format!("canary {}%", f64::from(per_mille) / 10.0),
    }
}

fn options(options: &Options) -> String {
    if options.is_empty() {
        return "no options\n".to_owned();
    }
    options.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn comparison(view: &ComparisonView) -> String {
    let mut text = format!("{}: {}\n", describe(&view.service), view.scheduler);
    if let Some(live) = &view.live {
        text += &standing("live", live);
    }
    text += &standing(&trial(view.trial.kind), &view.trial.standing);
    text.push('\n');
    let percent = |part: u64, whole: u64| match whole {
        0 => "-".to_owned(),
        whole => format!("{:.1}%", part as f64 * 100.0 / whole as f64),
    };
    match view.trial.kind {
        TrialKind::Shadow { .. } => {
            let _ = writeln!(
                text,
                "both were asked about {} connections and agreed on {} ({})",
                view.asked,
                view.agreed,
                percent(view.agreed, view.asked)
            );
        }
        TrialKind::Canary { .. } => text.push_str("each chose for its share of the new connections\n"),
    }
    let sum = |count: fn(&crate::control::protocol::schedulers::ServerShare) -> u64| -> u64 {
        view.servers.iter().map(count).sum()
    };
    let (live, candidate) = (sum(|server| server.live), sum(|server| server.candidate));
    let mut rows = vec![["server", "by weight", "live", "", "candidate", ""].map(str::to_owned)];
    for server in &view.servers {
        rows.push([
            server.server.to_string(),
            format!("{:.1}%", server.fair * 100.0),
            percent(server.live, live),
            server.live.to_string(),
            percent(server.candidate, candidate),
            server.candidate.to_string(),
        ]);
    }
    let nobody = [view.live_nobody, view.candidate_nobody].map(|count| count.to_string());
    let [live_nobody, candidate_nobody] = nobody;
    rows.push(["no server".into(), String::new(), String::new(), live_nobody, String::new(), candidate_nobody]);
    rows.push([
        "skew".into(),
        String::new(),
        format!("{:.2}", view.live_skew),
        String::new(),
        format!("{:.2}", view.candidate_skew),
        String::new(),
    ]);
    text += &table(&rows);
    text
}
