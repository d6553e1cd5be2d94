//! A transfer's way from quote to finality.
//!
//! Nothing is broadcast before its bytes and its nonce are committed; after that, every unclear
//! answer is met by looking for the hash and by sending the same bytes again.

use std::sync::Arc;
use std::time::Duration;

use kms_core::ports::StoreError;
use kms_core::{OpenWallet, Sealer, failpoint};
use kms_types::wire::{QuoteAmount, TransferState, Warning};
use kms_types::{AmountError, EthAddress, Timestamp, TransferId, U256, Wei};
use tokio::sync::oneshot;

use crate::chain::{Chain, ChainError};
use crate::ports::{ChainView, Due, Inserted, Progress, SignOutcome, SignedBytes, TransferStore};
use crate::signing;
use crate::transfer::{Asked, Party, Transfer};

/// How many transfers one round of the watcher takes.
const ROUND: u32 = 200;

/// How transfers are handled.
#[derive(Clone, Copy, Debug)]
pub struct TransferConfig {
    /// How long a quote can be confirmed.
    pub quote_lifetime: Duration,
    /// Blocks after which a transfer is final.
    pub confirmations: u64,
    /// How often the chain is asked about a transfer that is on its way.
    pub poll: Duration,
}

/// The transfer engine. Several processes may run it on one database.
pub struct Transfers {
    store: Arc<dyn TransferStore>,
    chain: Chain,
    sealer: Sealer,
    config: TransferConfig,
}

/// What a quote is asked for.
#[derive(Clone, Debug)]
pub struct QuoteRequest {
    /// As the client chose it.
    pub id: TransferId,
    /// Who pays; its account is set.
    pub from: Party,
    /// Who is paid.
    pub to: Party,
    /// As it was written.
    pub asked: Asked,
    /// How much.
    pub amount: QuoteAmount,
    /// The client's note.
    pub client_ref: Option<String>,
    /// Whether the recipient's name came from somebody else lately.
    pub name_moved: bool,
}

