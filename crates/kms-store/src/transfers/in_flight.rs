//! How many transfers are in flight, and how long they have been, for metrics.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_chain::transfer::{TransferState, WaitReason};
use kms_core::ports::StoreError;
use kms_types::Timestamp;

use crate::convert::RowRef;
use crate::database::Database;

/// The transfers of one chain in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InState {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The state: `signed`, `broadcast` or `mined`.
    pub state: TransferState,
    /// Their number.
    pub count: u64,
    /// When the oldest of them was quoted.
    pub oldest: Timestamp,
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = BigInt)]
    chain_id: i64,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    oldest: i64,
}

#[derive(QueryableByName)]
struct WaitRow {
    #[diesel(sql_type = BigInt)]
    chain_id: i64,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// The transfers of one chain that wait for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InWait {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The reason.
    pub reason: WaitReason,
    /// Their number.
    pub count: u64,
}

impl Database {
    /// Returns the transfers that are signed and not final, by their chains and states. States
    /// without a transfer are left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn transfers_in_flight(&self) -> Result<Vec<InState>, StoreError> {
        // By the two small indexes of what is not final, never through all transfers.
        let count = "select chain_id, state, count(*) as count, min(created_at) as oldest \
             from transfers where id in (select transfer_id from transfer_checks \
             union select transfer_id from settlements where final_at is null) \
             group by chain_id, state";
        self.blocking(move |connection| {
            let rows: Vec<StateRow> = diesel::sql_query(count).load(connection)?;
            let parse = |row: StateRow| {
                let reference = RowRef { table: "transfers", key: &row.state };
                let (state, count) = (reference.parse(&row.state)?, reference.convert(row.count)?);
                let (chain_id, oldest) = (reference.convert(row.chain_id)?, Timestamp(row.oldest));
                Ok(InState { chain_id, state, count, oldest })
            };
            rows.into_iter().map(parse).collect()
        })
        .await
    }

    /// Returns how many transfers of each chain wait for each reason. Reasons without a transfer
    /// are left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn waits_by_reason(&self) -> Result<Vec<InWait>, StoreError> {
        // `cross join`, so that SQLite looks up the few that wait, and not the other way round.
        let count = "select chain_id, reason, count(*) as count from transfer_waits \
             cross join transfers where id = transfer_id group by chain_id, reason";
        self.blocking(move |connection| {
            let rows: Vec<WaitRow> = diesel::sql_query(count).load(connection)?;
            let parse = |row: WaitRow| {
                let reference = RowRef { table: "transfer_waits", key: &row.reason };
                let (chain_id, count) =
                    (reference.convert(row.chain_id)?, reference.convert(row.count)?);
                Ok(InWait { chain_id, reason: reference.parse(&row.reason)?, count })
            };
            rows.into_iter().map(parse).collect()
        })
        .await
    }
}
