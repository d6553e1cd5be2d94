//! Where checkpoints of the audit are kept beside the key database: a file and an S3 bucket.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use futures::future::join_all;
use kms_core::audit::Checkpoint;
#[cfg(feature = "aws-kms")]
use kms_key_aws::{Bucket, BucketError, BucketPath};
#[cfg(feature = "aws-kms")]
use ring::digest::{SHA256, digest};

use crate::config::AuditSettings;

/// The places that are configured.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointArchive {
    pub(crate) places: Vec<ArchivePlace>,
}

/// A place that checkpoints are added to.
#[derive(Clone, Debug)]
pub(crate) enum ArchivePlace {
    /// `audit.checkpoint_path`.
    File(PathBuf),
    /// `audit.checkpoint_s3`.
    #[cfg(feature = "aws-kms")]
    Bucket(Bucket),
}

/// A place that checkpoints are read from.
#[derive(Clone, Debug)]
pub(crate) enum CheckpointSource {
    /// A file, or a folder of files.
    Path(PathBuf),
    /// `s3://…`.
    #[cfg(feature = "aws-kms")]
    Bucket(BucketPath),
}

/// Why a place of checkpoints cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointArchiveError {
    /// The file.
    #[error("audit.checkpoint_path: {0}")]
    File(#[from] io::Error),
    /// The bucket.
    #[cfg(feature = "aws-kms")]
    #[error("audit.checkpoint_s3: {0}")]
    Bucket(#[from] BucketError),
}

/// What a place has.
#[derive(Debug, Default)]
pub(crate) struct FoundCheckpoints {
    /// Its lines, which need not be checkpoints.
    pub(crate) lines: Vec<String>,
    /// The names of deleted objects, whose lines were still read.
    pub(crate) deleted: Vec<String>,
}

impl CheckpointArchive {
    /// Opens what is configured, and creates the file if it is missing.
    pub(crate) async fn open(settings: &AuditSettings) -> Result<Self, CheckpointArchiveError> {
        let mut places = Vec::new();
        if let Some(path) = &settings.checkpoint_path {
            open(path)?;
            places.push(ArchivePlace::File(path.clone()));
        }
        #[cfg(feature = "aws-kms")]
        if let Some(path) = settings.checkpoint_s3.clone() {
            places.push(ArchivePlace::Bucket(Bucket::open(path).await?));
        }
        Ok(Self { places })
    }

    /// Reads the lines of the file.
    pub(crate) fn file_lines(&self) -> Result<Vec<String>, CheckpointArchiveError> {
        let mut lines = Vec::new();
        for place in &self.places {
            match place {
                ArchivePlace::File(path) => lines.extend(path_lines(path)?),
                #[cfg(feature = "aws-kms")]
                ArchivePlace::Bucket(_) => {}
            }
        }
        Ok(lines)
    }

    /// Adds a checkpoint to each place. If one fails, it is still added to the other.
    pub(crate) async fn add(&self, checkpoint: Checkpoint) -> Result<(), CheckpointArchiveError> {
        join_all(self.places.iter().map(|place| place.add(checkpoint))).await.into_iter().collect()
    }

    /// Checks that the bucket can be written to and locks its objects, if there is one.
    #[cfg(feature = "aws-kms")]
    pub(crate) async fn check_bucket(&self) -> Option<Result<(), BucketError>> {
        for place in &self.places {
            match place {
                ArchivePlace::File(_) => {}
                ArchivePlace::Bucket(bucket) => return Some(bucket.check().await),
            }
        }
        None
    }
}

impl ArchivePlace {
    pub(crate) async fn add(&self, checkpoint: Checkpoint) -> Result<(), CheckpointArchiveError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let append = tokio::task::spawn_blocking(move || append(&path, &checkpoint));
                append.await.unwrap_or_else(|panic| Err(io::Error::other(panic)))?;
            }
            #[cfg(feature = "aws-kms")]
            Self::Bucket(bucket) => {
                let line = format!("{checkpoint}\n");
                bucket.add(&object_name(&checkpoint, &line), &line).await?;
            }
        }
        Ok(())
    }
}

impl CheckpointSource {
    /// The sources that are configured.
    pub(crate) fn configured(settings: &AuditSettings) -> Vec<Self> {
        let file = settings.checkpoint_path.clone().map(Self::Path);
        #[cfg(feature = "aws-kms")]
        let bucket = settings.checkpoint_s3.clone().map(Self::Bucket);
        #[cfg(not(feature = "aws-kms"))]
        let bucket = None;
        file.into_iter().chain(bucket).collect()
    }

    /// Reads every line.
    pub(crate) async fn read(&self) -> Result<FoundCheckpoints, CheckpointArchiveError> {
        match self {
            Self::Path(path) => {
                Ok(FoundCheckpoints { lines: path_lines(path)?, deleted: Vec::new() })
            }
            #[cfg(feature = "aws-kms")]
            Self::Bucket(path) => {
                let found = Bucket::open(path.clone()).await?.read().await?;
                let lines = found.texts.iter().flat_map(|text| text.lines()).map(str::to_owned);
                Ok(FoundCheckpoints { lines: lines.collect(), deleted: found.deleted })
            }
        }
    }
}

impl FromStr for CheckpointSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("s3://") {
            return Ok(Self::Path(text.into()));
        }
        #[cfg(feature = "aws-kms")]
        return text.parse().map(Self::Bucket).map_err(|error| error.to_string());
        #[cfg(not(feature = "aws-kms"))]
        Err("this program was built without the feature aws-kms".to_owned())
    }
}

impl fmt::Display for CheckpointSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            #[cfg(feature = "aws-kms")]
            Self::Bucket(path) => write!(f, "{path}"),
        }
    }
}

/// In the order of the chain. Only a holder of the checkpoint key can predict it, so that an object
/// of this name holds this checkpoint.
#[cfg(feature = "aws-kms")]
fn object_name(checkpoint: &Checkpoint, line: &str) -> String {
    let hash = hex::encode(digest(&SHA256, line.as_bytes()));
    format!("{:020}-{hash}", checkpoint.tip.sequence)
}

/// The lines of a file, or of all files of a folder.
fn path_lines(path: &Path) -> io::Result<Vec<String>> {
    if !path.is_dir() {
        return Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect());
    }
    let mut files: Vec<_> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        lines.extend(fs::read_to_string(file)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn append(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
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
