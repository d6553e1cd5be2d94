//! Builds running servers for tests, benchmarks and the sandbox.
//!
//! [`TestEnv`] holds everything that a server needs: databases, keys, a certificate, a chain and
//! the settings. A server is started from it either in this process ([`TestServer`]) or in a
//! process of its own that a test may kill ([`ServerProcess`]). [`requests`] builds the bodies that
//! tests send, and [`commands`] runs the commands of operators.
//!
//! [`TestEnv`] returns errors, because the sandbox reports them to people; everything else panics,
//! as tests do.

pub mod commands;
mod env;
pub mod requests;
mod server_process;
mod test_server;

pub use env::{Stores, TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE, TestEnv, chain_of};
pub use server_process::ServerProcess;
pub use test_server::{TestServer, prove_name};
