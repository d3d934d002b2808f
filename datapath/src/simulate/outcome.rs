//! What a simulation told, as numbers: the JSON, and what the report draws.
//!
//! Invariant: everything but `measured` is the same for the same inputs and seed, to the byte. Ratios are rounded to four
//! digits behind the point. Times are seconds of the simulation.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use xvs_host::PostStatus;

use super::measure::Cost;
use super::probe::Disruption;

/// A whole simulation.
#[derive(Debug, Serialize)]
pub(super) struct Simulation {
    /// Version of xvs.
    pub(super) version: &'static str,
    /// What was simulated: names and values, as the head of the report has them.
    pub(super) inputs: Vec<(String, String)>,
    /// How long, in seconds.
    #[serde(serialize_with = "rounded")]
    pub(super) seconds: f64,
    /// All servers, by their numbers.
    pub(super) servers: Vec<String>,
    /// Ends of the spans that series have a value for.
    #[serde(serialize_with = "all_rounded")]
    pub(super) times: Vec<f64>,
    /// What happened, and when.
    pub(super) moments: Vec<Moment>,
    /// What each scheduler made of it.
    pub(super) schedulers: Vec<Outcome>,
    /// What does not repeat: costs on this machine, in the order of the schedulers.
    pub(super) measured: Vec<Measured>,
}

/// Events of one time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Moment {
    /// When.
    #[serde(serialize_with = "rounded")]
    pub(super) at: f64,
    /// What happens, in the words of the file.
    pub(super) events: Vec<String>,
    /// The least share of clients that any scheduler must move to keep loads by weight.
    #[serde(serialize_with = "rounded")]
    pub(super) least: f64,
}

/// Costs of one scheduler.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    /// Its label.
    pub(super) label: String,
    /// A pick.
    pub(super) pick: Cost,
    /// Seconds that its simulation took.
    pub(super) seconds: f64,
}

/// What a scheduler made of the connections.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// What the report calls it.
    pub(super) label: String,
    /// Its own name.
    pub(super) scheduler: String,
    /// Its options, in words.
    pub(super) options: String,
    /// What is known of it besides, if it is a plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plugin: Option<Record>,
    /// New connections that found a server.
    pub(super) served: u64,
    /// Those that found none.
    pub(super) refused: u64,
    /// Connections that were alive at a server when it failed.
    pub(super) broken: u64,
    /// How many times as long as the workload says connections lasted, in the mean.
    #[serde(serialize_with = "rounded")]
    pub(super) slowdown: f64,
    /// Connections of clients that had been there before.
    pub(super) returned: u64,
    /// Those of them that met another server than the time before, or none.
    pub(super) elsewhere: u64,
    /// Connections by server.
    pub(super) by_server: Vec<u64>,
    /// Bytes by server.
    pub(super) bytes_by_server: Vec<u64>,
    /// The balance over the whole time.
    pub(super) balance: Balance,
    /// At each moment.
    pub(super) moments: Vec<Reaction>,
    /// Over time.
    pub(super) series: Series,
}

/// How a plugin did.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    /// SHA-256 of its file.
    pub(super) sha256: String,
    /// New connections that it chose for.
    pub(super) picks: u64,
    /// New connections that the native scheduler served in its place.
    pub(super) fallback: u64,
    /// Picks that were no usable server.
    pub(super) overruled: u64,
    /// Faults by reason.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// How often it was in quarantine.
    pub(super) quarantines: u32,
    /// The last fault, as a sentence.
    pub(super) last_fault: Option<String>,
    /// The most fuel that a pick took.
    pub(super) worst_fuel: u64,
    /// What it may take.
    pub(super) budget: u64,
}

impl Record {
    /// From a post's status; none without a plugin.
    pub(super) fn of(status: &PostStatus) -> Option<Self> {
        let live = status.live.as_ref()?;
        Some(Record {
            sha256: live.version.module.sha256().to_owned(),
            picks: status.picks,
            fallback: status.fallback,
            overruled: status.overruled,
            faults: live.faults.iter().copied().collect(),
            quarantines: live.quarantines,
            last_fault: live.last_fault.clone(),
            worst_fuel: live.worst_fuel,
            budget: live.budget,
        })
    }
}

