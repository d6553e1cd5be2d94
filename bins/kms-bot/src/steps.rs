//! What the bot waits for in each private chat. Never a secret: only what it asked for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_types::wire::QuoteAmount;
use kms_types::{Recipient, RecoveryId, TelegramId, TransferId};
use teloxide_core::types::MessageId;

use crate::send::Shown;

/// After this long the bot does not take a text for an answer any more.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// For this long after a password was wanted, any text may be one.
const AFTERWARDS: Duration = Duration::from_secs(2 * 60);
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
    },
    /// How much to pay.
    SendAmount {
        /// Whom.
        to: Recipient,
    },
    /// The old and the new password, on two lines.
    ChangePassword,
    /// The new password of a recovery.
    Recover {
        /// Which.
        id: RecoveryId,
    },
}

impl Step {
    /// Whether the next text is a secret.
    pub(crate) fn wants_password(&self) -> bool {
        match self {
            Self::NewPassword
            | Self::SendPassword { .. }
            | Self::ChangePassword
            | Self::Recover { .. } => true,
            Self::SendTo { .. } | Self::SendAmount { .. } => false,
        }
    }
}

/// What somebody is asked for.
#[derive(Debug)]
struct Asked {
    since: Instant,
    /// `None` once a password was given or is not wanted any more.
    step: Option<Step>,
}

/// The step of everybody who is asked for something.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<HashMap<TelegramId, Asked>>);

impl Steps {
    pub(crate) fn set(&self, who: TelegramId, step: Step) {
        let mut steps = self.lock();
        if steps.len() >= MANY {
            steps.retain(|_, asked| asked.since.elapsed() < LIFETIME);
        }
        steps.insert(who, Asked { since: Instant::now(), step: Some(step) });
    }

    pub(crate) fn get(&self, who: TelegramId) -> Option<Step> {
        let steps = self.lock();
        let asked = steps.get(&who).filter(|asked| asked.since.elapsed() < LIFETIME)?;
        asked.step.clone()
    }

    /// Ends the step, and says whether there was one.
    pub(crate) fn end(&self, who: TelegramId) -> bool {
        let mut steps = self.lock();
        let Some(Asked { since, step: Some(step) }) = steps.remove(&who) else { return false };
        if step.wants_password() {
            steps.insert(who, Asked { since: Instant::now(), step: None });
        }
        since.elapsed() < LIFETIME
    }

    /// Whether a password was wanted until a moment ago: people send it twice, or too late.
    pub(crate) fn wanted_password(&self, who: TelegramId) -> bool {
        let steps = self.lock();
        let asked = steps.get(&who).filter(|asked| asked.step.is_none());
        asked.is_some_and(|asked| asked.since.elapsed() < AFTERWARDS)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
