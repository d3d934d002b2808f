//! Why a simulation did not take place.
//!
//! Invariant: a sentence in one line, with the place (file and line, or the words of the command line) and what would be
//! right; one exit code for each kind, the same as of other commands where they fail in the same way.

use std::io;
use std::path::PathBuf;

use crate::run::RunError;

/// Why a simulation did not take place.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The configuration.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The command line.
    #[error("{0}; see `xvs simulate --help`")]
    Usage(String),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The capture can not be read, or there is nothing in it to replay.
    #[error("{path}: {what}")]
    Capture {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A line of the file of events.
    #[error("{path}: line {line}: {what}")]
    Events {
        /// Its path.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A plugin is not one, or refused its servers or options.
    #[error("{path}: {what}")]
    Plugin {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl SimulateError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            SimulateError::Run(error) => error.exit_code(),
            SimulateError::File { .. } => 3,
            SimulateError::Capture { .. } => 12,
            SimulateError::Events { .. } => 2,
            SimulateError::Plugin { .. } => 1,
            SimulateError::Usage(_) => 64,
        }
    }
}
