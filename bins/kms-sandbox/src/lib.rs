//! The whole wallet KMS on this machine: embedded stores, a local KMS key, TLS on loopback, the
//! real server, the real bot, a Telegram of our own, and a chain of its own (anvil). Everything is
//! gone when it ends.
//!
//! It is for trying, for showing and for tests; it must never be where real money lies.

mod page;
mod stage;
pub mod tour;

pub use kms_testkit::{Mail, TransferBehavior};
pub use page::Page;
pub use stage::{Stage, StageOptions};
