//! Writes checkpoints of the audit to a file and to the key database, so that rows cut off the end
//! of the chain are detected.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
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
        let keys = database.checkpoint_keys();
        let mut checkpoints: Vec<_> =
            lines.iter().filter_map(|line| line.parse::<Checkpoint>().ok()).collect();
        checkpoints = Checkpoint::in_force(&checkpoints);
        checkpoints.sort_by_key(|checkpoint| checkpoint.tip.sequence);
        // From the end, because a year's signatures would take long. `audit verify` reports the
        // lines without a valid one.
        let last = checkpoints.iter().rfind(|checkpoint| checkpoint.verify(&keys).is_ok());
        let last = last.map(|checkpoint| checkpoint.tip);
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

pub(crate) fn append(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    // A crash may have cut the last line; this one begins on a line of its own.
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let line = format!("{}{checkpoint}\n", if last == *b"\n" { "" } else { "\n" });
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
