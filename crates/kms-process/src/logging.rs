//! JSON lines on standard output, panics included.

use std::any::Any;
use std::backtrace::Backtrace;
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::metrics::CountAlarms;
use crate::supervisor::current_worker;

/// Writes logs and panics as JSON lines to standard output. `RUST_LOG` is the filter, `info` by
/// default; what this crate logs about the process itself is always written.
pub fn log_to_stdout() {
    let (filter, invalid) = filter();
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_filter(filter))
        .with(CountAlarms)
        .init();
    panic::set_hook(Box::new(log_panic));
    if let Some(error) = invalid {
        tracing::warn!(%error, event = "log_filter_ignored", "RUST_LOG ignored");
    }
}

fn filter() -> (EnvFilter, Option<tracing_subscriber::filter::FromEnvError>) {
    let (filter, invalid) = match EnvFilter::try_from_default_env() {
        Ok(filter) => (filter, None),
        Err(error) => {
            use std::error::Error;
            let unset = error.source().is_some_and(|cause| cause.is::<std::env::VarError>());
            (EnvFilter::new("info"), (!unset).then_some(error))
        }
    };
    // Below `info`, alloy logs the URLs of chain endpoints, which may hold a key.
    let fixed = [concat!(env!("CARGO_CRATE_NAME"), "=info"), "alloy_transport_http=info"];
    let fixed = fixed.into_iter().filter_map(|directive| directive.parse().ok());
    (fixed.fold(filter, EnvFilter::add_directive), invalid)
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => Some(backtrace.to_string()),
        _ => None,
    };
    // Outside of workers the text may hold what a user sent, a password included.
    let worker = current_worker();
    let panic = worker.map(|_| message(info.payload()));
    tracing::error!(event = "panic", worker, panic, location, backtrace, "panicked");
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
