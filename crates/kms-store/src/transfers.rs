//! Transfers, their signed transactions and their nonces.

mod advance;
mod checks;
mod cleaning;
mod due;
mod expiry;
mod history;
mod in_flight;
mod replace;
mod reserving;
mod row;
mod settle;
mod sign;
pub(crate) mod spending_limits;
pub(crate) mod spends;
mod standing;

use std::collections::HashMap;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Bool, Nullable, Text};
use kms_chain::follower::BlockRef;
use kms_chain::ports::{
    BeforeQuote, ChainView, ChoosePrices, Due, Inserted, Progress, ReplaceOutcome, Sign, SignAgain,
    SignOutcome, TransferStore,
};
use kms_chain::settlement::{
    NonceMatch, NonceUse, Position, ReadBlocks, Settlement, SettlementStore,
};
use kms_chain::spending::{OverLimit, OwnLimit, SpendingRules};
use kms_chain::state::{self, Change};
use kms_chain::transfer::{Fees, Outgoing, Transfer, TransferFailure, TransferState, Wait};
use kms_core::ServerKeys;
use kms_core::audit::Details;
use kms_core::ports::StoreError;
use kms_types::{
    AccountId, AssetId, EthAddress, EventKind, ReplacementId, Timestamp, TransferEvent, TransferId,
};

use self::expiry::{find_current, find_to_sign};
pub use self::history::{HistoryCursor, HistoryCursorError, HistoryEntry, Page};
pub use self::in_flight::{InState, InWait};
use self::reserving::Counted;
use self::row::Row;
pub(crate) use self::row::to_i64;
pub use self::spending_limits::{LimitRefused, Raises, Spending};
use crate::audit::{self, AuditRow};
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, cached_query, cached_sql};
use crate::events::{self, About, NewEvent};
use crate::schema::{
    self, chain_cursors, settlements, signed_transactions, transfer_waits, transfers,
};

fn find(connection: &mut AnyConnection, id: TransferId) -> Result<Option<Transfer>, Failure> {
    let mut found = find_row(connection, id)?;
    with_progress(connection, found.as_mut_slice())?;
    with_proofs(connection, found.as_mut_slice())?;
    Ok(found)
}

/// Like [`find`], without the number of replacements and the reason it waits.
fn find_row(connection: &mut AnyConnection, id: TransferId) -> Result<Option<Transfer>, Failure> {
    let row: Option<Row> = transfers::table
        .find(id.to_string())
        .select(Row::as_select())
        .first(connection)
        .optional()?;
    Ok(row.map(Row::parse).transpose()?)
}

/// Adds to pending transfers how many transactions replaced the first, and why they wait.
fn with_progress(connection: &mut AnyConnection, found: &mut [Transfer]) -> Result<(), Failure> {
    let in_flight = |transfer: &&mut Transfer| {
        matches!(transfer.state, TransferState::Signed | TransferState::Broadcast)
    };
    let mut unfinished: HashMap<String, &mut Transfer> = found
        .iter_mut()
        .filter(in_flight)
        .map(|transfer| (transfer.id.to_string(), transfer))
        .collect();
    if unfinished.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = unfinished.keys().cloned().collect();
    let waits = waits(connection, &ids)?;
    // The first transaction counts as sent when it is signed.
    let replacements: Vec<String> = signed_transactions::table
        .filter(signed_transactions::transfer_id.eq_any(ids))
        .filter(signed_transactions::sent_at.is_not_null())
        .filter(signed_transactions::step.gt(0))
        .select(signed_transactions::transfer_id)
        .load(connection)?;
    for id in replacements {
        if let Some(transfer) = unfinished.get_mut(&id) {
            transfer.replacements_sent = transfer.replacements_sent.saturating_add(1);
        }
    }
    for (id, transfer) in unfinished {
        transfer.wait = waits.get(&id).copied();
    }
    Ok(())
}

