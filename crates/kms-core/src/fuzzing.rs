//! What fuzz targets reach of this crate's inside. In no other build.

use async_trait::async_trait;
use kms_types::{AccountId, EthAddress, SckId};
use zeroize::Zeroizing;

use crate::master_key::{KeyRing, MasterKey, MasterKeyError, MasterKeyId};
use crate::ports::WrappedSck;
use crate::sck::Sck;
use crate::seal::KeyOwner;
use crate::wrap::SckOwner;

const ACCOUNT: [u8; 16] = [0xaa; 16];
const ADDRESS: [u8; 20] = [0xbb; 20];
const SCK_ID: [u8; 16] = [0xcc; 16];

fn ids() -> (AccountId, EthAddress, SckId) {
    let uuid = uuid::Uuid::from_bytes;
    let (account, sck) = (uuid(ACCOUNT).to_string(), uuid(SCK_ID).to_string());
    #[expect(clippy::unwrap_used, reason = "they are UUIDs")]
    (account.parse().unwrap(), ADDRESS.into(), sck.parse().unwrap())
}

/// Whether the blob opens as a sealed private key under a key that nobody has.
#[must_use]
pub fn opens_as_private_key(blob: &[u8]) -> bool {
    let (account, address, sck_id) = ids();
    #[expect(clippy::unwrap_used, reason = "1 is an id")]
    let telegram_id = 1.try_into().unwrap();
    let owner = KeyOwner { account, telegram_id, address, sck_id };
    owner.open(blob, &Sck::from_bytes(&[0x5c; 32])).is_ok()
}

/// Whether the plaintext is what `FORMAT.md` says of one owner's.
#[must_use]
pub fn is_that_of_the_owner(plaintext: &[u8]) -> bool {
    let prefix = [[1].as_slice(), &ACCOUNT, &ADDRESS, &SCK_ID].concat();
    plaintext.len() == 85 && plaintext.starts_with(&prefix)
}

/// Whether it is taken as that owner's SCK when a KMS key unwraps it.
#[must_use]
pub fn is_taken_as_unwrapped(plaintext: &[u8]) -> bool {
    let (account, address, sck_id) = ids();
    #[expect(clippy::unwrap_used, reason = "it is an id, and the ring has one key")]
    let id: MasterKeyId = "fuzz".parse().unwrap();
    let wrapped =
        WrappedSck { id: sck_id, account, master_key: id.clone(), bytes: plaintext.to_vec() };
    #[expect(clippy::unwrap_used, reason = "the ring has one key")]
    let ring = KeyRing::new(std::sync::Arc::new(Transparent(id)), []).unwrap();
    let unwrap = SckOwner { account, address, sck_id };
    let mut unwrap = std::pin::pin!(unwrap.unwrap(wrapped, &ring));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    matches!(unwrap.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(_)))
}

/// Gives back what it is given.
#[derive(Debug)]
struct Transparent(MasterKeyId);

#[async_trait]
impl MasterKey for Transparent {
    fn id(&self) -> &MasterKeyId {
        &self.0
    }

    fn public_key(&self) -> &rsa::PublicKey {
        unreachable!("nothing is wrapped")
    }

    async fn unwrap(&self, ciphertext: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        Ok(Zeroizing::new(ciphertext))
    }
}
