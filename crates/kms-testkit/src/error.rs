//! Why a server is not available.

use std::io;

/// Why a server could not be found, fetched, started or used.
#[derive(Debug, thiserror::Error)]
pub enum TestkitError {
    /// A program is not on this machine and cannot be fetched.
    #[error("{program} was not found; {install}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The command that installs it.
        install: &'static str,
    },
    /// A package could not be fetched.
    #[error("{package} could not be fetched: {output}")]
    Fetch {
        /// The package.
        package: &'static str,
        /// The output of the package manager.
        output: String,
    },
    /// A server exited, or did not answer in time.
    #[error("{program} did not start: {log}")]
    Start {
        /// The server.
        program: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// A server answered with an error.
    #[error("{program}: {answer}")]
    Refused {
        /// The server.
        program: &'static str,
        /// Its answer.
        answer: String,
    },
    /// The operating system returned an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}
