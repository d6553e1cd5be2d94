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

/// The step of everybody who is asked for something.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<HashMap<TelegramId, (Instant, Step)>>);

impl Steps {
    pub(crate) fn set(&self, who: TelegramId, step: Step) {
        let mut steps = self.lock();
        if steps.len() >= MANY {
            steps.retain(|_, (since, _)| since.elapsed() < LIFETIME);
        }
        steps.insert(who, (Instant::now(), step));
    }

    pub(crate) fn get(&self, who: TelegramId) -> Option<Step> {
        let steps = self.lock();
        let (since, step) = steps.get(&who)?;
        (since.elapsed() < LIFETIME).then(|| step.clone())
    }

    /// Ends the step, and says whether there was one.
    pub(crate) fn end(&self, who: TelegramId) -> bool {
        self.lock().remove(&who).is_some_and(|(since, _)| since.elapsed() < LIFETIME)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, (Instant, Step)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