/// Adds to superseded transfers the transaction that used their nonce.
fn with_proofs(connection: &mut AnyConnection, found: &mut [Transfer]) -> Result<(), Failure> {
    let mut superseded: HashMap<String, &mut Transfer> = found
        .iter_mut()
        .filter(|transfer| transfer.failure == Some(TransferFailure::Superseded))
        .map(|transfer| (transfer.id.to_string(), transfer))
        .collect();
    if superseded.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = superseded.keys().cloned().collect();
    let rows: Vec<(String, Vec<u8>)> = settlements::table
        .filter(settlements::transfer_id.eq_any(ids))
        .select((settlements::transfer_id, settlements::tx_hash))
        .load(connection)?;
    for (id, hash) in rows {
        if let Some(transfer) = superseded.get_mut(&id) {
            let row = RowRef { table: "settlements", key: &id };
            transfer.superseded_by = Some(row.array(&hash)?);
        }
    }
    Ok(())
}

/// Returns why these transfers wait, by their ids.
fn waits(connection: &mut AnyConnection, ids: &[String]) -> Result<HashMap<String, Wait>, Failure> {
    let rows: Vec<(String, String, i64)> = transfer_waits::table
        .filter(transfer_waits::transfer_id.eq_any(ids))
        .select((transfer_waits::transfer_id, transfer_waits::reason, transfer_waits::since))
        .load(connection)?;
    let parse = |(id, reason, since): (String, String, i64)| {
        let reason = RowRef { table: "transfer_waits", key: &id }.parse(&reason)?;
        Ok((id, Wait { reason, since: Timestamp(since) }))
    };
    rows.into_iter().map(parse).collect()
}

/// Changes the state of a transfer, if it is in state `from` and the change is allowed.
fn step(
    connection: &mut AnyConnection,
    id: TransferId,
    from: TransferState,
    change: Change,
) -> Result<bool, Error> {
    let Some(to) = state::after(from, change) else {
        return Ok(false);
    };
    let changed = cached_query("update transfers set state = $1 where id = $2 and state = $3")
        .bind::<Text, _>(to.as_str())
        .bind::<Text, _>(id.to_string())
        .bind::<Text, _>(from.as_str())
        .execute(connection)?;
    Ok(changed == 1)
}

/// Sums up what these transfers may still take from the wallet.
fn outgoing(rows: Vec<Row>) -> Result<Outgoing, StoreError> {
    let mut outgoing = Outgoing::default();
    for row in rows {
        outgoing.add(&row.parse()?);
    }
    Ok(outgoing)
}

fn notify_sender(
    connection: &mut AnyConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(sender) = transfer.from.account else {
        return Ok(());
    };
    let event = changed(transfer.id, sender, now);
    diesel::insert_into(schema::events::table).values(event).execute(connection)?;
    Ok(())
}

/// Notifies the sender that a transfer changed.
fn changed(transfer: TransferId, sender: AccountId, now: Timestamp) -> NewEvent {
    let kind = EventKind::Transfer(TransferEvent::Changed);
    NewEvent::new(sender, now, kind, About::Transfer(transfer))
}

/// Notifies the recipient of the transfer's state: that it arrives, is final, is pending again
/// because its block was removed, or was taken back.
fn notify_recipient(
    connection: &mut AnyConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(recipient) = transfer.to.account else {
        return Ok(());
    };
    events::append(
        connection,
        recipient,
        now,
        EventKind::Transfer(TransferEvent::Received),
        About::Transfer(transfer.id),
    )
}

/// The payments to an address, oldest first, that are looked up in the audit.
const EARLIER: i64 = 100;

/// Whether a payment to this address on this chain that is mined was signed before this time, which
/// the audit has to prove: an attacker can write a row of `transfers`, but no link of its chain.
fn had_paid(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    account: AccountId,
    (chain_id, to): (u64, EthAddress),
    before: Timestamp,
) -> Result<bool, Failure> {
    // In the wording of the index.
    let ends_alike = cached_sql::<_, Bool>(
        "substr(to_address, 3, 4) || substr(to_address, 39, 4) = $1 \
         and state in ('mined', 'final')",
    )
    .bind::<Text, _>(ends(to));
    let paid: Vec<String> = transfers::table
        .filter(transfers::from_account.eq(account.to_string()))
        .filter(ends_alike)
        .filter(transfers::to_address.eq(to.to_lower_hex()))
        .filter(transfers::chain_id.eq(to_i64(chain_id)))
        .order(transfers::created_at)
        .limit(EARLIER)
        .select(transfers::id)
        .load(connection)?;
    let records = audit::signatures(connection, keys, account, paid)?;
    let proves = |record: &AuditRow| {
        let details: Details = record.details.parse().unwrap_or_default();
        record.at < before
            && details.get("chain") == Some(&chain_id.to_string())
            && details.get("to") == Some(&to.to_string())
    };
    Ok(records.iter().any(proves))
}