/// What the sender saw before confirming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The recipient's address.
    pub to_address: EthAddress,
    /// The amount.
    pub value: Wei,
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

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// The id stands for something else.
    #[error("the transfer's id was used for something else")]
    IdReused,
    /// Sender and recipient are one.
    #[error("sender and recipient are the same")]
    SelfTransfer,
    /// Nobody owns the zero address.
    #[error("money sent to the zero address is lost")]
    ZeroAddress,
    /// The amount is not one of this coin.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// The balance does not cover amount and fee.
    #[error("the balance does not cover amount and fee")]
    Insufficient {
        /// How much is missing.
        missing: Wei,
    },
    /// The recipient's contract would refuse it.
    #[error("the recipient's contract would refuse the payment: {0}")]
    WouldRevert(String),
    /// The chain did not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a transfer was not confirmed. Nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
        /// How much is missing.
        missing: Wei,
    },
    /// The chain did not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Transfers {
    /// The engine over a store and a chain; signed bytes are sealed at rest.
    #[must_use]
    pub fn new(
        store: Arc<dyn TransferStore>,
        chain: Chain,
        sealer: Sealer,
        config: TransferConfig,
    ) -> Self {
        Self {
            store,
            chain,
            sealer,
            config,
        }
    }

    /// The chain it works on.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What it would cost. A repeat with the same id and request answers with the same transfer.
    ///
    /// # Errors
    /// When the request can not be paid or makes no sense; nothing is stored then.
    pub async fn quote(
        &self,
        request: QuoteRequest,
        now: Timestamp,
    ) -> Result<Transfer, QuoteError> {
        if let Some(known) = self.store.transfer(request.id, now).await? {
            return repeated(known, &request);
        }
        if request.to.address == EthAddress::ZERO {
            return Err(QuoteError::ZeroAddress);
        }
        if request.to.address == request.from.address {
            return Err(QuoteError::SelfTransfer);
        }
        let transfer = self.price(request.clone(), now).await?;
        match self.store.insert_quote(transfer.clone()).await? {
            Inserted::New => Ok(transfer),
            Inserted::Existing(known) => repeated(*known, &request),
        }
    }

    async fn price(&self, request: QuoteRequest, now: Timestamp) -> Result<Transfer, QuoteError> {
        let QuoteRequest {
            id,
            from,
            to,
            asked,
            amount,
            client_ref,
            name_moved,
        } = request;
        let view = self.chain.view(from.address).await?;
        let fees = self.chain.fees().await?;
        let contract = self.chain.is_contract(to.address).await?;
        let sender = from.account.ok_or(QuoteError::IdReused)?;
        let pending = self.store.pending_spend(sender).await?;
        let available = view.balance.checked_sub(pending).unwrap_or_default();
        let (value, gas_limit) = match &amount {
            QuoteAmount::Exactly(amount) => {
                let value = Wei::try_from(amount)?;
                // A node refuses to estimate what the sender can not pay.
                covered(available, value, Wei::default())?;
                (value, self.gas(&from, &to, value, contract).await?)
            }
            QuoteAmount::All => {
                let gas_limit = self.gas(&from, &to, Wei::default(), contract).await?;
                let fee = fees.max_fee(gas_limit);
                covered(available, Wei(U256::from(1)), fee)?;
                (available.checked_sub(fee).unwrap_or_default(), gas_limit)
            }
        };
        covered(available, value, fees.max_fee(gas_limit))?;
        let mut warnings = Vec::new();
        if !self.store.has_paid(sender, to.address).await? {
            warnings.push(Warning::FirstPayment);
        }
        if contract {
            warnings.push(Warning::Contract);
        }
        if most_of(value, view.balance) {
            warnings.push(Warning::MostOfBalance);
        }
        if name_moved {
            warnings.push(Warning::NameMoved);
        }
        Ok(Transfer {
            id,
            chain_id: self.chain.chain_id(),
            from,
            to,
            asked,
            value,
            gas_limit,
            fees,
            warnings,
            client_ref,
            state: TransferState::Quoted,
            nonce: None,
            tx_hash: None,
            block: None,
            fee: None,
            created_at: now,
            expires_at: now.plus(self.config.quote_lifetime),
        })
    }

    async fn gas(
        &self,
        from: &Party,
        to: &Party,
        value: Wei,
        contract: bool,
    ) -> Result<u64, QuoteError> {
        match self
            .chain
            .gas(from.address, to.address, value, contract)
            .await
        {
            Ok(gas) => Ok(gas),
            Err(ChainError::Refused { message, .. }) => Err(QuoteError::WouldRevert(message)),
            Err(error) => Err(error.into()),
        }
    }

    /// A transfer as it stands.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn transfer(
        &self,
        id: TransferId,
        now: Timestamp,
    ) -> Result<Option<Transfer>, StoreError> {
        self.store.transfer(id, now).await
    }

    /// Gives up a quote. What is signed already goes on.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn cancel(
        &self,
        id: TransferId,
        now: Timestamp,
    ) -> Result<Option<Transfer>, StoreError> {
        self.store.cancel(id, now).await
    }

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
        let transfer = self
            .store
            .transfer(id, now)
            .await?
            .ok_or(ConfirmError::NoTransfer)?;
        let said = Shown {
            to_address: transfer.to.address,
            value: transfer.value,
            max_fee: transfer.max_fee(),
        };
        if said != shown || transfer.chain_id != self.chain.chain_id() {
            return Err(ConfirmError::Mismatch);
        }
        match confirmed(transfer)? {
            Checked::Ready(mut ready) => {
                ready.view = self.chain.view(ready.transfer.from.address).await?;
                Ok(Checked::Ready(ready))
            }
            done @ Checked::Done(_) => Ok(done),
        }
    }

    /// Signs, commits, and only then broadcasts. When the broadcast fails the transfer is signed
    /// all the same, and the watcher sends the same bytes again.
    ///
    /// # Errors
    /// Only as long as nothing is signed.
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
        let sealer = self.sealer.clone();
        let (give, signed) = oneshot::channel();
        let sign = Box::new(move |nonce| {
            let (tx_hash, bytes) = signing::sign(&transfer, nonce, &wallet);
            let sealed = sealer.seal_transaction(id, &bytes);
            // Nobody listens only if the request was given up; the watcher has the bytes.
            let _ = give.send(bytes);
            SignedBytes { tx_hash, sealed }
        });
        let transfer = match self.store.sign(id, view, now, sign).await? {
            SignOutcome::Signed(transfer) => *transfer,
            SignOutcome::NotQuoted(transfer) => {
                return match confirmed(*transfer)? {
                    Checked::Done(transfer) => Ok(*transfer),
                    Checked::Ready(_) => Err(ConfirmError::Expired),
                };
            }
            SignOutcome::Expired => return Err(ConfirmError::Expired),
            SignOutcome::Insufficient { missing } => {
                return Err(ConfirmError::Insufficient { missing });
            }
        };
        failpoint::reach("transfer-before-broadcast");
        if let Ok(bytes) = signed.await
            && self.chain.broadcast(&bytes).await.is_ok()
        {
            failpoint::reach("transfer-after-broadcast");
            if self
                .store
                .advance(id, Progress::Broadcast, now)
                .await
                .unwrap_or(false)
            {
                return Ok(Transfer {
                    state: TransferState::Broadcast,
                    ..transfer
                });
            }
        }
        Ok(transfer)
    }

    /// Looks after the transfers that are on their way; gives how many it looked at. A failure of
    /// one does not stop the others.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn tick(&self, now: Timestamp) -> Result<usize, StoreError> {
        let due = self
            .store
            .claim_due(now, now.plus(self.config.poll), ROUND)
            .await?;
        let looked_at = due.len();
        if looked_at == 0 {
            return Ok(0);
        }
        let head = match self.chain.block_number().await {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(%error, "the chain can not be watched");
                return Ok(0);
            }
        };
        for due in due {
            let id = due.transfer.id;
            if let Err(error) = self.look_after(due, head, now).await {
                tracing::warn!(transfer = %id, %error, "a transfer could not be moved on");
            }
        }
        Ok(looked_at)
    }

    async fn look_after(&self, due: Due, head: u64, now: Timestamp) -> Result<(), ConfirmError> {
        let Due { transfer, sealed } = due;
        let Some(hash) = transfer.tx_hash else {
            return Err(ConfirmError::NoTransfer);
        };
        let mined = transfer.state == TransferState::Mined;
        let Some(receipt) = self.chain.receipt(hash).await? else {
            if mined {
                self.store
                    .advance(transfer.id, Progress::Reorged, now)
                    .await?;
            }
            return self.send_again(&transfer, hash, &sealed, now).await;
        };
        let deep = head.saturating_sub(receipt.block) >= self.config.confirmations;
        let (block, fee) = (receipt.block, receipt.fee);
        let progress = match (mined, receipt.success) {
            (false, true) => Progress::Mined { block, fee },
            // A revert is told when it can not be undone any more.
            (false, false) if deep => Progress::Failed { block, fee },
            (true, true) if transfer.block == Some(block) && deep => Progress::Final,
            (true, true) if transfer.block == Some(block) => return Ok(()),
            (true, _) => Progress::Reorged,
            (false, false) => return Ok(()),
        };
        self.store.advance(transfer.id, progress, now).await?;
        Ok(())
    }

    /// The same bytes, if the node does not have them.
    async fn send_again(
        &self,
        transfer: &Transfer,
        hash: [u8; 32],
        sealed: &[u8],
        now: Timestamp,
    ) -> Result<(), ConfirmError> {
        if !self.chain.knows(hash).await? {
            let opened = self.sealer.open_transaction(transfer.id, sealed);
            let bytes = opened.map_err(|error| {
                let (table, key) = ("attempts", transfer.id.to_string());
                StoreError::Corrupt {
                    table,
                    key,
                    reason: error.to_string(),
                }
            })?;
            self.chain.broadcast(&bytes).await?;
        }
        if transfer.state == TransferState::Signed {
            self.store
                .advance(transfer.id, Progress::Broadcast, now)
                .await?;
        }
        Ok(())
    }
}

