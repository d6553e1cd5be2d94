//! Why a server did not start.

use std::net::SocketAddr;

use kms_chain::ChainError;
use kms_core::KeyRingError;
use kms_store::{ClaimError, ConnectError};

use crate::checkpoint_archive::CheckpointArchiveError;
use crate::config::ConfigError;
use crate::mail::MailSettingsError;
use crate::tls::TlsError;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A database cannot be used.
    #[error(transparent)]
    Database(#[from] ConnectError),
    /// AWS IAM gives no token for the account database.
    #[error("database.auth: {0}")]
    DatabaseAuth(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A declared token has the name of a stored one.
    #[error("tokens: the database has a token named {0}, too; names cannot be reused")]
    TokenName(String),
    /// The schema is older than this program.
    #[error("the database schema is out of date; run `kms-server migrate`")]
    Schema,
    /// The key database belongs to another account database.
    #[error("key database {name}")]
    KeyDatabase {
        /// The database's name.
        name: String,
        /// Why it cannot be used.
        #[source]
        claim: ClaimError,
    },
    /// A key provider cannot open a KMS key.
    #[error("kms_key: {0}")]
    KmsKey(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The KMS keys contradict each other.
    #[error(transparent)]
    KeyRing(#[from] KeyRingError),
    /// No endpoint of a chain can be used, now or later.
    #[error("chains.{short_name}.rpc_urls: {error}")]
    Chain {
        /// The chain's short name.
        short_name: String,
        /// Why.
        #[source]
        error: ChainError,
    },
    /// The e-mail settings cannot be used.
    #[error(transparent)]
    Mail(#[from] MailSettingsError),
    /// A spending limit names an unknown asset.
    #[error(transparent)]
    Limits(#[from] ConfigError),
    /// A place of checkpoints cannot be used.
    #[error(transparent)]
    CheckpointArchive(#[from] CheckpointArchiveError),
    /// The HTTP client of the payment policy cannot be built.
    #[error("payment_policy: {0}")]
    PaymentPolicy(#[source] reqwest::Error),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address of a listener cannot be bound.
    #[error("{setting}: {address} cannot be listened on: {error}")]
    Listen {
        /// Its setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The threads of the password KDF cannot be started.
    #[error("password.running: {0}")]
    Threads(#[source] std::io::Error),
}

impl StartError {
    /// The error of the chain with this short name.
    pub(crate) fn of_chain(short_name: &str) -> impl FnOnce(ChainError) -> Self {
        move |error| Self::Chain { short_name: short_name.to_owned(), error }
    }
}
