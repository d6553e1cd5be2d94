//! Why a process ends with an error.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a process that serves ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It did not start.
    #[error("start failed: {0}")]
    Start(String),
    /// A supervised task ended while the process was serving, or with an error while it stopped.
    #[error("worker {worker} ended")]
    Ended {
        /// The name of the worker or task.
        worker: &'static str,
        /// Its error, if it returned one.
        error: Option<String>,
    },
    /// A supervised task panicked; the panic hook has logged where and why.
    #[error("worker {worker} panicked")]
    Panicked {
        /// The name of the worker or task.
        worker: &'static str,
    },
    /// The process did not stop before its deadline.
    #[error("still running at the stop deadline: {}", workers.join(", "))]
    StopTimeout {
        /// What was still running.
        workers: Vec<&'static str>,
    },
}

impl Failure {
    /// A start that failed with this error and its causes.
    #[must_use]
    pub fn start(error: &(dyn Error + 'static)) -> Self {
        Self::Start(ErrorChain(error).to_string())
    }

    fn log(&self) {
        match self {
            Self::Start(error) => {
                tracing::error!(event = "start_failed", error, "start failed");
            }
            Self::Ended { worker, error } => {
                tracing::error!(event = "worker_ended", worker, error, "worker ended; exiting");
            }
            // One line for one event: the panic hook has written it.
            Self::Panicked { .. } => {}
            Self::StopTimeout { workers } => {
                let workers = workers.join(",");
                tracing::error!(event = "stop_timeout", workers, "stop deadline exceeded; exiting");
            }
        }
    }
}

impl From<io::Error> for Failure {
    /// A signal handler or a socket that the operating system refused at the start.
    fn from(error: io::Error) -> Self {
        Self::start(&error)
    }
}

/// Logs a failure, and ends the process: with 0, or with 1 after a failure. Does not wait for
/// tasks, threads or connections that are still running, which a return from `main` would.
pub fn exit(result: &Result<(), Failure>) -> ! {
    if let Err(failure) = result {
        failure.log();
    }
    std::process::exit(i32::from(result.is_err()))
}

/// Displays an error with its causes.
#[derive(Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let (mut previous, mut cause) = (self.0.to_string(), self.0.source());
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors repeat their cause, and transparent ones are their cause.
            if !previous.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            (previous, cause) = (text, error.source());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("wallet check failed")]
    struct Outer(#[source] Transparent);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Transparent(#[from] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("kms_key: {0}")]
    struct Repeating(#[source] Outer);

    #[test]
    fn an_error_chain_names_each_cause_once() {
        let error = Outer(io::Error::other("connection refused").into());
        let text = "wallet check failed: connection refused";
        assert_eq!(ErrorChain(&error).to_string(), text);
        let error = Repeating(error);
        assert_eq!(ErrorChain(&error).to_string(), format!("kms_key: {text}"));
    }
}
