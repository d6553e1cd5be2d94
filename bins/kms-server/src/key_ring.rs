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
            // The KDF of the passphrase takes a moment.
            let read = move || LocalMasterKey::read(id, &path, passphrase.expose());
            let read = tokio::task::spawn_blocking(read).await;
            Ok(Arc::new(read.map_err(StartError::KeyFile)??))
        }
        #[cfg(feature = "aws-kms")]
        KmsKeyProvider::Aws(settings) => Ok(Arc::new(AwsMasterKey::open(id, settings).await?)),
    }
}
