//! What is written down about every use of a key. Never a secret, never free text from outside.

mod chain;
mod checkpoint;
mod verify;

pub use self::chain::{Entry, Link, Tip};
pub use self::checkpoint::{Checkpoint, CheckpointFormat};
pub use self::verify::{Break, Chaining, Leniency, OpenIntent, Verified, Verifier};

use kms_types::{AccountId, RecoveryId, SckId, TelegramId, Timestamp, TransferId};

/// Who asks, as the server authenticated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the bearer token, or of the command an operator ran.
    pub actor: String,
    /// The request, as logs know it.
    pub request_id: String,
}

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A wallet is made.
    Create,
    /// A key is opened to sign this transfer.
    Send(TransferId),
    /// A key is opened and sealed under a new password.
    ChangePassword,
    /// A key is opened and handed out under a passphrase.
    Export,
    /// A recovery is asked for.
    RequestRecovery(RecoveryId),
    /// A code for a recovery is tried.
    ConfirmRecovery(RecoveryId),
    /// A recovery is stopped.
    CancelRecovery(RecoveryId),
    /// The wait of a recovery is over.
    RecoveryReady(RecoveryId),
    /// Nobody gave the new password of a recovery in time.
    RecoveryExpired(RecoveryId),
    /// An SCK is unwrapped by the KMS key.
    Recover(RecoveryId),
    /// A mobile number or an e-mail address is asked for, confirmed or taken away.
    ChangeContact,
    /// An SCK is unwrapped by an older KMS key and wrapped under the active one.
    Rewrap,
    /// An SCK is unwrapped to see that it can be.
    Verify,
    /// A wrapped SCK that was lost is written again, after its owner's password was right.
    Restore,
    /// A key is sealed under today's KDF and pepper, after its owner's password was right.
    Reseal,
    /// A wrapped SCK that no wallet has referred to for long is removed.
    Sweep(SckId),
    /// Random bytes are wrapped and unwrapped by a KMS key, to check that it works.
    ProbeKmsKey,
    /// A contact is opened, to be shown masked.
    ReadContact,
    /// A caller shows a token.
    Authenticate,
    /// An operator runs this command.
    Operate(&'static str),
    /// An account is stopped.
    Freeze,
    /// A stopped account may go on.
    Unfreeze,
}

impl Action {
    /// The word in the audit table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Send(_) => "send",
            Self::ChangePassword => "change_password",
            Self::Export => "export",
            Self::RequestRecovery(_) => "request_recovery",
            Self::ConfirmRecovery(_) => "confirm_recovery",
            Self::CancelRecovery(_) => "cancel_recovery",
            Self::RecoveryReady(_) => "recovery_ready",
            Self::RecoveryExpired(_) => "recovery_expired",
            Self::Recover(_) => "recover",
            Self::ChangeContact => "change_contact",
            Self::Rewrap => "rewrap",
            Self::Verify => "verify",
            Self::Restore => "restore",
            Self::Reseal => "reseal",
            Self::Sweep(_) => "sweep",
            Self::ProbeKmsKey => "probe_kms_key",
            Self::ReadContact => "read_contact",
            Self::Authenticate => "authenticate",
            Self::Operate(command) => command,
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
        }
    }

    /// The object of the action, where it is not the account.
    #[must_use]
    pub fn subject(self) -> Option<String> {
        match self {
            Self::Send(transfer) => Some(transfer.to_string()),
            Self::Sweep(sck) => Some(sck.to_string()),
            Self::RequestRecovery(id)
            | Self::ConfirmRecovery(id)
            | Self::CancelRecovery(id)
            | Self::RecoveryReady(id)
            | Self::RecoveryExpired(id)
            | Self::Recover(id) => Some(id.to_string()),
            Self::Create | Self::ChangePassword | Self::ChangeContact | Self::Export => None,
            Self::Rewrap | Self::Verify | Self::Restore | Self::Reseal | Self::ProbeKmsKey => None,
            Self::ReadContact | Self::Authenticate | Self::Operate(_) => None,
            Self::Freeze | Self::Unfreeze => None,
        }
    }
}

/// Whether a record was written before or after the act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before: the act does not happen unless this is committed.
    Intent,
    /// After, with `ok` or the error's code.
    Outcome(&'static str),
    /// Something that must not be: a row that does not fit its seal, its MAC or its owner.
    Alarm(&'static str),
}

impl Phase {
    /// The word in the audit table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome(_) => "outcome",
            Self::Alarm(_) => "alarm",
        }
    }

    /// What came of it.
    #[must_use]
    pub fn outcome(self) -> Option<&'static str> {
        match self {
            Self::Intent => None,
            Self::Outcome(code) | Self::Alarm(code) => Some(code),
        }
    }
}

/// An error that knows how the audit table calls it.
pub trait Audited {
    /// [`Phase::Outcome`] with a code, or [`Phase::Alarm`] for what must not be.
    fn phase(&self) -> Phase;
}

/// One line of the audit table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub caller: Caller,
    /// For what.
    pub action: Action,
    /// Before or after.
    pub phase: Phase,
    /// On whose wallet, where it is known.
    pub account: Option<AccountId>,
    /// Whose it is.
    pub telegram_id: Option<TelegramId>,
}
