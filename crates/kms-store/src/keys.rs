//! Key databases: wrapped SCKs, kept apart from the accounts, with credentials of their own. Beside
//! them the checkpoints of the audit, because an attacker who compromises the account database must
//! not be able to remove them.
//!
//! To add a key database, implement [`KeyDatabase`] in a file below `keys`, add an arm to
//! [`open_key_database`] and a line to `tests/conformance/key_databases.rs`.

#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt::Debug;
#[cfg(feature = "sqlite")]
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use kms_core::audit::Checkpoint;
use kms_core::ports::{SckStore, StoreError};

#[cfg(feature = "mongodb")]
use self::mongodb::MongoKeyDatabase;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteKeyDatabase;
use crate::database::ConnectError;

/// A database of wrapped SCKs and of audit checkpoints. It holds no Telegram id, name or address.
#[async_trait]
pub trait KeyDatabase: SckStore + Debug {
    /// Checks that the database answers.
    ///
    /// # Errors
    /// When it does not, within seconds.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Tries what a server does with each collection, in ways that change nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn grants(&self) -> Result<KeyDatabaseGrants, StoreError>;

    /// Stores a checkpoint of the audit.
    ///
    /// # Errors
    /// When it was not stored durably.
    async fn put_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError>;

    /// Returns the lines of all checkpoints, oldest first, without checking their signatures.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn checkpoints(&self) -> Result<Vec<String>, StoreError>;

    /// Returns the line that records the pause of this name, without checking its MAC.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn pause_line(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Returns the names and lines of all pauses.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn pause_lines(&self) -> Result<Vec<(String, String)>, StoreError>;

    /// Replaces that line.
    ///
    /// # Errors
    /// When it was not stored durably.
    async fn put_pause_line(&self, name: &str, line: &str) -> Result<(), StoreError>;

    /// Lists the ids of SCKs after this one with the ids of their accounts, in the order of the SCK
    /// ids. Both are returned as stored, unparsed.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn scks_after(&self, id: &str, limit: u32) -> Result<Vec<(String, String)>, StoreError>;

    /// Returns the account database that these keys belong to.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn owner(&self) -> Result<Option<KeyDatabaseOwner>, StoreError>;

    /// Replaces the owner, or inserts the first one; returns `false` and changes nothing if `old`
    /// is not the owner.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn replace_owner(
        &self,
        old: Option<&KeyDatabaseOwner>,
        new: &KeyDatabaseOwner,
    ) -> Result<bool, StoreError>;
}

/// What the role of a server may do in the key database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyDatabaseGrants {
    /// Whether it may change or remove checkpoints.
    pub changes_checkpoints: bool,
    /// What it may not do, although a server needs it: an action and a collection.
    pub missing: Vec<String>,
}

/// The account database that a key database belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDatabaseOwner {
    /// What identifies the account database and its backups.
    pub identity: String,
    /// The claim that distinguishes it from its copies.
    pub claim: String,
}

/// Opens `sqlite:PATH`, creating the file if need be, or connects to `mongodb://…` or
/// `mongodb+srv://…`, where `name` is the database.
///
/// # Errors
/// When the URL has another scheme or cannot be parsed, or a file cannot be opened.
pub async fn open_key_database(
    url: &str,
    name: &str,
) -> Result<Arc<dyn KeyDatabase>, ConnectError> {
    #[cfg(feature = "sqlite")]
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(Arc::new(SqliteKeyDatabase::open(path).await?));
    }
    #[cfg(feature = "mongodb")]
    if url.starts_with("mongodb") {
        return Ok(Arc::new(MongoKeyDatabase::connect(url, name).await?));
    }
    let _ = name;
    let expected = match (cfg!(feature = "mongodb"), cfg!(feature = "sqlite")) {
        (true, true) => "mongodb://, mongodb+srv:// or sqlite:",
        (true, false) => "mongodb:// or mongodb+srv://",
        _ => "sqlite:",
    };
    Err(ConnectError::Scheme { expected })
}

/// Opens a key database like [`open_key_database`], but does not create a missing file: a command
/// that reads keys must not report an empty database where the path is wrong.
///
/// # Errors
/// As [`open_key_database`], and when the file does not exist.
pub async fn open_existing_key_database(
    url: &str,
    name: &str,
) -> Result<Arc<dyn KeyDatabase>, ConnectError> {
    #[cfg(feature = "sqlite")]
    if let Some(path) = url.strip_prefix("sqlite:")
        && !Path::new(path).exists()
    {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        return Err(ConnectError::Open(Box::new(missing)));
    }
    open_key_database(url, name).await
}

fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { store: "key", source: Box::new(source) }
}
