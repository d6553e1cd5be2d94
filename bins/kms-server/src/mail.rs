//! E-mails to the owners of wallets: recovery codes and security alerts, on a second channel that
//! an attacker who compromised the chat or the bot does not have.
//!
//! E-mails follow from events, in their order and at least once. A code is derived when its e-mail
//! is written, and is stored nowhere. Codes and addresses must never be logged.

mod emails;
mod smtp;

use std::sync::Arc;
use std::time::Duration;

use kms_core::account::{Account, AccountState};
use kms_core::freeze::FreezeLink;
use kms_core::ports::{AccountStore, EmailChangeStore, RecoveryStore, StoreError};
use kms_core::recovery::{Recovery, RecoveryRules};
use kms_core::{RowMacError, SealError, Sealer, ServerKeys};
use kms_store::{Database, RateLimit, StoredEvent};
use kms_types::{AccountEvent, AccountRef, EventKind, RecoveryStep, SecurityEvent, Timestamp};
use metrics::counter;

use self::emails::{Email, Owner};
pub use self::smtp::MailSettingsError;
use self::smtp::{Smtp, SmtpError};
use crate::clock;
use crate::config::MailSettings;

/// Reports older than this are dropped: they happened before e-mail was configured, or the SMTP
/// server was down for too long.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Events further in the future than this are not reported: no clock is that wrong.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Sends the e-mails that events call for.
#[derive(Clone)]
pub(crate) struct Mailer {
    smtp: Smtp,
    public_url: String,
    database: Database,
    sealer: Sealer,
    keys: Arc<ServerKeys>,
    rules: RecoveryRules,
    /// The limit on reports to one account.
    limit: RateLimit,
}

/// The order in which e-mails are sent: those of one lane do not wait for those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// About what is still open: a recovery, a freeze, a request to lift one or to leave the page,
    /// or a code for a new address.
    Urgent,
    /// Reports of what has happened.
    Reports,
}

impl Lane {
    /// The lane of an event; `None` if it sends no e-mail. E-mails report what affects who can use
    /// a wallet, and not its payments.
    pub(crate) fn of(kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::Recovery(_)
            | EventKind::Account(AccountEvent::EmailChangeRequested)
            | EventKind::Security(
                // After the first two the wallet is frozen. A freeze does not wait for a clock, so
                // the time of its event may be wrong.
                SecurityEvent::AccountFrozen
                | SecurityEvent::UnfreezeCancelled
                | SecurityEvent::UnfreezeRequested
                | SecurityEvent::PageLeaveRequested,
            ) => Some(Self::Urgent),
            EventKind::Security(_) | EventKind::Account(AccountEvent::EmailChanged) => {
                Some(Self::Reports)
            }
            EventKind::Account(AccountEvent::Created)
            | EventKind::Transfer(_)
            | EventKind::Deposit(_) => None,
        }
    }
}

/// Why all e-mails have to wait.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailDelayed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("SMTP server unavailable ({0})")]
    Smtp(String),
    #[error("a newer version of a server key is in use; restart this server with it")]
    NewerKey,
}

/// Why one e-mail is not sent.
#[derive(Debug, thiserror::Error)]
enum SkipMail {
    #[error(transparent)]
    Delayed(#[from] MailDelayed),
    #[error("unreadable row: {0}")]
    Unreadable(StoreError),
    #[error("sealed address: {0}")]
    Sealed(#[from] SealError),
    #[error("codes key: {0}")]
    CodesKey(#[from] RowMacError),
    #[error(transparent)]
    Smtp(SmtpError),
}

impl From<StoreError> for SkipMail {
    /// A row that fails its integrity check skips one e-mail, and must not delay the others.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::Delayed(error.into()),
            other => Self::Unreadable(other),
        }
    }
}

impl From<SmtpError> for SkipMail {
    fn from(error: SmtpError) -> Self {
        match error {
            SmtpError::Unavailable(reason) => Self::Delayed(MailDelayed::Smtp(reason)),
            SmtpError::Address | SmtpError::Rejected(_) => Self::Smtp(error),
        }
    }
}

impl Mailer {
    /// Logs in to the SMTP server, and sends nothing.
    ///
    /// # Errors
    /// When the settings cannot be used, or the server does not answer or refuses the login.
    pub(crate) async fn accepts_login(settings: &MailSettings) -> anyhow::Result<()> {
        Ok(Smtp::new(settings)?.log_in().await?)
    }

