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

use self::letters::Letter;
use crate::clock;
use crate::config::MailSettings;

const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// What is older is not news any more: so much may have happened before mail was configured.
const NEWS: Duration = Duration::from_secs(24 * 60 * 60);
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
    /// How old an address is that a code is sent to.
    trusted_after: Duration,
}

/// Why e-mail cannot be sent with these settings.
#[derive(Debug, thiserror::Error)]
pub enum MailSettingsError {
    /// The SMTP server's URL.
    #[error("mail.url: not an SMTP URL")]
    Url,
    /// The sender.
    #[error("mail.from: not an e-mail address")]
    From,
}

/// Why letters wait.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailDelayed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the mail server takes nothing ({0})")]
    Smtp(String),
}

/// Why one letter is not sent.
#[derive(Debug, thiserror::Error)]
enum SkipMail {
    #[error(transparent)]
    Delayed(#[from] MailDelayed),
    #[error("what it is about can not be read: {0}")]
    Unreadable(StoreError),
    #[error("the address can not be opened: {0}")]
    Sealed(#[from] SealError),
    #[error("the address is none that mail can be sent to")]
    Address,
    #[error("the mail server refuses it ({0})")]
    Refused(String),
}

impl From<StoreError> for SkipMail {
    /// A row that was changed must not hold everybody's mail.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::Delayed(error.into()),
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
    ) -> Result<Self, MailSettingsError> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(settings.url.expose())
            .map_err(|_secret| MailSettingsError::Url)?
            .timeout(Some(SEND_TIMEOUT))
            .build();
        let from = settings.from.parse();
        let from = from.map_err(|_cause| MailSettingsError::From)?;
        let public_url = settings.public_url.as_str().to_owned();
        Ok(Self { transport, from, public_url, database, sealer, keys, trusted_after })
    }

    /// Sends the e-mails of an event; returns whether there were any. One that cannot be sent is
    /// logged, because the events after it must not wait for it.
    pub(crate) async fn notify(&self, event: StoredEvent) -> Result<bool, MailDelayed> {
        match self.tell(&event).await {
            Ok(sent) => Ok(sent),
            Err(SkipMail::Delayed(delayed)) => Err(delayed),
            Err(error) => {
                lost(&event, &error);
                Ok(false)
            }
        }
    }

    /// Sends what an event is to be told by; whether there was anything.
    async fn tell(&self, event: &StoredEvent) -> Result<bool, SkipMail> {
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
                Err(SkipMail::Delayed(delayed)) => return Err(delayed.into()),
                Err(error) => lost(event, &error),
            }
        }
        if event.kind == StoredEventKind::EmailChangeRequested {
            return Ok(self.send_code_for_address(&account, now).await? || sent);
        }
        let verified = account.email_verified_at.zip(account.email.as_ref());
        if let Some((since, email)) = verified
            && let Some(letter) = self.letter(&who, event, since, now).await?
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
    ) -> Result<Option<Letter>, SkipMail> {
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
    ) -> Result<bool, SkipMail> {
        let asked = self.database.email_change(account.id).await?;
        // Confirmed already, or too late.
        let Some(asked) = asked.filter(|asked| now < asked.until()) else { return Ok(false) };
        let who = letters::who(account);
        let letter = letters::address_code(&who, &asked.code(&self.keys.row), asked.until());
        self.send(account, &asked.email, letter).await?;
        Ok(true)
    }

    async fn send(&self, account: &Account, sealed: &[u8], letter: Letter) -> Result<(), SkipMail> {
        let email = self.sealer.open_contact(account.id, "email", sealed)?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(email.parse().map_err(|_personal| SkipMail::Address)?)
            .subject(letter.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(letter.body)
            .map_err(|_personal| SkipMail::Address)?;
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
                return Err(MailDelayed::Smtp(kind(&error)).into());
            }
            if error.is_permanent() || attempt >= TRIES {
                return Err(SkipMail::Refused(kind(&error)));
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
fn lost(event: &StoredEvent, error: &SkipMail) {
    tracing::error!(event = %event.cursor, %error, "a mail was not sent");
    metrics::counter!("kms_mail_lost_total").increment(1);
}
