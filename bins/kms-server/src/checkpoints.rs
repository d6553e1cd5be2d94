//! Checkpoints of the audit: written now and then to a file and to the key database, so that rows
//! that are cut from the end of the chain are missed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kms_core::audit::{Checkpoint, Tip};
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, integrity_alarm};
use kms_store::{AuditError, Database};
use tokio::sync::watch;

use crate::clock;
use crate::server::StartError;
use crate::state::KeyDatabase;

/// Writes checkpoints of one database's audit.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    database: Database,
    key_database: KeyDatabase,
    path: Option<PathBuf>,
    /// What was written last.
    last: Mutex<Tip>,
}

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
enum CheckpointError {
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the chain ends at row {now}, and row {before} was there before")]
    Cut { now: i64, before: i64 },
    #[error("the key database: {0}")]
    KeyDatabase(#[from] StoreError),
    #[error("the file: {0}")]
    File(#[from] std::io::Error),
}

impl Checkpoints {
    /// Begins with what was written before the server was started: rows that were cut while there
    /// was none are missed too.
    pub(crate) async fn new(
        database: Database,
        key_database: KeyDatabase,
        path: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let mut lines = Vec::new();
        if let Some(path) = &path {
            open(path).map_err(StartError::CheckpointFile)?;
            let text = std::fs::read_to_string(path).map_err(StartError::CheckpointFile)?;
            lines.extend(text.lines().map(str::to_owned));
        }
        match key_database.checkpoints().await {
            Ok(kept) => lines.extend(kept),
            Err(error) => tracing::warn!(%error, "the last checkpoints can not be read"),
        }
        // One that nobody signed is for `audit verify` to tell.
        let signed = lines.iter().filter_map(|line| database.signed_checkpoint(line));
        let last = signed.map(|checkpoint| checkpoint.tip).max_by_key(|tip| tip.sequence);
        Ok(Self { database, key_database, path, last: Mutex::new(last.unwrap_or_default()) })
    }

    /// Writes one now and then, until the server stops.
    pub(crate) async fn run(self: Arc<Self>, every: Duration, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            if tokio::time::timeout(every, stopping.changed()).await.is_err() {
                self.write().await;
            }
        }
    }

    /// Writes one, if the chain has grown. What fails is logged, and tried again next time.
    pub(crate) async fn write(&self) {
        match self.try_write().await {
            Ok(()) => {}
            Err(CheckpointError::Audit(AuditError::Break(found))) => {
                integrity_alarm(found, AlarmContext::default());
            }
            Err(error @ CheckpointError::Cut { .. }) => {
                integrity_alarm(error, AlarmContext::default());
            }
            Err(error) => tracing::error!(%error, "no checkpoint of the audit was written"),
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
        // Each place whether or not the other takes it.
        let in_file = match self.path.clone() {
            Some(path) => tokio::task::spawn_blocking(move || append(&path, &checkpoint))
                .await
                .unwrap_or_else(|stopped| Err(std::io::Error::other(stopped))),
            None => Ok(()),
        };
        self.key_database.put_checkpoint(checkpoint).await?;
        in_file?;
        *self.lock() = tip;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tip> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn append(path: &Path, checkpoint: &Checkpoint) -> std::io::Result<()> {
    // After a line that was cut by a crash this one still stands alone.
    let whole = std::fs::read(path)?.last().is_none_or(|last| *last == b'\n');
    let line = format!("{}{checkpoint}\n", if whole { "" } else { "\n" });
    let mut file = open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
