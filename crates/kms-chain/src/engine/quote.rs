//! Quotes a transfer: its amount, its maximum fee, and the warnings for its sender. Moves nothing.

use kms_core::ports::StoreError;
use kms_types::{
    AccountId, AmountError, Asset, AssetId, EthAddress, QuoteAmount, Symbol, Timestamp, Token,
    TokenAmount, TransferId, U256, Units, Wei,
};

use super::Transfers;
use super::confirm::TooManyInFlight;
use crate::chain::{
    ChainError, Code, PLAIN_TRANSFER_GAS, PlannedPayment, Question, Surveyed, TokenFault,
    TokenMetadata, compare_token,
};
use crate::ladder::reserved;
use crate::ports::{BeforeQuote, Inserted, PaidBefore};
use crate::prices::{FeeTooHigh, below_cancellation};
use crate::spending::{HOUR, OverLimit, OwnLimit};
use crate::transfer::{Asked, Ladder, MAX_IN_FLIGHT, Missing, Party, Quote, Transfer, Warning};

/// The request for a quote.
#[derive(Clone, Debug)]
pub struct QuoteRequest {
    /// The id, chosen by the client.
    pub id: TransferId,
    /// The sender; its account is set.
    pub from: Party,
    /// When the sender's account was last recovered.
    pub recovered_at: Option<Timestamp>,
    /// The recipient.
    pub to: Party,
    /// The request as the client wrote it, with the asset.
    pub asked: Asked,
    /// The parsed amount.
    pub amount: QuoteAmount,
    /// A note of the client.
    pub client_ref: Option<String>,
    /// Whether the recipient's username was recently reassigned from another user.
    pub name_reassigned: bool,
}

