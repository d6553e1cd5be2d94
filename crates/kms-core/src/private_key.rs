//! A wallet's private key in plaintext: for one request, inside this crate.

use std::fmt;

use k256::ecdsa::SigningKey;
use kms_types::{AccountId, EthAddress};
use zeroize::Zeroizing;

use crate::audit::{Details, Notes};
use crate::random;
use crate::stack::with_wiped_stack;

/// A secp256k1 private key. Zeroized when dropped; does not leave this crate.
pub(crate) struct PrivateKey(Box<SigningKey>);

/// A recoverable ECDSA signature over secp256k1, with `s` in the lower half (EIP-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSignature {
    /// The x coordinate of the ephemeral point, big-endian.
    pub r: [u8; 32],
    /// The signature proof, big-endian.
    pub s: [u8; 32],
    /// Whether the y coordinate of the ephemeral point is odd.
    pub y_parity: bool,
}

/// A wallet that its owner's password opened. Lives for one request and returns signatures, never
/// the key.
pub struct OpenWallet {
    account: AccountId,
    address: EthAddress,
    version: i64,
    key: PrivateKey,
    notes: Notes,
}

impl PrivateKey {
    /// Generates a key.
    pub(crate) fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        loop {
            random::fill(bytes.as_mut_slice());
            // Fails for zero and from the group's order on: once in 2^128.
            if let Some(key) = Self::from_bytes(&bytes) {
                return key;
            }
        }
    }

    /// Parses 32 big-endian bytes; `None` if they are not a key.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        SigningKey::from_slice(bytes).ok().map(|key| Self(Box::new(key)))
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        let mut field = self.0.to_bytes();
        bytes.copy_from_slice(&field);
        zeroize::Zeroize::zeroize(&mut *field);
        bytes
    }

    /// Returns the public key, compressed (SEC 1).
    pub(crate) fn public_key(&self) -> [u8; 33] {
        let mut bytes = [0; 33];
        bytes.copy_from_slice(self.0.verifying_key().to_encoded_point(true).as_bytes());
        bytes
    }

    /// Returns the address: the last 20 bytes of Keccak-256 over the public key's coordinates.
    pub(crate) fn address(&self) -> EthAddress {
        let point = self.0.verifying_key().to_encoded_point(false);
        let mut coordinates = [0; 64];
        // Without the first byte, 0x04, which marks an uncompressed point.
        coordinates.copy_from_slice(point.as_bytes().split_at(1).1);
        EthAddress::from_public_key(&coordinates)
    }
}

impl OpenWallet {
    pub(crate) fn new(
        account: AccountId,
        address: EthAddress,
        version: i64,
        key: PrivateKey,
        notes: Notes,
    ) -> Self {
        Self { account, address, version, key, notes }
    }

    /// Returns the account that owns the wallet.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Returns the wallet's address.
    #[must_use]
    pub fn address(&self) -> EthAddress {
        self.address
    }

    /// Returns the version of the wallet that was opened. What is signed must be committed only if
    /// the account still [allows](crate::account::Account::allows) it.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Adds what is signed to the audit record of the outcome, which has it whether the request
    /// succeeds or not.
    pub fn record(&self, details: Details) {
        self.notes.add(details);
    }

    /// Signs a 32-byte hash, deterministically (RFC 6979).
    #[must_use]
    pub fn sign_hash(&self, hash: &[u8; 32]) -> HashSignature {
        #[expect(clippy::expect_used, reason = "fails only for hashes that are not 32 bytes")]
        let (signature, recovery) = with_wiped_stack(|| self.key.0.sign_prehash_recoverable(hash))
            .expect("a 32-byte hash can be signed");
        let (r, s) = signature.split_bytes();
        HashSignature { r: r.into(), s: s.into(), y_parity: recovery.is_y_odd() }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl fmt::Debug for OpenWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenWallet").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first account of the mnemonic "test test ... junk", the default of Ethereum's test
    /// tools.
    const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    fn known() -> PrivateKey {
        let mut bytes = [0; 32];
        hex::decode_to_slice(KEY, &mut bytes).unwrap();
        PrivateKey::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn derives_the_known_address_and_round_trips() {
        let key = known();
        assert_eq!(key.address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(hex::encode(*key.to_bytes()), KEY);
        assert!(PrivateKey::from_bytes(&[0; 32]).is_none());
        assert!(PrivateKey::from_bytes(&[0xff; 32]).is_none());
    }

    #[test]
    fn signatures_recover_to_the_public_key() {
        let key = known();
        let public_key = key.public_key();
        let address = key.address();
        let wallet = OpenWallet::new(AccountId::random(), address, 1, key, Notes::default());
        let hash = [7; 32];
        let signature = wallet.sign_hash(&hash);
        let recovered = k256::ecdsa::VerifyingKey::recover_from_prehash(
            &hash,
            &k256::ecdsa::Signature::from_scalars(signature.r, signature.s).unwrap(),
            k256::ecdsa::RecoveryId::new(signature.y_parity, false),
        )
        .unwrap();
        assert_eq!(recovered.to_encoded_point(true).as_bytes(), public_key);
        assert_eq!(wallet.sign_hash(&hash), signature);
    }

    #[test]
    fn debug_shows_no_key() {
        let wallet =
            OpenWallet::new(AccountId::random(), known().address(), 1, known(), Notes::default());
        for text in [format!("{:?}", known()), format!("{wallet:?}")] {
            assert!(!text.contains("ac0974") && !text.contains("172"), "{text}");
        }
    }
}
