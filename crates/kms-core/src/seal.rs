//! AES-256-GCM (NIST SP 800-38D) with a random nonce: private keys under an SCK, and contacts and
//! signed transactions under the server's contact key (`FORMAT.md`, "Sealed private key" and
//! "Sealed by the server").

use std::sync::Arc;

use hkdf::Hkdf;
use kms_types::{AccountId, EthAddress, SckId, TelegramId, TransferId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::integrity::{AlarmContext, integrity_alarm};
use crate::private_key::PrivateKey;
use crate::random;
use crate::sck::Sck;
use crate::server_keys::{ServerKey, ServerKeyId, ServerKeys};

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;

/// Why sealed bytes did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The version or the length is not supported.
    #[error("the sealed bytes have an unknown version or an invalid length")]
    Format,
    /// Sealed under another key, for another owner or purpose, or modified.
    #[error("the sealed bytes belong to another owner or purpose, or were modified")]
    Mismatch,
    /// Sealed under a version of the contact key that is not configured.
    #[error("version {0} of the contact key is not configured")]
    NoKey(ServerKeyId),
    /// Sealed under a retired version of the contact key: restored from an old copy, or forged with
    /// a leaked key.
    #[error("version {0} of the contact key is retired")]
    Retired(ServerKeyId),
}

/// The owner of a private key: the AAD, so that a sealed key opens in its own row only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealContext {
    pub(crate) account: AccountId,
    pub(crate) telegram_id: TelegramId,
    pub(crate) address: EthAddress,
    pub(crate) sck_id: SckId,
}

impl SealContext {
    fn aad(&self) -> Vec<u8> {
        [
            b"wallet-kms/v1/private-key".as_slice(),
            self.account.as_bytes(),
            &self.telegram_id.as_i64().to_be_bytes(),
            self.address.as_bytes(),
            self.sck_id.as_bytes(),
        ]
        .concat()
    }

    /// Seals the private key: `version | nonce | ciphertext and tag`.
    pub(crate) fn seal(&self, key: &PrivateKey, sck: &Sck) -> Vec<u8> {
        let mut blob = vec![VERSION];
        append_sealed(&mut blob, &sck.seal_key(), &self.aad(), &*key.to_bytes());
        blob
    }

    /// Opens the result of [`SealContext::seal`].
    pub(crate) fn open(&self, blob: &[u8], sck: &Sck) -> Result<PrivateKey, SealError> {
        let (&VERSION, body) = blob.split_first().ok_or(SealError::Format)? else {
            return Err(SealError::Format);
        };
        let plain = open(body, &sck.seal_key(), &self.aad())?;
        let bytes: &[u8; 32] = plain.as_slice().try_into().map_err(|_length| SealError::Format)?;
        PrivateKey::from_bytes(bytes).ok_or(SealError::Mismatch)
    }
}

/// Seals what the server itself must read again: contacts, and signed transactions until they are
/// finalized.
#[derive(Clone, Debug)]
pub struct Sealer(Arc<ServerKeys>);

impl Sealer {
    /// Uses the contact key of these server keys.
    #[must_use]
    pub fn new(keys: Arc<ServerKeys>) -> Self {
        Self(keys)
    }

    /// Seals a mobile number or an e-mail address of the account.
    #[must_use]
    pub fn seal_contact(&self, account: AccountId, kind: &str, contact: &str) -> Vec<u8> {
        self.seal("contact", &[account.as_bytes(), kind.as_bytes()], contact.as_bytes())
    }

    /// Opens the result of [`Sealer::seal_contact`].
    ///
    /// # Errors
    /// When it was sealed for another account or kind, or under a key that is not configured.
    pub fn open_contact(
        &self,
        account: AccountId,
        kind: &str,
        blob: &[u8],
    ) -> Result<String, SealError> {
        let plain = self.open("contact", &[account.as_bytes(), kind.as_bytes()], blob)?;
        String::from_utf8(plain.to_vec()).map_err(|_personal| SealError::Mismatch)
    }

