//! `kms-server serve`.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use kms_process::{Failure, StopSignal};

use crate::config::Settings;
use crate::startup::{STOP_TIMEOUT, Server};

#[derive(Debug, Args)]
pub(super) struct ServeOptions {
    /// Seconds that a stop may take after `ops.drain`: requests in flight get up to 20 of them.
    /// After that the process exits with an error.
    #[arg(long, value_name = "SECONDS", default_value_t = STOP_TIMEOUT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    stop_timeout: u64,
}

/// Serves until SIGTERM or ctrl-c, and ends the process. Every error is one JSON line.
pub(super) async fn run(config: Option<&Path>, options: &ServeOptions) -> ! {
    kms_process::log_to_stdout();
    kms_process::exit(&serve(config, options).await)
}

async fn serve(config: Option<&Path>, options: &ServeOptions) -> Result<(), Failure> {
    kms_config::turn_core_dumps_off()?;
    let settings = Settings::load(config).map_err(|error| Failure::start(&error))?;
    // Before the line "listening", whose reader may stop the server at once.
    let mut signal = StopSignal::listen()?;
    let mut server = tokio::select! {
        server = Server::start(settings) => server.map_err(|error| Failure::start(&error))?,
        () = signal.received() => return Ok(()),
    };
    let (address, ops_address) = (server.address(), server.ops_address());
    let page_address = server.page_address();
    tracing::info!(event = "listening", %address, %ops_address, %page_address, "listening");
    tokio::select! {
        () = signal.received() => {}
        failure = server.failed() => return Err(failure),
    }
    tracing::info!(event = "stopping", "stopping");
    server.stop_within(Duration::from_secs(options.stop_timeout)).await
}
