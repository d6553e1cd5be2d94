//! The fields that the MACs of accounts and e-mail changes cover (FORMAT.md, "Server keys").

use kms_core::account::{Account, EmailChange};

/// Covers who owns which wallet and since when, whether it may sign, what decides how fast its
/// password can be replaced, and the wallet itself: without that, a changed salt or KDF would look
/// like a wrong password.
pub(super) fn with_account_fields<T>(account: &Account, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    let telegram_id = account.telegram_id.as_i64().to_be_bytes();
    let created_at = account.created_at.0.to_be_bytes();
    let revision = account.revision.to_be_bytes();
    let mut fields: Vec<&[u8]> = vec![
        b"accounts",
        account.id.as_bytes(),
        &telegram_id,
        account.wallet.address.as_bytes(),
        account.state.as_str().as_bytes(),
        &created_at,
        &revision,
    ];
    let verified = account.email_verified_at.map(|at| at.0.to_be_bytes());
    if let Some(at) = &verified {
        fields.extend([b"email".as_slice(), account.email.as_deref().unwrap_or_default(), at]);
    }
    let former = account.former_email.as_ref().map(|it| (&it.email, it.until.0.to_be_bytes()));
    if let Some((email, until)) = &former {
        fields.extend([b"former".as_slice(), email, until]);
    }
    let recovered = account.recovered_at.map(|at| at.0.to_be_bytes());
    if let Some(at) = &recovered {
        fields.extend([b"recovered".as_slice(), at]);
    }
    let unfreezes = account.unfreezes_at.map(|at| at.0.to_be_bytes());
    if let Some(at) = &unfreezes {
        fields.extend([b"unfreezes".as_slice(), at]);
    }
    let page_only = account.page_only_since.map(|at| at.0.to_be_bytes());
    if let Some(at) = &page_only {
        fields.extend([b"page-only".as_slice(), at]);
    }
    let leaves = account.page_only_until.map(|at| at.0.to_be_bytes());
    if let Some(at) = &leaves {
        fields.extend([b"leaves-page".as_slice(), at]);
    }
    if let Some(by) = &account.created_by {
        fields.extend([b"created-by".as_slice(), by.as_bytes()]);
    }
    let wallet = &account.wallet;
    let (kdf, version) = (wallet.kdf.to_string(), wallet.version.to_be_bytes());
    let ids = [wallet.password_version, wallet.pepper_id.as_u8()];
    let [password_version, pepper_id] = ids.each_ref().map(std::slice::from_ref);
    fields.extend([
        b"wallet".as_slice(),
        &wallet.public_key,
        &wallet.sealed_key,
        kdf.as_bytes(),
        &wallet.salt.0,
        password_version,
        pepper_id,
        &wallet.commitment,
        wallet.sck_id.as_bytes(),
        &wallet.wrapped_hash,
        &version,
    ]);
    work(&fields)
}

pub(super) fn with_email_change_fields<T>(
    change: &EmailChange,
    work: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    let at = change.requested_at.0.to_be_bytes();
    work(&[
        b"email_changes",
        change.account.as_bytes(),
        &change.email,
        &at,
        &[change.tries],
        &[change.codes_key.as_u8()],
    ])
}
