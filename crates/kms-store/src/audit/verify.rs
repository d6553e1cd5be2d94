//! Verification of the whole chain, in pages, and checkpoints of its end.

use diesel::prelude::*;
use kms_core::audit::{Break, Chaining, Checkpoint, Leniency, Verified, Verifier};
use kms_core::ports::StoreError;
use kms_types::Timestamp;

use super::{AuditRow, Columns};
use crate::database::Database;
use crate::schema::audit;

/// The rows of a page.
const PAGE: u32 = 2_000;

/// Why a chain could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The chain is broken.
    #[error(transparent)]
    Break(#[from] Break),
    /// The chain could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Database {
    /// Recomputes the chain from its start and compares it with checkpoints, whose signatures the
    /// caller has verified.
    ///
    /// # Errors
    /// `Break` names the first row that fails.
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

    /// Reports a misplaced row as removed, if it is nowhere in the table.
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

    /// Parses a checkpoint. Returns `None` unless it was signed with a configured audit key.
    #[must_use]
    pub fn signed_checkpoint(&self, line: &str) -> Option<Checkpoint> {
        line.parse::<Checkpoint>().ok().filter(|found| found.verify(&self.keys.audit).is_ok())
    }

    /// Signs a checkpoint of the end of the chain, unless the chain is empty.
    ///
    /// # Errors
    /// `Break` when the last row fails verification: nothing is signed then.
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
