//! Why custody refused or failed, and the code of it in the audit table.

use kms_types::Timestamp;

use crate::audit::{Audited, Phase};
use crate::kdf_pool::PoolError;
use crate::master_key::MasterKeyError;
use crate::ports::StoreError;
use crate::recovery::RecoveryError;
use crate::seal::SealError;
use crate::server_keys::{RowMacError, ServerKeyId};
use crate::wrap::UnwrapError;

/// The code in the audit of a wrong password.
pub(super) const WRONG_PASSWORD: &str = "wrong_password";

/// The code in the audit of a wrong code of an e-mail.
pub(super) const WRONG_CODE: &str = "wrong_code";

/// Why custody refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The account does not exist.
    #[error("there is no such account")]
    NoAccount,
    /// The Telegram user has a wallet with another password.
    #[error("this Telegram user has a wallet with another password")]
    AccountExists,
    /// The password is wrong. Also returned for accounts that do not exist.
    #[error("the password is wrong")]
    WrongPassword,
    /// Too many wrong passwords.
    #[error("too many wrong passwords")]
    Locked {
        /// When the next one may be tried.
        until: Timestamp,
    },
    /// The account is frozen.
    #[error("the account is frozen")]
    Frozen,
    /// The account is not frozen.
    #[error("the account is not frozen")]
    NotFrozen,
    /// The account is not page-only.
    #[error("the account is not page-only")]
    NotPageOnly,
    /// Every row of the account passes its integrity check.
    #[error("every row of this account passes its integrity check; there is nothing to rescue")]
    NotDamaged,
    /// The Telegram user to whom a wallet is moved has one.
    #[error("this Telegram user has a wallet already; a wallet is moved to a user without one")]
    TelegramIdTaken,
    /// The account is page-only, and the caller is a bearer token.
    #[error("this account is used on the vault page alone; open the page from the chat")]
    PageRequired,
    /// The id is that of another account's recovery.
    #[error("the recovery id is already in use")]
    RecoveryReused,
    /// The account has no such recovery.
    #[error("there is no such recovery")]
    NoRecovery,
    /// Another recovery of the account has not ended.
    #[error("a recovery of this account is pending; complete or cancel it first")]
    RecoveryOpen,
    /// The recovery does not allow this step.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The code is wrong.
    #[error("the code is wrong")]
    WrongCode,
    /// The account is on hold after a recovery.
    #[error("this is not allowed for some time after a recovery")]
    OnHold {
        /// When the hold ends.
        until: Timestamp,
    },
    /// A concurrent request changed the wallet.
    #[error("a concurrent request changed the wallet; try again")]
    Conflict,
    /// The KDF pool did not run the job.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The KMS key is unavailable.
    #[error(transparent)]
    MasterKey(MasterKeyError),
    /// The wallet needs a pepper that is not configured.
    #[error("version {0} of the pepper is not configured")]
    NoPepper(ServerKeyId),
    /// The code or link of a request needs a version of the codes key that is not configured.
    #[error("version {0} of the codes key is not configured")]
    NoCodesKey(ServerKeyId),
    /// Stored data is inconsistent: it was modified by another program, or is damaged.
    #[error("the stored data of this wallet failed its integrity check: {0}")]
    Integrity(&'static str),
    /// A row is older than what the audit records of it: an old copy of it was put back.
    #[error("the row is older than the audit: an old copy of it was put back")]
    RolledBack,
}

impl Audited for CustodyError {
    fn phase(&self) -> Phase {
        match self {
            Self::NoAccount => Phase::Outcome("no_account"),
            Self::AccountExists => Phase::Outcome("account_exists"),
            Self::WrongPassword => Phase::Outcome(WRONG_PASSWORD),
            Self::Locked { .. } => Phase::Outcome("locked"),
            Self::Frozen => Phase::Outcome("frozen"),
            Self::NotFrozen => Phase::Outcome("not_frozen"),
            Self::NotPageOnly => Phase::Outcome("not_page_only"),
            Self::NotDamaged => Phase::Outcome("not_damaged"),
            Self::TelegramIdTaken => Phase::Outcome("telegram_id_taken"),
            Self::PageRequired => Phase::Outcome("page_required"),
            Self::RecoveryReused => Phase::Outcome("recovery_reused"),
            Self::NoRecovery => Phase::Outcome("no_recovery"),
            Self::RecoveryOpen => Phase::Outcome("recovery_open"),
            Self::Recovery(RecoveryError::NotReady { .. }) => Phase::Outcome("not_ready"),
            Self::Recovery(RecoveryError::NoCode) => Phase::Outcome("no_code"),
            Self::Recovery(_) => Phase::Outcome("ended"),
            Self::WrongCode => Phase::Outcome(WRONG_CODE),
            Self::OnHold { .. } => Phase::Outcome("on_hold"),
            Self::Conflict => Phase::Outcome("conflict"),
            Self::Pool(_) => Phase::Outcome("busy"),
            Self::Store(StoreError::Tampered { .. }) => Phase::Alarm("tampered"),
            Self::Store(StoreError::Corrupt { .. }) => Phase::Alarm("corrupt"),
            Self::Store(StoreError::NoRowKey { .. }) => Phase::Outcome("no_row_key"),
            Self::Store(StoreError::RetiredRowKey { .. }) => Phase::Alarm("retired_key"),
            Self::Store(_) => Phase::Outcome("store_unavailable"),
            Self::MasterKey(_) => Phase::Outcome("kms_key_unavailable"),
            Self::NoPepper(_) => Phase::Outcome("no_pepper"),
            Self::NoCodesKey(_) => Phase::Outcome("no_codes_key"),
            Self::Integrity(_) => Phase::Alarm("integrity"),
            Self::RolledBack => Phase::Alarm("rolled_back"),
        }
    }
}

impl From<MasterKeyError> for CustodyError {
    fn from(error: MasterKeyError) -> Self {
        match error {
            MasterKeyError::Undecryptable => {
                Self::Integrity("the wrapped SCK was not encrypted to its KMS key")
            }
            MasterKeyError::Unavailable(_) => Self::MasterKey(error),
        }
    }
}

impl From<UnwrapError> for CustodyError {
    fn from(error: UnwrapError) -> Self {
        match error {
            UnwrapError::MasterKey(error) => error.into(),
            UnwrapError::NoKey(_) => {
                Self::Integrity("the KMS key of the wrapped SCK is not configured")
            }
            UnwrapError::Mismatch => Self::Integrity("the wrapped SCK belongs to another wallet"),
        }
    }
}

/// Of the codes key; a store converts failed MACs of rows itself.
impl From<RowMacError> for CustodyError {
    fn from(error: RowMacError) -> Self {
        match error {
            RowMacError::NoKey(version) => Self::NoCodesKey(version),
            RowMacError::Retired(_) => {
                Self::Integrity("its code is under a retired version of the codes key")
            }
            RowMacError::Mismatch => Self::WrongCode,
        }
    }
}

impl From<SealError> for CustodyError {
    fn from(_: SealError) -> Self {
        Self::Integrity("the sealed key does not belong to this wallet")
    }
}
