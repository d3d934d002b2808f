//! `cargo xtask bench wire`: the director on a wire of this machine, and others in its place, in turns.
//!
//! Each round lets every contender stand once and takes all its figures; what is reported are medians over the rounds,
//! and medians of the ratios to plain AF_XDP forwarding of the same round, each with the least and the most that there
//! was. Only ratios of one run mean anything: the wire is a veth pair, the machine is shared.
//!
//! Not here: what a figure charges to whom (`xvs_tests::wire`), and what it means (docs/numbers.md).

mod measure;
mod quick;
mod rows;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use xvs_tests::Method;
use xvs_tests::wire::{Contender, Ground};

use crate::cargo;
use crate::deps;
use crate::paint::{bad, title};
use rows::Rows;

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Check only that everything works and that no packet is unaccounted for; a minute or two, no figures.
    #[arg(long)]
    quick: bool,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Workers, and so queues: one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u32).range(1..=2))]
    workers: Vec<u32>,
    /// Only contenders whose names contain one of these (plain forwarding and the empty wire always stand).
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only the floods: no latency, no connections, no throughput.
    #[arg(long)]
    floods: bool,
    /// Raw figures go into this file, a line of JSON for each contender and round.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Lines of configuration for xvs, before its interfaces: `[frames]\nbatch = 256`.
    #[arg(long, default_value = "")]
    config: String,
}

/// Everybody, in the order of the table.
const ALL: [Contender; 12] = [
    Contender::Nobody,
    Contender::Plain,
    Contender::Xvs(Method::Dr),
    Contender::Xvs(Method::Nat),
    Contender::Xvs(Method::Tun),
    Contender::XvsSpinning,
    Contender::XvsLingering,
    Contender::Nft,
    Contender::NftBare,
    Contender::NftRps,
    Contender::Haproxy,
    Contender::Testpmd,
];

impl Options {
    fn contenders(&self, workers: u32) -> Vec<Contender> {
        let wanted = |who: &Contender| {
            matches!(who, Contender::Nobody | Contender::Plain)
                || self.only.is_empty()
                || self.only.iter().any(|word| who.name().contains(word.as_str()))
        };
        ALL.into_iter().filter(|who| who.suits(workers)).filter(wanted).collect()
    }
}

/// A word of `--only` that is in nobody's name is a mistake, and is told before anything is built.
fn check(only: &[String]) -> Result<()> {
    let names: Vec<_> = ALL.iter().map(|who| who.name()).collect();
    let stranger = only.iter().find(|word| !names.iter().any(|name| name.contains(word.as_str())));
    ensure!(stranger.is_none(), "--only {}: in nobody's name; there are {}", only.join(","), names.join("; "));
    Ok(())
}

pub(crate) fn run(options: &Options) -> Result<()> {
    check(&options.only)?;
    ensure!(xvs_tests::is_root(), "network namespaces need root: type `sudo -E env PATH=$PATH cargo xtask bench wire`");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(cpus >= 2, "generator and director need a CPU each, and this machine has one");
    deps::install()?;
    xvs_tests::use_binaries_in(&cargo::build_release()?);
    if options.quick {
        return quick::run();
    }
    let mut rows = Rows::create(options.out.as_deref())?;
    for &workers in &options.workers {
        println!("\n{}", title(format!("{workers} worker{}", if workers == 1 { "" } else { "s" })));
        let mut ground = Ground::lay(workers)?;
        // Who could not stand once is not asked again.
        let mut contenders = options.contenders(workers);
        for round in 1..=options.rounds {
            let mut absent = Vec::new();
            for &who in &contenders {
                let row = measure::round(&mut ground, who, options).with_context(|| format!("{} failed", who.name()));
                match row {
                    Ok(row) => {
                        println!("  round {round}, {:14} {}", who.name(), row.brief());
                        rows.add(workers, round, who, row)?;
                    }
                    Err(error) => {
                        println!("  {} {error:#}", bad("left out:"));
                        ensure!(!(who == Contender::Plain || who.is_xvs()), "{error:#}");
                        absent.push(who);
                    }
                }
            }
            contenders.retain(|who| !absent.contains(who));
        }
    }
    println!();
    table::print(&rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a run of minutes that leaves out whom it was started for.
    #[test]
    fn a_contender_that_nobody_is_is_refused() {
        let words = |words: &[&str]| check(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert!(words(&[]).is_ok() && words(&["NAT", "nft"]).is_ok());
        assert!(words(&["NAT", "nobody there"]).unwrap_err().to_string().contains("nobody there"));
    }
}
