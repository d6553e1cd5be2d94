//! What a transfer would cost, and what its sender should know first. Moves nothing.

use kms_core::ports::StoreError;
use kms_types::wire::{QuoteAmount, TransferState, Warning};
use kms_types::{AccountId, AmountError, EthAddress, Timestamp, TransferId, U256, Wei};

use super::Transfers;
use crate::chain::{ChainError, PLAIN_TRANSFER_GAS};
use crate::ports::Inserted;
use crate::transfer::{Asked, Ladder, Party, Transfer};

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

/// Why there is no quote. Nothing was stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// The id stands for something else.
    #[error("the transfer's id was used for something else")]
    IdReused,
    /// The sender is not one of our accounts.
    #[error("the sender has no account")]
    NoSender,
    /// Sender and recipient are one.
    #[error("sender and recipient are the same")]
    SelfTransfer,
    /// Nobody owns the zero address.
    #[error("money sent to the zero address is lost")]
    ZeroAddress,
    /// The amount is not one of this coin.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// The balance, less what is on its way out, does not cover amount and fee.
    #[error("the balance does not cover amount and fee")]
    Insufficient {
        /// How much is missing, in wei.
        missing: Wei,
    },
    /// The recipient's contract would refuse it, in its own words: at most 200 characters, none
    /// of them a control character, but a stranger's text all the same.
    #[error("the recipient's contract would refuse the payment: {0}")]
    WouldRevert(String),
    /// The chain did not answer.
    #[error(transparent)]
    Chain(ChainError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ChainError> for QuoteError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Reverted { reason } => Self::WouldRevert(reason),
            error => Self::Chain(error),
        }
    }
}

/// What the chain and the store say of a payment.
struct Facts {
    balance: Wei,
    /// The balance less what is on its way out.
    available: Wei,
    ladder: Ladder,
    contract: bool,
    paid_before: bool,
}

impl Transfers {
    /// What it would cost. A repeat with the same id and request answers with the same transfer,
    /// however it stands now.
    ///
    /// # Errors
    /// When the request can not be paid or makes no sense, or the chain or the store does not
    /// answer.
    pub async fn quote(
        &self,
        request: QuoteRequest,
        now: Timestamp,
    ) -> Result<Transfer, QuoteError> {
        let sender = request.from.account.ok_or(QuoteError::NoSender)?;
        let QuoteRequest { id, asked, client_ref, .. } = &request;
        if let Some(known) = self.quoted(*id, sender, asked, client_ref.as_deref(), now).await? {
            return Ok(known);
        }
        if request.to.address == EthAddress::ZERO {
            return Err(QuoteError::ZeroAddress);
        }
        if request.to.address == request.from.address || request.to.account == Some(sender) {
            return Err(QuoteError::SelfTransfer);
        }
        let transfer = self.price(sender, &request, now).await?;
        match self.store.insert_quote(transfer.clone()).await? {
            Inserted::New => Ok(transfer),
            Inserted::Existing(known) => {
                repeated(*known, sender, &request.asked, request.client_ref.as_deref())
            }
        }
    }

