//! Confirms a quote: checks what the sender saw, signs once, commits, then broadcasts.

use std::time::Duration;

use kms_core::audit::Details;
use kms_core::ports::StoreError;
use kms_core::{OpenWallet, Sealer, failpoint};
use kms_types::{AccountId, EthAddress, Timestamp, Token, TransferId, Units, Wei};
use metrics::counter;
use tokio::sync::oneshot;

use super::Transfers;
use crate::chain::{ChainError, TokenFault};
use crate::ports::{ChainView, Sign, SignOutcome, SignedBytes, SignedLadder};
use crate::prices::FeeTooHigh;
use crate::signing;
use crate::spending::OverLimit;
use crate::transfer::{Fees, MAX_IN_FLIGHT, Missing, TransactionKind, Transfer, TransferState};

/// What was shown to the sender before the confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The chain.
    pub chain_id: u64,
    /// The recipient's address.
    pub to_address: EthAddress,
    /// The token; `None` for the native coin.
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit.
    pub value: Units,
    /// The maximum fee.
    pub max_fee: Wei,
}

/// A transfer that may be signed.
#[derive(Clone, Debug)]
pub struct Ready {
    transfer: Transfer,
    view: ChainView,
}

/// The result of checking a request to sign.
#[derive(Clone, Debug)]
pub enum Checked<R> {
    /// It may be signed.
    Ready(R),
    /// It was signed before.
    Done(Box<Transfer>),
}

/// Why a transfer was not confirmed. Nothing was signed, except perhaps after `Store`: repeat the
/// confirmation to find out.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// The transfer does not exist.
    #[error("the transfer does not exist")]
    NoTransfer,
    /// It was signed before, and an old copy of its row was put back.
    #[error("the quote is older than the audit: an old copy of it was put back")]
    RolledBack {
        /// The account that it is of.
        sender: Option<AccountId>,
    },
    /// The quote expired.
    #[error("the quote has expired")]
    Expired,
    /// The quote was cancelled.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The account is frozen, or has another wallet now.
    #[error("the account is not active")]
    NotActive,
    /// The password of the wallet was replaced after the wallet was opened.
    #[error("the password of the wallet was changed by a concurrent request")]
    WalletChanged,
    /// The confirmation differs from the quote.
    #[error("the confirmation differs from the quote")]
    Mismatch,
    /// It is a transfer of another chain than that of this engine.
    #[error("the chain of the transfer is not configured")]
    OtherChain,
    /// The transfer is not pending: it is mined or has ended, or was never signed.
    #[error("the transfer is not pending")]
    NotPending,
    /// The id belongs to another replacement.
    #[error("the id was used for another transfer")]
    IdReused,
    /// Too many transfers of the wallet are in flight.
    #[error(transparent)]
    TooManyInFlight(#[from] TooManyInFlight),
    /// The network asks for more than the operator allows.
    #[error(transparent)]
    FeeTooHigh(#[from] FeeTooHigh),
    /// The balance no longer covers amount and fee.
    #[error("the balance does not cover amount and fee")]
    Insufficient {
        /// The missing amount.
        missing: Missing,
    },
    /// A spending limit refuses it.
    #[error("the amount exceeds the spending limit")]
    OverLimit(Box<OverLimit>),
    /// All accounts together sent too much of the asset.
    #[error("more of this asset was sent in an hour than the operator allows")]
    OverOutflow {
        /// When the amount fits, if nothing else is sent.
        after: Duration,
    },
    /// The chain failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// [`MAX_IN_FLIGHT`] transfers of the wallet are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_IN_FLIGHT} transfers of the wallet are in flight; repeat this when one of them is mined \
     or cancelled"
)]
pub struct TooManyInFlight;

impl Ready {
    /// The transfer that would be signed.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }
}