/// What a confirmation of a transfer in this state means; the view is filled in later.
fn confirmed(transfer: Transfer) -> Result<Checked, ConfirmError> {
    match transfer.state {
        TransferState::Quoted => {
            let view = ChainView {
                block: 0,
                balance: Wei::default(),
                nonce: 0,
            };
            Ok(Checked::Ready(Box::new(Ready { transfer, view })))
        }
        TransferState::Expired => Err(ConfirmError::Expired),
        TransferState::Cancelled => Err(ConfirmError::Cancelled),
        _ => Ok(Checked::Done(Box::new(transfer))),
    }
}

fn repeated(known: Transfer, request: &QuoteRequest) -> Result<Transfer, QuoteError> {
    let same = known.from.account == request.from.account
        && known.asked == request.asked
        && known.client_ref == request.client_ref;
    if same {
        Ok(known)
    } else {
        Err(QuoteError::IdReused)
    }
}

fn covered(available: Wei, value: Wei, fee: Wei) -> Result<(), QuoteError> {
    let needed = value.checked_add(fee).ok_or(AmountError::TooLarge)?;
    match needed.checked_sub(available) {
        Some(missing) if missing > Wei::default() => Err(QuoteError::Insufficient { missing }),
        _ => Ok(()),
    }
}

/// More than nine tenths.
fn most_of(value: Wei, balance: Wei) -> bool {
    value.0 > balance.0 - balance.0 / U256::from(10)
}

impl Ready {
    /// The transfer that would be signed.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }
}

impl std::fmt::Debug for Transfers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfers")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
