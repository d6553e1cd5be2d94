//! Signs a pending transfer again, above the prices at which it was sent: for the same nonce, so
//! that only one of its transactions can be mined.

use kms_core::{OpenWallet, failpoint};
use kms_types::{ReplacementId, Timestamp, TransferId, Wei};
use tokio::sync::oneshot;

use super::Transfers;
use super::confirm::{Checked, ConfirmError, sign_ladder};
use crate::ports::{ChainView, ChoosePrices, ReplaceOutcome, SignAgain};
use crate::prices::{FeeTooHigh, Market, PricePolicy, below_cancellation};
use crate::transfer::{Fees, Ladder, Transfer, TransferState};

/// The network fee of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacementFee {
    /// The fee that is expected.
    pub usual: Wei,
    /// The maximum fee.
    pub max: Wei,
}

/// A replacement that may be signed.
#[derive(Clone, Debug)]
pub struct ReadyReplacement {
    transfer: Transfer,
    replacement: ReplacementId,
    view: ChainView,
    market: Market,
    prices: PricePolicy,
    spare: Spare,
}

/// What the balance leaves to the fee of what is signed again.
#[derive(Clone, Copy, Debug)]
struct Spare {
    /// All of it: the first step is rather priced low than not signed.
    first: Wei,
    /// For the later steps.
    later: Wei,
}

impl ReadyReplacement {
    /// The transfer that would be signed again.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }
}

impl Transfers {
    /// Returns the network fee of a replacement at current prices.
    ///
    /// # Errors
    /// When the transfer is not pending, or its replacement would cost more than the operator
    /// allows.
    pub async fn replacement_fee(&self, id: TransferId) -> Result<ReplacementFee, ConfirmError> {
        let (transfer, above) = self.pending(id).await?;
        let view = self.chain.view(transfer.from.address, transfer.token.as_ref()).await?;
        let spare = self.spare(&transfer, view).await?;
        let market = self.chain.market().await?;
        let gas_limit = transfer.gas_limit;
        let prices = self.config.prices.beside(transfer.ladder.data_fee());
        let ladder = ladder(&prices, market, gas_limit, spare, above)?;
        let max = max_fee(&transfer, &ladder);
        let ladder = ladder.with_data_fee(transfer.ladder.data_fee());
        Ok(ReplacementFee { usual: ladder.usual_fee(gas_limit), max })
    }

    /// Checks a request to sign again before the wallet is unlocked. `max_fee` is what the sender
    /// agreed to. A repeat returns the transfer in its current state.
    ///
    /// # Errors
    /// When the transfer is not pending, or the chain fails.
    pub async fn check_replacement(
        &self,
        id: TransferId,
        replacement: ReplacementId,
        max_fee: Wei,
    ) -> Result<Checked<ReadyReplacement>, ConfirmError> {
        // First, because a transfer that was signed again may be mined since.
        match self.store.replaced_by(replacement).await? {
            Some(of) if of != id => return Err(ConfirmError::IdReused),
            Some(_) => {
                let transfer = self.store.transfer(id).await?.ok_or(ConfirmError::NoTransfer)?;
                return Ok(Checked::Done(Box::new(transfer)));
            }
            None => {}
        }
        let (transfer, _) = self.pending(id).await?;
        let view = self.chain.view(transfer.from.address, transfer.token.as_ref()).await?;
        let spare = self.spare(&transfer, view).await?;
        let market = self.chain.market().await?;
        let data_fee = transfer.ladder.data_fee();
        let max_fee = max_fee.checked_sub(data_fee).unwrap_or_default();
        let max_fee = match transfer.cancel_requested_at {
            None => max_fee,
            Some(_) => below_cancellation(max_fee, transfer.gas_limit),
        };
        let prices = self.config.prices.beside(data_fee);
        let allowed = prices.max_fee.map_or(max_fee, |allowed| allowed.min(max_fee));
        let prices = PricePolicy { max_fee: Some(allowed), ..prices };
        let ready = ReadyReplacement { transfer, replacement, view, market, prices, spare };
        Ok(Checked::Ready(ready))
    }

