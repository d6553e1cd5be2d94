//! Reading the whole chain in pages, and where it ends.

use diesel::prelude::*;
use kms_core::audit::{Break, Chaining, Checkpoint, Leniency, Verified, Verifier};
use kms_core::ports::StoreError;
use kms_types::Timestamp;

use super::{AuditRow, Columns};
use crate::database::Database;
use crate::schema::audit;

/// How many rows are read at once.
const PAGE: u32 = 2_000;

/// Why a chain was not found whole.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is not.
    #[error(transparent)]
    Break(#[from] Break),
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Database {
    /// Recomputes the chain from its beginning, and compares it with checkpoints whose signatures
    /// were checked.
    ///
    /// # Errors
    /// `Break` names the first row that is wrong.
    pub async fn verify_audit(
        &self,
        checkpoints: &[Checkpoint],
        leniency: Leniency,
    ) -> Result<Verified, AuditError> {
        let mut verifier = Verifier::new(&self.keys.audit, checkpoints, leniency);
        let mut place = i64::MIN;
        loop {
            let rows = self.audit_after(place, PAGE).await?;
            let Some(last) = rows.last() else {
                return Ok(verifier.finish()?);
            };
            place = last.sequence;
            for row in &rows {
                if let Err(found) = verifier.push(row.sequence, &row.entry(), row.chaining) {
                    return Err(self.removed_or(found).await?.into());
                }
            }
        }
    }

    /// A row that is not in its place is removed if it is in no other.
    async fn removed_or(&self, found: Break) -> Result<Break, StoreError> {
        let Break::Misplaced { sequence, .. } = found else {
            return Ok(found);
        };
        self.blocking(move |connection| {
            let elsewhere: i64 = audit::table
                .filter(audit::chain_seq.eq(sequence))
                .count()
                .get_result(connection)?;
            Ok(if elsewhere == 0 { Break::Removed { sequence } } else { found })
        })
        .await
    }

    /// The checkpoint in this line, if it is one that was signed with a configured audit key.
    #[must_use]
    pub fn signed_checkpoint(&self, line: &str) -> Option<Checkpoint> {
        line.parse::<Checkpoint>().ok().filter(|found| found.verify(&self.keys.audit).is_ok())
    }

    /// A signed note of where the chain ends, if it has begun.
    ///
    /// # Errors
    /// `Break` when the last row is not as it was written: nothing is signed then.
    pub async fn audit_checkpoint(&self, now: Timestamp) -> Result<Option<Checkpoint>, AuditError> {
        let last = self
            .blocking(move |connection| {
                Ok(audit::table
                    .order(audit::chain_seq.desc())
                    .select(Columns::as_select())
                    .first::<Columns>(connection)
                    .optional()?)
            })
            .await?;
        let Some(row) = last.map(AuditRow::from) else {
            return Ok(None);
        };
        let Chaining::Linked(link) = row.chaining else {
            return Err(Break::Malformed { place: row.sequence }.into());
        };
        link.verify(&row.entry(), &self.keys.audit)
            .map_err(|error| Break::unverified(link.sequence, error))?;
        Ok(Some(Checkpoint::sign(link.tip(), now, &self.keys.audit)))
    }
}
