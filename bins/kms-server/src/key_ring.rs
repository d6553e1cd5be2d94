//! Opens the configured KMS keys.

use kms_core::KeyRing;

use crate::config::KmsKeySettings;
use crate::start_error::StartError;

/// Opens the active KMS key, which wraps, and older ones, which only unwrap.
pub(crate) async fn open(
    active: KmsKeySettings,
    older: Vec<KmsKeySettings>,
) -> Result<KeyRing, StartError> {
    let mut unwrapping = Vec::new();
    for key in older {
        unwrapping.push(key.open().await.map_err(StartError::KmsKey)?);
    }
    Ok(KeyRing::new(active.open().await.map_err(StartError::KmsKey)?, unwrapping)?)
}
