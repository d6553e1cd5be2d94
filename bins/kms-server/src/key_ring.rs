//! Opens the configured KMS keys.

use std::sync::Arc;

use kms_core::{KeyRing, MasterKey};
#[cfg(feature = "aws-kms")]
use kms_key_aws::AwsMasterKey;
use kms_key_local::LocalMasterKey;

use crate::config::{KmsKeyProvider, KmsKeySettings};
use crate::start_error::StartError;

/// Opens the active KMS key, which wraps, and older ones, which only unwrap.
pub(crate) async fn open(
    active: KmsKeySettings,
    older: Vec<KmsKeySettings>,
) -> Result<KeyRing, StartError> {
    let mut unwrapping = Vec::new();
    for key in older {
        unwrapping.push(open_key(key).await?);
    }
    Ok(KeyRing::new(open_key(active).await?, unwrapping)?)
}

async fn open_key(key: KmsKeySettings) -> Result<Arc<dyn MasterKey>, StartError> {
    let id = key.id;
    match key.provider {
        KmsKeyProvider::Local { path, passphrase } => {
            opened(LocalMasterKey::open(id, path, passphrase.expose().to_owned().into()).await)
        }
        #[cfg(feature = "aws-kms")]
        KmsKeyProvider::Aws(settings) => opened(AwsMasterKey::open(id, settings).await),
    }
}

/// Erases the provider's type, and that of its errors.
fn opened<K, E>(key: Result<K, E>) -> Result<Arc<dyn MasterKey>, StartError>
where
    K: MasterKey + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match key {
        Ok(key) => Ok(Arc::new(key)),
        Err(error) => Err(StartError::KmsKey(Box::new(error))),
    }
}
