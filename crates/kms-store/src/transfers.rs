//! Transfers, their signed bytes and their nonces.

mod row;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, Text};
use kms_chain::ports::{ChainView, Due, Inserted, Progress, Sign, SignOutcome, TransferStore};
use kms_chain::transfer::Transfer;
use kms_core::ports::StoreError;
use kms_types::wire::TransferState;
use kms_types::{AccountId, EthAddress, Timestamp, TransferId, U256, Wei};

use self::row::{Row, state_text, to_i64};
use crate::convert::At;
use crate::database::{AnyConnection, Database, Failure};
use crate::events::{self, StoredEventKind};
use crate::schema::{attempts, transfers};

const ON_ITS_WAY: [&str; 2] = ["signed", "broadcast"];

fn find(connection: &mut AnyConnection, id: TransferId) -> Result<Option<Transfer>, Failure> {
    let row: Option<Row> = transfers::table
        .find(id.to_string())
        .select(Row::as_select())
        .first(connection)
        .optional()?;
    Ok(row.map(Row::parse).transpose()?)
}

/// A quote whose time is over is expired, whether the row says so yet or not.
fn as_of(mut transfer: Transfer, now: Timestamp) -> Transfer {
    if transfer.state == TransferState::Quoted && transfer.expires_at <= now {
        transfer.state = TransferState::Expired;
    }
    transfer
}

/// Moves a transfer from one state to another, if it is in that one.
fn step(
    connection: &mut AnyConnection,
    id: TransferId,
    from: TransferState,
    to: TransferState,
) -> Result<bool, Error> {
    let row = transfers::table
        .filter(transfers::id.eq(id.to_string()))
        .filter(transfers::state.eq(state_text(from)));
    let changed =
        diesel::update(row).set(transfers::state.eq(state_text(to))).execute(connection)?;
    Ok(changed == 1)
}

/// The most that a transfer can take out of the wallet.
fn spend(transfer: &Transfer) -> U256 {
    transfer.value.0.saturating_add(transfer.max_fee().0)
}

/// What signed transfers may still take from the address, those that came into a block after
/// `block` among them, final or not: a balance as of `block` does not know of them.
fn reserved(
    connection: &mut AnyConnection,
    chain_id: i64,
    address: &str,
    block: u64,
) -> Result<U256, Failure> {
    let rows: Vec<Row> = transfers::table
        .filter(transfers::chain_id.eq(chain_id))
        .filter(transfers::from_address.eq(address))
        .filter(
            transfers::state
                .eq_any(ON_ITS_WAY)
                .or(transfers::block.assume_not_null().gt(to_i64(block))),
        )
        .select(Row::as_select())
        .load(connection)?;
    let mut sum = U256::ZERO;
    for row in rows {
        sum = sum.saturating_add(spend(&row.parse()?));
    }
    Ok(sum)
}

/// Locks the wallet's nonce row until the transaction ends, and reads it.
fn lock_nonce(
    connection: &mut AnyConnection,
    chain_id: i64,
    address: &str,
) -> Result<i64, Failure> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = BigInt)]
        next: i64,
    }
    diesel::sql_query(
        "insert into nonces (chain_id, address, next) values ($1, $2, 0) \
         on conflict (chain_id, address) do update set next = nonces.next",
    )
    .bind::<BigInt, _>(chain_id)
    .bind::<Text, _>(address)
    .execute(connection)?;
    let row: Next =
        diesel::sql_query("select next from nonces where chain_id = $1 and address = $2")
            .bind::<BigInt, _>(chain_id)
            .bind::<Text, _>(address)
            .get_result(connection)?;
    Ok(row.next)
}

