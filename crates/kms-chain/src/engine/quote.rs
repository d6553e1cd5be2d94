//! What a transfer would cost, and what its sender should know first. Moves nothing.

use kms_core::ports::StoreError;
use kms_types::{
    AccountId, AmountError, Asset, EthAddress, QuoteAmount, Symbol, Timestamp, Token, TokenAmount,
    TransferId, U256, Units, Wei,
};

use super::Transfers;
use crate::chain::{ChainError, Endpoint, PLAIN_TRANSFER_GAS, TokenError};
use crate::ports::Inserted;
use crate::spending::OverLimit;
use crate::transfer::{Asked, Ladder, Missing, Party, Transfer, TransferState, Warning};

/// What a quote is asked for.
#[derive(Clone, Debug)]
pub struct QuoteRequest {
    /// As the client chose it.
    pub id: TransferId,
    /// Who pays; its account is set.
    pub from: Party,
    /// Who is paid.
    pub to: Party,
    /// As it was written; of which asset too.
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
    /// There is no such token here.
    #[error("{0} can not be paid here")]
    UnknownToken(Symbol),
    /// The token's contract is not what is configured, or not any more.
    #[error("{0} can not be paid at the moment: its contract is not what it should be")]
    WrongToken(Symbol),
    /// Nobody can take a token out of its own contract.
    #[error("tokens sent to a token's own contract are lost")]
    TokenContract,
    /// The amount is not one of this coin.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// The balance, less what is on its way out, does not cover amount and fee.
    #[error("the balance does not cover amount and fee")]
    Insufficient {
        /// How much is missing, of what.
        missing: Missing,
    },
    /// It is more than may be spent now.
    #[error("it is more than may be spent in a day")]
    OverLimit(Box<OverLimit>),
    /// The recipient's or the token's contract would refuse it, in its own words: at most 200
    /// characters, none of them a control character, but a stranger's text all the same.
    #[error("the payment would be refused: {0}")]
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
    /// The token that is paid.
    token: Option<Token>,
    /// The balance of the asset that is paid.
    balance: Units,
    /// That less what is on its way out.
    available: Units,
    /// The native coin less what is on its way out.
    available_wei: Wei,
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
        let token = self.token(&request.asked.asset)?;
        if self.tokens.iter().any(|known| known.address == request.to.address) {
            return Err(QuoteError::TokenContract);
        }
        if request.to.address == request.from.address || request.to.account == Some(sender) {
            return Err(QuoteError::SelfTransfer);
        }
        let transfer = self.price(sender, &request, token, now).await?;
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

    /// The token that is meant.
    fn token(&self, asset: &Asset) -> Result<Option<Token>, QuoteError> {
        let Asset::Token(symbol) = asset else { return Ok(None) };
        let found = self.tokens.iter().find(|token| token.symbol == *symbol);
        found.cloned().map(Some).ok_or_else(|| QuoteError::UnknownToken(symbol.clone()))
    }

    async fn price(
        &self,
        sender: AccountId,
        request: &QuoteRequest,
        token: Option<Token>,
        now: Timestamp,
    ) -> Result<Transfer, QuoteError> {
        let facts = self.facts(sender, request, token).await?;
        let (value, gas_limit) = match &facts.token {
            None => self.in_coins(request, &facts).await?,
            Some(token) => self.in_token(request, &facts, token).await?,
        };
        let warnings = warnings(&facts, value, request.name_moved);
        let transfer = Transfer {
            id: request.id,
            chain_id: self.chain.chain_id(),
            from: request.from.clone(),
            to: request.to.clone(),
            asked: request.asked.clone(),
            token: facts.token,
            value,
            arrived: None,
            gas_limit,
            ladder: facts.ladder,
            warnings,
            client_ref: request.client_ref.clone(),
            state: TransferState::Quoted,
            nonce: None,
            tx_hash: None,
            raised: 0,
            waits_since: None,
            block: None,
            fee: None,
            failure: None,
            created_at: now,
            expires_at: now.plus(self.config.quote_lifetime),
        };
        // Looked at again when it is signed; here so that nobody gives a password for nothing.
        let rules = self.spending.clone();
        match self.store.over_limit(transfer.clone(), rules, now).await? {
            Some(over) => Err(QuoteError::OverLimit(Box::new(over))),
            None => Ok(transfer),
        }
    }

