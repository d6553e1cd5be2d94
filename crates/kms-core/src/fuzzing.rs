//! Internals that the fuzz targets call. Compiled with `cfg(fuzzing)` only.

use kms_types::{AccountId, EthAddress, SckId};

use crate::sck::Sck;
use crate::seal::SealContext;
use crate::wrap::WrapContext;

const ACCOUNT: [u8; 16] = [0xaa; 16];
const ADDRESS: [u8; 20] = [0xbb; 20];
const SCK_ID: [u8; 16] = [0xcc; 16];

fn ids() -> (AccountId, EthAddress, SckId) {
    (AccountId::from_bytes(ACCOUNT), ADDRESS.into(), SckId::from_bytes(SCK_ID))
}

/// Returns whether the blob opens as a private key sealed under a fixed SCK.
#[must_use]
pub fn opens_as_private_key(blob: &[u8]) -> bool {
    let (account, address, sck_id) = ids();
    #[expect(clippy::unwrap_used, reason = "1 is a Telegram id")]
    let telegram_id = 1.try_into().unwrap();
    let owner = SealContext { account, telegram_id, address, sck_id };
    owner.open(blob, &Sck::from_bytes(&[0x5c; 32])).is_ok()
}

/// Returns whether `FORMAT.md` calls the plaintext an SCK of one fixed owner.
#[must_use]
pub fn is_unwrapped_sck_by_format(plaintext: &[u8]) -> bool {
    let prefix = [[1].as_slice(), &ACCOUNT, &ADDRESS, &SCK_ID].concat();
    plaintext.len() == 85 && plaintext.starts_with(&prefix)
}

/// Returns whether the code accepts the plaintext as an SCK of that owner.
#[must_use]
pub fn accepts_unwrapped_sck(plaintext: &[u8]) -> bool {
    let (account, address, sck_id) = ids();
    WrapContext { account, address, sck_id }.accept(plaintext).is_ok()
}
