//! An account for unit tests.

use kms_types::{AccountId, SckId, Timestamp};

use crate::account::{Account, AccountState, Wallet};
use crate::kdf::{KdfParams, Salt};

/// An active account, whose wallet has version 7.
pub(crate) fn account() -> Account {
    Account {
        id: AccountId::random(),
        telegram_id: 1.try_into().unwrap(),
        username: None,
        state: AccountState::Active,
        unfreezes_at: None,
        mobile: None,
        email: None,
        email_verified_at: None,
        former_email: None,
        recovered_at: None,
        page_only_since: None,
        page_only_until: None,
        created_by: None,
        created_at: Timestamp(0),
        revision: 1,
        wallet: Wallet {
            address: [1; 20].into(),
            public_key: [2; 33],
            sealed_key: vec![3],
            kdf: KdfParams::ARGON2ID,
            salt: Salt([4; 16]),
            password_version: 1,
            pepper_id: 1.try_into().unwrap(),
            commitment: [5; 32],
            sck_id: SckId::random(),
            wrapped_hash: [6; 32],
            version: 7,
        },
    }
}
