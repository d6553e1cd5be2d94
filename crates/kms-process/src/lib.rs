//! How the binaries run as processes.
//!
//! - [`log_to_stdout`] sets up JSON logs, panics included, and counts alarms in [`metrics()`].
//! - [`StopSignal`] waits for SIGTERM or ctrl-c.
//! - A [`Worker`] is a piece of background work; one [`Supervisor`] runs all of a process, beside
//!   longer tasks such as an HTTP server. A task that ends or panics is a [`Failure`].
//! - [`exit`] logs a failure in one line and ends the process.
//!
//! ```no_run
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use kms_process::{Next, StopSignal, Supervisor, Worker};
//!
//! struct Heartbeat;
//!
//! impl Worker for Heartbeat {
//!     const NAME: &'static str = "heartbeat";
//!     type Error = Infallible;
//!
//!     fn interval(&self) -> Duration {
//!         Duration::from_secs(60)
//!     }
//!
//!     async fn round(&mut self) -> Result<Next, Infallible> {
//!         tracing::info!("alive");
//!         Ok(Next::AfterInterval)
//!     }
//! }
//!
//! # async fn serve() -> Result<(), kms_process::Failure> {
//! let mut signal = StopSignal::listen()?;
//! let mut supervisor = Supervisor::new();
//! supervisor.run(Heartbeat);
//! tokio::select! {
//!     () = signal.received() => {}
//!     failure = supervisor.failed() => return Err(failure),
//! }
//! supervisor.stop(tokio::time::Instant::now() + Duration::from_secs(25)).await
//! # }
//! ```

mod failpoint;
mod failure;
mod logging;
mod metrics;
mod signal;
mod supervisor;
mod worker;

pub use failure::{ErrorChain, Failure, exit};
pub use logging::log_to_stdout;
pub use metrics::{ALARMS, ALARMS_OF_CHAINS, count_alarms_of, metrics};
pub use signal::StopSignal;
pub use supervisor::Supervisor;
pub use worker::{Next, Worker};

/// Ends all tasks of a process: [`Supervisor::shutdown`] hands it out.
pub use tokio_util::sync::CancellationToken;