    /// # Errors
    /// When the settings cannot be used.
    pub(crate) fn new(
        settings: &MailSettings,
        database: Database,
        sealer: Sealer,
        keys: Arc<ServerKeys>,
        rules: RecoveryRules,
        limit: RateLimit,
    ) -> Result<Self, MailSettingsError> {
        let (smtp, public_url) = (Smtp::new(settings)?, settings.public_url.as_str().to_owned());
        Ok(Self { smtp, public_url, database, sealer, keys, rules, limit })
    }

    /// Sends the e-mails of an event; returns whether there were any. One that cannot be sent is
    /// logged, because those after it must not wait for it.
    pub(crate) async fn notify(&self, event: &StoredEvent) -> Result<bool, MailDelayed> {
        let now = clock::now();
        // The e-mail of what is open depends on its state, and not on the event's age.
        if !is_recent(event, now) && Lane::of(event.kind) == Some(Lane::Reports) {
            let (cursor, kind) = (event.cursor, event.kind.as_str());
            tracing::warn!(event = "mail_dropped", %cursor, kind, "e-mail too old to be sent");
            counter!("kms_mail_dropped_total").increment(1);
            return Ok(false);
        }
        match self.send_all(event, now).await {
            Ok(sent) => Ok(sent),
            Err(SkipMail::Delayed(delayed)) => Err(delayed),
            Err(error) if self.needs_newer_key(&error) => Err(MailDelayed::NewerKey),
            Err(error) => {
                log_skipped(event, &error);
                Ok(false)
            }
        }
    }

    /// Whether the e-mail needs a newer version of a server key than this server is configured
    /// with: the others were restarted first, and this one is next.
    fn needs_newer_key(&self, error: &SkipMail) -> bool {
        match error {
            SkipMail::CodesKey(RowMacError::NoKey(version)) => *version > self.keys.codes.current(),
            SkipMail::Sealed(SealError::NoKey(version)) => *version > self.keys.contact.current(),
            SkipMail::Unreadable(StoreError::NoRowKey { version, .. }) => {
                *version > self.keys.row.current()
            }
            _ => false,
        }
    }

    /// Counts a report against the limit of its account, once however often it is repeated.
    async fn is_within_limit(&self, event: &StoredEvent) -> Result<bool, MailDelayed> {
        if Lane::of(event.kind) != Some(Lane::Reports) {
            return Ok(true);
        }
        let key = format!("mail:{}", event.account);
        let taken = self.database.take_once(event.cursor, &[(&key, self.limit)]).await?;
        if taken.is_err() {
            let (cursor, kind) = (event.cursor, event.kind.as_str());
            tracing::warn!(event = "mail_dropped", %cursor, kind, "e-mail over the limit dropped");
            counter!("kms_mail_dropped_total").increment(1);
        }
        Ok(taken.is_ok())
    }

