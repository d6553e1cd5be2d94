//! E-mail to the owners of accounts: codes, and what happens to their wallets. It is a second
//! channel, that whoever took over the chat or the bot does not have.
//!
//! The letters follow from the events, in their order, at least once: of several servers one sends.
//! A code is worked out when its letter is written, and is stored nowhere. This must never be
//! logged, nor an address.

mod letters;

use std::time::Duration;

use kms_core::account::Account;
use kms_core::ports::{AccountStore, EmailChangeStore, RecoveryStore, StoreError};
use kms_core::recovery::{Recovery, RecoveryStep};
use kms_core::{SealError, Sealer, ServerKeys};
use kms_store::{Database, StoredEvent, StoredEventKind};
use kms_types::{AccountRef, Timestamp};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::sync::watch;
use uuid::Uuid;

use self::letters::Letter;
use crate::clock;
use crate::config::MailSettings;
use crate::server::StartError;

/// The reader of events that this is.
const CONSUMER: &str = "mail";
const PAGE: u32 = 100;
/// Longer than one letter takes.
const LEASE: Duration = Duration::from_secs(60);
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// What is older is not news any more: so much may have happened before mail was configured.
const NEWS: Duration = Duration::from_secs(24 * 60 * 60);
/// How long to wait with a mail server that takes nothing.
const AGAIN: Duration = Duration::from_secs(5);
/// How often one letter is tried while the mail server takes others.
const TRIES: u64 = 3;
/// An event from so far ahead was written by nobody with a clock.
const AHEAD: Duration = Duration::from_secs(60 * 60);

/// Sends what is to be sent.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    public_url: String,
    database: Database,
    sealer: Sealer,
    keys: std::sync::Arc<ServerKeys>,
    /// This server among others.
    holder: String,
    /// How old an address is that a code is sent to.
    trusted_after: Duration,
}

/// Why letters wait.
#[derive(Debug, thiserror::Error)]
enum MailError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the mail server takes nothing ({0})")]
    Smtp(String),
}

/// Why one letter is not sent.
#[derive(Debug, thiserror::Error)]
enum NoLetter {
    #[error(transparent)]
    Wait(#[from] MailError),
    #[error("what it is about can not be read: {0}")]
    Unreadable(StoreError),
    #[error("the address can not be opened: {0}")]
    Sealed(#[from] SealError),
    #[error("the address is none that mail can be sent to")]
    Address,
    #[error("the mail server refuses it ({0})")]
    Refused(String),
}

impl From<StoreError> for NoLetter {
    /// A row that was changed must not hold everybody's mail.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::Wait(error.into()),
            other => Self::Unreadable(other),
        }
    }
}

/// Without the server's own words, which may hold an address.
fn kind(error: &smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("code {code}"),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None if error.is_tls() => "TLS".to_owned(),
        None => "no connection".to_owned(),
    }
}

