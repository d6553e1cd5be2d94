//! Verification of the whole chain, in pages, and checkpoints of its end.

use diesel::dsl::min;
use diesel::prelude::*;
use kms_core::ServerKeyId;
use kms_core::audit::{
    Break, Chaining, Checkpoint, CheckpointKeys, Evidence, Leniency, Tip, Verified, Verifier,
};
use kms_core::ports::StoreError;
use kms_types::Timestamp;

use super::{AuditRow, Columns, head};
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
        self.verify_audit_rows(checkpoints, leniency, |_row| ()).await
    }

    /// As [`Database::verify_audit`], and passes each row to `each` once it is verified.
    ///
    /// # Errors
    /// `Break` names the first row that fails.
    pub async fn verify_audit_rows(
        &self,
        checkpoints: &[Checkpoint],
        leniency: Leniency,
        mut each: impl FnMut(&AuditRow),
    ) -> Result<Verified, AuditError> {
        let head = self.blocking(head::read).await?;
        let (audit_keys, checkpoint_keys) = (Some(&self.keys.audit), &self.checkpoint_keys());
        let mut verifier =
            Verifier::new(Evidence { audit_keys, checkpoints, checkpoint_keys, head, leniency });
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
                each(row);
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

    /// Returns the public halves of the configured checkpoint keys.
    #[must_use]
    pub fn checkpoint_keys(&self) -> CheckpointKeys {
        CheckpointKeys::of(&self.keys.checkpoint)
    }

    /// Returns the number of the first row under a newer version of the audit key than this.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_key_replaced_at(
        &self,
        version: ServerKeyId,
    ) -> Result<Option<i64>, StoreError> {
        self.blocking(move |connection| {
            Ok(audit::table
                .filter(audit::key_id.gt(i32::from(version.as_u8())))
                .select(min(audit::chain_seq))
                .first(connection)?)
        })
        .await
    }

    /// Whether the chain has this row with this hash.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_audit_row(&self, tip: Tip) -> Result<bool, StoreError> {
        self.blocking(move |connection| {
            let rows = audit::table.filter(audit::chain_seq.eq(tip.sequence));
            let same: i64 =
                rows.filter(audit::hash.eq(tip.hash.to_vec())).count().get_result(connection)?;
            Ok(same == 1)
        })
        .await
    }

    /// Signs the adoption of a chain whose rows after this one were lost.
    #[must_use]
    pub fn adopt_audit(&self, tip: Tip, now: Timestamp) -> Checkpoint {
        Checkpoint::adopt(tip, now, &self.keys.checkpoint)
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
        Ok(Some(Checkpoint::sign(link.tip(), now, &self.keys.checkpoint)))
    }
}