/// The digits of an address that people compare.
fn ends(address: EthAddress) -> String {
    let address = address.to_lower_hex();
    let ends = address.get(2..6).zip(address.get(38..)).map(|(start, end)| format!("{start}{end}"));
    ends.unwrap_or_default()
}

/// Whether the recipient was notified of the transfer.
fn was_notified(connection: &mut AnyConnection, transfer: &Transfer) -> Result<bool, Failure> {
    events::exists(connection, EventKind::Transfer(TransferEvent::Received), transfer.id)
}

#[async_trait]
impl TransferStore for Database {
    async fn insert_quote(&self, quote: Transfer) -> Result<Inserted, StoreError> {
        // A quote that is lost was not signed: what precedes a signature makes it durable.
        let unsynced = self.dialect.without_waiting_for_disk();
        self.blocking(move |connection| {
            let nonce_held =
                cached_sql::<_, Nullable<Bool>>(format!("case when {unsynced} then true end"));
            let row = (Row::try_from(&quote)?, transfers::nonce_held.eq(nonce_held));
            match diesel::insert_into(transfers::table).values(row).execute(connection) {
                Ok(_) => Ok(Inserted::New),
                Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
                    let existing = find(connection, quote.id)?;
                    existing.map(|found| Inserted::Existing(Box::new(found))).ok_or_else(|| {
                        let key = quote.id.to_string();
                        RowRef { table: "transfers", key: &key }
                            .corrupt("the existing row vanished")
                            .into()
                    })
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn transfer(&self, id: TransferId) -> Result<Option<Transfer>, StoreError> {
        let dialect = self.dialect;
        self.blocking(move |connection| find_current(connection, dialect, id)).await
    }

    async fn transfer_to_sign(
        &self,
        id: TransferId,
    ) -> Result<Option<(Transfer, bool)>, StoreError> {
        let dialect = self.dialect;
        self.blocking(move |connection| find_to_sign(connection, dialect, id)).await
    }

    async fn cancel(&self, id: TransferId, now: Timestamp) -> Result<Option<Transfer>, StoreError> {
        let dialect = self.dialect;
        self.blocking(move |connection| {
            if find_current(connection, dialect, id)?.is_none() {
                return Ok(None);
            }
            if !step(connection, id, TransferState::Quoted, Change::Cancel)? {
                let progress = Progress::CancellationRequested;
                advance::advance(connection, dialect, id, progress, now)?;
            }
            find(connection, id)
        })
        .await
    }

    async fn sign(
        &self,
        id: TransferId,
        view: ChainView,
        rules: SpendingRules,
        now: Timestamp,
        make: Sign,
    ) -> Result<SignOutcome, StoreError> {
        let (keys, dialect) = (self.keys.clone(), self.dialect);
        self.blocking(move |connection| {
            sign::sign(connection, (dialect, &keys), id, view, &rules, now, make)
        })
        .await
    }

    async fn replace(
        &self,
        id: TransferId,
        replacement: ReplacementId,
        view: ChainView,
        rules: SpendingRules,
        now: Timestamp,
        again: (ChoosePrices, SignAgain),
    ) -> Result<ReplaceOutcome, StoreError> {
        let (keys, dialect) = (self.keys.clone(), self.dialect);
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let (ids, store) = ((id, replacement), (dialect, &*keys));
                replace::replace(connection, store, ids, view, &rules, now, again)
            })
        })
        .await
    }

    async fn replaced_by(&self, id: ReplacementId) -> Result<Option<TransferId>, StoreError> {
        self.blocking(move |connection| {
            let key = id.to_string();
            let row = RowRef { table: "replacements", key: &key };
            let found = replace::replaced_by(connection, &key)?;
            Ok(found.map(|of| row.parse(&of)).transpose()?)
        })
        .await
    }