    async fn send_all(&self, event: &StoredEvent, now: Timestamp) -> Result<bool, SkipMail> {
        match event.kind {
            EventKind::Security(kind) => {
                let Some(account) = self.account(event).await? else { return Ok(false) };
                let is_over = match kind {
                    SecurityEvent::AccountFrozen | SecurityEvent::UnfreezeCancelled => {
                        !is_recent(event, now) && account.state == AccountState::Active
                    }
                    SecurityEvent::UnfreezeRequested => account.unfreezes_at.is_none(),
                    SecurityEvent::PageLeaveRequested => account.page_only_until.is_none(),
                    _ => false,
                };
                if is_over {
                    // What ended it has an event of its own.
                    return Ok(false);
                }
                // If the time of the event is wrong, today's addresses and a new link are used.
                let at = if is_recent(event, now) { event.at } else { now };
                let email = emails::security_event(kind, &self.owner(&account, at), event.at);
                self.send_to(event, &account, &protecting(&account, at), &email).await
            }
            EventKind::Recovery(step) => {
                let Some(account) = self.account(event).await? else { return Ok(false) };
                self.send_recovery(step, event, &account, now).await
            }
            EventKind::Account(AccountEvent::EmailChangeRequested) => {
                let Some(account) = self.account(event).await? else { return Ok(false) };
                let email =
                    emails::email_change_requested(&self.owner(&account, event.at), event.at);
                let former = account.former_email_at(event.at);
                let addresses: Vec<_> =
                    event.contact.as_deref().into_iter().chain(former).collect();
                let warned = self.send_to(event, &account, &addresses, &email).await?;
                Ok(self.send_address_code(&account, now).await? || warned)
            }
            EventKind::Account(AccountEvent::EmailChanged) => {
                let Some(account) = self.account(event).await? else { return Ok(false) };
                let owner = self.owner(&account, event.at);
                let previous: Vec<_> = event.contact.as_deref().into_iter().collect();
                let email = emails::email_removed(&owner, event.at);
                let warned = self.send_to(event, &account, &previous, &email).await?;
                let email = emails::email_confirmed(&owner, event.at);
                let own: Vec<_> = verified_email(&account).into_iter().collect();
                Ok(self.send_to(event, &account, &own, &email).await? || warned)
            }
            EventKind::Account(AccountEvent::Created)
            | EventKind::Transfer(_)
            | EventKind::Deposit(_) => Ok(false),
        }
    }

    async fn account(&self, event: &StoredEvent) -> Result<Option<Account>, StoreError> {
        self.database.account(AccountRef::Id(event.account)).await
    }

    /// Sends an e-mail to the addresses that protect the account.
    async fn send_to_owner(
        &self,
        event: &StoredEvent,
        account: &Account,
        email: &Email,
    ) -> Result<bool, SkipMail> {
        self.send_to(event, account, &protecting(account, event.at), email).await
    }

    /// Sends an e-mail to each of these addresses. The failure of one does not keep it from the
    /// others.
    async fn send_to(
        &self,
        event: &StoredEvent,
        account: &Account,
        addresses: &[&[u8]],
        email: &Email,
    ) -> Result<bool, SkipMail> {
        let sign = self.database.known_sign(account.id).await?;
        let email = emails::signed(email, sign.as_deref());
        let mut is_sent = false;
        for address in addresses {
            if !self.is_within_limit(event).await? {
                return Ok(is_sent);
            }
            match self.send(account, address, email.clone()).await {
                Ok(()) => is_sent = true,
                Err(delayed @ SkipMail::Delayed(_)) => return Err(delayed),
                Err(error) => log_skipped(event, &error),
            }
        }
        Ok(is_sent)
    }

    /// Sends the confirmation code of a new address to that address.
    async fn send_address_code(&self, account: &Account, now: Timestamp) -> Result<bool, SkipMail> {
        let change = self.database.email_change(account.id).await?;
        // It may be confirmed or expired by now.
        let Some(change) = change.filter(|change| now < change.until()) else { return Ok(false) };
        let owner = self.owner(account, change.requested_at);
        let code = change.code(&self.keys.codes)?;
        let email = emails::email_code(&owner, &code, change.until());
        self.send(account, &change.email, email).await?;
        Ok(true)
    }