    /// Seals the bytes of a signed transaction of the transfer: `payment` or `cancellation`.
    #[must_use]
    pub fn seal_transaction(&self, transfer: TransferId, kind: &str, signed: &[u8]) -> Vec<u8> {
        self.seal("transaction", &[transfer.as_bytes(), kind.as_bytes()], signed)
    }

    /// Opens the result of [`Sealer::seal_transaction`].
    ///
    /// # Errors
    /// When it was sealed for another transfer or kind, or under a key that is not configured.
    pub fn open_transaction(
        &self,
        transfer: TransferId,
        kind: &str,
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.open("transaction", &[transfer.as_bytes(), kind.as_bytes()], blob)
    }

    /// Seals a contact again, under the current version of the key.
    ///
    /// # Errors
    /// As [`Sealer::open_contact`].
    pub fn reseal_contact(
        &self,
        account: AccountId,
        kind: &str,
        blob: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        self.reseal("contact", &[account.as_bytes(), kind.as_bytes()], blob)
    }

    /// Seals a signed transaction again, under the current version of the key.
    ///
    /// # Errors
    /// As [`Sealer::open_transaction`].
    pub fn reseal_transaction(
        &self,
        transfer: TransferId,
        kind: &str,
        blob: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        self.reseal("transaction", &[transfer.as_bytes(), kind.as_bytes()], blob)
    }

    fn reseal(&self, purpose: &str, owner: &[&[u8]], blob: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(self.seal(purpose, owner, &self.open(purpose, owner, blob)?))
    }

    /// Seals: `version | key id | nonce | ciphertext and tag`.
    fn seal(&self, purpose: &str, owner: &[&[u8]], plain: &[u8]) -> Vec<u8> {
        let id = self.0.contact.current();
        let mut blob = vec![VERSION, id.as_u8()];
        #[expect(clippy::expect_used, reason = "the current version is always configured")]
        let key = self.0.contact.get(id).expect("the current version exists");
        append_sealed(&mut blob, &purpose_key(key, purpose), &server_aad(purpose, owner), plain);
        blob
    }

    fn open(
        &self,
        purpose: &str,
        owner: &[&[u8]],
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let [VERSION, id, body @ ..] = blob else {
            return Err(SealError::Format);
        };
        let id = ServerKeyId::try_from(*id).map_err(|_zero| SealError::Format)?;
        if self.0.contact.is_retired(id) {
            integrity_alarm(SealError::Retired(id), AlarmContext::default());
            return Err(SealError::Retired(id));
        }
        let key = self.0.contact.get(id).ok_or(SealError::NoKey(id))?;
        open(body, &purpose_key(key, purpose), &server_aad(purpose, owner))
    }
}

/// Derives a key for one purpose, so that a contact never opens as a transaction.
fn purpose_key(key: &ServerKey, purpose: &str) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "fails only beyond 255 times 32 bytes")]
    Hkdf::<Sha256>::new(None, key.expose())
        .expand_multi_info(&[b"wallet-kms/v1/", purpose.as_bytes()], out.as_mut_slice())
        .expect("32 bytes can be expanded");
    out
}

fn server_aad(purpose: &str, owner: &[&[u8]]) -> Vec<u8> {
    [b"wallet-kms/v1/".as_slice(), purpose.as_bytes(), &owner.concat()].concat()
}

fn aes(key: &[u8; 32]) -> LessSafeKey {
    #[expect(clippy::expect_used, reason = "fails only for keys that are not 32 bytes")]
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key"))
}

/// Appends `nonce | ciphertext and tag`.
fn append_sealed(blob: &mut Vec<u8>, key: &[u8; 32], aad: &[u8], plain: &[u8]) {
    let mut nonce = [0; NONCE_LEN];
    random::fill(&mut nonce);
    blob.extend_from_slice(&nonce);
    // Allocated once: a buffer that grows leaves copies of its content behind.
    blob.reserve_exact(plain.len() + TAG_LEN);
    let start = blob.len();
    blob.extend_from_slice(plain);
    #[expect(clippy::expect_used, reason = "fails only beyond 64 GiB")]
    #[expect(clippy::indexing_slicing, reason = "start is within the blob")]
    let tag = aes(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            &mut blob[start..],
        )
        .expect("short plaintexts can be sealed");
    blob.extend_from_slice(tag.as_ref());
}

