//! The operating system's random generator: the only source of keys, salts and nonces.

use ring::rand::{SecureRandom, SystemRandom};

/// Fills `bytes` with random bytes.
///
/// # Panics
/// If the generator fails: no operation is secure without it.
pub(crate) fn fill(bytes: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "no operation is secure without random bytes")]
    SystemRandom::new().fill(bytes).expect("the system random generator works");
}