    async fn send_recovery(
        &self,
        step: RecoveryStep,
        event: &StoredEvent,
        account: &Account,
        now: Timestamp,
    ) -> Result<bool, SkipMail> {
        let Some(id) = event.recovery else { return Ok(false) };
        let Some(recovery) = self.database.recovery(id).await? else { return Ok(false) };
        let (owner, at) = (self.owner(account, event.at), event.at);
        let is_open = recovery.is_open(now);
        let link = if is_open { self.cancel_link(&recovery)? } else { String::new() };
        let email = match step {
            RecoveryStep::Requested if is_open => {
                let code = recovery.code_until(now);
                let code = code.map(|until| Ok((recovery.code(&self.keys.codes)?, until)));
                let code = code.transpose().map_err(SkipMail::CodesKey)?;
                // To the trusted address alone: an attacker may have confirmed another one shortly
                // before.
                let trusted =
                    account.trusted_email(recovery.requested_at, self.rules.email_trusted_after);
                let mut others = protecting(account, recovery.requested_at);
                others.retain(|address| Some(*address) != trusted);
                let trusted: Vec<_> = trusted.into_iter().collect();
                let with_code = emails::recovery_requested(&owner, &recovery, code, at, &link);
                let sent = self.send_to(event, account, &trusted, &with_code).await?;
                let without = emails::recovery_requested(&owner, &recovery, None, at, &link);
                return Ok(self.send_to(event, account, &others, &without).await? || sent);
            }
            RecoveryStep::CodeConfirmed if is_open => {
                emails::recovery_confirmed(&owner, &recovery, at, &link)
            }
            RecoveryStep::Ready if is_open => emails::recovery_ready(&owner, &recovery, at, &link),
            RecoveryStep::Completed => emails::recovery_completed(&owner, at),
            RecoveryStep::Cancelled => emails::recovery_cancelled(&owner, at),
            RecoveryStep::MoveRequested if is_open => {
                emails::move_requested(&owner, &recovery, at, &link)
            }
            RecoveryStep::MoveReady if is_open => emails::move_ready(&owner, &recovery, at, &link),
            RecoveryStep::Moved => emails::moved(&owner, at),
            RecoveryStep::MoveCancelled => emails::move_cancelled(&owner, at),
            // A later step has its own e-mail.
            RecoveryStep::Requested
            | RecoveryStep::CodeConfirmed
            | RecoveryStep::Ready
            | RecoveryStep::MoveRequested
            | RecoveryStep::MoveReady => return Ok(false),
            // Nothing changed.
            RecoveryStep::Expired | RecoveryStep::MoveExpired => return Ok(false),
        };
        self.send_to_owner(event, account, &email).await
    }

    fn owner(&self, account: &Account, at: Timestamp) -> Owner {
        let link = FreezeLink::new(account.id, at, &self.rules);
        let mac = link.mac(&self.keys.codes);
        Owner::of(account, format!("{}{link}/{mac}", self.public_url))
    }

    fn cancel_link(&self, recovery: &Recovery) -> Result<String, RowMacError> {
        let (id, mac) = (recovery.id, recovery.cancel_mac(&self.keys.codes)?);
        Ok(format!("{}/recoveries/{id}/cancel/{mac}", self.public_url))
    }

    async fn send(&self, account: &Account, sealed: &[u8], email: Email) -> Result<(), SkipMail> {
        let address = self.sealer.open_contact(account.id, "email", sealed)?;
        Ok(self.smtp.send(&address, email).await?)
    }
}

/// Whether an event has a time that a report can be about.
fn is_recent(event: &StoredEvent, now: Timestamp) -> bool {
    now.since(event.at) <= MAX_AGE && event.at.since(now) <= MAX_CLOCK_SKEW
}

fn verified_email(account: &Account) -> Option<&[u8]> {
    account.email.as_deref().filter(|_email| account.email_verified_at.is_some())
}

/// The addresses that protect the account: the former one until the confirmed one is trusted, and
/// that.
fn protecting(account: &Account, at: Timestamp) -> Vec<&[u8]> {
    account.former_email_at(at).into_iter().chain(verified_email(account)).collect()
}

fn log_skipped(event: &StoredEvent, error: &SkipMail) {
    tracing::error!(event = "mail_skipped", cursor = %event.cursor, %error, "e-mail skipped");
    counter!("kms_mail_lost_total").increment(1);
}
