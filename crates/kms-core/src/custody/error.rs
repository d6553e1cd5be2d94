//! Why custody refused or failed, and how the audit table calls it.

use kms_types::Timestamp;

use crate::audit::{Audited, Phase};
use crate::kdf_pool::PoolError;
use crate::master_key::MasterKeyError;
use crate::ports::StoreError;
use crate::recovery::RecoveryError;
use crate::seal::SealError;
use crate::server_keys::ServerKeyId;
use crate::wrap::UnwrapError;

/// Why custody refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// There is no such account.
    #[error("there is no such account")]
    NoAccount,
    /// The Telegram user has a wallet with another password.
    #[error("this Telegram user has a wallet with another password")]
    AccountExists,
    /// The password is wrong; also what is said of accounts that do not exist.
    #[error("the password is wrong")]
    WrongPassword,
    /// Too many wrong passwords.
    #[error("too many wrong passwords")]
    Locked {
        /// When the next may be tried.
        until: Timestamp,
    },
    /// The operator stopped the account.
    #[error("the account is frozen")]
    Frozen,
    /// The id stands for another account's recovery.
    #[error("the recovery's id was used before")]
    RecoveryReused,
    /// The account has no such recovery.
    #[error("there is no such recovery")]
    NoRecovery,
    /// Another recovery of the account has not ended.
    #[error("a recovery of this account is under way; complete or cancel it first")]
    RecoveryOpen,
    /// The recovery is not as far, or has ended.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The code is wrong.
    #[error("the code is wrong")]
    WrongCode,
    /// Not so soon after a recovery.
    #[error("this can not be done so soon after a recovery")]
    OnHold {
        /// When it can.
        until: Timestamp,
    },
    /// The wallet was changed by another request at the same time.
    #[error("the wallet was changed by another request")]
    Conflict,
    /// All places for checking passwords are taken.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The KMS key did not answer.
    #[error(transparent)]
    MasterKey(MasterKeyError),
    /// The wallet needs a pepper that is not configured.
    #[error("version {0} of the pepper is not configured")]
    NoPepper(ServerKeyId),
    /// What is stored does not fit together. Somebody changed it, or the disk did.
    #[error("what is stored for this wallet does not fit together: {0}")]
    Integrity(&'static str),
}

impl Audited for CustodyError {
    fn phase(&self) -> Phase {
        match self {
            Self::NoAccount => Phase::Outcome("no_account"),
            Self::AccountExists => Phase::Outcome("account_exists"),
            Self::WrongPassword => Phase::Outcome("wrong_password"),
            Self::Locked { .. } => Phase::Outcome("locked"),
            Self::Frozen => Phase::Outcome("frozen"),
            Self::RecoveryReused => Phase::Outcome("recovery_reused"),
            Self::NoRecovery => Phase::Outcome("no_recovery"),
            Self::RecoveryOpen => Phase::Outcome("recovery_open"),
            Self::Recovery(RecoveryError::NotReady { .. }) => Phase::Outcome("not_ready"),
            Self::Recovery(RecoveryError::NoCode) => Phase::Outcome("no_code"),
            Self::Recovery(_) => Phase::Outcome("ended"),
            Self::WrongCode => Phase::Outcome("wrong_code"),
            Self::OnHold { .. } => Phase::Outcome("on_hold"),
            Self::Conflict => Phase::Outcome("conflict"),
            Self::Pool(_) => Phase::Outcome("busy"),
            Self::Store(StoreError::Tampered { .. }) => Phase::Alarm("tampered"),
            Self::Store(StoreError::Corrupt { .. }) => Phase::Alarm("corrupt"),
            Self::Store(StoreError::NoRowKey { .. }) => Phase::Outcome("no_row_key"),
            Self::Store(_) => Phase::Outcome("store_unavailable"),
            Self::MasterKey(_) => Phase::Outcome("kms_key_unavailable"),
            Self::NoPepper(_) => Phase::Outcome("no_pepper"),
            Self::Integrity(_) => Phase::Alarm("integrity"),
        }
    }
}

impl From<MasterKeyError> for CustodyError {
    fn from(error: MasterKeyError) -> Self {
        match error {
            MasterKeyError::Undecryptable => {
                Self::Integrity("the wrapped key was not made for this KMS key")
            }
            MasterKeyError::Unavailable(_) => Self::MasterKey(error),
        }
    }
}

impl From<UnwrapError> for CustodyError {
    fn from(error: UnwrapError) -> Self {
        match error {
            UnwrapError::MasterKey(error) => error.into(),
            UnwrapError::NoKey(_) => Self::Integrity("the wrapped key's KMS key is not configured"),
            UnwrapError::Mismatch => Self::Integrity("the wrapped key belongs to somebody else"),
        }
    }
}

impl From<SealError> for CustodyError {
    fn from(_: SealError) -> Self {
        Self::Integrity("the sealed key does not belong to this wallet")
    }
}