fn sign(
    connection: &mut AnyConnection,
    id: TransferId,
    view: ChainView,
    now: Timestamp,
    sign: Sign,
) -> Result<SignOutcome, Failure> {
    let key = id.to_string();
    let at = At { table: "transfers", key: &key };
    let missing = || Failure::Store(at.corrupt("there is no such transfer"));
    let quoted = find(connection, id)?.ok_or_else(missing)?;
    let chain_id: i64 = at.convert(quoted.chain_id)?;
    let address = quoted.from.address.to_lower_hex();
    let next = lock_nonce(connection, chain_id, &address)?;
    // Read again: before the lock somebody else may have signed it.
    let transfer = find(connection, id)?.ok_or_else(missing)?;
    if transfer.state != TransferState::Quoted {
        return Ok(SignOutcome::NotQuoted(Box::new(transfer)));
    }
    if transfer.expires_at <= now {
        step(connection, id, TransferState::Quoted, TransferState::Expired)?;
        return Ok(SignOutcome::Expired);
    }
    let needed =
        reserved(connection, chain_id, &address, view.block)?.saturating_add(spend(&transfer));
    if needed > view.balance.0 {
        let missing = Wei(needed.saturating_sub(view.balance.0));
        return Ok(SignOutcome::Insufficient { missing });
    }
    // The row is taken before a signature exists: a cancellation waits for it from here on, and
    // one that came first leaves nothing to sign.
    if !step(connection, id, TransferState::Quoted, TransferState::Signed)? {
        let found = find(connection, id)?.ok_or_else(missing)?;
        return Ok(SignOutcome::NotQuoted(Box::new(found)));
    }
    let nonce = next.max(at.convert(view.nonce)?);
    let signed = sign(at.convert(nonce)?);
    diesel::sql_query("update nonces set next = $1 where chain_id = $2 and address = $3")
        .bind::<BigInt, _>(nonce + 1)
        .bind::<BigInt, _>(chain_id)
        .bind::<Text, _>(&address)
        .execute(connection)?;
    diesel::update(transfers::table.find(&key))
        .set((
            transfers::nonce.eq(Some(nonce)),
            transfers::tx_hash.eq(Some(signed.tx_hash.to_vec())),
        ))
        .execute(connection)?;
    diesel::insert_into(attempts::table)
        .values((
            attempts::transfer_id.eq(&key),
            attempts::step.eq(0),
            attempts::tx_hash.eq(signed.tx_hash.to_vec()),
            attempts::sealed.eq(Some(signed.sealed)),
        ))
        .execute(connection)?;
    tell_sender(connection, &transfer, now)?;
    let transfer = find(connection, id)?.ok_or_else(missing)?;
    Ok(SignOutcome::Signed(Box::new(transfer)))
}

fn tell_sender(
    connection: &mut AnyConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(sender) = transfer.from.account else {
        return Ok(());
    };
    events::append(connection, sender, now, StoredEventKind::TransferChanged, Some(transfer.id))
}

fn tell_recipient(
    connection: &mut AnyConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(recipient) = transfer.to.account else {
        return Ok(());
    };
    events::append(connection, recipient, now, StoredEventKind::Received, Some(transfer.id))
}

fn advance(
    connection: &mut AnyConnection,
    id: TransferId,
    progress: Progress,
    now: Timestamp,
) -> Result<bool, Failure> {
    let Some(transfer) = find(connection, id)? else {
        return Ok(false);
    };
    let (allowed, to): (&[TransferState], _) = match progress {
        Progress::Broadcast => (&[TransferState::Signed], TransferState::Broadcast),
        Progress::Mined { .. } => {
            (&[TransferState::Signed, TransferState::Broadcast], TransferState::Mined)
        }
        Progress::Failed { .. } => {
            (&[TransferState::Signed, TransferState::Broadcast], TransferState::Failed)
        }
        Progress::Reorged => (&[TransferState::Mined], TransferState::Broadcast),
        Progress::Final => (&[TransferState::Mined], TransferState::Final),
    };
    if !allowed.contains(&transfer.state) || !step(connection, id, transfer.state, to)? {
        return Ok(false);
    }
    let key = id.to_string();
    match progress {
        Progress::Broadcast => {}
        Progress::Mined { block, fee } | Progress::Failed { block, fee } => {
            diesel::update(transfers::table.find(&key))
                .set((
                    transfers::block.eq(Some(to_i64(block))),
                    transfers::fee.eq(Some(fee.to_string())),
                ))
                .execute(connection)?;
            tell_sender(connection, &transfer, now)?;
            if to == TransferState::Mined {
                tell_recipient(connection, &transfer, now)?;
            }
        }
        Progress::Reorged => {
            diesel::update(transfers::table.find(&key))
                .set((transfers::block.eq(None::<i64>), transfers::fee.eq(None::<String>)))
                .execute(connection)?;
            tell_sender(connection, &transfer, now)?;
        }
        Progress::Final => {}
    }
    if matches!(to, TransferState::Final | TransferState::Failed) {
        diesel::update(attempts::table.filter(attempts::transfer_id.eq(&key)))
            .set(attempts::sealed.eq(None::<Vec<u8>>))
            .execute(connection)?;
    }
    Ok(true)
}

fn claim_due(
    connection: &mut AnyConnection,
    chain_id: u64,
    now: Timestamp,
    lease_until: Timestamp,
    limit: u32,
) -> Result<Vec<Due>, Failure> {
    let rows: Vec<(Row, Option<Vec<u8>>)> = transfers::table
        .inner_join(attempts::table.on(attempts::transfer_id.eq(transfers::id)))
        .filter(transfers::chain_id.eq(to_i64(chain_id)))
        .filter(transfers::state.eq_any(["signed", "broadcast", "mined"]))
        .filter(transfers::lease_until.le(now.0))
        .order((transfers::lease_until, transfers::nonce))
        .limit(limit.into())
        .select((Row::as_select(), attempts::sealed))
        .load(connection)?;
    let mut due = Vec::with_capacity(rows.len());
    for (row, sealed) in rows {
        let still_free = transfers::table
            .filter(transfers::id.eq(row.id.clone()))
            .filter(transfers::lease_until.eq(row.lease_until));
        let claimed = diesel::update(still_free)
            .set(transfers::lease_until.eq(lease_until.0))
            .execute(connection)?;
        if claimed != 1 {
            continue;
        }
        let id = row.id.clone();
        match row.parse() {
            Ok(transfer) => due.push(Due { transfer, sealed: sealed.unwrap_or_default() }),
            // The others must not wait for somebody to mend it.
            Err(error) => tracing::error!(transfer = id, %error, "a due transfer can not be read"),
        }
    }
    Ok(due)
}

