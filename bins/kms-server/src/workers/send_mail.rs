//! Sends the e-mails that events call for.

use std::time::Duration;

use kms_process::{Next, Worker};
use kms_store::Database;
use kms_types::EventStream;
use metrics::counter;
use uuid::Uuid;

use crate::mail::{MailDelayed, Mailer};

/// The consumer of events that this worker is, and its lease.
const CONSUMER: &str = "mail";
/// Payments send no e-mail.
const STREAM: EventStream = EventStream::Security;
const PAGE: u32 = 100;
/// Longer than sending one e-mail takes.
const LEASE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(5);

/// Follows the security events in their order and sends their e-mails at least once. One server of several
/// does it, by a lease.
pub(crate) struct SendMail {
    mailer: Mailer,
    database: Database,
    /// This server, as the holder of the lease.
    holder: String,
    poll: Duration,
}

impl SendMail {
    /// Sends with this mailer.
    pub(crate) fn new(mailer: Mailer, database: &Database, poll: Duration) -> Self {
        let (database, holder) = (database.clone(), Uuid::new_v4().to_string());
        Self { mailer, database, holder, poll }
    }

    /// Sends the e-mails of one event, so that a stop does not wait for those of the others.
    async fn send_next(&self) -> Result<Next, MailDelayed> {
        if !self.database.acquire_lease(CONSUMER, &self.holder, LEASE).await? {
            return Ok(Next::AfterInterval);
        }
        let after = self.database.acknowledged_events(CONSUMER).await?;
        let found = self.database.events_after(STREAM, after, PAGE).await?;
        if found.end == after {
            return Ok(Next::AfterInterval);
        }
        for event in found.events {
            let cursor = event.cursor;
            if self.mailer.notify(&event).await? {
                // At once, so that a server that crashes now does not send this e-mail again.
                self.database.acknowledge_events(CONSUMER, STREAM, cursor).await?;
                return Ok(Next::AtOnce);
            }
        }
        self.database.acknowledge_events(CONSUMER, STREAM, found.end).await?;
        Ok(Next::AtOnce)
    }
}

impl Worker for SendMail {
    const NAME: &'static str = "send_mail";
    type Error = MailDelayed;

    fn interval(&self) -> Duration {
        self.poll
    }

    fn retry_interval(&self) -> Duration {
        RETRY
    }

    async fn round(&mut self) -> Result<Next, MailDelayed> {
        let round = self.send_next().await;
        if round.is_err() {
            counter!("kms_mail_delayed_total").increment(1);
        }
        round
    }

    /// Releases the lease, so that another server takes over at once.
    async fn stopped(&mut self) {
        let _ = self.database.release_lease(CONSUMER, &self.holder).await;
    }
}
