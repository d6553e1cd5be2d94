//! Money on an EVM chain: balances, fees, and transfers of the native coin and of tokens that are
//! sent exactly once.
//!
//! [`Chain`] talks to a node; [`Transfers`] takes a transfer from quote to finality over a
//! [`ports::TransferStore`]; [`Follower`](follower::Follower) finds money that comes from outside.
//! Keys stay in `kms-core`: this crate asks an opened wallet for signatures. It must never broadcast what is not committed, nor sign one intent for two nonces.

mod chain;
mod engine;
pub mod follower;
mod ladder;
pub mod ports;
mod signing;
pub mod spending;
pub mod state;
pub mod transfer;

pub use chain::{Balances, Chain, ChainError, Endpoint, Head, Receipt, TokenError, TokenMove};
pub use engine::{
    Checked, ConfirmError, QuoteError, QuoteRequest, Ready, Shown, TransferConfig, Transfers,
};
