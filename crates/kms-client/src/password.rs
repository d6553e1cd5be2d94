//! The password hash, version 1: "Password hash" in `FORMAT.md` of `kms-core`.

use kms_types::{PasswordHash, TelegramId};
use sha2::Sha256;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

const LABEL: &str = "wallet-kms/v1/password-hash:";
const ROUNDS: u32 = 600_000;

/// Derives the password hash on a thread for blocking work.
///
/// # Panics
/// When the runtime shuts down meanwhile.
pub async fn hash_password(telegram_id: TelegramId, password: &str) -> PasswordHash {
    let password = Zeroizing::new(password.to_owned());
    let work = move || hash_password_blocking(telegram_id, &password);
    #[expect(clippy::expect_used, reason = "the work does not panic")]
    tokio::task::spawn_blocking(work).await.expect("stretching a password ends")
}

/// Derives the password hash: PBKDF2-HMAC-SHA256 (RFC 8018) with 600,000 rounds over the password
/// in NFKC and UTF-8, salted with a label and the Telegram user id in decimal. It takes about 0.1 s
/// of one core.
#[must_use]
pub fn hash_password_blocking(telegram_id: TelegramId, password: &str) -> PasswordHash {
    // The full capacity first: a string that grows leaves copies of its content in memory.
    let mut normal = Zeroizing::new(String::with_capacity(password.len().saturating_mul(18)));
    normal.extend(password.nfkc());
    let salt = format!("{LABEL}{telegram_id}");
    PasswordHash::fill(|bytes| {
        pbkdf2::pbkdf2_hmac::<Sha256>(normal.as_bytes(), salt.as_bytes(), ROUNDS, bytes);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: &PasswordHash) -> String {
        hash.expose().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `hashlib.pbkdf2_hmac("sha256", b"correct horse battery",
    /// b"wallet-kms/v1/password-hash:4711", 600000)`
    #[test]
    fn matches_pbkdf2_of_python() {
        let id = 4711.try_into().unwrap();
        assert_eq!(
            hex(&hash_password_blocking(id, "correct horse battery")),
            "c770c55a111f307575f50cfb58ebbf904b8930a9c4b8562f17b3947494c5a612"
        );
    }

    #[test]
    fn one_password_has_one_hash_however_it_is_typed() {
        let id = 1.try_into().unwrap();
        let (composed, decomposed) = ("p\u{e4}ssw\u{f6}rd", "pa\u{308}sswo\u{308}rd");
        assert_eq!(
            hex(&hash_password_blocking(id, composed)),
            hex(&hash_password_blocking(id, decomposed))
        );
        let other = 2.try_into().unwrap();
        assert_ne!(
            hex(&hash_password_blocking(id, composed)),
            hex(&hash_password_blocking(other, composed))
        );
    }
}
