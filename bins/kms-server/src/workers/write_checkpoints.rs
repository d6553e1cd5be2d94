//! Writes checkpoints of the audit to a file and to the key database, so that rows cut off the end
//! of the chain are detected.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kms_core::audit::{Checkpoint, Tip};
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, integrity_alarm};
use kms_process::{Next, Worker};
use kms_store::{AuditError, Database, KeyDatabase};

use crate::clock;

/// Writes a checkpoint per interval. The last one, after the last request, is
/// [`Checkpoints::write`] by the server.
pub(crate) struct WriteCheckpoints {
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) every: Duration,
}

impl Worker for WriteCheckpoints {
    const NAME: &'static str = "write_checkpoints";
    type Error = Infallible;

    fn interval(&self) -> Duration {
        self.every
    }

    fn initial_delay(&self) -> Duration {
        self.every
    }

    async fn round(&mut self) -> Result<Next, Infallible> {
        self.checkpoints.write().await;
        Ok(Next::AfterInterval)
    }
}

/// The checkpoints of one database's audit.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    database: Database,
    key_database: Arc<dyn KeyDatabase>,
    path: Option<PathBuf>,
    /// The end of the chain at the last checkpoint.
    last: Mutex<Tip>,
}

/// The file of checkpoints cannot be opened for appending.
#[derive(Debug, thiserror::Error)]
#[error("audit.checkpoint_path: {0}")]
pub struct CheckpointFileError(#[from] io::Error);

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
enum CheckpointError {
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the chain ends at row {now}, but a checkpoint covers row {before}")]
    Cut { now: i64, before: i64 },
    #[error("key database: {0}")]
    KeyDatabase(#[from] StoreError),
    #[error("checkpoint file: {0}")]
    File(#[from] io::Error),
}

impl Checkpoints {
    /// Reads the checkpoints that exist, so that rows cut off while no server was running are
    /// detected too.
    pub(crate) async fn open(
        database: Database,
        key_database: Arc<dyn KeyDatabase>,
        path: Option<PathBuf>,
    ) -> Result<Self, CheckpointFileError> {
        let mut lines = Vec::new();
        if let Some(path) = &path {
            open(path)?;
            lines.extend(std::fs::read_to_string(path)?.lines().map(str::to_owned));
        }
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
        // `audit verify` reports the lines without a valid signature.
        let signed = lines.iter().filter_map(|line| database.signed_checkpoint(line));
        let last = signed.map(|checkpoint| checkpoint.tip).max_by_key(|tip| tip.sequence);
        Ok(Self { database, key_database, path, last: Mutex::new(last.unwrap_or_default()) })
    }

    /// Writes a checkpoint if the chain has grown. A failure is logged, and the next call tries
    /// again.
    pub(crate) async fn write(&self) {
        match self.try_write().await {
            Ok(()) => {}
            Err(CheckpointError::Audit(AuditError::Break(found))) => {
                integrity_alarm(found, AlarmContext::default());
            }
            Err(error @ CheckpointError::Cut { .. }) => {
                integrity_alarm(error, AlarmContext::default());
            }
            Err(error) => {
                tracing::error!(event = "checkpoint_failed", %error, "audit checkpoint failed");
            }
        }
    }

    async fn try_write(&self) -> Result<(), CheckpointError> {
        let checkpoint = self.database.audit_checkpoint(clock::now()).await?;
        let tip = checkpoint.map(|checkpoint| checkpoint.tip).unwrap_or_default();
        let last = *self.lock();
        if tip.sequence < last.sequence {
            return Err(CheckpointError::Cut { now: tip.sequence, before: last.sequence });
        }
        let Some(checkpoint) = checkpoint.filter(|_| tip != last) else {
            return Ok(());
        };
        // A failure of one place does not keep the checkpoint from the other.
        let in_file = match self.path.clone() {
            Some(path) => tokio::task::spawn_blocking(move || append(&path, &checkpoint))
                .await
                .unwrap_or_else(|panic| Err(io::Error::other(panic))),
            None => Ok(()),
        };
        self.key_database.put_checkpoint(checkpoint).await?;
        in_file?;
        *self.lock() = tip;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Tip> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn append(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    // A crash may have cut the last line; this one begins on a line of its own.
    let is_whole = std::fs::read(path)?.last().is_none_or(|last| *last == b'\n');
    let line = format!("{}{checkpoint}\n", if is_whole { "" } else { "\n" });
    let mut file = open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