/// Balance of connections alive, by weight, over the spans in which there were any.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Balance {
    /// The fullest server against the mean: in the mean over time.
    #[serde(serialize_with = "rounded")]
    pub(super) ratio_mean: f64,
    /// The same at its worst.
    #[serde(serialize_with = "rounded")]
    pub(super) ratio_worst: f64,
    /// Jain's index in the mean: 1 is even.
    #[serde(serialize_with = "rounded")]
    pub(super) jain_mean: f64,
    /// Coefficient of variation in the mean: 0 is even.
    #[serde(serialize_with = "rounded")]
    pub(super) variation_mean: f64,
}

/// What a moment did to a scheduler's clients.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Reaction {
    /// Of ten thousand clients in a rehearsal.
    pub(super) probes: Disruption,
    /// Clients of the workload that came again in the span after it, each counted once.
    pub(super) returned: u64,
    /// Those of them that met another server than before the moment.
    pub(super) elsewhere: u64,
    /// The share of connections of known clients that met another server in as long a span before it.
    #[serde(serialize_with = "maybe_rounded")]
    pub(super) usual: Option<f64>,
}

/// Numbers over time: one for each span.
#[derive(Debug, Default, Serialize)]
pub(super) struct Series {
    /// Connections alive at the end of the span, by server.
    pub(super) alive: Vec<Vec<u32>>,
    /// Connections begun, by server.
    pub(super) begun: Vec<Vec<u32>>,
    /// Connections that found no server.
    pub(super) refused: Vec<u32>,
    /// The fullest server against the mean, by weight; nothing where nobody is connected.
    pub(super) ratio: Vec<Option<f64>>,
    /// Jain's index.
    pub(super) jain: Vec<Option<f64>>,
    /// Coefficient of variation.
    pub(super) variation: Vec<Option<f64>>,
    /// Connections of clients that had been there before.
    pub(super) returned: Vec<u32>,
    /// Those of them that met another server.
    pub(super) elsewhere: Vec<u32>,
}

/// Evenness of loads by weight at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Evenness {
    /// The fullest against the mean.
    pub(super) ratio: f64,
    /// Jain's index.
    pub(super) jain: f64,
    /// Coefficient of variation.
    pub(super) variation: f64,
}

impl Evenness {
    /// Of loads and weights; servers of weight 0 do not count. None if nobody is connected, or nobody takes part.
    pub(super) fn of(pairs: impl Iterator<Item = (u32, i32)> + Clone) -> Option<Self> {
        let pairs = pairs.filter(|&(_, weight)| weight > 0);
        let sum = |value: &dyn Fn(f64, f64) -> f64| -> f64 {
            pairs.clone().map(|(load, weight)| value(f64::from(load), f64::from(weight))).sum()
        };
        let (loads, weights) = (sum(&|load, _| load), sum(&|_, weight| weight));
        if loads == 0.0 {
            return None;
        }
        let mean = loads / weights;
        // Each server counts by its weight: one of weight 2 is as two of weight 1.
        let squares = sum(&|load, weight| load * load / weight);
        let most = pairs.clone().map(|(load, weight)| f64::from(load) / f64::from(weight)).fold(0.0, f64::max);
        let variance = (squares / weights / (mean * mean) - 1.0).max(0.0);
        Some(Evenness {
            ratio: round(most / mean),
            jain: round(loads * loads / (weights * squares)),
            variation: round(variance.sqrt()),
        })
    }
}

/// Four digits behind the point.
pub(super) fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn rounded<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    round(*value).serialize(to)
}

fn maybe_rounded<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    value.map(round).serialize(to)
}

fn all_rounded<S: Serializer>(values: &[f64], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(|value| round(*value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads by weight are even, whatever the weights; one server with everything is as uneven as can be.
    #[test]
    fn evenness_goes_by_weight() {
        let even = Evenness::of([(30, 3), (10, 1), (7, 0)].into_iter()).unwrap();
        assert_eq!((even.ratio, even.jain, even.variation), (1.0, 1.0, 0.0));
        let one = Evenness::of([(40, 1), (0, 1), (0, 1), (0, 1)].into_iter()).unwrap();
        assert_eq!((one.ratio, one.jain), (4.0, 0.25));
        assert_eq!(Evenness::of([(0, 1)].into_iter()), None);
        assert_eq!(Evenness::of([(5, 0)].into_iter()), None);
    }
}
