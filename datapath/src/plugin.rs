//! `xvs plugin`: what the author of a scheduler needs besides a compiler, without a director.
//!
//! Invariant: a module that is checked or measured here goes through the same host as in the director, with the same
//! limits. Not here: modules of a running director (`xvs scheduler`).
//!
//! One command a file.

pub mod bench;
pub mod check;
pub mod new;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use thiserror::Error;
use xvs_host::{Grants, Host, Limits, Module};

/// `xvs plugin`
#[derive(Debug, Subcommand)]
pub enum Plugin {
    /// Make a crate with a scheduler that works, to begin from; needs nothing but a Rust compiler.
    New {
        /// Its name, as in least-loaded.
        name: String,
        /// The directory in which its folder is made.
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        dir: PathBuf,
    },
    /// Try a module among made-up servers: is it fit for a director?
    Check(check::Check),
    /// Measure a module beside built-in schedulers.
    Bench(bench::Bench),
}

/// What a module needs besides itself.
#[derive(Debug, clap::Args)]
pub struct Subject {
    /// The module (.wasm).
    pub file: PathBuf,
    /// What it may ask of the director: time, random, log.
    #[arg(long, value_name = "LIST", default_value = "")]
    pub grant: Grants,
    /// Options of the service, as in zone=a limit=3.
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_parser = pair)]
    pub options: Vec<(String, String)>,
}

/// Why a command came to no good end.
#[derive(Debug, Error)]
pub enum PluginError {
    /// The file can not be read.
    #[error("can not read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The machine runs no plugins.
    #[error(transparent)]
    Host(#[from] xvs_host::HostError),
    /// The module is none that a director loads.
    #[error("{}", sentences(path, problems))]
    Rejected {
        /// Its file.
        path: PathBuf,
        /// Sentences.
        problems: Vec<String>,
    },
    /// The module is loaded, and does not do its work.
    #[error("{}: it is not fit for a director{more}", path.display())]
    Unfit {
        /// Its file.
        path: PathBuf,
        /// What is wrong, if it was not printed.
        more: String,
    },
    /// No crate was made.
    #[error(transparent)]
    New(#[from] new::NewError),
    /// There is no such built-in scheduler.
    #[error("there is no built-in scheduler {0:?}")]
    Unknown(String),
}

fn sentences(path: &Path, problems: &[String]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect();
    lines.join("\n")
}

impl PluginError {
    /// The exit code of `xvs`.
    pub fn exit_code(&self) -> u8 {
        match self {
            PluginError::File { .. } => 3,
            PluginError::Host(_) => 11,
            PluginError::Rejected { .. } => 13,
            PluginError::Unfit { .. } => 14,
            PluginError::New(new::NewError::Name { .. }) | PluginError::Unknown(_) => 64,
            PluginError::New(_) => 1,
        }
    }
}

/// What a command printed, and whether the module is fit.
#[derive(Debug)]
pub struct Outcome {
    /// For the standard output.
    pub text: String,
    /// Why the exit code is not 0.
    pub error: Option<PluginError>,
}

/// Does what is asked.
///
/// # Errors
/// The module can not be loaded, or asked at all.
pub fn run(command: &Plugin) -> Result<Outcome, PluginError> {
    match command {
        Plugin::New { name, dir } => {
            let root = new::new(name, dir)?;
            Ok(Outcome { text: new::next_steps(name, &root), error: None })
        }
        Plugin::Check(check) => check::run(check),
        Plugin::Bench(bench) => bench::run(bench),
    }
}

impl Subject {
    /// Options as a plugin reads them.
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.sort();
        lines.join("\n")
    }

    /// Loads the module.
    fn load(&self) -> Result<Arc<Module>, PluginError> {
        let path = self.file.clone();
        let bytes = std::fs::read(&path).map_err(|source| PluginError::File { path: path.clone(), source })?;
        let host = Host::new(Limits::default())?;
        host.load(&bytes, self.grant).map_err(|rejected| PluginError::Rejected { path, problems: rejected.problems })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("it must be NAME=VALUE, as in zone=a".to_owned()),
    }
}
