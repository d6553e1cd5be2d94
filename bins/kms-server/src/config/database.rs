//! `database` and `key_database`.

use kms_config::{FileError, Secret, is_private_mongodb, is_private_postgres};
use serde::Deserialize;

/// The database of accounts, wallets and transfers: PostgreSQL or SQLite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host/name` or `sqlite:path`.
    pub url: DatabaseUrl,
    /// The same database as a role that may change the schema. Only `migrate` uses it.
    pub migrate_url: Option<DatabaseUrl>,
    /// What each new connection proves its identity with.
    #[serde(default)]
    pub auth: DatabaseAuth,
    /// The maximum number of connections.
    #[serde(default = "default_pool")]
    pub pool: u32,
}

/// What a connection to PostgreSQL proves its identity with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseAuth {
    /// The password of the URL, or the role's certificate.
    #[default]
    Password,
    /// A token of AWS IAM, which RDS accepts for fifteen minutes.
    #[cfg(feature = "aws-kms")]
    Iam,
}

/// The database of wrapped symmetric cryptographic keys: MongoDB or SQLite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDatabaseSettings {
    /// `mongodb://…`, `mongodb+srv://…` or `sqlite:path`.
    pub url: DatabaseUrl,
    /// The name of the database in MongoDB.
    #[serde(default = "default_name")]
    pub name: String,
}

/// The URL of a database. Over a network, its traffic is encrypted and the server's certificate is
/// checked: an attacker between the two could otherwise write to the database.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Secret")]
pub struct DatabaseUrl(Secret);

/// Why a database cannot be reached safely. Never shows the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// PostgreSQL, on another machine, without a checked certificate.
    #[error(
        "expected sslmode=verify-full for PostgreSQL on another machine: end the URL with \
         ?sslmode=verify-full&sslrootcert=PATH, where PATH is its certificate authority"
    )]
    Postgres,
    /// MongoDB, on another machine, without a checked certificate.
    #[error(
        "expected tls=true, and no option that accepts any certificate, for MongoDB on another \
         machine: add &tls=true to the URL, and &tlsCAFile=PATH for a certificate authority of \
         your own"
    )]
    MongoDb,
}

/// Why the URL cannot be read again.
#[derive(Debug, thiserror::Error)]
pub enum RereadError {
    /// The file cannot be read.
    #[error("the file of the URL: {0}")]
    File(#[from] FileError),
    /// The new URL is not safe.
    #[error(transparent)]
    Url(#[from] DatabaseUrlError),
}

impl DatabaseUrl {
    /// Returns the URL with its password.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Reads the URL again, if it came from a file of its own.
    ///
    /// # Errors
    /// When the file cannot be read, or holds a URL that is not safe.
    pub fn reread(&self) -> Result<Self, RereadError> {
        Ok(Self::try_from(self.0.reread()?)?)
    }
}

impl TryFrom<Secret> for DatabaseUrl {
    type Error = DatabaseUrlError;

    fn try_from(text: Secret) -> Result<Self, DatabaseUrlError> {
        let url = text.expose();
        if url.starts_with("postgres") && !is_private_postgres(url) {
            return Err(DatabaseUrlError::Postgres);
        }
        if url.starts_with("mongodb") && !is_private_mongodb(url) {
            return Err(DatabaseUrlError::MongoDb);
        }
        Ok(Self(text))
    }
}

fn default_pool() -> u32 {
    16
}

fn default_name() -> String {
    "kms".to_owned()
}
