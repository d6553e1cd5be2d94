//! The requirements on every implementation of a port, as functions that its tests call. Feature
//! `testing`.

use std::sync::Arc;

use kms_types::{AccountId, EthAddress, SckId};
use rsa::traits::PublicKeyParts;

use crate::master_key::{self, KeyRing, MasterKey, MasterKeyError, MasterKeyId};
use crate::random;
use crate::sck::Sck;
use crate::wrap::{UnwrapError, WrapContext};

/// Checks a key provider with real encryptions: the key's size, round trips, ciphertexts that are
/// damaged or made for another key, and SCKs that belong to another owner.
///
/// # Panics
/// When the key does not conform.
pub async fn assert_master_key_conforms(key: Arc<dyn MasterKey>) {
    assert!(matches!(key.public_key().n().bit_width(), 3072 | 4096), "RSA-3072 or RSA-4096");
    let id = key.id().to_string().parse::<MasterKeyId>();
    assert_eq!(id.as_ref(), Ok(key.id()), "the id is in the grammar of ids");
    assert!(!format!("{key:?}").contains("Private"), "Debug shows no private key");
    assert!(matches!(master_key::probe(&*key).await, Ok(true)), "what is wrapped is unwrapped");
    rejects_damaged_ciphertexts(&*key).await;
    unwraps_for_the_owner_only(key).await;
}

async fn rejects_damaged_ciphertexts(key: &dyn MasterKey) {
    let wrap = || {
        master_key::encrypt(key, &[7; 85])
            .unwrap_or_else(|error| panic!("wrapping failed: {error}"))
    };
    let wrapped = wrap();
    assert_eq!(wrapped.len(), key.public_key().size());
    assert_ne!(wrapped, wrap(), "OAEP is randomized");
    let mut damaged = Vec::new();
    for index in [1, wrapped.len() / 2, wrapped.len() - 1] {
        let mut copy = wrapped.clone();
        if let Some(byte) = copy.get_mut(index) {
            *byte ^= 1;
        }
        damaged.push(copy);
    }
    // As if encrypted to another public key of this size.
    let mut other = vec![0; wrapped.len()];
    if let Some((_most_significant, rest)) = other.split_first_mut() {
        random::fill(rest);
    }
    damaged.push(other);
    for ciphertext in damaged {
        let refused = key.unwrap(ciphertext).await;
        assert!(matches!(refused, Err(MasterKeyError::Undecryptable)), "a damaged ciphertext");
    }
}

async fn unwraps_for_the_owner_only(key: Arc<dyn MasterKey>) {
    let ring = KeyRing::new(key, []).unwrap_or_else(|error| panic!("{error}"));
    let sck = Sck::from_bytes(&[3; 32]);
    let address = EthAddress::from([1; 20]);
    let owner = WrapContext { account: AccountId::random(), address, sck_id: SckId::random() };
    let wrapped = owner.wrap(&sck, &ring).unwrap_or_else(|error| panic!("{error}"));
    let unwrapped = owner.unwrap(wrapped.clone(), &ring).await;
    assert!(unwrapped.is_ok_and(|unwrapped| unwrapped.expose() == sck.expose()));
    let other = WrapContext { account: AccountId::random(), ..owner };
    let refused = other.unwrap(wrapped, &ring).await;
    assert!(matches!(refused, Err(UnwrapError::Mismatch)), "an SCK of another owner");
}