    /// The transfer that this sender asked for before, in these words and with this id, however it
    /// stands now. To be looked for before a name is resolved: it may have moved since, and the
    /// repeat is answered all the same.
    ///
    /// # Errors
    /// `IdReused` when the id stands for something else; else when the store does not answer.
    pub async fn quoted(
        &self,
        id: TransferId,
        sender: AccountId,
        asked: &Asked,
        client_ref: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Transfer>, QuoteError> {
        let known = self.store.transfer(id, now).await?;
        known.map(|known| repeated(known, sender, asked, client_ref)).transpose()
    }

    async fn price(
        &self,
        sender: AccountId,
        request: &QuoteRequest,
        now: Timestamp,
    ) -> Result<Transfer, QuoteError> {
        let facts = self.facts(sender, request).await?;
        let (value, gas_limit) = self.amount(request, &facts).await?;
        covered(facts.available, value, facts.ladder.top().max_fee(gas_limit))?;
        Ok(Transfer {
            id: request.id,
            chain_id: self.chain.chain_id(),
            from: request.from.clone(),
            to: request.to.clone(),
            asked: request.asked.clone(),
            value,
            gas_limit,
            ladder: facts.ladder,
            warnings: warnings(&facts, value, request.name_moved),
            client_ref: request.client_ref.clone(),
            state: TransferState::Quoted,
            nonce: None,
            tx_hash: None,
            block: None,
            fee: None,
            failure: None,
            created_at: now,
            expires_at: now.plus(self.config.quote_lifetime),
        })
    }

    async fn facts(&self, sender: AccountId, request: &QuoteRequest) -> Result<Facts, QuoteError> {
        let to = request.to.address;
        let (view, fees, contract) = tokio::try_join!(
            self.chain.view(request.from.address),
            self.chain.fees(),
            self.chain.is_contract(to),
        )?;
        let pending = self.store.pending_spend(self.chain.chain_id(), sender).await?;
        Ok(Facts {
            balance: view.balance,
            available: view.balance.checked_sub(pending).unwrap_or_default(),
            ladder: Ladder::rising_from(fees),
            contract,
            paid_before: self.store.has_paid(sender, to).await?,
        })
    }

    /// The value in wei, and the gas that it takes.
    async fn amount(
        &self,
        request: &QuoteRequest,
        facts: &Facts,
    ) -> Result<(Wei, u64), QuoteError> {
        let (from, to) = (request.from.address, request.to.address);
        let gas = |value| self.chain.gas(from, to, value, facts.contract);
        // No payment costs less. Checked first, because a node refuses to estimate what the
        // sender can not pay.
        let least_fee = facts.ladder.top().max_fee(PLAIN_TRANSFER_GAS);
        match &request.amount {
            QuoteAmount::Exactly(amount) => {
                let value = Wei::try_from(amount)?;
                covered(facts.available, value, least_fee)?;
                Ok((value, gas(value).await?))
            }
            QuoteAmount::All => {
                let less = |fee| facts.available.checked_sub(fee).unwrap_or_default();
                covered(facts.available, Wei(U256::ONE), least_fee)?;
                let gas_limit = gas(less(least_fee)).await?;
                let fee = facts.ladder.top().max_fee(gas_limit);
                covered(facts.available, Wei(U256::ONE), fee)?;
                Ok((less(fee), gas_limit))
            }
        }
    }
}

fn repeated(
    known: Transfer,
    sender: AccountId,
    asked: &Asked,
    client_ref: Option<&str>,
) -> Result<Transfer, QuoteError> {
    let same = known.from.account == Some(sender)
        && known.asked == *asked
        && known.client_ref.as_deref() == client_ref;
    if same { Ok(known) } else { Err(QuoteError::IdReused) }
}

fn covered(available: Wei, value: Wei, fee: Wei) -> Result<(), QuoteError> {
    let needed = value.checked_add(fee).ok_or(AmountError::TooLarge)?;
    match needed.checked_sub(available) {
        Some(missing) if missing > Wei::default() => Err(QuoteError::Insufficient { missing }),
        _ => Ok(()),
    }
}

fn warnings(facts: &Facts, value: Wei, name_moved: bool) -> Vec<Warning> {
    [
        (Warning::FirstPayment, !facts.paid_before),
        (Warning::Contract, facts.contract),
        (Warning::MostOfBalance, most_of(value, facts.balance)),
        (Warning::NameMoved, name_moved),
    ]
    .into_iter()
    .filter_map(|(warning, applies)| applies.then_some(warning))
    .collect()
}

/// More than nine tenths: less than a tenth is left.
fn most_of(value: Wei, balance: Wei) -> bool {
    balance.0.saturating_sub(value.0) < balance.0.div_ceil(U256::from(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wei(wei: u64) -> Wei {
        Wei(U256::from(wei))
    }

    #[test]
    fn says_exactly_what_is_missing() {
        assert!(covered(wei(10), wei(7), wei(3)).is_ok());
        assert!(matches!(
            covered(wei(10), wei(7), wei(4)),
            Err(QuoteError::Insufficient { missing }) if missing == wei(1)
        ));
        assert!(matches!(
            covered(wei(10), Wei(U256::MAX), wei(1)),
            Err(QuoteError::Amount(AmountError::TooLarge))
        ));
    }

    #[test]
    fn most_of_a_balance_is_more_than_nine_tenths() {
        assert!(!most_of(wei(90), wei(100)));
        assert!(most_of(wei(91), wei(100)));
        assert!(most_of(wei(1), wei(1)));
        assert!(!most_of(wei(9), wei(11)));
        assert!(most_of(wei(10), wei(11)));
        assert!(!most_of(wei(0), wei(0)));
    }
}
