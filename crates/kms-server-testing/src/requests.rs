//! The request bodies that tests send, and short ways to send some of them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use kms_client::{Client, ClientError};
use kms_types::wire::{
    CompleteRecovery, ConfirmTransfer, CreateAccount, QuoteTransfer, Recovery, RequestRecovery,
    Transfer,
};
use kms_types::{AccountRef, Asset, PasswordHash, RecoveryId, TelegramId, Timestamp, TransferId};

/// One coin, in wei.
pub const COIN: u128 = 1_000_000_000_000_000_000;

/// Returns a stand-in for the password hash of these words: as unique, without the tenth of a
/// second that the client's PBKDF2 takes.
#[must_use]
pub fn hash(words: &str) -> PasswordHash {
    PasswordHash::fill(|bytes| {
        for (index, byte) in words.bytes().enumerate() {
            bytes[index % 32] ^= byte.rotate_left(u32::try_from(index / 32 % 8).unwrap());
        }
    })
}

/// Creates the wallet of this Telegram user.
#[must_use]
pub fn create(id: i64, name: &str, words: &str) -> CreateAccount {
    CreateAccount {
        telegram_id: id.try_into().unwrap(),
        password_hash: hash(words),
        usernames: [name.parse().unwrap()].into_iter().collect(),
        seen_at: Some(Timestamp(1_000 + id)),
        mobile: None,
        email: None,
    }
}

/// The account of this Telegram user.
#[must_use]
pub fn telegram(id: i64) -> AccountRef {
    AccountRef::Telegram(TelegramId::try_from(id).unwrap())
}

/// Quotes a transfer of the native coin, under a new transfer id.
#[must_use]
pub fn quote(from: i64, to: &str, amount: &str) -> QuoteTransfer {
    QuoteTransfer {
        id: TransferId::random(),
        from: telegram(from),
        to: to.parse().unwrap(),
        amount: amount.to_owned().try_into().unwrap(),
        asset: Asset::Native,
        chain_id: None,
        client_ref: None,
    }
}

/// Confirms a quoted transfer exactly as it was quoted.
#[must_use]
pub fn confirm(transfer: &Transfer, words: &str) -> ConfirmTransfer {
    ConfirmTransfer {
        password_hash: hash(words),
        chain_id: transfer.chain_id,
        to_address: transfer.to.address,
        token: transfer.token.clone(),
        value: transfer.value,
        max_fee: transfer.max_fee,
    }
}

/// Requests a recovery, or continues the open one, and completes it.
///
/// # Errors
/// When the server refuses a step.
pub async fn recover(client: &Client, id: i64, words: &str) -> Result<Recovery, ClientError> {
    let open = client.recovery(telegram(id)).await?;
    let recovery = open.map_or_else(RecoveryId::random, |open| open.id);
    recover_as(client, id, recovery, words).await
}

/// Requests the recovery of this id and completes it.
///
/// # Errors
/// When the server refuses a step.
pub async fn recover_as(
    client: &Client,
    id: i64,
    recovery: RecoveryId,
    words: &str,
) -> Result<Recovery, ClientError> {
    client.request_recovery(telegram(id), &RequestRecovery { id: recovery }).await?;
    let body = CompleteRecovery { new_password_hash: hash(words) };
    client.complete_recovery(telegram(id), recovery, &body).await
}
