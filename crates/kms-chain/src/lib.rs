//! Transfers on an EVM chain, each mined at most once, and the external deposits to its wallets.
//!
//! [`Chain`] is the chain itself over one JSON-RPC endpoint or several. [`Transfers`] takes a
//! transfer from quote to finality, over a [`TransferStore`](ports::TransferStore).
//! [`Follower`](follower::Follower) finds deposits, over a
//! [`DepositStore`](follower::DepositStore). Both stores are implemented by `kms-store`.
//!
//! Private keys stay in `kms-core`: this crate gets an opened wallet and requests signatures. It
//! never broadcasts a transaction before it is committed, and never signs a transfer for two
//! nonces.
//!
//! # A transfer
//!
//! 1. [`Transfers::quote`] prices it: balance, fees and gas of one endpoint, spending limits, and
//!    warnings. The client chooses the id, so that a repeated request returns the same transfer.
//! 2. Show the quote to the sender, and repeat what was shown in a [`Shown`] to
//!    [`Transfers::check`], which returns a [`Ready`].
//! 3. Open the sender's wallet with the password (`kms-core`).
//! 4. [`Transfers::sign_and_send`] signs the whole fee [`Ladder`](transfer::Ladder) for one nonce,
//!    commits the sealed bytes, and then broadcasts the first transaction.
//! 5. Call [`Transfers::tick`] every second. It broadcasts again what a node forgot, and broadcasts
//!    replacements at higher fees. Several servers may do this over one database.
//! 6. Call [`Follower::round`](follower::Follower::round) in a loop. It reads every block, settles
//!    the transfers whose nonces it uses, records their end at finality, and finds deposits.
//!
//! [`state`] has every allowed change of a transfer, [`spending`] the rules of spending limits.
//!
//! # Reading the chain
//!
//! ```
//! use std::time::Duration;
//!
//! use kms_chain::{Chain, ChainError, Endpoint};
//!
//! # async fn example() -> Result<(), ChainError> {
//! let chain = Chain::over(
//!     ["https://one.example", "https://two.example"],
//!     1,
//!     Duration::from_secs(5),
//!     Some(Duration::from_secs(300)),
//! )?;
//! // The first endpoint that works answers.
//! let block = chain.first(Endpoint::block_number).await?;
//!
//! // Answers that belong together come from one endpoint.
//! let (endpoint, head) = chain.endpoint().await?;
//! if let Some(receipt) = endpoint.receipt([7; 32]).await? {
//!     println!("{} confirmations", head.block.saturating_sub(receipt.block));
//! }
//! # Ok(())
//! # }
//! ```

mod chain;
mod engine;
pub mod follower;
mod ladder;
pub mod ports;
mod prices;
pub mod settlement;
mod signing;
pub mod spending;
pub mod state;
mod tokens;
pub mod transfer;

pub use chain::{
    Balances, Chain, ChainError, CheckedToken, Code, Endpoint, EndpointAddress, Family, Head,
    HttpHeader, HttpHeaderError, Need, PlannedPayment, Receipt, TokenError, TokenFault, TokenMove,
};
pub use engine::{
    Checked, ConfirmError, QuoteError, QuoteRequest, Ready, ReadyReplacement, ReplacementFee,
    Shown, TooManyInFlight, TransferConfig, Transfers,
};
pub use prices::{FeeTooHigh, Market, PricePolicy};
pub use tokens::Tokens;
