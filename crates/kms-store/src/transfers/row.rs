//! The row of a transfer.

use diesel::prelude::*;
use kms_chain::transfer::{Asked, Party, Transfer, TransferState};
use kms_core::ports::StoreError;
use kms_types::{Asset, Timestamp, Token};

use crate::convert::RowRef;
use crate::schema::transfers;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = transfers, treat_none_as_default_value = false)]
pub(super) struct Row {
    pub(super) id: String,
    chain_id: i64,
    pub(super) from_account: String,
    from_username: Option<String>,
    from_address: String,
    from_since: Option<i64>,
    to_account: Option<String>,
    to_username: Option<String>,
    to_address: String,
    to_since: Option<i64>,
    asked_to: String,
    asked_amount: String,
    value: String,
    gas_limit: i64,
    ladder: String,
    warnings: String,
    client_ref: Option<String>,
    state: String,
    nonce: Option<i64>,
    tx_hash: Option<Vec<u8>>,
    block: Option<i64>,
    fee: Option<String>,
    created_at: i64,
    expires_at: i64,
    /// True in a new row.
    #[diesel(skip_insertion)]
    pub(super) nonce_held: Option<bool>,
    failure: Option<String>,
    cancel_requested_at: Option<i64>,
    token: Option<String>,
    arrived: Option<String>,
}

impl Row {
    /// Its nonce, if what used that is in a finalized block.
    pub(super) fn final_nonce(&self) -> Option<u64> {
        let ends = [TransferState::Final, TransferState::Failed, TransferState::Cancelled];
        let has_ended = ends.iter().any(|end| end.as_str() == self.state);
        self.nonce().filter(|_| has_ended)
    }
}

/// Converts a block number or a chain id to a column. No chain has 2^63 blocks, and no row a
/// greater chain id.
pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Formats a token as configured at the time of the quote: contract, decimals and symbol.
fn to_text(token: &Token) -> String {
    format!("{} {} {}", token.address.to_lower_hex(), token.decimals, token.symbol)
}

fn from_text(row: RowRef<'_>, text: &str) -> Result<Token, StoreError> {
    let mut words = text.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(address), Some(decimals), Some(symbol), None) => Ok(Token {
            symbol: row.parse(symbol)?,
            address: row.parse(address)?,
            decimals: row.parse(decimals)?,
        }),
        _ => Err(row.corrupt("its token is not a contract, decimals and a symbol")),
    }
}

impl TryFrom<&Transfer> for Row {
    type Error = StoreError;

    fn try_from(transfer: &Transfer) -> Result<Self, StoreError> {
        let key = transfer.id.to_string();
        let row = RowRef { table: "transfers", key: &key };
        let warnings: Vec<_> = transfer.warnings.iter().map(|warning| warning.as_str()).collect();
        let sender = transfer.from.account.ok_or_else(|| row.corrupt("it has no sender"))?;
        Ok(Self {
            id: key.clone(),
            chain_id: row.convert(transfer.chain_id)?,
            from_account: sender.to_string(),
            from_username: transfer.from.username.clone().map(String::from),
            from_address: transfer.from.address.to_lower_hex(),
            from_since: transfer.from.since.map(|time| time.0),
            to_account: transfer.to.account.map(String::from),
            to_username: transfer.to.username.clone().map(String::from),
            to_address: transfer.to.address.to_lower_hex(),
            to_since: transfer.to.since.map(|time| time.0),
            asked_to: transfer.asked.to.clone(),
            asked_amount: transfer.asked.amount.clone(),
            value: transfer.value.to_string(),
            gas_limit: row.convert(transfer.gas_limit)?,
            ladder: transfer.ladder.to_string(),
            warnings: warnings.join(","),
            client_ref: transfer.client_ref.clone(),
            state: transfer.state.as_str().to_owned(),
            nonce: transfer.nonce.map(|nonce| row.convert(nonce)).transpose()?,
            tx_hash: transfer.tx_hash.map(|hash| hash.to_vec()),
            block: transfer.block.map(|block| row.convert(block)).transpose()?,
            fee: transfer.fee.map(|fee| fee.to_string()),
            created_at: transfer.created_at.0,
            expires_at: transfer.expires_at.0,
            nonce_held: Some(true),
            failure: transfer.failure.map(|failure| failure.as_str().to_owned()),
            cancel_requested_at: transfer.cancel_requested_at.map(|time| time.0),
            token: transfer.token.as_ref().map(to_text),
            arrived: transfer.arrived.map(|units| units.to_string()),
        })
    }
}

impl Row {
    /// The nonce, once it is signed.
    pub(super) fn nonce(&self) -> Option<u64> {
        self.nonce.and_then(|nonce| u64::try_from(nonce).ok())
    }

    pub(super) fn parse(self) -> Result<Transfer, StoreError> {
        let row = RowRef { table: "transfers", key: &self.id };
        let warnings = self.warnings.split(',').filter(|text| !text.is_empty());
        let token = self.token.as_deref().map(|text| from_text(row, text)).transpose()?;
        let asset =
            token.as_ref().map_or(Asset::Native, |token| Asset::Token(token.symbol.clone()));
        Ok(Transfer {
            id: row.parse(&self.id)?,
            chain_id: row.convert(self.chain_id)?,
            from: Party {
                account: Some(row.parse(&self.from_account)?),
                username: row.parse_some(self.from_username.as_ref())?,
                address: row.parse(&self.from_address)?,
                since: self.from_since.map(Timestamp),
            },
            to: Party {
                account: row.parse_some(self.to_account.as_ref())?,
                username: row.parse_some(self.to_username.as_ref())?,
                address: row.parse(&self.to_address)?,
                since: self.to_since.map(Timestamp),
            },
            asked: Asked { to: self.asked_to.clone(), amount: self.asked_amount.clone(), asset },
            token,
            value: row.parse(&self.value)?,
            arrived: row.parse_some(self.arrived.as_ref())?,
            gas_limit: row.convert(self.gas_limit)?,
            ladder: row.parse(&self.ladder)?,
            warnings: warnings.map(|text| row.parse(text)).collect::<Result<_, _>>()?,
            client_ref: self.client_ref.clone(),
            state: row.parse(&self.state)?,
            nonce: self.nonce.map(|nonce| row.convert(nonce)).transpose()?,
            tx_hash: self.tx_hash.as_deref().map(|hash| row.array(hash)).transpose()?,
            // Both are added by `with_progress`.
            replacements_sent: 0,
            wait: None,
            cancel_requested_at: self.cancel_requested_at.map(Timestamp),
            block: self.block.map(|block| row.convert(block)).transpose()?,
            fee: row.parse_some(self.fee.as_ref())?,
            failure: row.parse_some(self.failure.as_ref())?,
            // Added by `with_proofs`.
            superseded_by: None,
            created_at: Timestamp(self.created_at),
            expires_at: Timestamp(self.expires_at),
        })
    }
}
