//! The steps that make the loaded plugins what a configuration's files hold.
//!
//! Invariant: the file is right. What is loaded from it already, in the same bytes and with the same grants, and is
//! current, takes no step; a plugin that no file names any more stays loaded, and costs memory only.

use std::path::PathBuf;

use super::Step;
use crate::control::protocol::schedulers::{Grants, ModuleView, SwapTo};
use crate::control::protocol::{Action, SchedulerAction};

/// A module that a configuration asks for, as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name.
    pub name: String,
    /// File.
    pub file: PathBuf,
    /// What it may import.
    pub grants: Grants,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// What makes `found` current, of what is loaded.
pub fn diff_plugins(loaded: &[ModuleView], found: &[Found]) -> Vec<Step> {
    let mut steps = Vec::new();
    for Found { name, file, grants, sha256 } in found {
        let before = loaded.iter().find(|module| module.name == *name);
        let current = before.and_then(|module| module.versions.iter().find(|version| version.current));
        if let Some(current) = current.filter(|version| version.sha256 == *sha256 && version.grants == *grants) {
            // A promotion in one service leaves the others what they had.
            let others = before.into_iter().flat_map(|module| &module.versions).filter(|version| !version.current);
            if others.map(|version| version.live.len()).sum::<usize>() > 0 {
                let number = current.version;
                let swap = SchedulerAction::Swap { name: name.clone(), to: SwapTo::Version(number) };
                let sentence = format!("Swap scheduler wasm:{name} to version {number} in all its services.");
                steps.push(Step { action: Action::Scheduler(swap), sentence });
            }
            continue;
        }
        let told = match grants.to_string() {
            text if text.is_empty() => String::new(),
            text => format!(", granted {text}"),
        };
        let sentence = format!("Load scheduler wasm:{name} from {} (sha256 {}{told}).", file.display(), short(sha256));
        let load = SchedulerAction::Load { name: name.clone(), file: file.clone(), grants: *grants };
        steps.push(Step { action: Action::Scheduler(load), sentence });
        if let Some(current) = current {
            let sentence =
                format!("Swap scheduler wasm:{name}: sha256 {} to {}.", short(&current.sha256), short(sha256));
            let swap = SchedulerAction::Swap { name: name.clone(), to: SwapTo::Newest };
            steps.push(Step { action: Action::Scheduler(swap), sentence });
        }
    }
    steps
}

/// So much of a hash that a person tells two apart.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::schedulers::VersionView;
    use crate::control::protocol::{Family, ServiceId};

    fn version(number: u32, sha256: &str, current: bool) -> VersionView {
        VersionView {
            version: number,
            sha256: sha256.into(),
            size: 1,
            grants: Grants::default(),
            file: "/a".into(),
            loaded_at_s: 0,
            capacity: 4096,
            current,
            before: false,
            live: Vec::new(),
            on_trial: Vec::new(),
        }
    }

    /// Guards `xvs apply`: what is current takes no step, what is new is loaded, what differs is loaded and swapped, also
    /// when it is loaded and was rolled back.
    #[test]
    fn the_file_is_right() {
        let found = |sha256: &str| Found {
            name: "a".into(),
            file: "/a".into(),
            grants: Grants::default(),
            sha256: sha256.into(),
        };
        let loaded =
            [ModuleView { name: "a".into(), versions: vec![version(1, "one", true), version(2, "two", false)] }];
        let sentences = |loaded: &[ModuleView], found: Found| -> Vec<String> {
            diff_plugins(loaded, &[found]).into_iter().map(|step| step.sentence).collect()
        };
        assert_eq!(sentences(&loaded, found("one")), Vec::<String>::new());
        assert_eq!(sentences(&[], found("one")), ["Load scheduler wasm:a from /a (sha256 one)."]);
        let swapped = ["Load scheduler wasm:a from /a (sha256 two).", "Swap scheduler wasm:a: sha256 one to two."];
        assert_eq!(sentences(&loaded, found("two")), swapped);
        let mut mixed = loaded.clone();
        mixed[0].versions[1].live = vec![ServiceId::Mark { mark: 1, family: Family::Inet }];
        assert_eq!(sentences(&mixed, found("one")), ["Swap scheduler wasm:a to version 1 in all its services."]);
        let granted = Found { grants: Grants { time: true, ..Grants::default() }, ..found("one") };
        assert_eq!(sentences(&loaded, granted).len(), 2);
    }
}
