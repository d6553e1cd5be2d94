//! The password hash, version 1: "Password hash" in `FORMAT.md` of `kms-core`.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use kms_types::{PasswordHash, TelegramId};
use sha2::Sha256;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::fold::fold_password;

const LABEL: &str = "wallet-kms/v1/password-hash:";
const ROUNDS: u32 = 600_000;

/// As many passwords are stretched at once as there are cores. The others wait in their order: more
/// at once would be slower for all of them, and occupy a thread each.
static PERMITS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, NonZero::get)));

/// Derives the password hash on a thread for blocking work.
///
/// # Panics
/// When the runtime shuts down meanwhile.
pub async fn hash_password(telegram_id: TelegramId, password: &str) -> PasswordHash {
    let password = Zeroizing::new(password.to_owned());
    with_permit(move || hash_password_blocking(telegram_id, &password)).await
}

/// Does `work` on a thread for blocking work, when there is a permit.
#[expect(clippy::expect_used, reason = "the semaphore stays open, and the work does not panic")]
async fn with_permit<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let permit = PERMITS.acquire().await.expect("the semaphore stays open");
    let work = move || {
        // Held until the work ends, even if the caller is dropped.
        let _permit = permit;
        work()
    };
    tokio::task::spawn_blocking(work).await.expect("stretching a password ends")
}

/// Derives the password hash: PBKDF2-HMAC-SHA256 (RFC 8018) with 600,000 rounds over the
/// [folded](fold_password) password in UTF-8, salted with a label and the Telegram user id in
/// decimal. It takes about 0.1 s of one core.
#[must_use]
pub fn hash_password_blocking(telegram_id: TelegramId, password: &str) -> PasswordHash {
    let text = fold_password(password);
    let salt = format!("{LABEL}{telegram_id}");
    PasswordHash::fill(|bytes| {
        pbkdf2::pbkdf2_hmac::<Sha256>(text.as_bytes(), salt.as_bytes(), ROUNDS, bytes);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_passwords_are_stretched_at_once_than_there_are_cores() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let flood: Vec<_> = (0..200)
            .map(|_| {
                tokio::spawn(with_permit(|| {
                    MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Longer than it takes to begin the next one.
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    NOW.fetch_sub(1, Ordering::SeqCst);
                }))
            })
            .collect();
        for one in flood {
            one.await.unwrap();
        }
        assert!(MOST.load(Ordering::SeqCst) <= available_parallelism().unwrap().get());
    }

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

    #[derive(serde::Deserialize)]
    struct Vector {
        name: String,
        typed: String,
        text: String,
        telegram_id: TelegramId,
        hash: String,
    }

    /// Made by an independent implementation, for every client.
    #[test]
    fn matches_the_published_vectors() {
        let vectors = include_str!("../vectors/password-v1.json");
        for vector in serde_json::from_str::<Vec<Vector>>(vectors).unwrap() {
            let Vector { name, typed, text, telegram_id, hash } = vector;
            assert_eq!(fold_password(&typed).as_str(), text, "{name}");
            let derived = hash_password_blocking(telegram_id, &typed);
            assert_eq!(serde_json::to_value(derived).unwrap(), hash, "{name}");
        }
    }

    #[test]
    fn one_password_of_two_people_has_two_hashes() {
        let of = |id: i64| hex(&hash_password_blocking(id.try_into().unwrap(), "correct horse"));
        assert_ne!(of(1), of(2));
    }
}
