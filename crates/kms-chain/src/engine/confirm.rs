//! The sender saw the quote and gave the password: sign once, commit, then send.

use kms_core::ports::StoreError;
use kms_core::{OpenWallet, failpoint};
use kms_types::{EthAddress, Timestamp, Token, TransferId, Units, Wei};
use tokio::sync::oneshot;

use super::Transfers;
use crate::chain::ChainError;
use crate::ports::{ChainView, Progress, SignOutcome, SignedBytes, SignedLadder};
use crate::signing;
use crate::spending::OverLimit;
use crate::transfer::{Missing, Transfer, TransferState};

/// What the sender saw before confirming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The recipient's address.
    pub to_address: EthAddress,
    /// The token; `None` for the native coin.
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit.
    pub value: Units,
    /// The highest fee.
    pub max_fee: Wei,
}

/// A transfer that may be signed.
#[derive(Clone, Debug)]
pub struct Ready {
    transfer: Transfer,
    view: ChainView,
}

/// What may be done about a confirmation.
#[derive(Clone, Debug)]
pub enum Checked {
    /// Sign it.
    Ready(Box<Ready>),
    /// It was confirmed before: this is how it stands.
    Done(Box<Transfer>),
}

/// Why a transfer was not confirmed. Nothing was signed; only after `Store` that is not known,
/// and repeating the confirmation tells.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// There is no such transfer.
    #[error("there is no such transfer")]
    NoTransfer,
    /// Its time is over.
    #[error("the quote has expired")]
    Expired,
    /// It was cancelled.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// What was confirmed is not what the quote says.
    #[error("what was confirmed is not what the quote says")]
    Mismatch,
    /// The balance does not cover it any more.
    #[error("the balance does not cover amount and fee")]
    Insufficient {
        /// How much is missing, of what.
        missing: Missing,
    },
    /// It is more than may be spent now.
    #[error("it is more than may be spent in a day")]
    OverLimit(Box<OverLimit>),
    /// The chain did not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ready {
    /// The transfer that would be signed.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }
}

impl Transfers {
    /// Whether the transfer may be signed, before any work is done for it: it is what was shown,
    /// its time is not over, and the chain answers.
    ///
    /// # Errors
    /// When it may not.
    pub async fn check(
        &self,
        id: TransferId,
        shown: Shown,
        now: Timestamp,
    ) -> Result<Checked, ConfirmError> {
        let transfer = self.store.transfer(id, now).await?;
        let transfer = transfer.ok_or(ConfirmError::NoTransfer)?;
        let said = Shown {
            to_address: transfer.to.address,
            token: transfer.token.clone(),
            value: transfer.value,
            max_fee: transfer.max_fee(),
        };
        if said != shown || transfer.chain_id != self.chain.chain_id() {
            return Err(ConfirmError::Mismatch);
        }
        if is_confirmed(&transfer)? {
            return Ok(Checked::Done(Box::new(transfer)));
        }
        // A token that the operator took away or changed since is not paid any more.
        if transfer.token.as_ref().is_some_and(|token| !self.tokens.contains(token)) {
            return Err(ConfirmError::Mismatch);
        }
        let view = self.chain.view(transfer.from.address, transfer.token.as_ref()).await?;
        Ok(Checked::Ready(Box::new(Ready { transfer, view })))
    }

    /// Signs every step of the ladder, commits, and only then broadcasts the first. When the broadcast fails the transfer is signed
    /// all the same, and the watcher sends the same bytes again. The wallet is gone when its
    /// signatures are made, on the store's thread.
    ///
    /// # Errors
    /// Only up to the commit; of several confirmations at once, one signs and all answer alike.
    pub async fn sign_and_send(
        &self,
        ready: Ready,
        wallet: OpenWallet,
        now: Timestamp,
    ) -> Result<Transfer, ConfirmError> {
        let Ready { transfer, view } = ready;
        if wallet.address() != transfer.from.address {
            return Err(ConfirmError::Mismatch);
        }
        let id = transfer.id;
        let rules = self.spending.clone();
        let sealer = self.sealer.clone();
        let (give, signed) = oneshot::channel();
        let sign = Box::new(move |nonce| {
            let sign = |fees| {
                let (tx_hash, bytes) = signing::sign(&transfer, fees, nonce, &wallet);
                (SignedBytes { tx_hash, sealed: sealer.seal_transaction(id, &bytes) }, bytes)
            };
            let (first, bytes) = sign(transfer.ladder.first());
            let replacements = transfer.ladder.replacements().map(|fees| sign(fees).0).collect();
            // Nobody listens only if the request was given up; the watcher has the bytes.
            let _ = give.send(bytes);
            SignedLadder { first, replacements }
        });
        let transfer = match self.store.sign(id, view, rules, now, sign).await? {
            SignOutcome::OverLimit(over) => {
                return Err(ConfirmError::OverLimit(Box::new(over)));
            }
            SignOutcome::Signed(transfer) => *transfer,
            SignOutcome::NotQuoted(transfer) => {
                is_confirmed(&transfer)?;
                return Ok(*transfer);
            }
            SignOutcome::Expired => return Err(ConfirmError::Expired),
            SignOutcome::Insufficient { missing } => {
                return Err(ConfirmError::Insufficient { missing });
            }
        };
        failpoint::reach("transfer-before-broadcast");
        match signed.await {
            Ok(bytes) => Ok(self.send(transfer, &bytes, now).await),
            // The store signed without asking; the watcher has the bytes.
            Err(_closed) => Ok(transfer),
        }
    }

    /// The first broadcast. Its failure is the watcher's business.
    async fn send(&self, transfer: Transfer, bytes: &[u8], now: Timestamp) -> Transfer {
        let id = transfer.id;
        if let Err(error) = self.chain.broadcast(bytes).await {
            tracing::warn!(transfer = %id, %error, "a signed transfer was not sent yet");
            return transfer;
        }
        failpoint::reach("transfer-after-broadcast");
        match self.store.advance(id, Progress::Broadcast, now).await {
            Ok(true) => Transfer { state: TransferState::Broadcast, ..transfer },
            // The watcher was quicker.
            Ok(false) => transfer,
            Err(error) => {
                tracing::warn!(transfer = %id, %error, "a transfer was sent, but not noted yet");
                transfer
            }
        }
    }
}

/// Whether it was confirmed before, or still may be.
fn is_confirmed(transfer: &Transfer) -> Result<bool, ConfirmError> {
    match transfer.state {
        TransferState::Quoted => Ok(false),
        TransferState::Expired => Err(ConfirmError::Expired),
        TransferState::Cancelled => Err(ConfirmError::Cancelled),
        TransferState::Signed
        | TransferState::Broadcast
        | TransferState::Mined
        | TransferState::Final
        | TransferState::Failed => Ok(true),
    }
}
