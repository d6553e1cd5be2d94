//! `kms_key` and `older_kms_keys`: the keys that wrap and unwrap every wallet's key.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use kms_config::Secret;
#[cfg(feature = "aws-kms")]
use kms_config::ServiceUrl;
use kms_core::{MasterKey, MasterKeyId};
#[cfg(feature = "aws-kms")]
use kms_key_aws::{AwsKeySettings, AwsMasterKey};
use kms_key_local::LocalMasterKey;
use serde::{Deserialize, Deserializer};

/// A KMS key.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Section")]
pub struct KmsKeySettings {
    /// Its id, which is stored with every key that it wraps.
    pub id: MasterKeyId,
    /// Where it is kept.
    pub provider: KmsKeyProvider,
}

/// Where a KMS key is.
#[derive(Clone, Debug)]
pub enum KmsKeyProvider {
    /// `local`: in a file.
    Local {
        /// An encrypted PKCS#8 PEM file that only its owner can read.
        path: PathBuf,
        /// The passphrase that it is encrypted under.
        passphrase: Secret,
    },
    /// `aws-kms`: in AWS KMS. Region and credentials are found as by AWS' own tools.
    #[cfg(feature = "aws-kms")]
    Aws(AwsKeySettings),
}

/// Why a KMS key cannot be opened, as its provider reports it.
type OpenKeyError = Box<dyn Error + Send + Sync>;

impl KmsKeySettings {
    /// Opens the key.
    pub(crate) async fn open(self) -> Result<Arc<dyn MasterKey>, OpenKeyError> {
        let id = self.id;
        Ok(match self.provider {
            KmsKeyProvider::Local { path, passphrase } => {
                let passphrase = passphrase.expose().to_owned().into();
                Arc::new(LocalMasterKey::open(id, path, passphrase).await?)
            }
            #[cfg(feature = "aws-kms")]
            KmsKeyProvider::Aws(settings) => Arc::new(AwsMasterKey::open(id, settings).await?),
        })
    }
}

impl KmsKeyProvider {
    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Local { .. } => "local",
            #[cfg(feature = "aws-kms")]
            Self::Aws(_) => "aws-kms",
        }
    }
}

/// A section as it is written: its `provider`, by default the first one, decides which settings it
/// has.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Section {
    Local {
        #[serde(deserialize_with = "kms_config::text")]
        id: MasterKeyId,
        path: PathBuf,
        passphrase: Secret,
    },
    #[cfg(feature = "aws-kms")]
    AwsKms {
        #[serde(deserialize_with = "kms_config::text")]
        id: MasterKeyId,
        key: String,
        public_key: String,
        /// Its responses contain unwrapped keys.
        endpoint: Option<ServiceUrl>,
    },
}

impl From<Section> for KmsKeySettings {
    fn from(section: Section) -> Self {
        match section {
            Section::Local { id, path, passphrase } => {
                Self { id, provider: KmsKeyProvider::Local { path, passphrase } }
            }
            #[cfg(feature = "aws-kms")]
            Section::AwsKms { id, key, public_key, endpoint } => {
                let endpoint = endpoint.map(|url| url.to_string());
                let settings = AwsKeySettings { key, public_key, endpoint };
                Self { id, provider: KmsKeyProvider::Aws(settings) }
            }
        }
    }
}

/// Deserializes a table of keys. Its names only distinguish them.
pub(super) fn by_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<KmsKeySettings>, D::Error> {
    let keys = BTreeMap::<String, KmsKeySettings>::deserialize(deserializer)?;
    Ok(keys.into_values().collect())
}