impl Mailer {
    pub(crate) fn new(
        settings: &MailSettings,
        database: Database,
        sealer: Sealer,
        keys: std::sync::Arc<ServerKeys>,
        trusted_after: Duration,
    ) -> Result<Self, StartError> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(settings.url.expose())
            .map_err(|_secret| StartError::Mail("mail.url can not be used"))?
            .timeout(Some(SEND_TIMEOUT))
            .build();
        let from = settings.from.parse();
        let from = from.map_err(|_cause| StartError::Mail("mail.from is not an address"))?;
        let public_url = settings.public_url.as_str().to_owned();
        let holder = Uuid::new_v4().to_string();
        Ok(Self { transport, from, public_url, database, sealer, keys, holder, trusted_after })
    }

    /// Sends letters until the server stops.
    pub(crate) async fn run(self, poll: Duration, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            let wait = match self.round().await {
                Ok(true) => continue,
                Ok(false) => poll,
                Err(error) => {
                    tracing::error!(%error, "mails can not be sent now");
                    metrics::counter!("kms_mail_delayed_total").increment(1);
                    AGAIN
                }
            };
            let _ = tokio::time::timeout(wait, stopping.changed()).await;
        }
        // Another server need not wait for the lease to end.
        let _ = self.database.take_lease(CONSUMER, &self.holder, Duration::ZERO).await;
    }

    /// Sends the letters of the next events; `false` when there are none, or another server does.
    async fn round(&self) -> Result<bool, MailError> {
        if !self.keep_lease().await? {
            return Ok(false);
        }
        let after = self.database.acknowledged_events(CONSUMER).await?;
        let found = self.database.events_after(after, PAGE).await?;
        if found.end == after {
            return Ok(false);
        }
        for event in found.events {
            let cursor = event.cursor;
            let sent = match self.tell(event.clone()).await {
                Ok(sent) => sent,
                Err(NoLetter::Wait(wait)) => return Err(wait),
                Err(error) => {
                    lost(&event, &error);
                    false
                }
            };
            if sent {
                // So that a server that dies now sends this one once.
                self.database.acknowledge_events(CONSUMER, cursor).await?;
                if !self.keep_lease().await? {
                    return Ok(true);
                }
            }
        }
        self.database.acknowledge_events(CONSUMER, found.end).await?;
        Ok(true)
    }

    async fn keep_lease(&self) -> Result<bool, StoreError> {
        self.database.take_lease(CONSUMER, &self.holder, LEASE).await
    }

    /// Sends what an event is to be told by; whether there was anything.
    async fn tell(&self, event: StoredEvent) -> Result<bool, NoLetter> {
        let now = clock::now();
        if !is_reported(event.kind) || now.since(event.at) > NEWS || event.at.since(now) > AHEAD {
            return Ok(false);
        }
        let account = self.database.account(AccountRef::Id(event.account)).await?;
        let Some(account) = account else { return Ok(false) };
        let who = letters::who(&account);
        let mut sent = false;
        // Whoever had the address before is told first, whatever becomes of the rest.
        if let Some(before) = &event.contact {
            let letter = match event.kind {
                StoredEventKind::EmailChangeRequested => letters::address_asked(&who, event.at),
                StoredEventKind::EmailChanged => letters::address_gone(&who, event.at),
                // Only a change of the address leaves one behind.
                StoredEventKind::AccountCreated
                | StoredEventKind::PasswordChanged
                | StoredEventKind::KeyExported
                | StoredEventKind::Recovery(_)
                | StoredEventKind::LimitRaiseAsked
                | StoredEventKind::TransferChanged
                | StoredEventKind::Received
                | StoredEventKind::DepositReceived => return Ok(false),
            };
            match self.send(&account, before, letter).await {
                Ok(()) => sent = true,
                Err(NoLetter::Wait(wait)) => return Err(wait.into()),
                Err(error) => lost(&event, &error),
            }
        }
        if event.kind == StoredEventKind::EmailChangeRequested {
            return Ok(self.send_code_for_address(&account, now).await? || sent);
        }
        let verified = account.email_verified_at.zip(account.email.as_ref());
        if let Some((since, email)) = verified
            && let Some(letter) = self.letter(&who, &event, since, now).await?
        {
            self.send(&account, email, letter).await?;
            sent = true;
        }
        Ok(sent)
    }

    /// What the owner of the address that is known since then is told.
    async fn letter(
        &self,
        who: &str,
        event: &StoredEvent,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Letter>, NoLetter> {
        Ok(match event.kind {
            StoredEventKind::Recovery(step) => {
                let Some(id) = event.recovery else { return Ok(None) };
                let recovery = self.database.recovery(id).await?;
                recovery.and_then(|recovery| self.step(who, step, &recovery, since, event.at, now))
            }
            StoredEventKind::PasswordChanged => Some(letters::password_changed(who, event.at)),
            StoredEventKind::KeyExported => Some(letters::key_exported(who, event.at)),
            StoredEventKind::LimitRaiseAsked => Some(letters::raise_asked(who, event.at)),
            StoredEventKind::EmailChanged => Some(letters::address_changed(who, event.at)),
            // The code goes to the new address; see `send_code_for_address`.
            StoredEventKind::EmailChangeRequested => None,
            // Reported in the chat alone; see `is_reported`.
            StoredEventKind::AccountCreated
            | StoredEventKind::TransferChanged
            | StoredEventKind::Received
            | StoredEventKind::DepositReceived => None,
        })
    }

    fn step(
        &self,
        who: &str,
        step: RecoveryStep,
        recovery: &Recovery,
        since: Timestamp,
        at: Timestamp,
        now: Timestamp,
    ) -> Option<Letter> {
        let link = self.cancel_link(recovery);
        let open = recovery.is_open(now);
        match step {
            RecoveryStep::Requested if open => {
                // Not to an address that was confirmed since.
                let trusted = since.plus(self.trusted_after) <= recovery.requested_at;
                let code = recovery.code_until(now).filter(|_until| trusted);
                let code = code.map(|until| (recovery.code(&self.keys.row), until));
                Some(letters::requested(who, recovery, code, at, &link))
            }
            RecoveryStep::CodeConfirmed if open => Some(letters::confirmed(who, recovery, &link)),
            RecoveryStep::Ready if open => Some(letters::ready(who, recovery, &link)),
            RecoveryStep::Completed => Some(letters::completed(who, at)),
            RecoveryStep::Cancelled => Some(letters::cancelled(who, at)),
            // Outdated by a later step, which has its own e-mail.
            RecoveryStep::Requested | RecoveryStep::CodeConfirmed | RecoveryStep::Ready => None,
            // The wallet is as it was.
            RecoveryStep::Expired => None,
        }
    }

    fn cancel_link(&self, recovery: &Recovery) -> String {
        let (id, mac) = (recovery.id, recovery.cancel_mac(&self.keys.row));
        format!("{}/recoveries/{id}/cancel/{mac}", self.public_url)
    }

    /// The code for an address that is not confirmed yet, to that address.
    async fn send_code_for_address(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<bool, NoLetter> {
        let asked = self.database.email_change(account.id).await?;
        // Confirmed already, or too late.
        let Some(asked) = asked.filter(|asked| now < asked.until()) else { return Ok(false) };
        let who = letters::who(account);
        let letter = letters::address_code(&who, &asked.code(&self.keys.row), asked.until());
        self.send(account, &asked.email, letter).await?;
        Ok(true)
    }

    async fn send(&self, account: &Account, sealed: &[u8], letter: Letter) -> Result<(), NoLetter> {
        let email = self.sealer.open_contact(account.id, "email", sealed)?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(email.parse().map_err(|_personal| NoLetter::Address)?)
            .subject(letter.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(letter.body)
            .map_err(|_personal| NoLetter::Address)?;
        for attempt in 1.. {
            let error = match self.transport.send(message.clone()).await {
                Ok(_response) => {
                    metrics::counter!("kms_mail_sent_total").increment(1);
                    return Ok(());
                }
                Err(error) => error,
            };
            // Whether it is this letter or any: a server that refuses us refuses a greeting too.
            let takes_others = self.transport.test_connection().await.unwrap_or(false);
            if !takes_others {
                return Err(MailError::Smtp(kind(&error)).into());
            }
            if error.is_permanent() || attempt >= TRIES {
                return Err(NoLetter::Refused(kind(&error)));
            }
            tokio::time::sleep(Duration::from_secs(attempt * attempt * 2)).await;
        }
        Ok(())
    }
}

/// Whether the event is reported by e-mail: what changes who can use the wallet, not what it pays.
fn is_reported(kind: StoredEventKind) -> bool {
    match kind {
        StoredEventKind::PasswordChanged
        | StoredEventKind::KeyExported
        | StoredEventKind::Recovery(_)
        | StoredEventKind::EmailChangeRequested
        | StoredEventKind::EmailChanged
        | StoredEventKind::LimitRaiseAsked => true,
        StoredEventKind::AccountCreated
        | StoredEventKind::TransferChanged
        | StoredEventKind::Received
        | StoredEventKind::DepositReceived => false,
    }
}

/// Nothing mends it, and the others must not wait for it.
fn lost(event: &StoredEvent, error: &NoLetter) {
    tracing::error!(event = %event.cursor, %error, "a mail was not sent");
    metrics::counter!("kms_mail_lost_total").increment(1);
}
