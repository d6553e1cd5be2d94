//! The wallet KMS over HTTPS.
//!
//! A binary of about twenty lines runs [`cli::run`]; tests and the sandbox start a [`Server`] in
//! their own process. Handlers extract, call and convert: this crate must hold no SQL and no
//! cryptography of wallets.

mod auth;
mod body;
mod brakes;
mod chains;
mod checkpoint_archive;
pub mod cli;
mod clock;
pub mod config;
mod database_url;
mod error;
mod key_ring;
pub mod keys;
mod kms_key_status;
mod mail;
mod openapi;
mod page;
mod rate_limits;
mod readiness;
mod request_id;
mod routes;
mod start_error;
mod startup;
mod state;
mod telemetry;
mod tls;
mod token_cache;
mod workers;

pub use checkpoint_archive::CheckpointArchiveError;
pub use config::Secret;
pub use mail::MailSettingsError;
pub use start_error::StartError;
pub use startup::{STOP_TIMEOUT, Server};
pub use tls::TlsError;