impl Transfers {
    /// Checks a confirmation before the wallet is unlocked: the sender saw this quote, it has not
    /// expired, and the chain answers.
    ///
    /// # Errors
    /// When the transfer must not be signed.
    pub async fn check(
        &self,
        id: TransferId,
        shown: Shown,
    ) -> Result<Checked<Ready>, ConfirmError> {
        let found = self.store.transfer_to_sign(id).await?;
        let (transfer, was_signed) = found.ok_or(ConfirmError::NoTransfer)?;
        if was_signed && transfer.state == TransferState::Quoted {
            return Err(ConfirmError::RolledBack { sender: transfer.from.account });
        }
        let quoted = Shown {
            chain_id: transfer.chain_id,
            to_address: transfer.to.address,
            token: transfer.token.clone(),
            value: transfer.value,
            max_fee: transfer.max_fee(),
        };
        if quoted != shown {
            return Err(ConfirmError::Mismatch);
        }
        if is_confirmed(&transfer)? {
            return Ok(Checked::Done(Box::new(transfer)));
        }
        if transfer.chain_id != self.chain.chain_id() {
            return Err(ConfirmError::OtherChain);
        }
        // The operator may have removed or changed the token since.
        if transfer.token.as_ref().is_some_and(|token| !self.has(token)) {
            return Err(ConfirmError::Mismatch);
        }
        let view = self.chain.view(transfer.from.address, transfer.token.as_ref()).await?;
        Ok(Checked::Ready(Ready { transfer, view }))
    }

    /// Whether a token is configured with the same contract and decimals, under any symbol, and
    /// its amounts mean what they say.
    fn has(&self, token: &Token) -> bool {
        let is_usable = |it: &Token| {
            !matches!(
                self.tokens.fault(it),
                Some(TokenFault::ForeignLogs | TokenFault::Decimals { .. })
            )
        };
        self.tokens.iter().any(|it| it.is_same(token) && is_usable(it))
    }

    /// Signs every step of the ladder, commits, and only then broadcasts the first. If the
    /// broadcast fails, the transfer is signed all the same, and [`Transfers::tick`] sends the same
    /// bytes again. The wallet is dropped on the store's thread as soon as everything is signed.
    ///
    /// # Errors
    /// Only before the commit. Of several confirmations at once, one signs and all return the same.
    pub async fn sign_and_send(
        &self,
        ready: Ready,
        wallet: OpenWallet,
        now: Timestamp,
    ) -> Result<Transfer, ConfirmError> {
        let Ready { transfer, view } = ready;
        let from = transfer.from.account;
        if wallet.address() != transfer.from.address {
            return Err(ConfirmError::Mismatch);
        }
        let (id, rules, sealer) = (transfer.id, self.spending.clone(), self.sealer.clone());
        let asset = transfer.token.clone();
        let (sender, signed) = oneshot::channel();
        let wallet_version = wallet.version();
        let ladder = Box::new(move |nonce| {
            let (ladder, first) = sign_ladder(&transfer, nonce, &wallet, &sealer);
            // Fails only if the request was dropped; the bytes are in the store then.
            let _ = sender.send(first);
            ladder
        });
        let sign = Sign { wallet_version, ladder };
        let transfer = match self.store.sign(id, view, rules, now, sign).await? {
            SignOutcome::Signed(transfer) => *transfer,
            SignOutcome::NotQuoted(transfer) => {
                is_confirmed(&transfer)?;
                return Ok(*transfer);
            }
            SignOutcome::RolledBack => return Err(ConfirmError::RolledBack { sender: from }),
            SignOutcome::Expired => return Err(ConfirmError::Expired),
            SignOutcome::NotActive => return Err(ConfirmError::NotActive),
            SignOutcome::WalletChanged => return Err(ConfirmError::WalletChanged),
            SignOutcome::TooManyInFlight => return Err(TooManyInFlight.into()),
            SignOutcome::Contradicted { nonce } => {
                let event = "final_nonce_contradicted";
                let chain_id = self.chain.chain_id();
                tracing::error!(
                    event, chain_id, transfer = %id, nonce,
                    "final nonce not on the chain"
                );
                return Err(ChainError::Contradicted { nonce }.into());
            }
            SignOutcome::OverLimit(over) => return Err(ConfirmError::OverLimit(Box::new(over))),
            SignOutcome::OverOutflow { after } => {
                let event = "outflow_limit_reached";
                let chain_id = self.chain.chain_id();
                let asset = asset.map_or_else(|| "native".to_owned(), |it| it.symbol.to_string());
                tracing::error!(
                    event, chain_id, transfer = %id, asset,
                    "hourly outflow limit reached"
                );
                let labels = [("chain", chain_id.to_string()), ("reason", "outflow".to_owned())];
                counter!("kms_payments_refused_total", &labels).increment(1);
                return Err(ConfirmError::OverOutflow { after });
            }
            SignOutcome::Insufficient { missing } => {
                return Err(ConfirmError::Insufficient { missing });
            }
        };
        failpoint::reach("transfer-before-broadcast");
        match signed.await {
            Ok(first) => Ok(self.broadcast_first(transfer, &first, now).await),
            // A store that returns without calling `sign`; `tick` broadcasts what it has.
            Err(_closed) => Ok(transfer),
        }
    }

