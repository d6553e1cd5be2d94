//! Why a server could not be had.

use std::io;

/// Why a server could not be found, fetched, started or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// A program is not on this machine and can not be fetched.
    #[error("{program} was not found; {install}")]
    Missing {
        /// Which.
        program: &'static str,
        /// The command that brings it.
        install: &'static str,
    },
    /// A package could not be fetched.
    #[error("{package} could not be fetched: {output}")]
    Fetch {
        /// Which.
        package: &'static str,
        /// What the package manager said.
        output: String,
    },
    /// A server ended, or did not answer in time.
    #[error("{program} did not start: {log}")]
    Start {
        /// Which.
        program: &'static str,
        /// The end of its log.
        log: String,
    },
    /// A server answered with an error.
    #[error("{program}: {answer}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it said.
        answer: String,
    },
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}
