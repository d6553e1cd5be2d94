//! The e-mails: Fluent messages of `i18n/en/kms-server.ftl`, in
//! plain text, with no other links than those that cancel a recovery or freeze the wallet.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use chrono::DateTime;
use i18n_embed::fluent::FluentLanguageLoader;
use i18n_embed::{I18nAssets, LanguageLoader};
use i18n_embed_fl::fl;
use kms_core::account::Account;
use kms_core::recovery::{Recovery, RecoveryCode};
use kms_types::{OneTimeCode, SecurityEvent, TelegramId, Timestamp};

/// An e-mail without its recipient. It may hold a code, and so has no `Debug`.
#[derive(Clone)]
pub(super) struct Email {
    pub(super) subject: String,
    pub(super) body: String,
}

/// The owner of a wallet, as e-mails name them, and the link with which they freeze it.
pub(super) struct Owner {
    name: String,
    freeze_link: String,
}

impl Owner {
    /// The owner of this account.
    pub(super) fn of(account: &Account, freeze_link: String) -> Self {
        let username = account.username.as_ref().map(ToString::to_string);
        Self::new(username.as_deref(), account.telegram_id, freeze_link)
    }

    /// Keeps only the characters that a username can have, should an invalid one ever be stored.
    fn new(username: Option<&str>, id: TelegramId, freeze_link: String) -> Self {
        let is_valid = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        let name: String = username.unwrap_or_default().chars().filter(is_valid).collect();
        let name = match name.as_str() {
            "" => format!("Telegram user {id}"),
            name => format!("@{name} (Telegram user {id})"),
        };
        Self { name, freeze_link }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Renders the subject and the body with these ids, and checks ids and variables at compile time.
macro_rules! email {
    ($subject:literal, $body:literal $(, $name:ident = $value:expr)* $(,)?) => {
        Email {
            subject: fl!(messages(), $subject),
            body: text!($body $(, $name = $value)*) + "\n",
        }
    };
}

macro_rules! text {
    ($id:literal $(, $name:ident = $value:expr)* $(,)?) => {
        fl!(messages(), $id $(, $name = $value.to_string())*)
    };
}

/// Adds the sign by which the owner knows the page, if there is one.
pub(super) fn signed(email: &Email, sign: Option<&str>) -> Email {
    let Email { subject, body } = email.clone();
    match sign {
        Some(sign) => Email { subject, body: format!("{body}\n{}\n", text!("sign", sign = sign)) },
        None => Email { subject, body },
    }
}

pub(super) fn recovery_requested(
    owner: &Owner,
    recovery: &Recovery,
    code: Option<(OneTimeCode, Timestamp)>,
    at: Timestamp,
    link: &str,
) -> Email {
    let ready = time(recovery.ready_at);
    let next = match code {
        Some((code, until)) => text!(
            "recovery-requested-with-code",
            code = spaced(&code),
            until = time(until),
            ready = ready
        ),
        None => text!("recovery-requested-without-code", ready = ready),
    };
    email!(
        "recovery-requested-subject",
        "recovery-requested-body",
        owner = owner,
        at = time(at),
        next = next,
        link = link,
        freeze = owner.freeze_link
    )
}

pub(super) fn recovery_confirmed(
    owner: &Owner,
    recovery: &Recovery,
    at: Timestamp,
    link: &str,
) -> Email {
    email!(
        "recovery-confirmed-subject",
        "recovery-confirmed-body",
        owner = owner,
        at = time(at),
        ready = time(recovery.ready_at),
        link = link,
        freeze = owner.freeze_link
    )
}

pub(super) fn recovery_ready(
    owner: &Owner,
    recovery: &Recovery,
    at: Timestamp,
    link: &str,
) -> Email {
    let reminder = match recovery.code {
        RecoveryCode::Sent { .. } => format!(" {}", text!("recovery-ready-code-unused")),
        RecoveryCode::None | RecoveryCode::Confirmed => String::new(),
    };
    email!(
        "recovery-ready-subject",
        "recovery-ready-body",
        owner = owner,
        at = time(at),
        expires = time(recovery.expires_at),
        reminder = reminder,
        link = link,
        freeze = owner.freeze_link
    )
}

pub(super) fn move_requested(
    owner: &Owner,
    recovery: &Recovery,
    at: Timestamp,
    link: &str,
) -> Email {
    email!(
        "move-requested-subject",
        "move-requested-body",
        owner = owner,
        to = moves_to(recovery),
        at = time(at),
        ready = time(recovery.ready_at),
        link = link,
        freeze = owner.freeze_link
    )
}

pub(super) fn move_ready(owner: &Owner, recovery: &Recovery, at: Timestamp, link: &str) -> Email {
    email!(
        "move-ready-subject",
        "move-ready-body",
        owner = owner,
        to = moves_to(recovery),
        at = time(at),
        expires = time(recovery.expires_at),
        link = link,
        freeze = owner.freeze_link
    )
}

fn moves_to(recovery: &Recovery) -> String {
    recovery.moves_to.map(|to| to.to_string()).unwrap_or_default()
}

/// Defines e-mails that name the owner and the time of the event alone.
macro_rules! emails_of_owner_and_time {
    ($($function:ident: $subject:literal, $body:literal;)*) => {
        $(
            pub(super) fn $function(owner: &Owner, at: Timestamp) -> Email {
                email!($subject, $body, owner = owner, at = time(at), freeze = owner.freeze_link)
            }
        )*

        /// All of them.
        #[cfg(test)]
        const OF_OWNER_AND_TIME: &[fn(&Owner, Timestamp) -> Email] = &[$($function),*];
    };
}

emails_of_owner_and_time! {
    recovery_completed: "recovery-completed-subject", "recovery-completed-body";
    recovery_cancelled: "recovery-cancelled-subject", "recovery-cancelled-body";
    moved: "moved-subject", "moved-body";
    move_cancelled: "move-cancelled-subject", "move-cancelled-body";
    email_change_requested: "email-change-requested-subject", "email-change-requested-body";
    email_removed: "email-removed-subject", "email-removed-body";
    email_confirmed: "email-confirmed-subject", "email-confirmed-body";
}

/// The e-mail about a security event: the message that the event names, and its attribute
/// `subject`.
pub(super) fn security_event(event: SecurityEvent, owner: &Owner, at: Timestamp) -> Email {
    macro_rules! emails {
        ($($(#[$about:meta])* $event:ident = $text:literal, $id:literal, $remedy:ident;)+) => {
            match event {
                $(SecurityEvent::$event => Email {
                    subject: fl!(messages(), $id, "subject"),
                    body: text!($id, owner = owner, at = time(at), freeze = owner.freeze_link)
                        + "\n",
                },)+
            }
        };
    }
    kms_types::with_security_events!(emails)
}

pub(super) fn email_code(owner: &Owner, code: &OneTimeCode, until: Timestamp) -> Email {
    email!(
        "email-code-subject",
        "email-code-body",
        owner = owner,
        code = spaced(code),
        until = time(until)
    )
}

/// A code as two groups of four digits.
fn spaced(code: &OneTimeCode) -> String {
    let (first, second) = code.expose().split_at(4);
    format!("{first} {second}")
}

fn time(at: Timestamp) -> String {
    let date = DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    date.format("%-d %B %Y, %H:%M UTC").to_string()
}

/// The messages of all languages.
fn messages() -> &'static FluentLanguageLoader {
    static MESSAGES: LazyLock<FluentLanguageLoader> = LazyLock::new(|| {
        let loader = i18n_embed::fluent::fluent_language_loader!();
        // Cannot fail: the file is part of the program, and a test renders every message of it.
        if let Err(error) = loader.load_languages(&Embedded, &[loader.fallback_language().clone()])
        {
            tracing::error!(%error, event = "texts_not_loaded", "e-mail texts not loaded");
        }
        // Isolation marks would be copied together with codes and links.
        loader.set_use_isolating(false);
        loader
    });
    &MESSAGES
}

/// The Fluent files that are part of the program.
struct Embedded;

impl Embedded {
    const PATH: &str = "en/kms-server.ftl";
    const MESSAGES: &str = include_str!("../../i18n/en/kms-server.ftl");
}

impl I18nAssets for Embedded {
    fn get_files(&self, path: &str) -> Vec<Cow<'_, [u8]>> {
        let found = (path == Self::PATH).then_some(Cow::Borrowed(Self::MESSAGES.as_bytes()));
        found.into_iter().collect()
    }

    fn filenames_iter(&self) -> Box<dyn Iterator<Item = String> + '_> {
        Box::new(std::iter::once(Self::PATH.to_owned()))
    }
}

#[cfg(test)]
mod tests;
