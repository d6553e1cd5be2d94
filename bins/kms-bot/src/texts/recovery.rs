//! What the bot says about forgotten passwords and e-mail addresses.

use kms_types::wire::{Account, Recovery, RecoveryState};
use kms_types::{Email, EthAddress, Timestamp};

use super::{NOT_END_TO_END, esc, time};

pub(crate) const RECOVERY_START: &str = "🛟 Ask for a new password";
pub(crate) const RECOVERY_SET: &str = "🔑 Set the new password";
pub(crate) const RECOVERY_STOP: &str = "✖️ This was not me: stop it";
pub(crate) const EMAIL: &str = "✉️ Give an address";
pub(crate) const NO_EMAIL: &str = "🗑 Forget the address";

pub(crate) const RECOVERING: &str = "⏳ Recovering your wallet…";
pub(crate) const RECOVERY_ASKED: &str = "🛟 You asked for a new password.";
pub(crate) const RECOVERY_STOPPING: &str = "✖️ Stopped. Your password is what it was before.";
pub(crate) const RECOVERY_CANCELLED: &str = "✖️ No new password will be set: that was cancelled. \
     Your password is what it was before.";
pub(crate) const RECOVERY_EXPIRED: &str = "⌛ The time to set a new password is over, and nothing \
     was changed. Write /recover to ask again.";
pub(crate) const RECOVERY_ENDED: &str = "That is over. Write /recover to see how it stands.";
pub(crate) const CODE_FORM: &str = "A code has 8 digits. Send it as it stands in the mail.";
pub(crate) const CODE_RIGHT: &str = "✅ The code is right.";

pub(crate) const ASK_EMAIL: &str = "✉️ Which e-mail address? Send it as your next message. I will \
     send a code there.";
pub(crate) const EMAIL_FORM: &str = "I can not read that address. It looks like name@example.org.";
pub(crate) const EMAIL_GONE: &str = "✉️ Your address is forgotten.";
pub(crate) const EMAIL_ASKING: &str = "⏳ One moment…";
pub(crate) const EMAIL_ASKED: &str = "✉️ Another e-mail address was asked for, with your password. If \
     that was not you, change the password with /password.";
pub(crate) const EMAIL_CHANGED: &str = "✉️ Your e-mail address was changed. If that was not you, \
     somebody knows your password: change it with /password.";

pub(crate) fn how_recovery() -> String {
    "🛟 <b>If you forget your password</b>\nWrite /recover. After a wait you choose a new one. Your \
     address and your money stay the same; there is no seed phrase to keep. With an e-mail address \
     (/contact) the wait is short.\n\nHow that works: your key is locked with your password, and a \
     second copy of that lock's key is kept encrypted for the service's own key. Every use of it is \
     recorded. So the service could open your wallet, and so could somebody who takes over your \
     Telegram account and stays unseen during the wait: protect that account with a two-step \
     password."
        .to_owned()
}

pub(crate) fn ask_recovery() -> String {
    "🛟 <b>You forgot your password?</b>\nThe service can open your wallet with its own key, and \
     lock it with a new password. Your address and your money stay the same.\n\nSo that nobody does \
     this in your place, some time passes first. I tell you about each step, here and by e-mail if \
     you gave an address, and you can stop it at any time: with a button, or simply by using your \
     old password."
        .to_owned()
}

/// It was asked for; nothing if that is over.
pub(crate) fn recovery_requested(recovery: &Recovery) -> Option<String> {
    let asked = format!(
        "🛟 A new password for your wallet was asked for on {}.",
        time(recovery.requested_at)
    );
    let next = match (recovery.state, &recovery.code_sent_to, recovery.code_until) {
        (RecoveryState::CodeSent, Some(to), Some(until)) => format!(
            "I sent a code to {}. Send it to me as your next message until {}; then the wait is \
             short. Without the code it lasts until {}.",
            esc(to),
            time(until),
            time(recovery.ready_at)
        ),
        (RecoveryState::CodeSent | RecoveryState::Waiting, ..) => {
            format!("You can set it from {} on. I will write to you then.", time(recovery.ready_at))
        }
        // The next notice says it.
        _ => return None,
    };
    Some(format!("{asked}\n\n{next}"))
}

pub(crate) fn recovery_confirmed(recovery: &Recovery) -> Option<String> {
    (recovery.state == RecoveryState::Waiting).then(|| {
        format!(
            "🛟 The code was right: you can set a new password from {} on. I will write to you then.",
            time(recovery.ready_at)
        )
    })
}

pub(crate) fn recovery_ready(recovery: &Recovery) -> Option<String> {
    (recovery.state == RecoveryState::Ready).then(|| {
        format!(
            "🛟 The wait is over: you can set the new password for your wallet until {}.",
            time(recovery.expires_at)
        )
    })
}

pub(crate) fn ask_recovery_password() -> String {
    format!(
        "🔑 Send the new password for your wallet as your next message. The old one will not work \
         any more.\n\n<i>{NOT_END_TO_END}</i>"
    )
}

pub(crate) fn recovery_done(address: EthAddress) -> String {
    format!(
        "✅ Your wallet is recovered, and the new password works. It has the same address:\n\
         <code>{address}</code>"
    )
}

pub(crate) fn recovered(at: Timestamp) -> String {
    format!(
        "🔐 Your wallet was recovered with a new password on {}. If that was not you, somebody \
         uses your Telegram account: end their session in Telegram's settings, and ask whoever \
         runs this bot to freeze the wallet.",
        time(at)
    )
}

pub(crate) fn contact(account: &Account) -> String {
    match (&account.email, account.email_verified_at) {
        (Some(email), Some(at)) => format!(
            "✉️ Your e-mail address is {}, since {}. It is told what happens to your password, and \
             makes the wait short if you forget it.",
            esc(email),
            time(at)
        ),
        _ => "✉️ You have given no e-mail address. With one you are told there, too, what happens \
              to your password, and the wait is short if you forget it. Nobody else sees it."
            .to_owned(),
    }
}

pub(crate) fn ask_email_password(email: Option<&Email>) -> String {
    let what = match email {
        Some(email) => format!("Your address will be {}.", esc(email.as_str())),
        None => "Your address will be forgotten.".to_owned(),
    };
    format!("✉️ {what}\n\n🔑 Send your password as your next message to confirm.")
}

pub(crate) fn ask_email_code(email: &Email) -> String {
    format!("✉️ I sent a code to {}. Send it to me as your next message.", esc(email.as_str()))
}
