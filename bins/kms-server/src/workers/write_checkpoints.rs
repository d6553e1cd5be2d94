//! Writes checkpoints of the audit to the key database and to their archive, so that rows cut off
//! the end of the chain are detected.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use kms_core::audit::{Checkpoint, Tip};
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, integrity_alarm};
use kms_process::{Next, Worker};
use kms_store::{AuditError, Database, KeyDatabase};

use crate::checkpoint_archive::{ArchivePlace, CheckpointArchive, CheckpointArchiveError};
use crate::clock;

/// How often a place that failed is tried again until the next checkpoint is due.
const RETRIES: u32 = 5;

/// Writes a checkpoint per interval, and in between to the places that failed, so that one that
/// stays away costs the others nothing. The last one, after the last request, is
/// [`Checkpoints::write`] by the server.
pub(crate) struct WriteCheckpoints {
    checkpoints: Arc<Checkpoints>,
    every: Duration,
    written_at: Option<Instant>,
}

impl WriteCheckpoints {
    pub(crate) fn new(checkpoints: Arc<Checkpoints>, every: Duration) -> Self {
        Self { checkpoints, every, written_at: None }
    }

    /// The time until the next checkpoint is due.
    fn wait(&self) -> Duration {
        self.written_at.map_or(Duration::ZERO, |at| self.every.saturating_sub(at.elapsed()))
    }
}

impl Worker for WriteCheckpoints {
    const NAME: &'static str = "write_checkpoints";
    type Error = NotWritten;

    fn interval(&self) -> Duration {
        self.every
    }

    fn retry_interval(&self) -> Duration {
        self.every / RETRIES
    }

    fn initial_delay(&self) -> Duration {
        self.every
    }

    async fn round(&mut self) -> Result<Next, NotWritten> {
        if self.wait().is_zero() {
            self.written_at = Some(Instant::now());
            self.checkpoints.write().await?;
        } else {
            self.checkpoints.retry().await?;
        }
        Ok(Next::After(self.wait()))
    }
}

/// The checkpoints of one database's audit.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    database: Database,
    places: Vec<Place>,
    state: Mutex<State>,
}

/// Where checkpoints are written.
#[derive(Clone, Debug)]
enum Place {
    KeyDatabase(Arc<dyn KeyDatabase>),
    Archive(ArchivePlace),
}

#[derive(Debug, Default)]
struct State {
    /// The end of the chain at the newest checkpoint that any place has.
    last: Tip,
    unfinished: Option<Unfinished>,
}

/// A checkpoint, and the places that do not have it yet.
#[derive(Clone, Debug)]
struct Unfinished {
    checkpoint: Checkpoint,
    places: Vec<Place>,
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
        let last = last.map(|checkpoint| checkpoint.tip).unwrap_or_default();
        let archive = archive.places.into_iter().map(Place::Archive);
        let places = [Place::KeyDatabase(key_database)].into_iter().chain(archive).collect();
        Ok(Self { database, places, state: Mutex::new(State { last, unfinished: None }) })
    }

    /// Writes a checkpoint if the chain has grown, or to the places that lack the newest one. A
    /// failure is logged.
    pub(crate) async fn write(&self) -> Result<(), NotWritten> {
        match self.next().await {
            Ok(None) => return Ok(()),
            Ok(Some(next)) => return self.put(next).await,
            Err(CheckpointError::Audit(AuditError::Break(found))) => {
                integrity_alarm(found, AlarmContext::default());
            }
            Err(error @ (CheckpointError::Cut { .. } | CheckpointError::Replaced(_))) => {
                integrity_alarm(error, AlarmContext::default());
            }
            Err(error) => log_failure(&error),
        }
        Err(NotWritten)
    }

    /// Writes the unfinished checkpoint to the places that lack it.
    async fn retry(&self) -> Result<(), NotWritten> {
        // It stays recorded until it is written: a stop may interrupt this.
        let unfinished = self.lock().unfinished.clone();
        match unfinished {
            Some(unfinished) => self.put(unfinished).await,
            None => self.write().await,
        }
    }

    /// The checkpoint of the chain's end, if a place lacks it.
    async fn next(&self) -> Result<Option<Unfinished>, CheckpointError> {
        let checkpoint = self.database.audit_checkpoint(clock::now()).await?;
        let tip = checkpoint.map(|checkpoint| checkpoint.tip).unwrap_or_default();
        let last = self.lock().last;
        if tip.sequence < last.sequence {
            return Err(CheckpointError::Cut { now: tip.sequence, before: last.sequence });
        }
        // Rows that were cut off and written anew since.
        let has_last = self.database.has_audit_row(last).await.map_err(AuditError::from)?;
        if last != Tip::default() && !has_last {
            return Err(CheckpointError::Replaced(last.sequence));
        }
        // Signed once: another signature of the same end would be another object in a bucket.
        let unfinished = self.lock().unfinished.clone();
        if let Some(unfinished) = unfinished.filter(|it| it.checkpoint.tip == tip) {
            return Ok(Some(unfinished));
        }
        let checkpoint = checkpoint.filter(|_| tip != last);
        Ok(checkpoint.map(|checkpoint| Unfinished { checkpoint, places: self.places.clone() }))
    }

    /// Writes a checkpoint to its places. Those that fail are kept for the next call.
    async fn put(&self, Unfinished { checkpoint, places }: Unfinished) -> Result<(), NotWritten> {
        let results = join_all(places.iter().map(|place| place.put(checkpoint))).await;
        let mut failed = Vec::new();
        let mut state = self.lock();
        for (place, result) in places.into_iter().zip(results) {
            match result {
                Ok(()) => state.last = checkpoint.tip,
                Err(error) => {
                    log_failure(&error);
                    failed.push(place);
                }
            }
        }
        if failed.is_empty() {
            state.unfinished = None;
            return Ok(());
        }
        state.unfinished = Some(Unfinished { checkpoint, places: failed });
        Err(NotWritten)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    async fn put(&self, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        match self {
            Self::KeyDatabase(keys) => Ok(keys.put_checkpoint(checkpoint).await?),
            Self::Archive(place) => Ok(place.add(checkpoint).await?),
        }
    }
}

fn log_failure(error: &CheckpointError) {
    tracing::error!(event = "checkpoint_failed", %error, "audit checkpoint failed");
}
