//! The symmetric cryptographic key (SCK), the wallet's key-encryption key, and what is derived from
//! it (`FORMAT.md`, "SCK").

use std::fmt;

use hkdf::Hkdf;
use kms_types::PasswordHash;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::kdf::{KdfParams, Salt};
use crate::server_keys::ServerKey;

/// Derived from a password, or unwrapped by the KMS key. Zeroized when dropped.
pub(crate) struct Sck(Box<Zeroizing<[u8; 32]>>);

impl Sck {
    /// Derives the SCK from a password hash: the KDF, then HKDF with the pepper as salt.
    pub(crate) fn derive(
        params: KdfParams,
        password: &PasswordHash,
        salt: &Salt,
        pepper: &ServerKey,
    ) -> Self {
        let stretched = params.stretch(password, salt);
        let mut sck = Box::new(Zeroizing::new([0; 32]));
        expand(Some(pepper.expose()), &stretched, b"wallet-kms/v1/sck", &mut sck);
        Self(sck)
    }

    /// Copies an unwrapped SCK.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut sck = Box::new(Zeroizing::new([0; 32]));
        sck.copy_from_slice(bytes);
        Self(sck)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives the AES-256 key that seals the private key.
    pub(crate) fn seal_key(&self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        expand(None, &self.0, b"wallet-kms/v1/seal", &mut key);
        key
    }

    /// Derives a public value that commits to this SCK, which AES-GCM does not.
    pub(crate) fn commitment(&self) -> [u8; 32] {
        let mut commitment = [0; 32];
        expand(None, &self.0, b"wallet-kms/v1/commit", &mut commitment);
        commitment
    }

    /// Returns whether the commitment is of this SCK. Compares in constant time.
    pub(crate) fn matches(&self, commitment: &[u8; 32]) -> bool {
        use subtle::ConstantTimeEq;
        self.commitment().ct_eq(commitment).into()
    }
}

/// HKDF-SHA256 (RFC 5869) to 32 bytes.
fn expand(salt: Option<&[u8; 32]>, secret: &[u8; 32], info: &[u8], out: &mut [u8; 32]) {
    #[expect(clippy::expect_used, reason = "fails only beyond 255 times 32 bytes")]
    Hkdf::<Sha256>::new(salt.map(<[u8; 32]>::as_slice), secret)
        .expand(info, out)
        .expect("32 bytes can be expanded");
}

impl fmt::Debug for Sck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sck(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_password_salt_and_pepper() {
        let keys = crate::ServerKeySet::random();
        let other_keys = crate::ServerKeySet::random();
        let pepper = keys.get(keys.current()).unwrap();
        let other_pepper = other_keys.get(other_keys.current()).unwrap();
        let params = KdfParams::Pbkdf2 { rounds: 1 };
        let hash = |fill: u8| PasswordHash::fill(|bytes| bytes.fill(fill));
        let sck = Sck::derive(params, &hash(1), &Salt([1; 16]), pepper);
        assert!(sck.matches(&Sck::derive(params, &hash(1), &Salt([1; 16]), pepper).commitment()));
        for other in [
            Sck::derive(params, &hash(2), &Salt([1; 16]), pepper),
            Sck::derive(params, &hash(1), &Salt([2; 16]), pepper),
            Sck::derive(params, &hash(1), &Salt([1; 16]), other_pepper),
        ] {
            assert!(!sck.matches(&other.commitment()));
        }
        assert_ne!(*sck.seal_key(), sck.commitment());
        assert_eq!(format!("{sck:?}"), "Sck(..)");
    }

    /// RFC 5869, test case 3: no salt, no info.
    #[test]
    fn hkdf_matches_rfc_5869() {
        let mut out = [0; 42];
        Hkdf::<Sha256>::new(None, &[0x0b; 22]).expand(b"", &mut out).unwrap();
        assert_eq!(
            hex::encode(out),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
        );
    }
}