    /// Signs again, commits, and only then broadcasts.
    ///
    /// # Errors
    /// Only before the commit. A repeat signs nothing and returns the transfer.
    pub async fn sign_replacement(
        &self,
        ready: ReadyReplacement,
        wallet: OpenWallet,
        now: Timestamp,
    ) -> Result<Transfer, ConfirmError> {
        let ReadyReplacement { transfer, replacement, view, market, prices, spare } = ready;
        if wallet.address() != transfer.from.address {
            return Err(ConfirmError::Mismatch);
        }
        let (id, gas_limit) = (transfer.id, transfer.gas_limit);
        let (rules, sealer) = (self.spending.clone(), self.sealer.clone());
        let (sender, signed) = oneshot::channel();
        let choose: ChoosePrices =
            Box::new(move |above| ladder(&prices, market, gas_limit, spare, above).ok());
        let wallet_version = wallet.version();
        let signed_ladder = Box::new(move |transfer: &Transfer, nonce| {
            let (ladder, first) = sign_ladder(transfer, nonce, &wallet, &sealer);
            // Fails only if the request was dropped; the bytes are in the store then.
            let _ = sender.send(first);
            ladder
        });
        let again = (choose, SignAgain { wallet_version, ladder: signed_ladder });
        let outcome = self.store.replace(id, replacement, view, rules, now, again).await?;
        let transfer = match outcome {
            ReplaceOutcome::Replaced(transfer) => *transfer,
            ReplaceOutcome::Repeated(transfer) => return Ok(*transfer),
            ReplaceOutcome::IdReused => return Err(ConfirmError::IdReused),
            ReplaceOutcome::NotPending => return Err(ConfirmError::NotPending),
            ReplaceOutcome::NotActive => return Err(ConfirmError::NotActive),
            ReplaceOutcome::WalletChanged => return Err(ConfirmError::WalletChanged),
            ReplaceOutcome::Outdated => return Err(ConfirmError::Mismatch),
            ReplaceOutcome::OverLimit(over) => return Err(ConfirmError::OverLimit(Box::new(over))),
            ReplaceOutcome::Insufficient { missing } => {
                return Err(ConfirmError::Insufficient { missing });
            }
        };
        failpoint::reach("transfer-before-replacement");
        // A cancellation is broadcast by `tick`, which has its bytes.
        match signed.await {
            Ok(first) if transfer.cancel_requested_at.is_none() => {
                Ok(self.broadcast_first(transfer, &first, now).await)
            }
            Ok(_) | Err(_) => Ok(transfer),
        }
    }

    /// Returns a pending transfer, and the prices at which it was sent last.
    async fn pending(&self, id: TransferId) -> Result<(Transfer, Fees), ConfirmError> {
        let transfer = self.store.transfer(id).await?.ok_or(ConfirmError::NoTransfer)?;
        let is_pending = matches!(transfer.state, TransferState::Signed | TransferState::Broadcast);
        let above = self.store.last_sent(id).await?;
        match above {
            Some(_) if is_pending && transfer.chain_id != self.chain.chain_id() => {
                Err(ConfirmError::OtherChain)
            }
            Some(above) if is_pending => Ok((transfer, above)),
            Some(_) | None => Err(ConfirmError::NotPending),
        }
    }

    async fn spare(&self, transfer: &Transfer, view: ChainView) -> Result<Spare, ConfirmError> {
        let (chain, from) = (self.chain.chain_id(), transfer.from.address);
        let pending = self.store.reserved_spend(chain, from, view.mined).await?;
        let others = pending.wei.checked_sub(transfer.max_wei()).unwrap_or_default();
        let available = view.balance.checked_sub(others).unwrap_or_default();
        let available = available.checked_sub(transfer.ladder.data_fee()).unwrap_or_default();
        let is_payment = transfer.token.is_none() && transfer.cancel_requested_at.is_none();
        Ok(if is_payment {
            let value = Wei(transfer.value.0);
            let first = available.checked_sub(value).unwrap_or_default();
            Spare { first, later: first.min(self.config.prices.share_of(value)) }
        } else {
            let fee = below_cancellation(available, transfer.gas_limit);
            Spare { first: fee, later: fee }
        })
    }
}

/// Chooses the prices above those at which a transfer was sent last, as far as the balance goes.
fn ladder(
    prices: &PricePolicy,
    market: Market,
    gas_limit: u64,
    spare: Spare,
    above: Fees,
) -> Result<Ladder, FeeTooHigh> {
    let covered = prices.max_fee.map_or(spare.first, |allowed| allowed.min(spare.first));
    let affordable = PricePolicy { max_fee: Some(covered), ..*prices };
    let ladder = |prices: &PricePolicy| prices.ladder(market, gas_limit, spare.later, Some(above));
    // What the balance does not cover is refused by the store, which reports what is missing.
    ladder(&affordable).or_else(|FeeTooHigh| ladder(prices))
}

/// The maximum fee of what is signed again: of the ladder, or of the cancellation alone.
fn max_fee(transfer: &Transfer, ladder: &Ladder) -> Wei {
    let ladder = ladder.clone().with_data_fee(transfer.ladder.data_fee());
    match transfer.cancel_requested_at {
        None => ladder.max_fee(transfer.gas_limit),
        Some(_) => ladder.cancellation_fee(transfer.gas_limit),
    }
}
