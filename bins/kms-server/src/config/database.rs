//! `database` and `key_database`.

use kms_config::Secret;
use serde::Deserialize;

/// The database of accounts, wallets and transfers: PostgreSQL or SQLite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host/name` or `sqlite:path`.
    pub url: Secret,
    /// The same database as a role that may change the schema. Only `migrate` uses it.
    pub migrate_url: Option<Secret>,
    /// The maximum number of connections.
    #[serde(default = "default_pool")]
    pub pool: u32,
}

/// The database of wrapped symmetric cryptographic keys: MongoDB or SQLite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDatabaseSettings {
    /// `mongodb://…`, `mongodb+srv://…` or `sqlite:path`.
    pub url: Secret,
    /// The name of the database in MongoDB.
    #[serde(default = "default_name")]
    pub name: String,
}

fn default_pool() -> u32 {
    16
}

fn default_name() -> String {
    "kms".to_owned()
}
