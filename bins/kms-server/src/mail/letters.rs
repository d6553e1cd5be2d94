//! What the mails say: plain text, without a link but the one that cancels.

use chrono::DateTime;
use kms_core::account::Account;
use kms_core::recovery::{Recovery, RecoveryCode};
use kms_types::{OneTimeCode, Timestamp};

/// A mail without its address. It may hold a code, and so has no `Debug`.
pub(super) struct Letter {
    pub(super) subject: &'static str,
    pub(super) body: String,
}

/// Whose wallet a mail speaks of. Names are letters, digits and underscores.
pub(super) fn who(account: &Account) -> String {
    match &account.username {
        Some(name) => format!("{name} (Telegram user {})", account.telegram_id),
        None => format!("Telegram user {}", account.telegram_id),
    }
}

const NOT_YOU: &str = "If this was not you, somebody else may have access to your Telegram account: \
    end its other sessions in Telegram under Settings > Devices, and set a two-step password there.";

fn time(at: Timestamp) -> String {
    let date = DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    date.format("%-d %B %Y, %H:%M UTC").to_string()
}

pub(super) fn requested(
    who: &str,
    recovery: &Recovery,
    code: Option<(OneTimeCode, Timestamp)>,
    at: Timestamp,
    link: &str,
) -> Letter {
    let ready = time(recovery.ready_at);
    let next = match code {
        Some((code, until)) => {
            let (first, second) = code.expose().split_at(4);
            format!(
                "The code is\n\n    {first} {second}\n\nSend it to the bot before {}; then the \
                 wait is short. Without the code it lasts until {ready}. Give the code to nobody \
                 else: nobody who works for us asks for it.",
                time(until)
            )
        }
        None => format!("A new password can be set from {ready} on."),
    };
    Letter {
        subject: "Your wallet: a new password was asked for",
        body: format!(
            "For the wallet of {who} a new password was asked for, because the old one was \
             forgotten.\nThat was on {}.\n\n{next}\n\n{}",
            time(at),
            stop(link)
        ),
    }
}

fn stop(link: &str) -> String {
    format!(
        "If this was not you, stop it here:\n{link}\nUsing the wallet with its password stops it \
         too.\n\n{NOT_YOU}\n"
    )
}

pub(super) fn confirmed(who: &str, recovery: &Recovery, link: &str) -> Letter {
    Letter {
        subject: "Your wallet: the code was right",
        body: format!(
            "The code for a new password of the wallet of {who} was right. The password can be \
             set from {} on.\n\n{}",
            time(recovery.ready_at),
            stop(link)
        ),
    }
}

pub(super) fn ready(who: &str, recovery: &Recovery, link: &str) -> Letter {
    let code = match recovery.code {
        RecoveryCode::Sent { .. } => " The code from the mail was not given.",
        RecoveryCode::None | RecoveryCode::Confirmed => "",
    };
    Letter {
        subject: "Your wallet: a new password can be set now",
        body: format!(
            "The wait is over: until {} a new password can be set for the wallet of {who}.{code} \
             Write /recover to the bot.\n\n{}",
            time(recovery.expires_at),
            stop(link)
        ),
    }
}

pub(super) fn completed(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet has a new password",
        body: format!(
            "The wallet of {who} was recovered on {}: it has a new password, and the same address \
             and money as before. The old password does not work any more.\n\nIf this was not you, \
             ask whoever runs the bot at once to freeze the wallet.\n{NOT_YOU}\n",
            time(at)
        ),
    }
}

pub(super) fn cancelled(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet: the new password was cancelled",
        body: format!(
            "On {} it was cancelled that the wallet of {who} gets a new password. The password is \
             what it was before.\n",
            time(at)
        ),
    }
}

pub(super) fn password_changed(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet: the password was changed",
        body: format!(
            "The password of the wallet of {who} was changed on {}, by somebody who knew the old \
             one.\n\nIf this was not you, ask whoever runs the bot at once to freeze the \
             wallet.\n{NOT_YOU}\n",
            time(at)
        ),
    }
}

pub(super) fn key_exported(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet: its key was exported",
        body: format!(
            "The key of the wallet of {who} was exported on {}, by somebody who knew the password. \
             Whoever has that file and its passphrase can spend everything in this wallet, now and \
             later, without the bot.\n\nIf this was you, keep the two in different places, and \
             give neither away.\n\nIf this was not you, a new password does not help: the key is \
             out. Make a wallet in another app now, and send everything there: write /send to the \
             bot, with the new address and \"all\", and the same for each token.\n{NOT_YOU}\n",
            time(at)
        ),
    }
}

pub(super) fn raise_asked(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet: a higher spending limit was asked for",
        body: format!(
            "On {} it was asked from your Telegram account that more may be spent in a day from the \
             wallet of {who}. That holds 24 hours later at the soonest.\n\nIf this was not you, \
             take it back: write /limit to the bot, which shows what holds now, and then /limit with \
             that amount. It needs no password.\n{NOT_YOU}\n",
            time(at)
        ),
    }
}

pub(super) fn address_asked(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet: another e-mail address was asked for",
        body: format!(
            "On {} somebody who knows the password asked that the wallet of {who} writes to \
             another address than this one. Once that address is confirmed, nothing is sent here \
             any more.\n\nIf this was not you, change the password now: write /password to the \
             bot.\n{NOT_YOU}\n",
            time(at)
        ),
    }
}

pub(super) fn address_gone(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet does not write to this address any more",
        body: format!(
            "Since {} the wallet of {who} tells this address nothing any more: it has another one, \
             or none.\n\nIf this was not you, change the password now: write /password to the \
             bot.\n{NOT_YOU}\n",
            time(at)
        ),
    }
}

pub(super) fn address_changed(who: &str, at: Timestamp) -> Letter {
    Letter {
        subject: "Your wallet writes to this address",
        body: format!(
            "Since {} the wallet of {who} tells this address what happens to its password. If it \
             is forgotten, a code is sent here.\n",
            time(at)
        ),
    }
}

pub(super) fn address_code(who: &str, code: &OneTimeCode, until: Timestamp) -> Letter {
    let (first, second) = code.expose().split_at(4);
    Letter {
        subject: "Your code",
        body: format!(
            "The wallet of {who} shall write to this address. If that is what you want, send the \
             bot this code before {}:\n\n    {first} {second}\n\nIf you do not know of it, do \
             nothing.\n",
            time(until)
        ),
    }
}
