//! The whole wallet KMS on this machine, for trying it out, for demonstrations and for tests.
//!
//! [`Stage`] runs the real server and the real bot on embedded stores, a local KMS key, a simulated
//! Telegram and a private chain (anvil). Everything is deleted when it stops. It must never hold
//! real money.

mod page;
mod stage;
pub mod texts;
pub mod tour;

pub use kms_testkit::{Mail, TransferBehavior};
pub use page::Page;
pub use stage::{SECOND_CHAIN, Stage, StageOptions};