fn open(body: &[u8], key: &[u8; 32], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, sealed) = body.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Format)?;
    let length = sealed.len().checked_sub(TAG_LEN).ok_or(SealError::Format)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    aes(key)
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut plain)
        .map_err(|_unspecified| SealError::Mismatch)?;
    plain.truncate(length);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner() -> SealContext {
        SealContext {
            account: AccountId::random(),
            telegram_id: 7.try_into().unwrap(),
            address: EthAddress::from([9; 20]),
            sck_id: SckId::random(),
        }
    }

    #[test]
    fn a_key_opens_in_its_own_row_only() {
        let (owner, sck, key) = (owner(), Sck::from_bytes(&[3; 32]), PrivateKey::random());
        let blob = owner.seal(&key, &sck);
        assert_eq!(blob.len(), 61);
        assert_eq!(*owner.open(&blob, &sck).unwrap().to_bytes(), *key.to_bytes());
        for other in [
            SealContext { account: AccountId::random(), ..owner },
            SealContext { telegram_id: 8.try_into().unwrap(), ..owner },
            SealContext { address: EthAddress::from([8; 20]), ..owner },
            SealContext { sck_id: SckId::random(), ..owner },
        ] {
            assert_eq!(other.open(&blob, &sck).unwrap_err(), SealError::Mismatch);
        }
        assert_eq!(owner.open(&blob, &Sck::from_bytes(&[4; 32])).unwrap_err(), SealError::Mismatch);
    }

    #[test]
    fn rejects_every_flipped_bit_and_every_other_length() {
        let (owner, sck) = (owner(), Sck::from_bytes(&[3; 32]));
        let blob = owner.seal(&PrivateKey::random(), &sck);
        for bit in 0..blob.len() * 8 {
            let mut changed = blob.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(owner.open(&changed, &sck).is_err(), "bit {bit}");
        }
        for length in 0..blob.len() {
            assert!(owner.open(&blob[..length], &sck).is_err(), "length {length}");
        }
        assert!(owner.open(&[blob.as_slice(), &[0]].concat(), &sck).is_err());
    }

    #[test]
    fn server_blobs_open_for_their_purpose_and_owner_only() {
        let sealer = Sealer::new(Arc::new(ServerKeys::random()));
        let (ann, bob) = (AccountId::random(), AccountId::random());
        let blob = sealer.seal_contact(ann, "email", "ann@example.org");
        assert_eq!(sealer.open_contact(ann, "email", &blob).unwrap(), "ann@example.org");
        assert!(sealer.open_contact(bob, "email", &blob).is_err());
        assert!(sealer.open_contact(ann, "mobile", &blob).is_err());
        assert!(sealer.open_transaction(TransferId::random(), "payment", &blob).is_err());
        let other = Sealer::new(Arc::new(ServerKeys::random()));
        assert!(other.open_contact(ann, "email", &blob).is_err());
        let mut newer = blob;
        newer[1] = 9;
        assert!(matches!(
            sealer.open_contact(ann, "email", &newer),
            Err(SealError::NoKey(id)) if id.as_u8() == 9
        ));
    }

    proptest! {
        #[test]
        fn transactions_round_trip(plain: Vec<u8>) {
            let sealer = Sealer::new(Arc::new(ServerKeys::random()));
            let id = TransferId::random();
            let blob = sealer.seal_transaction(id, "payment", &plain);
            prop_assert_eq!(&*sealer.open_transaction(id, "payment", &blob).unwrap(), &plain);
            prop_assert!(sealer.open_transaction(id, "cancellation", &blob).is_err());
        }

        #[test]
        fn opening_noise_never_panics(blob: Vec<u8>) {
            let sealer = Sealer::new(Arc::new(ServerKeys::random()));
            prop_assert!(sealer.open_transaction(TransferId::random(), "payment", &blob).is_err());
            prop_assert!(owner().open(&blob, &Sck::from_bytes(&[3; 32])).is_err());
        }
    }
}
