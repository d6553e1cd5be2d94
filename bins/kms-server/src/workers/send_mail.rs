//! Sends the e-mails that events call for, in two lanes.

use std::time::Duration;

use kms_process::{Next, Worker};
use kms_store::{Database, StoredEvent};
use kms_types::EventStream;
use metrics::{counter, gauge};
use uuid::Uuid;

use crate::clock;
use crate::mail::{Lane, MailDelayed, Mailer};

/// Payments send no e-mail.
const STREAM: EventStream = EventStream::Security;
const PAGE: u32 = 100;
/// Longer than sending one e-mail takes.
const LEASE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(5);

/// Follows the security events in their order and sends the e-mails of one lane at least once. One
/// server of several does it, by a lease.
///
/// What is still open, recoveries and codes, has a lane of its own: it is not delayed by reports of
/// what has happened, of which one user may cause many.
pub(crate) struct SendMail<const URGENT: bool> {
    mailer: Mailer,
    database: Database,
    /// This server, as the holder of the lease.
    holder: String,
    poll: Duration,
}

impl<const URGENT: bool> SendMail<URGENT> {
    const LANE: Lane = if URGENT { Lane::Urgent } else { Lane::Reports };

    /// Sends with this mailer.
    pub(crate) fn new(mailer: Mailer, database: &Database, poll: Duration) -> Self {
        let (database, holder) = (database.clone(), Uuid::new_v4().to_string());
        Self { mailer, database, holder, poll }
    }

    /// The consumer of events that this lane is, and its lease.
    const fn consumer() -> &'static str {
        match Self::LANE {
            Lane::Urgent => "mail_urgent",
            Lane::Reports => "mail",
        }
    }

    /// Sends the e-mails of one event, so that a stop does not wait for those of the others.
    async fn send_next(&self) -> Result<Next, MailDelayed> {
        let consumer = Self::consumer();
        if !self.database.acquire_lease(consumer, &self.holder, LEASE).await? {
            return Ok(Next::AfterInterval);
        }
        let after = self.database.acknowledged_events(consumer).await?;
        let found = self.database.events_after(STREAM, after, PAGE).await?;
        let of_lane = found.events.iter().filter(|event| Lane::of(event.kind) == Some(Self::LANE));
        let oldest = of_lane.clone().next().map_or(Duration::ZERO, |it| clock::now().since(it.at));
        gauge!("kms_mail_oldest_seconds", "lane" => Self::NAME).set(oldest.as_secs_f64());
        if found.end == after {
            return Ok(Next::AfterInterval);
        }
        let events: Vec<_> = of_lane.collect();
        for (index, event) in events.iter().enumerate() {
            if is_repeated(event, events.get(index + 1..).unwrap_or_default()) {
                counter!("kms_mail_merged_total").increment(1);
            } else if self.mailer.notify(event).await? {
                // At once, so that a server that crashes now does not send this e-mail again.
                self.database.acknowledge_events(consumer, STREAM, event.cursor).await?;
                return Ok(Next::AtOnce);
            }
        }
        self.database.acknowledge_events(consumer, STREAM, found.end).await?;
        Ok(Next::AtOnce)
    }
}

/// Whether one of the later events reports the same of the same account, so that its e-mail is
/// enough. Events that name a recovery or a former address are never the same.
fn is_repeated(event: &StoredEvent, later: &[&StoredEvent]) -> bool {
    let names_nothing = event.recovery.is_none() && event.contact.is_none();
    let is_same = |other: &&StoredEvent| (other.account, other.kind) == (event.account, event.kind);
    names_nothing && Lane::of(event.kind) == Some(Lane::Reports) && later.iter().any(is_same)
}

impl<const URGENT: bool> Worker for SendMail<URGENT> {
    const NAME: &'static str = if URGENT { "send_urgent_mail" } else { "send_mail" };
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
        let _ = self.database.release_lease(Self::consumer(), &self.holder).await;
    }
}
