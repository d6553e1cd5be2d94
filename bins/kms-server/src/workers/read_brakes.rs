//! Reads whether the operator has paused payments.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
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
        let (database, keys) = (&self.database, &*self.key_database);
        let reads = self.chains.iter().map(|chain| chain.brakes.read(database, keys));
        // All at once, and errors last: a chain that cannot be read delays no other one's pause.
        join_all(reads).await.into_iter().collect::<Result<(), _>>()?;
        Ok(Next::AfterInterval)
    }
}
