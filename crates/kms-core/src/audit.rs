//! Audit records of every use of a key. They contain no secret and no untrusted free text.

mod chain;
mod checkpoint;
mod details;
mod verify;

pub use self::chain::{Entry, Link, Tip};
pub use self::checkpoint::{Checkpoint, CheckpointFormat, CheckpointKeys, CheckpointKeysFormat};
pub use self::details::{Details, DetailsFormat};
pub(crate) use self::details::{Notes, sha256};
pub use self::verify::{Break, Chaining, Evidence, Leniency, OpenIntent, Verified, Verifier};

use kms_types::{AccountId, AssetId, RecoveryId, SckId, TelegramId, Timestamp, TransferId};

use crate::api_token::HashedToken;
use crate::rescue::digest::RescueDigest;

/// The authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the bearer token, `launch` and the id of a launch, or the name of the command
    /// that an operator ran.
    pub actor: String,
    /// The request's id, as in the logs.
    pub request_id: String,
    /// Who ran the command, if it is one.
    pub operator: Option<Operator>,
    /// The way by which the caller came.
    pub door: Door,
}

/// The way by which a caller came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The vault page: the owner, by a launch that Telegram signed.
    Page,
    /// Any other: a bearer token, which acts for many users, a command, a link, a worker.
    Other,
}

/// A person who runs a command, as the operating system names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The person.
    pub person: String,
    /// The host.
    pub host: String,
}

impl Caller {
    /// A caller that is not an operator's command.
    #[must_use]
    pub fn new(actor: impl Into<String>, request_id: impl Into<String>) -> Self {
        let (actor, request_id) = (actor.into(), request_id.into());
        Self { actor, request_id, operator: None, door: Door::Other }
    }

    /// The caller, as the owner on the vault page.
    #[must_use]
    pub fn at_page(self) -> Self {
        Self { door: Door::Page, ..self }
    }

    /// Whether the caller is the owner on the vault page.
    #[must_use]
    pub fn is_at_page(&self) -> bool {
        self.door == Door::Page
    }

    /// Returns what the records of this caller state about them.
    #[must_use]
    pub fn details(&self) -> Details {
        match &self.operator {
            None => Details::default(),
            Some(by) => Details::default().with("host", &by.host).with("person", &by.person),
        }
    }
}

/// An action, and what is known about it before it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The action.
    pub action: Action,
    /// For instance the recipient and the amount.
    pub details: Details,
}

impl From<Action> for Purpose {
    fn from(action: Action) -> Self {
        Self { action, details: Details::default() }
    }
}

/// What a key is used for, or what an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A wallet is created.
    Create,
    /// A key is opened to sign this transfer.
    Send(TransferId),
    /// A key is opened to sign this transfer again at higher prices.
    Replace(TransferId),
    /// A key is opened and sealed under a new password.
    ChangePassword,
    /// A key is opened and exported under a passphrase.
    Export,
    /// A recovery is requested.
    RequestRecovery(RecoveryId),
    /// A code for a recovery is tried.
    ConfirmRecovery(RecoveryId),
    /// A recovery is cancelled.
    CancelRecovery(RecoveryId),
    /// The wait of a recovery is made longer, by a pause that is over.
    ExtendRecovery(RecoveryId),
    /// The wait of a recovery is over.
    RecoveryReady(RecoveryId),
    /// A recovery expired without a new password.
    RecoveryExpired(RecoveryId),
    /// An SCK is unwrapped by the KMS key.
    Recover(RecoveryId),
    /// An operator proposes to move a wallet to another Telegram account.
    ProposeMove,
    /// A second operator approves that: the wait begins.
    RequestMove(RecoveryId),
    /// The wait is over: an SCK is unwrapped, and the key sealed for the other Telegram account.
    Move(RecoveryId),
    /// A mobile number or an e-mail address is set, requested or removed.
    ChangeContact,
    /// The account becomes page-only.
    EnterPage,
    /// The code of a requested e-mail address is tried. The address is named by the SHA-256 of its
    /// sealed bytes.
    ConfirmEmail([u8; 32]),
    /// Claims on a username begin or end. It is named by the SHA-256 of its canonical form.
    ClaimNames([u8; 32]),
    /// An owner sets a spending limit for an asset.
    ChangeLimit(AccountId, AssetId),
    /// An SCK is unwrapped by an older KMS key and wrapped under the active one.
    Rewrap,
    /// A wallet is checked for recoverability.
    Verify,
    /// A lost wrapped SCK is written again, after a correct password.
    Restore,
    /// A key is sealed under the current KDF and pepper, after a correct password.
    Reseal,
    /// An orphaned wrapped SCK is removed.
    Sweep(SckId),
    /// Random bytes are wrapped and unwrapped by a KMS key, to check that it works.
    ProbeKmsKey,
    /// A contact is opened, to be shown masked.
    ReadContact,
    /// A row fails its integrity check when it is read.
    ReadRow,
    /// A caller presents an API token.
    Authenticate,
    /// An operator revokes the API token with this hash.
    RevokeToken(HashedToken),
    /// An operator runs this command.
    Operate(&'static str),
    /// An account is frozen.
    Freeze,
    /// The owner of a frozen account requests, with the password, to unfreeze it.
    RequestUnfreeze,
    /// An account is unfrozen.
    Unfreeze,
    /// The owner requests, with the password, that bearer tokens may act for the account again.
    RequestPageLeave,
    /// The owner cancels that.
    KeepPageOnly,
    /// Bearer tokens may act for the account again.
    LeavePage,
    /// The wait to unfreeze the account or to leave the page is made longer, by a pause that is
    /// over.
    ExtendWait,
    /// An operator proposes a rescue: an SCK is unwrapped and a key opened, to prove whose it is.
    ProposeRescue(RescueDigest),
    /// A second operator approves that rescue: the rows of the account are rebuilt.
    Rescue(RescueDigest),
}