/// Why there is no quote. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum QuoteError {
    /// The id belongs to another request.
    #[error("the transfer id was used for another request")]
    IdReused,
    /// The sender has no account.
    #[error("the sender has no account")]
    NoSender,
    /// Sender and recipient are the same.
    #[error("sender and recipient are the same")]
    SelfTransfer,
    /// No key exists for the zero address.
    #[error("assets sent to the zero address are lost")]
    ZeroAddress,
    /// The token is not configured.
    #[error("{0} is not available here")]
    UnknownToken(Symbol),
    /// The token's contract does not match the configuration.
    #[error("{0} is unavailable: its contract does not match the configuration")]
    WrongToken(Symbol),
    /// No key exists for the contract of a token.
    #[error("tokens sent to a token contract are lost")]
    TokenContract,
    /// The amount is invalid for the asset.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// The balance, less pending transfers, does not cover amount and fee.
    #[error("the balance does not cover amount and fee")]
    Insufficient {
        /// The missing amount.
        missing: Missing,
    },
    /// Too many transfers of the wallet are in flight.
    #[error(transparent)]
    TooManyInFlight(#[from] TooManyInFlight),
    /// The network asks for more than the operator allows.
    #[error(transparent)]
    FeeTooHigh(#[from] FeeTooHigh),
    /// A spending limit refuses it.
    #[error("the amount exceeds the spending limit")]
    OverLimit(Box<OverLimit>),
    /// It is more than the operator lets all accounts together send in an hour.
    #[error("all accounts together may not send so much of this asset in an hour; send less")]
    OverOutflow,
    /// The recipient's contract would revert it. The reason is untrusted text: at most 200
    /// characters, no control characters.
    #[error("the payment would be reverted: {0}")]
    WouldRevert(String),
    /// The token would revert it, for instance because it is paused, or blocks the sender or the
    /// recipient. The reason is untrusted text, as above.
    #[error("the token refuses the payment: {0}")]
    TokenRefuses(String),
    /// The chain failed.
    #[error(transparent)]
    Chain(ChainError),
    /// The store failed.
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

/// The state of the chain and of the store that a quote depends on.
struct Facts {
    /// The token that is paid; `None` for the native coin.
    token: Option<Token>,
    /// The balance of the asset that is paid.
    balance: Units,
    /// That balance less pending transfers.
    available: Units,
    /// The balance of the native coin less pending transfers.
    available_wei: Wei,
    surveyed: Surveyed,
    paid_before: PaidBefore,
    /// The limit that the owner set for the asset.
    own: OwnLimit,
}

impl Facts {
    /// What is reserved for fees in addition to gas.
    fn data_fee(&self) -> Wei {
        reserved(self.surveyed.survey.data_fee)
    }
}

impl Transfers {
    /// Quotes a transfer. A repeated request with the same id returns the same transfer, in its
    /// current state; [`Transfers::quoted`] finds it first, and asks nothing of the chain.
    ///
    /// # Errors
    /// When the request is refused, or the chain or the store fails.
    pub async fn quote(
        &self,
        request: QuoteRequest,
        now: Timestamp,
    ) -> Result<Transfer, QuoteError> {
        let sender = request.from.account.ok_or(QuoteError::NoSender)?;
        let QuoteRequest { asked, client_ref, .. } = &request;
        if request.to.address == EthAddress::ZERO {
            return Err(QuoteError::ZeroAddress);
        }
        let token = self.token(&request.asked.asset)?;
        self.check_recipient(sender, &request)?;
        let facts = self.facts(sender, &request, token).await?;
        let own = facts.own;
        let transfer = self.price(&request, facts, now).await?;
        // Checked again when it is signed; checked here before the sender enters a password.
        let part = self.spending.part_of_an_hour(transfer.asset(), transfer.value);
        if part.is_some_and(|part| part > HOUR) {
            return Err(QuoteError::OverOutflow);
        }
        let (recovered, rules) = (request.recovered_at, self.spending.clone());
        let over = self.store.over_limit(transfer.clone(), recovered, own, rules, now).await?;
        if let Some(over) = over {
            return Err(QuoteError::OverLimit(Box::new(over)));
        }
        match self.store.insert_quote(transfer.clone()).await? {
            Inserted::New => Ok(transfer),
            Inserted::Existing(known) => {
                let by = (self.chain.chain_id(), sender);
                repeated(*known, by, asked, client_ref.as_deref())
            }
        }
    }

    /// Returns the transfer of an earlier request with this id, in its current state. Call it
    /// before the recipient's username is resolved: the username may have been reassigned since,
    /// and the repeated request is answered all the same.
    ///
    /// # Errors
    /// `IdReused` when the id belongs to another request, or when the store fails.
    pub async fn quoted(
        &self,
        id: TransferId,
        sender: AccountId,
        asked: &Asked,
        client_ref: Option<&str>,
    ) -> Result<Option<Transfer>, QuoteError> {
        let known = self.store.transfer(id).await?;
        let by = (self.chain.chain_id(), sender);
        known.map(|known| repeated(known, by, asked, client_ref)).transpose()
    }

    fn check_recipient(&self, sender: AccountId, request: &QuoteRequest) -> Result<(), QuoteError> {
        let QuoteRequest { from, to, .. } = request;
        let contracts = self.tokens.iter().map(|token| &token.address);
        if contracts.chain(self.config.never_paid.iter()).any(|it| *it == to.address) {
            return Err(QuoteError::TokenContract);
        }
        if to.address == from.address || to.account == Some(sender) {
            return Err(QuoteError::SelfTransfer);
        }
        Ok(())
    }

    /// The configured token of an asset; `None` for the native coin.
    fn token(&self, asset: &Asset) -> Result<Option<Token>, QuoteError> {
        let Asset::Token(symbol) = asset else { return Ok(None) };
        let found = self.tokens.iter().find(|token| token.symbol == *symbol);
        let token = found.ok_or_else(|| QuoteError::UnknownToken(symbol.clone()))?;
        // Everything else is compared again with each quote.
        if self.tokens.fault(token) == Some(TokenFault::ForeignLogs) {
            return Err(QuoteError::WrongToken(symbol.clone()));
        }
        Ok(Some(token.clone()))
    }

    async fn facts(
        &self,
        sender: AccountId,
        request: &QuoteRequest,
        token: Option<Token>,
    ) -> Result<Facts, QuoteError> {
        let (from, to) = (request.from.address, request.to.address);
        let chain_id = self.chain.chain_id();
        let value = match (&request.amount, &token) {
            (QuoteAmount::All, _) => None,
            (QuoteAmount::Exactly(amount), None) => Some(Wei::try_from(amount)?.into()),
            (QuoteAmount::Exactly(amount), Some(token)) => {
                Some(Units(amount.to_units(token.decimals)?))
            }
        };
        let question = Question { from, to, token: token.as_ref(), value };
        let surveyed =
            self.chain.survey(&question).await.map_err(|error| match (error, &token) {
                (ChainError::NotAToken, Some(token)) => {
                    QuoteError::WrongToken(token.symbol.clone())
                }
                (error, _) => error.into(),
            })?;
        let survey = &surveyed.survey;
        let paid = (sender, AssetId::of(chain_id, token.as_ref()));
        let before = self.store.before_quote(paid, (from, survey.mined), to).await?;
        let BeforeQuote { pending, paid_before, own } = before;
        // Checked again when it is signed, because several quotes may be confirmed at once.
        if pending.in_flight >= MAX_IN_FLIGHT {
            return Err(TooManyInFlight.into());
        }
        let available_wei = survey.balance.checked_sub(pending.wei).unwrap_or_default();
        let (balance, available) = match (&token, &survey.token) {
            (Some(token), Some((metadata, balance))) => {
                check_token(chain_id, token, metadata)?;
                (*balance, balance.checked_sub(pending.of(token)).unwrap_or_default())
            }
            (_, _) => (survey.balance.into(), available_wei.into()),
        };
        Ok(Facts { token, balance, available, available_wei, surveyed, paid_before, own })
    }

    async fn price(
        &self,
        request: &QuoteRequest,
        mut facts: Facts,
        now: Timestamp,
    ) -> Result<Transfer, QuoteError> {
        let estimated = facts.surveyed.survey.gas_limit.take();
        let Priced { value, gas_limit, ladder } = match &facts.token {
            None => self.price_native(request, &facts, estimated).await?,
            Some(token) => self.price_token(request, &facts, token, estimated).await?,
        };
        let transfer = Transfer::from(Quote {
            id: request.id,
            chain_id: self.chain.chain_id(),
            from: request.from.clone(),
            to: request.to.clone(),
            asked: request.asked.clone(),
            warnings: warnings(&facts, value, ladder.usual_fee(gas_limit), request.name_reassigned),
            token: facts.token,
            value,
            gas_limit,
            ladder,
            client_ref: request.client_ref.clone(),
            created_at: now,
            expires_at: now.plus(self.config.quote_lifetime),
        });
        check_covered(facts.available_wei, transfer.max_wei(), Wei::default())?;
        Ok(transfer)
    }

    async fn price_native(
        &self,
        request: &QuoteRequest,
        facts: &Facts,
        estimated: Option<Result<u64, ChainError>>,
    ) -> Result<Priced, QuoteError> {
        let (available, data_fee) = (facts.available_wei, facts.data_fee());
        let (prices, market) = (&self.config.prices.beside(data_fee), facts.surveyed.survey.market);
        // Everything but the fee, and at least 1 wei: a payment of nothing is reported as missing.
        let all_but = |fee: Wei| {
            let fee = Wei(fee.0.saturating_add(data_fee.0));
            Wei(available.checked_sub(fee).unwrap_or_default().0.max(U256::ONE))
        };
        // Checked first at the lowest fee, because a node refuses to estimate the gas of a payment
        // that the sender cannot afford.
        let min_ladder = match &request.amount {
            QuoteAmount::Exactly(_) => {
                prices.ladder(market, PLAIN_TRANSFER_GAS, Wei::default(), None)?
            }
            QuoteAmount::All => prices.one_price(market, PLAIN_TRANSFER_GAS)?,
        };
        let min_fee = min_ladder.first().max_fee(PLAIN_TRANSFER_GAS);
        let value = match &request.amount {
            QuoteAmount::Exactly(amount) => Wei::try_from(amount)?,
            QuoteAmount::All => all_but(min_fee),
        };
        check_covered(available, value, Wei(min_fee.0.saturating_add(data_fee.0)))?;
        let gas_limit = self.gas_limit(request, facts, value.into(), estimated).await?;
        Ok(match &request.amount {
            QuoteAmount::Exactly(_) => {
                let spare = available.checked_sub(value).unwrap_or_default();
                let spare = spare.checked_sub(data_fee).unwrap_or_default();
                let spare = spare.min(prices.share_of(value));
                let ladder = prices.ladder(market, gas_limit, spare, None)?;
                let ladder = ladder.with_data_fee(data_fee);
                Priced { value: value.into(), gas_limit, ladder }
            }
            QuoteAmount::All => {
                let ladder = prices.one_price(market, gas_limit)?;
                let value = all_but(ladder.top().max_fee(gas_limit));
                let ladder = ladder.with_data_fee(data_fee);
                Priced { value: value.into(), gas_limit, ladder }
            }
        })
    }

    async fn price_token(
        &self,
        request: &QuoteRequest,
        facts: &Facts,
        token: &Token,
        estimated: Option<Result<u64, ChainError>>,
    ) -> Result<Priced, QuoteError> {
        let value = match &request.amount {
            QuoteAmount::Exactly(amount) => Units(amount.to_units(token.decimals)?),
            QuoteAmount::All => Units(facts.available.0.max(U256::ONE)),
        };
        if let Some(units) = missing(facts.available.0, value.0) {
            let missing = Missing::Token(TokenAmount { token: token.clone(), units: Units(units) });
            return Err(QuoteError::Insufficient { missing });
        }
        let gas_limit = self.gas_limit(request, facts, value, estimated).await;
        let gas_limit = gas_limit.map_err(|error| match error {
            ChainError::Reverted { reason } => QuoteError::TokenRefuses(reason),
            error => error.into(),
        })?;
        let data_fee = facts.data_fee();
        let available = facts.available_wei.checked_sub(data_fee).unwrap_or_default();
        let spare = below_cancellation(available, gas_limit);
        let (market, prices) = (facts.surveyed.survey.market, self.config.prices.beside(data_fee));
        let ladder = prices.ladder(market, gas_limit, spare, None)?.with_data_fee(data_fee);
        Ok(Priced { value, gas_limit, ladder })
    }

    /// The gas limit of a payment: as it was estimated with everything else, or as it is now where
    /// the amount follows from the balance, or where the endpoint refused.
    async fn gas_limit(
        &self,
        request: &QuoteRequest,
        facts: &Facts,
        value: Units,
        estimated: Option<Result<u64, ChainError>>,
    ) -> Result<u64, ChainError> {
        match estimated {
            Some(Ok(limit)) => return Ok(limit),
            Some(Err(error @ ChainError::Reverted { .. })) => return Err(error),
            Some(Err(_)) | None => {}
        }
        let (from, to) = (request.from.address, request.to.address);
        let token = facts.token.as_ref().map(|token| token.address);
        let payment = PlannedPayment { from, to, token, value };
        self.chain.gas_limit(&facts.surveyed, &payment).await
    }
}

/// Compares a token with what its contract reports: a contract may change.
fn check_token(chain_id: u64, token: &Token, reported: &TokenMetadata) -> Result<(), QuoteError> {
    compare_token(token, reported).map_err(|fault| {
        let event = "token_mismatch";
        let symbol = &token.symbol;
        tracing::error!(
            event, chain_id, %symbol, %fault,
            "token contract does not match the configuration"
        );
        QuoteError::WrongToken(symbol.clone())
    })
}

/// The terms of a quote that depend on the market.
struct Priced {
    /// The amount, in the asset's smallest unit.
    value: Units,
    gas_limit: u64,
    ladder: Ladder,
}

/// Returns the known transfer if the request is the same.
fn repeated(
    known: Transfer,
    (chain_id, sender): (u64, AccountId),
    asked: &Asked,
    client_ref: Option<&str>,
) -> Result<Transfer, QuoteError> {
    let same = known.chain_id == chain_id
        && known.from.account == Some(sender)
        && known.asked == *asked
        && known.client_ref.as_deref() == client_ref;
    if same { Ok(known) } else { Err(QuoteError::IdReused) }
}

fn check_covered(available: Wei, value: Wei, fee: Wei) -> Result<(), QuoteError> {
    let needed = value.checked_add(fee).ok_or(AmountError::TooLarge)?;
    match missing(available.0, needed.0) {
        Some(wei) => Err(QuoteError::Insufficient { missing: Missing::Native(Wei(wei)) }),
        None => Ok(()),
    }
}

/// Returns how much more is needed than available, if any.
fn missing(available: U256, needed: U256) -> Option<U256> {
    needed.checked_sub(available).filter(|missing| *missing > U256::ZERO)
}

fn warnings(facts: &Facts, value: Units, usual_fee: Wei, name_reassigned: bool) -> Vec<Warning> {
    // Amounts of a token cannot be compared with a fee.
    let exceeds = |part: U256| facts.token.is_none() && usual_fee.0 > part;
    let is_above = exceeds(value.0);
    [
        (Warning::FirstPayment, !facts.paid_before.same),
        (Warning::LooksLikeAnother, facts.paid_before.lookalike && !facts.paid_before.same),
        (Warning::Contract, facts.surveyed.survey.code == Code::Contract),
        (Warning::MostOfBalance, is_most_of(value, facts.balance)),
        (Warning::NameReassigned, name_reassigned),
        (Warning::FeeAboveAmount, is_above),
        (Warning::FeeHigh, !is_above && exceeds(value.0 / U256::from(10))),
    ]
    .into_iter()
    .filter_map(|(warning, applies)| applies.then_some(warning))
    .collect()
}

/// Whether less than a tenth of the balance is left.
fn is_most_of(value: Units, balance: Units) -> bool {
    balance.0.saturating_sub(value.0) < balance.0.div_ceil(U256::from(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wei(wei: u64) -> Wei {
        Wei(U256::from(wei))
    }

    #[test]
    fn the_missing_amount_is_exact() {
        assert!(check_covered(wei(10), wei(7), wei(3)).is_ok());
        assert!(matches!(
            check_covered(wei(10), wei(7), wei(4)),
            Err(QuoteError::Insufficient { missing }) if missing == Missing::Native(wei(1))
        ));
        assert!(matches!(
            check_covered(wei(10), Wei(U256::MAX), wei(1)),
            Err(QuoteError::Amount(AmountError::TooLarge))
        ));
    }

    #[test]
    fn most_of_a_balance_is_more_than_nine_tenths() {
        let is_most_of = |value, balance| is_most_of(wei(value).into(), wei(balance).into());
        assert!(!is_most_of(90, 100));
        assert!(is_most_of(91, 100));
        assert!(is_most_of(1, 1));
        assert!(!is_most_of(9, 11));
        assert!(is_most_of(10, 11));
        assert!(!is_most_of(0, 0));
    }
}