#[async_trait]
impl TransferStore for Database {
    async fn insert_quote(&self, quote: Transfer) -> Result<Inserted, StoreError> {
        self.blocking(move |connection| {
            let row = Row::try_from(&quote)?;
            match diesel::insert_into(transfers::table).values(row).execute(connection) {
                Ok(_) => Ok(Inserted::New),
                Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
                    let existing = find(connection, quote.id)?;
                    existing.map(|found| Inserted::Existing(Box::new(found))).ok_or_else(|| {
                        let key = quote.id.to_string();
                        At { table: "transfers", key: &key }.corrupt("it vanished").into()
                    })
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn transfer(
        &self,
        id: TransferId,
        now: Timestamp,
    ) -> Result<Option<Transfer>, StoreError> {
        self.blocking(move |connection| {
            Ok(find(connection, id)?.map(|transfer| as_of(transfer, now)))
        })
        .await
    }

    async fn cancel(&self, id: TransferId, now: Timestamp) -> Result<Option<Transfer>, StoreError> {
        self.blocking(move |connection| {
            let Some(transfer) = find(connection, id)? else {
                return Ok(None);
            };
            if as_of(transfer, now).state == TransferState::Quoted {
                step(connection, id, TransferState::Quoted, TransferState::Cancelled)?;
            }
            Ok(find(connection, id)?.map(|transfer| as_of(transfer, now)))
        })
        .await
    }

    async fn sign(
        &self,
        id: TransferId,
        view: ChainView,
        now: Timestamp,
        make: Sign,
    ) -> Result<SignOutcome, StoreError> {
        self.blocking(move |connection| {
            connection.transaction(|connection| sign(connection, id, view, now, make))
        })
        .await
    }

    async fn advance(
        &self,
        id: TransferId,
        progress: Progress,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.blocking(move |connection| {
            connection.transaction(|connection| advance(connection, id, progress, now))
        })
        .await
    }

    async fn claim_due(
        &self,
        chain_id: u64,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError> {
        self.blocking(move |connection| {
            connection
                .transaction(|connection| claim_due(connection, chain_id, now, lease_until, limit))
        })
        .await
    }

    async fn pending_spend(&self, chain_id: u64, account: AccountId) -> Result<Wei, StoreError> {
        self.blocking(move |connection| {
            let rows: Vec<Row> = transfers::table
                .filter(transfers::chain_id.eq(to_i64(chain_id)))
                .filter(transfers::from_account.eq(account.to_string()))
                .filter(transfers::state.eq_any(ON_ITS_WAY))
                .select(Row::as_select())
                .load(connection)?;
            let mut sum = U256::ZERO;
            for row in rows {
                sum = sum.saturating_add(spend(&row.parse()?));
            }
            Ok(Wei(sum))
        })
        .await
    }

    async fn has_paid(&self, account: AccountId, to: EthAddress) -> Result<bool, StoreError> {
        self.blocking(move |connection| {
            let paid: i64 = transfers::table
                .filter(transfers::from_account.eq(account.to_string()))
                .filter(transfers::to_address.eq(to.to_lower_hex()))
                .filter(transfers::state.eq_any(["mined", "final"]))
                .count()
                .get_result(connection)?;
            Ok(paid > 0)
        })
        .await
    }

    async fn transfers_of(
        &self,
        account: AccountId,
        before: Option<(Timestamp, TransferId)>,
        limit: u32,
    ) -> Result<Vec<Transfer>, StoreError> {
        self.blocking(move |connection| {
            let key = account.to_string();
            let sent = transfers::from_account.eq(key.clone()).and(transfers::state.eq_any([
                "signed",
                "broadcast",
                "mined",
                "final",
                "failed",
            ]));
            let received = transfers::to_account
                .assume_not_null()
                .eq(key)
                .and(transfers::state.eq_any(["mined", "final"]))
                .and(transfers::to_account.is_not_null());
            let (time, id) =
                before.map_or((i64::MAX, String::new()), |(time, id)| (time.0, id.to_string()));
            let earlier = transfers::created_at
                .lt(time)
                .or(transfers::created_at.eq(time).and(transfers::id.lt(id)));
            let rows: Vec<Row> = transfers::table
                .filter(sent.or(received))
                .filter(earlier)
                .order((transfers::created_at.desc(), transfers::id.desc()))
                .limit(limit.into())
                .select(Row::as_select())
                .load(connection)?;
            Ok(rows.into_iter().map(Row::parse).collect::<Result<_, _>>()?)
        })
        .await
    }
}
