//! Reads whether the operator has paused payments.

use std::sync::Arc;
use std::time::Duration;

use kms_core::ports::StoreError;
use kms_process::{Next, Worker};
use kms_store::{Database, KeyDatabase};

use crate::chains::ServedChain;

/// How long a pause may take until every server obeys it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reads whether the operator has paused payments. If a database does not answer, what was read
/// last holds: payments do not depend on the key database.
pub(crate) struct ReadBrakes {
    pub(crate) chains: Vec<Arc<ServedChain>>,
    pub(crate) database: Database,
    pub(crate) key_database: Arc<dyn KeyDatabase>,
}

impl Worker for ReadBrakes {
    const NAME: &'static str = "read_brakes";
    type Error = StoreError;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn round(&mut self) -> Result<Next, StoreError> {
        for chain in &self.chains {
            chain.brakes.read(&self.database, &*self.key_database).await?;
        }
        Ok(Next::AfterInterval)
    }
}
