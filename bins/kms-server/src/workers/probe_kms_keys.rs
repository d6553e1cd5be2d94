//! Probes the KMS keys.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kms_core::Custody;
use kms_process::{ErrorChain, Next, Worker};

use super::{SOON, worker_caller};
use crate::clock;
use crate::kms_key_status::KmsKeyStatus;

/// Makes every KMS key unwrap a probe. Every server does it, because each has its own credentials
/// and its own network path.
pub(crate) struct ProbeKmsKeys {
    pub(crate) custody: Arc<Custody>,
    pub(crate) status: Arc<KmsKeyStatus>,
    pub(crate) every: Duration,
}

impl Worker for ProbeKmsKeys {
    const NAME: &'static str = "probe_kms_keys";
    type Error = Infallible;

    fn interval(&self) -> Duration {
        self.every
    }

    fn initial_delay(&self) -> Duration {
        SOON.min(self.every)
    }

    async fn round(&mut self) -> Result<Next, Infallible> {
        let keys: Vec<_> = self.custody.kms_keys().cloned().collect();
        let mut all_work = true;
        for key in keys {
            let caller = worker_caller(&format!("probe of {key}"));
            let probed = self.custody.probe_kms_key(&key, &caller, clock::now()).await;
            if let Err(error) = &probed {
                let error = ErrorChain(error);
                tracing::error!(
                    event = "kms_key_probe_failed",
                    %key,
                    %error,
                    "KMS key probe failed"
                );
            }
            self.status.record(&key, probed.is_ok());
            all_work &= probed.is_ok();
        }
        // Sooner than usual after a failure, so that a recovered key is reported quickly.
        Ok(if all_work { Next::AfterInterval } else { Next::After(self.initial_delay()) })
    }
}