    async fn facts(
        &self,
        sender: AccountId,
        request: &QuoteRequest,
        token: Option<Token>,
    ) -> Result<Facts, QuoteError> {
        let to = request.to.address;
        if let Some(token) = &token {
            self.chain.check_token(token).await.map_err(|error| match error {
                TokenError::Chain(error) => QuoteError::from(error),
                error => {
                    tracing::error!(%error, "a token is not what it is configured as");
                    QuoteError::WrongToken(token.symbol.clone())
                }
            })?;
        }
        let (view, fees, contract) = tokio::try_join!(
            self.chain.view(request.from.address, token.as_ref()),
            self.chain.first(Endpoint::fees),
            self.chain.first(|endpoint| endpoint.is_contract(to)),
        )?;
        let pending = self.store.pending_spend(self.chain.chain_id(), sender).await?;
        let available_wei = view.balance.checked_sub(pending.wei).unwrap_or_default();
        let (balance, available) = match &token {
            None => (view.balance.into(), available_wei.into()),
            Some(token) => {
                (view.token, view.token.checked_sub(pending.of(token)).unwrap_or_default())
            }
        };
        Ok(Facts {
            token,
            balance,
            available,
            available_wei,
            ladder: Ladder::rising_from(fees),
            contract,
            paid_before: self.store.has_paid(sender, to).await?,
        })
    }

    /// The value in wei, and the gas that it takes.
    async fn in_coins(
        &self,
        request: &QuoteRequest,
        facts: &Facts,
    ) -> Result<(Units, u64), QuoteError> {
        let (from, to) = (request.from.address, request.to.address);
        let gas_limit =
            |value| self.chain.first(move |it| it.gas_limit(from, to, value, facts.contract));
        let available = facts.available_wei;
        // No payment costs less. Checked first, because a node refuses to estimate what the
        // sender can not pay.
        let least_fee = facts.ladder.top().max_fee(PLAIN_TRANSFER_GAS);
        let less = |fee| available.checked_sub(fee).unwrap_or_default();
        let all = request.amount == QuoteAmount::All;
        let value = match &request.amount {
            QuoteAmount::Exactly(amount) => Wei::try_from(amount)?,
            QuoteAmount::All => Wei(less(least_fee).0.max(U256::ONE)),
        };
        covered(available, value, least_fee)?;
        let gas_limit = gas_limit(value).await?;
        let fee = facts.ladder.top().max_fee(gas_limit);
        let value = if all { Wei(less(fee).0.max(U256::ONE)) } else { value };
        covered(available, value, fee)?;
        Ok((value.into(), gas_limit))
    }

    /// The value in the token's smallest unit, and the gas that it takes.
    async fn in_token(
        &self,
        request: &QuoteRequest,
        facts: &Facts,
        token: &Token,
    ) -> Result<(Units, u64), QuoteError> {
        let value = match &request.amount {
            QuoteAmount::Exactly(amount) => Units(amount.to_units(token.decimals)?),
            QuoteAmount::All => Units(facts.available.0.max(U256::ONE)),
        };
        if let Some(units) = missing(facts.available.0, value.0) {
            let missing = Missing::Token(TokenAmount { token: token.clone(), units: Units(units) });
            return Err(QuoteError::Insufficient { missing });
        }
        let (from, to) = (request.from.address, request.to.address);
        let gas_limit = self
            .chain
            .first(|endpoint| endpoint.token_gas_limit(token.address, from, to, value))
            .await?;
        covered(facts.available_wei, Wei::default(), facts.ladder.top().max_fee(gas_limit))?;
        Ok((value, gas_limit))
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
    match missing(available.0, needed.0) {
        Some(wei) => Err(QuoteError::Insufficient { missing: Missing::Native(Wei(wei)) }),
        None => Ok(()),
    }
}

/// How much more is needed than there is, if any.
fn missing(available: U256, needed: U256) -> Option<U256> {
    needed.checked_sub(available).filter(|missing| *missing > U256::ZERO)
}

fn warnings(facts: &Facts, value: Units, name_moved: bool) -> Vec<Warning> {
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
fn most_of(value: Units, balance: Units) -> bool {
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
            Err(QuoteError::Insufficient { missing }) if missing == Missing::Native(wei(1))
        ));
        assert!(matches!(
            covered(wei(10), Wei(U256::MAX), wei(1)),
            Err(QuoteError::Amount(AmountError::TooLarge))
        ));
    }

    #[test]
    fn most_of_a_balance_is_more_than_nine_tenths() {
        let most_of = |value, balance| most_of(wei(value).into(), wei(balance).into());
        assert!(!most_of(90, 100));
        assert!(most_of(91, 100));
        assert!(most_of(1, 1));
        assert!(!most_of(9, 11));
        assert!(most_of(10, 11));
        assert!(!most_of(0, 0));
    }
}
