//! The wallet KMS over HTTPS.
//!
//! A binary of about twenty lines runs [`cli::run`]; tests and the sandbox start a [`Server`] in
//! their own process. Handlers extract, call and convert: this crate must hold no SQL and no
//! cryptography of wallets.

mod auth;
mod body;
mod checkpoints;
pub mod cli;
mod clock;
pub mod config;
mod error;
pub mod keys;
mod mail;
mod openapi;
mod reads;
mod routes;
mod server;
mod state;
mod telemetry;
mod upkeep;

pub use config::Secret;
pub use server::{Server, StartError};
pub use state::KeyDatabase;
