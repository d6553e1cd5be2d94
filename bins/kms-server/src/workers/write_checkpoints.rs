//! Writes checkpoints of the audit to the key database and to their archive, so that rows cut off
//! the end of the chain are detected.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kms_core::audit::{Checkpoint, Tip};
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, integrity_alarm};
use kms_process::{Next, Worker};
use kms_store::{AuditError, Database, KeyDatabase};

use super::SOON;
use crate::checkpoint_archive::{CheckpointArchive, CheckpointArchiveError};
use crate::clock;

/// Writes a checkpoint per interval. The last one, after the last request, is
/// [`Checkpoints::write`] by the server.
pub(crate) struct WriteCheckpoints {
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) every: Duration,
}

impl Worker for WriteCheckpoints {
    const NAME: &'static str = "write_checkpoints";
    type Error = NotWritten;

    fn interval(&self) -> Duration {
        self.every
    }

    fn retry_interval(&self) -> Duration {
        SOON.min(self.every)
    }

    fn initial_delay(&self) -> Duration {
        self.every
    }

    async fn round(&mut self) -> Result<Next, NotWritten> {
        self.checkpoints.write().await?;
        Ok(Next::AfterInterval)
    }
}

/// The checkpoints of one database's audit.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    database: Database,
    key_database: Arc<dyn KeyDatabase>,
    archive: CheckpointArchive,
    /// The end of the chain at the last checkpoint.
    last: Mutex<Tip>,
}

/// A checkpoint was not written to every place; the reason was logged.
#[derive(Debug, thiserror::Error)]
#[error("no checkpoint was written")]
pub(crate) struct NotWritten;

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
enum CheckpointError {
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the chain ends at row {now}, but a checkpoint covers row {before}")]
    Cut { now: i64, before: i64 },
    #[error("row {0} is not the one that a checkpoint covers")]
    Replaced(i64),
    #[error("key database: {0}")]
    KeyDatabase(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] CheckpointArchiveError),
}

impl Checkpoints {
    /// Reads the checkpoints of the key database and the file, so that rows cut off while no server
    /// was running are detected too. A server may not read its bucket.
    pub(crate) async fn open(
        database: Database,
        key_database: Arc<dyn KeyDatabase>,
        archive: CheckpointArchive,
    ) -> Result<Self, CheckpointArchiveError> {
        let mut lines = archive.file_lines()?;
        match key_database.checkpoints().await {
            Ok(stored) => lines.extend(stored),
            Err(error) => {
                tracing::warn!(
                    %error,
                    event = "checkpoint_read_failed",
                    "reading checkpoints from key database failed"
                )
            }
        }
        let keys = database.checkpoint_keys();
        let mut checkpoints: Vec<_> =
            lines.iter().filter_map(|line| line.parse::<Checkpoint>().ok()).collect();
        checkpoints = Checkpoint::in_force(&checkpoints);
        checkpoints.sort_by_key(|checkpoint| checkpoint.tip.sequence);
        // From the end, because a year's signatures would take long. `audit verify` reports the
        // lines without a valid one.
        let last = checkpoints.iter().rfind(|checkpoint| checkpoint.verify(&keys).is_ok());
        let last = last.map(|checkpoint| checkpoint.tip);
        Ok(Self { database, key_database, archive, last: Mutex::new(last.unwrap_or_default()) })
    }

    /// Writes a checkpoint if the chain has grown. A failure is logged, and the next call tries
    /// again.
    pub(crate) async fn write(&self) -> Result<(), NotWritten> {
        match self.try_write().await {
            Ok(()) => return Ok(()),
            Err(CheckpointError::Audit(AuditError::Break(found))) => {
                integrity_alarm(found, AlarmContext::default());
            }
            Err(error @ (CheckpointError::Cut { .. } | CheckpointError::Replaced(_))) => {
                integrity_alarm(error, AlarmContext::default());
            }
            Err(error) => {
                tracing::error!(event = "checkpoint_failed", %error, "audit checkpoint failed");
            }
        }
        Err(NotWritten)
    }

    async fn try_write(&self) -> Result<(), CheckpointError> {
        let checkpoint = self.database.audit_checkpoint(clock::now()).await?;
        let tip = checkpoint.map(|checkpoint| checkpoint.tip).unwrap_or_default();
        let last = *self.lock();
        if tip.sequence < last.sequence {
            return Err(CheckpointError::Cut { now: tip.sequence, before: last.sequence });
        }
        // Rows that were cut off and written anew since.
        let has_last = self.database.has_audit_row(last).await.map_err(AuditError::from)?;
        if last != Tip::default() && !has_last {
            return Err(CheckpointError::Replaced(last.sequence));
        }
        let Some(checkpoint) = checkpoint.filter(|_| tip != last) else {
            return Ok(());
        };
        // If one place fails, the checkpoint is still written to the others.
        let (stored, archived) = futures::join!(
            self.key_database.put_checkpoint(checkpoint),
            self.archive.add(checkpoint),
        );
        stored?;
        archived?;
        *self.lock() = tip;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Tip> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
