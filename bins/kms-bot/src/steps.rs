//! What the bot waits for in each private chat. Never a secret: only what it asked for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_types::{Asset, Email, QuoteAmount, Recipient, RecoveryId, TelegramId, TransferId};
use teloxide_core::types::MessageId;

use crate::screen::Shown;

/// After this long the bot does not take a text for an answer any more.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// For this long after a password was wanted, any text may be one.
const AFTERWARDS: Duration = Duration::from_secs(60 * 60);
/// From this many on, those that are over are looked for and removed.
const MANY: usize = 10_000;

/// What the next text is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The password of a new wallet.
    NewPassword,
    /// The password that confirms a transfer; the message shows it.
    SendPassword {
        /// Which.
        transfer: TransferId,
        /// What its owner saw and agreed to.
        shown: Shown,
        /// The message that shows it.
        message: MessageId,
    },
    /// Whom to pay.
    SendTo {
        /// How much, if that was said already.
        amount: Option<QuoteAmount>,
        /// Of what.
        asset: Asset,
    },
    /// How much to pay.
    SendAmount {
        /// Whom.
        to: Recipient,
        /// Of what, if the answer does not say.
        asset: Asset,
    },
    /// The old and the new password, on two lines.
    ChangePassword,
    /// The code of a recovery, from an e-mail.
    RecoveryCode {
        /// Which.
        id: RecoveryId,
    },
    /// The new password of a recovery.
    Recover {
        /// Which.
        id: RecoveryId,
    },
    /// A new e-mail address.
    EmailAddress,
    /// The password that changes the e-mail address.
    EmailPassword {
        /// The new one, or none.
        email: Option<Email>,
    },
    /// The code for a new e-mail address.
    EmailCode,
}

impl Step {
    /// Whether the next text is a secret.
    pub(crate) fn wants_password(&self) -> bool {
        match self {
            Self::NewPassword
            | Self::SendPassword { .. }
            | Self::ChangePassword
            | Self::Recover { .. }
            | Self::EmailPassword { .. } => true,
            Self::SendTo { .. }
            | Self::SendAmount { .. }
            | Self::RecoveryCode { .. }
            | Self::EmailAddress
            | Self::EmailCode => false,
        }
    }
}

/// What somebody is asked for, or was.
#[derive(Debug)]
struct Asked {
    since: Instant,
    step: Option<Step>,
    /// When a password was wanted last.
    wanted: Option<Instant>,
}

/// The step of everybody who is asked for something.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<HashMap<TelegramId, Asked>>);

impl Steps {
    pub(crate) fn set(&self, who: TelegramId, step: Step) {
        let (mut steps, now) = (self.lock(), Instant::now());
        if steps.len() >= MANY {
            steps.retain(|_, asked| asked.since.elapsed() < AFTERWARDS);
        }
        let before = steps.remove(&who).and_then(|asked| asked.wanted);
        let wanted = if step.wants_password() { Some(now) } else { before };
        steps.insert(who, Asked { since: now, step: Some(step), wanted });
    }

    pub(crate) fn get(&self, who: TelegramId) -> Option<Step> {
        let steps = self.lock();
        let asked = steps.get(&who).filter(|asked| asked.since.elapsed() < LIFETIME)?;
        asked.step.clone()
    }

    /// Ends the step, and gives it if there was one.
    pub(crate) fn end(&self, who: TelegramId) -> Option<Step> {
        let mut steps = self.lock();
        let asked = steps.get_mut(&who)?;
        let step = asked.step.take()?;
        if step.wants_password() {
            asked.wanted = Some(Instant::now());
        }
        Some(step).filter(|_| asked.since.elapsed() < LIFETIME)
    }

    /// Whether a password is wanted, or was until lately: people send it twice, or too late.
    pub(crate) fn wanted_password(&self, who: TelegramId) -> bool {
        let steps = self.lock();
        let wanted = steps.get(&who).and_then(|asked| asked.wanted);
        wanted.is_some_and(|wanted| wanted.elapsed() < AFTERWARDS)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
