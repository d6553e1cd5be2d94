//! Money on an EVM chain: balances, fees, and transfers of the native coin that are sent exactly
//! once.
//!
//! [`Chain`] talks to a node; [`Transfers`] takes a transfer from quote to finality over a
//! [`ports::TransferStore`]. Keys stay in `kms-core`: this crate asks an opened wallet for
//! signatures. It must never broadcast what is not committed, nor sign twice for one intent.

mod chain;
mod engine;
pub mod ports;
mod signing;
pub mod transfer;

pub use chain::{Chain, ChainError, Receipt};
pub use engine::{
    Checked, ConfirmError, QuoteError, QuoteRequest, Ready, Shown, TransferConfig, Transfers,
};