    async fn last_sent(&self, id: TransferId) -> Result<Option<Fees>, StoreError> {
        self.blocking(move |connection| {
            let key = id.to_string();
            let row = RowRef { table: "signed_transactions", key: &key };
            let found = replace::last_sent(connection, &key)?;
            Ok(found.map(|(_, fees)| row.parse(&fees)).transpose()?)
        })
        .await
    }

    async fn advance(
        &self,
        id: TransferId,
        progress: Progress,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let dialect = self.dialect;
        self.blocking(move |connection| advance::advance(connection, dialect, id, progress, now))
            .await
    }

    async fn claim_due(
        &self,
        chain_id: u64,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError> {
        let (keys, dialect) = (self.keys.clone(), self.dialect);
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                due::claim_due(connection, (dialect, &keys), chain_id, now, limit)
            })
        })
        .await
    }

    async fn pending_spend(
        &self,
        chain_id: u64,
        address: EthAddress,
        mined: u64,
    ) -> Result<Outgoing, StoreError> {
        let counted = Counted::Pending;
        self.blocking(move |connection| {
            reserving::spend(connection, chain_id, address, mined, counted)
        })
        .await
    }

    async fn reserved_spend(
        &self,
        chain_id: u64,
        address: EthAddress,
        mined: u64,
    ) -> Result<Outgoing, StoreError> {
        let counted = Counted::Reserved;
        self.blocking(move |connection| {
            reserving::spend(connection, chain_id, address, mined, counted)
        })
        .await
    }

    async fn before_quote(
        &self,
        sender: (AccountId, AssetId),
        from: (EthAddress, u64),
        to: EthAddress,
    ) -> Result<BeforeQuote, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| standing::before_quote(connection, &keys, sender, from, to))
            .await
    }

    async fn over_limit(
        &self,
        transfer: Transfer,
        recovered: Option<Timestamp>,
        own: OwnLimit,
        rules: SpendingRules,
        now: Timestamp,
    ) -> Result<Option<OverLimit>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let transfer = (&transfer, recovered, own);
            spending_limits::over_limit(connection, &keys, transfer, &rules, now)
        })
        .await
    }

    async fn chain_read_at(&self, chain_id: u64) -> Result<Option<Timestamp>, StoreError> {
        self.blocking(move |connection| {
            let found: Option<i64> = chain_cursors::table
                .find(to_i64(chain_id))
                .select(chain_cursors::read_at)
                .first(connection)
                .optional()?;
            Ok(found.map(Timestamp))
        })
        .await
    }
}

#[async_trait]
impl SettlementStore for Database {
    async fn match_nonces(
        &self,
        chain_id: u64,
        uses: Vec<NonceUse>,
    ) -> Result<Vec<NonceMatch>, StoreError> {
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        self.blocking(move |connection| settle::match_nonces(connection, chain_id, &uses)).await
    }

    async fn settle(
        &self,
        chain_id: u64,
        at: Position,
        read: ReadBlocks,
        now: Timestamp,
    ) -> Result<Option<Vec<TransferId>>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                settle::settle(connection, &keys, chain_id, at, &read, now)
            })
        })
        .await
    }

    async fn settle_final(
        &self,
        chain_id: u64,
        block: BlockRef,
        settlements: Vec<Settlement>,
        now: Timestamp,
        keep_until: Timestamp,
    ) -> Result<(), StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let block = (chain_id, block.number);
                settle::settle_final(connection, &keys, block, &settlements, now, keep_until)
            })
        })
        .await
    }

    async fn finalize(
        &self,
        chain_id: u64,
        at: Position,
        up_to: u64,
        now: Timestamp,
        keep_until: Timestamp,
    ) -> Result<Option<Vec<TransferId>>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                settle::finalize(connection, &keys, chain_id, at, up_to, now, keep_until)
            })
        })
        .await
    }
}

impl Database {
    /// Erases the signed bytes of up to `limit` settled transfers whose time has passed, and
    /// returns the number of transfers.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase_old_signed_bytes(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<usize, StoreError> {
        self.blocking(move |connection| {
            connection.transaction(|connection| settle::erase_old_bytes(connection, now, limit))
        })
        .await
    }
}
