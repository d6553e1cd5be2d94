//! A KMS key for this crate's unit tests, which cannot use a provider's crate.

use std::sync::Arc;

use async_trait::async_trait;
use pkcs8::DecodePrivateKey;
use rsa::{PrivateKey, PublicKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::master_key::{KeyRing, MasterKey, MasterKeyError, MasterKeyId};

const PEM: &str = include_str!("../vectors/test-kms-key.txt");
const PASSPHRASE: &str = include_str!("../vectors/test-kms-key-passphrase.txt");

#[derive(Debug)]
struct TestKey {
    id: MasterKeyId,
    private: PrivateKey,
    public: PublicKey,
}

/// A ring of the test key under this id.
pub(crate) fn ring(id: &str) -> KeyRing {
    let private = PrivateKey::from_pkcs8_encrypted_pem(PEM, PASSPHRASE).unwrap();
    let (id, public) = (id.parse().unwrap(), private.to_public_key());
    KeyRing::new(Arc::new(TestKey { id, private, public }), []).unwrap()
}

#[async_trait]
impl MasterKey for TestKey {
    fn id(&self) -> &MasterKeyId {
        &self.id
    }

    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    async fn unwrap(&self, ciphertext: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let plain = self.private.oaep_decrypt::<Sha256>(&ciphertext);
        plain.map(Zeroizing::new).map_err(|_secret| MasterKeyError::Undecryptable)
    }
}