    /// Broadcasts for the first time. If that fails, `tick` repeats it.
    pub(super) async fn broadcast_first(
        &self,
        transfer: Transfer,
        bytes: &[u8],
        now: Timestamp,
    ) -> Transfer {
        let id = transfer.id;
        if let Err(error) = self.chain.broadcast(bytes).await {
            tracing::warn!(
                chain_id = self.chain.chain_id(),
                transfer = %id,
                %error,
                event = "broadcast_failed",
                "first broadcast failed, will be repeated"
            );
            return transfer;
        }
        failpoint::reach("transfer-after-broadcast");
        match self.store.advance(id, self.broadcast_at(now), now).await {
            Ok(true) => Transfer { state: TransferState::Broadcast, ..transfer },
            // `tick` has recorded it already.
            Ok(false) => transfer,
            Err(error) => {
                tracing::warn!(
                    chain_id = self.chain.chain_id(),
                    transfer = %id,
                    %error,
                    event = "broadcast_not_recorded",
                    "broadcast not recorded"
                );
                transfer
            }
        }
    }
}

/// Signs every step of the ladder and the cancellation. Returns the sealed transactions, and the
/// first in plaintext.
pub(super) fn sign_ladder(
    transfer: &Transfer,
    nonce: u64,
    wallet: &OpenWallet,
    sealer: &Sealer,
) -> (SignedLadder, Vec<u8>) {
    let sign = |kind: TransactionKind, fees: Fees| {
        let (tx_hash, bytes) = signing::sign(transfer, kind, fees, nonce, wallet);
        let sealed = sealer.seal_transaction(transfer.id, kind.as_str(), &bytes);
        (SignedBytes { tx_hash, fees, sealed }, bytes)
    };
    let ladder = &transfer.ladder;
    let (first, bytes) = sign(TransactionKind::Payment, ladder.first());
    let replacements =
        ladder.replacements().map(|fees| sign(TransactionKind::Payment, fees).0).collect();
    let (cancellation, _) = sign(TransactionKind::Cancellation, ladder.cancellation());
    let signed = SignedLadder { first, replacements, cancellation };
    wallet.record(details(nonce, &signed));
    (signed, bytes)
}

/// What the audit states about signed transactions: one payment at most is mined, or the
/// cancellation.
fn details(nonce: u64, signed: &SignedLadder) -> Details {
    let hash = |signed: &SignedBytes| alloy::primitives::hex::encode_prefixed(signed.tx_hash);
    let payments: Vec<_> =
        std::iter::once(&signed.first).chain(&signed.replacements).map(hash).collect();
    Details::default()
        .with("nonce", nonce)
        .with("payments", payments.join(","))
        .with("cancellation", hash(&signed.cancellation))
}

/// Whether the transfer was confirmed before. An error if it cannot be confirmed any more.
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