impl Action {
    /// Returns the name in the audit table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Send(_) => "send",
            Self::Replace(_) => "replace",
            Self::ChangePassword => "change_password",
            Self::Export => "export",
            Self::RequestRecovery(_) => "request_recovery",
            Self::ConfirmRecovery(_) => "confirm_recovery",
            Self::CancelRecovery(_) => "cancel_recovery",
            Self::ExtendRecovery(_) => "extend_recovery",
            Self::RecoveryReady(_) => "recovery_ready",
            Self::RecoveryExpired(_) => "recovery_expired",
            Self::Recover(_) => "recover",
            Self::ProposeMove => "propose_move",
            Self::RequestMove(_) => "request_move",
            Self::Move(_) => "move_account",
            Self::ChangeContact => "change_contact",
            Self::ConfirmEmail(_) => "confirm_email",
            Self::EnterPage => "enter_page",
            Self::ClaimNames(_) => "claim_names",
            Self::ChangeLimit(..) => "change_limit",
            Self::ReadRow => "read_row",
            Self::Rewrap => "rewrap",
            Self::Verify => "verify",
            Self::Restore => "restore",
            Self::Reseal => "reseal",
            Self::Sweep(_) => "sweep",
            Self::ProbeKmsKey => "probe_kms_key",
            Self::ReadContact => "read_contact",
            Self::Authenticate => "authenticate",
            Self::RevokeToken(_) => "token_revoke",
            Self::Operate(command) => command,
            Self::Freeze => "freeze",
            Self::RequestUnfreeze => "request_unfreeze",
            Self::Unfreeze => "unfreeze",
            Self::RequestPageLeave => "request_page_leave",
            Self::KeepPageOnly => "keep_page_only",
            Self::LeavePage => "leave_page",
            Self::ExtendWait => "extend_wait",
            Self::ProposeRescue(_) => "propose_rescue",
            Self::Rescue(_) => "rescue",
        }
    }

    /// Returns the object of the action, where it is not the account.
    #[must_use]
    pub fn subject(self) -> Option<String> {
        match self {
            Self::Send(transfer) | Self::Replace(transfer) => Some(transfer.to_string()),
            Self::Sweep(sck) => Some(sck.to_string()),
            Self::ConfirmEmail(digest) | Self::ClaimNames(digest) => Some(hex::encode(digest)),
            Self::RevokeToken(hash) => Some(hex::encode(hash.as_bytes())),
            Self::ChangeLimit(account, asset) => Some(format!("{account}/{asset}")),
            Self::ProposeRescue(digest) | Self::Rescue(digest) => Some(digest.to_string()),
            Self::RequestRecovery(id)
            | Self::ConfirmRecovery(id)
            | Self::CancelRecovery(id)
            | Self::ExtendRecovery(id)
            | Self::RecoveryReady(id)
            | Self::RecoveryExpired(id)
            | Self::RequestMove(id)
            | Self::Move(id)
            | Self::Recover(id) => Some(id.to_string()),
            Self::Create | Self::ChangePassword | Self::ChangeContact | Self::Export => None,
            Self::Rewrap | Self::Verify | Self::Restore | Self::Reseal | Self::ProbeKmsKey => None,
            Self::ReadContact | Self::ReadRow | Self::Authenticate | Self::Operate(_) => None,
            Self::EnterPage | Self::ProposeMove => None,
            Self::Freeze | Self::RequestUnfreeze | Self::Unfreeze => None,
            Self::RequestPageLeave | Self::KeepPageOnly | Self::LeavePage => None,
            Self::ExtendWait => None,
        }
    }
}

/// The names of the actions that change an account or its wallet. Their outcomes state the
/// revision that the account then has.
pub const CHANGES_OF_ACCOUNTS: [&str; 18] = [
    "create",
    "change_password",
    "change_contact",
    "confirm_email",
    "recover",
    "move_account",
    "freeze",
    "request_unfreeze",
    "unfreeze",
    "rescue",
    "enter_page",
    "request_page_leave",
    "keep_page_only",
    "leave_page",
    "extend_wait",
    "rewrap",
    "restore",
    "reseal",
];

/// The name of the detail with that revision.
pub const REVISION: &str = "revision";

/// Whether a record was written before or after the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before: the action does not happen unless this record is committed.
    Intent,
    /// After, with `ok` or the error's code.
    Outcome(&'static str),
    /// After, with the code of a failed integrity check.
    Alarm(&'static str),
}

impl Phase {
    /// Returns the name in the audit table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome(_) => "outcome",
            Self::Alarm(_) => "alarm",
        }
    }

    /// Returns the code of the outcome or alarm.
    #[must_use]
    pub fn outcome(self) -> Option<&'static str> {
        match self {
            Self::Intent => None,
            Self::Outcome(code) | Self::Alarm(code) => Some(code),
        }
    }
}

/// An error that has a code in the audit table.
pub trait Audited {
    /// Returns [`Phase::Outcome`] with the code, or [`Phase::Alarm`] for a failed integrity check.
    fn phase(&self) -> Phase;
}

/// A record of the audit table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// When it was written.
    pub at: Timestamp,
    /// The caller.
    pub caller: Caller,
    /// The action.
    pub action: Action,
    /// Before or after the action, with its outcome.
    pub phase: Phase,
    /// The account, where it is known.
    pub account: Option<AccountId>,
    /// The account's owner, where they are known.
    pub telegram_id: Option<TelegramId>,
    /// What was done, as far as the columns do not say it.
    pub details: Details,
}
