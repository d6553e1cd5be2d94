//! The operating system's generator: the only source of keys, salts and nonces.

use ring::rand::{SecureRandom, SystemRandom};

/// Fills `bytes` with random bytes.
///
/// # Panics
/// If the operating system gives none. Nothing sound can be done without.
pub(crate) fn fill(bytes: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "nothing sound can be done without random bytes")]
    SystemRandom::new().fill(bytes).expect("the operating system gives random bytes");
}
