//! The vectors of `FORMAT.md` in `vectors/v1.json`: what is deterministic is computed again, and
//! what has a random nonce or padding is opened. `tests/second_implementation.py` verifies the same
//! file without this crate.

use std::sync::Arc;

use kms_types::{
    AccountId, EthAddress, PasswordHash, RecoveryId, SckId, TelegramId, Timestamp, TransferId,
};
use serde_json::Value;

use crate::account::EmailChange;
use crate::freeze::FreezeLink;
use crate::kdf::{KdfParams, Salt};
use crate::ports::WrappedSck;
use crate::private_key::PrivateKey;
use crate::recovery::{Recovery, RecoveryCode, RecoveryStage};
use crate::sck::Sck;
use crate::seal::{SealContext, Sealer};
use crate::server_keys::ServerKeys;
use crate::test_key;
use crate::wrap::WrapContext;

const VECTORS: &str = include_str!("../vectors/v1.json");
const ACCOUNT: AccountId = AccountId::from_bytes([0xaa; 16]);
const SCK_ID: SckId = SckId::from_bytes([0xbb; 16]);
const TRANSFER: TransferId = TransferId::from_bytes([0xcc; 16]);
const RECOVERY: RecoveryId = RecoveryId::from_bytes([0xdd; 16]);
const REQUESTED_AT: Timestamp = Timestamp(1_795_000_000_000);
const EMAIL: &str = "ann@example.org";
const TRANSACTION: [u8; 2] = [0x02, 0xf8];
/// Values with a random nonce or padding.
const RANDOM: [&str; 4] =
    ["sealed_email", "sealed_private_key", "sealed_transaction", "wrapped_sck"];

struct Vectors(Value);

impl Vectors {
    fn read() -> Self {
        Self(serde_json::from_str(VECTORS).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.0[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))).unwrap()
    }
}

fn server_keys() -> Arc<ServerKeys> {
    let key = |byte: &str| format!("1:{}", byte.repeat(32)).parse().unwrap();
    Arc::new(ServerKeys {
        pepper: key("a1"),
        contact: key("b2"),
        row: key("c3"),
        audit: key("d4"),
        codes: key("e5"),
        checkpoint: key("f6"),
    })
}

fn telegram_id() -> TelegramId {
    4711.try_into().unwrap()
}

fn private_key() -> PrivateKey {
    PrivateKey::from_bytes(&std::array::from_fn(|index| u8::try_from(index + 1).unwrap())).unwrap()
}

fn password() -> PasswordHash {
    PasswordHash::fill(|bytes| {
        *bytes = std::array::from_fn(|index| u8::try_from(255 - index).unwrap());
    })
}

fn salt() -> Salt {
    Salt([0x5a; 16])
}

fn sck(keys: &ServerKeys) -> Sck {
    let pepper = keys.pepper.get(keys.pepper.current()).unwrap();
    Sck::derive(KdfParams::ARGON2ID, &password(), &salt(), pepper)
}

fn seal_context(address: EthAddress) -> SealContext {
    SealContext { account: ACCOUNT, telegram_id: telegram_id(), address, sck_id: SCK_ID }
}

fn recovery() -> Recovery {
    Recovery {
        id: RECOVERY,
        account: ACCOUNT,
        written: RecoveryStage::Waiting,
        code: RecoveryCode::None,
        codes_key: 1.try_into().unwrap(),
        moves_to: None,
        requested_at: REQUESTED_AT,
        ready_at: REQUESTED_AT,
        expires_at: REQUESTED_AT,
        version: 1,
    }
}

/// A new set of vectors: prints them for the checked-in file, and compares all that is not random.
#[test]
fn deterministic_vectors_are_those_of_the_code() {
    let (keys, key, vectors) = (server_keys(), private_key(), Vectors::read());
    let (sck, address) = (sck(&keys), key.address());
    let ring = test_key::ring("kms-test");
    let context = WrapContext { account: ACCOUNT, address, sck_id: SCK_ID };
    let wrapped = context.wrap(&sck, &ring).unwrap();
    let sealer = Sealer::new(Arc::clone(&keys));
    let stretched = |kdf: KdfParams| hex::encode(*kdf.stretch(&password(), &salt()));
    let email = vectors.bytes("sealed_email");
    let change = EmailChange {
        account: ACCOUNT,
        email,
        requested_at: REQUESTED_AT,
        tries: 0,
        codes_key: 1.try_into().unwrap(),
    };
    let link = FreezeLink { account: ACCOUNT, until: REQUESTED_AT };
    let pepper = keys.pepper.get(keys.pepper.current()).unwrap();
    let set = serde_json::json!({
        "password_hash": hex::encode(password().expose()),
        "salt": hex::encode(salt().0),
        "argon2id_text": KdfParams::ARGON2ID.to_string(),
        "argon2id_stretched": stretched(KdfParams::ARGON2ID),
        "pbkdf2_text": KdfParams::PBKDF2.to_string(),
        "pbkdf2_stretched": stretched(KdfParams::PBKDF2),
        "pepper": "a1".repeat(32),
        "pepper_check_value": hex::encode(pepper.check_value()),
        "sck": hex::encode(sck.expose()),
        "seal_key": hex::encode(*sck.seal_key()),
        "commitment": hex::encode(sck.commitment()),
        "account_id": hex::encode(ACCOUNT.as_bytes()),
        "telegram_id": telegram_id().to_string(),
        "sck_id": hex::encode(SCK_ID.as_bytes()),
        "address": address.to_string(),
        "private_key": hex::encode(*key.to_bytes()),
        "public_key": hex::encode(key.public_key()),
        "sealed_private_key": hex::encode(seal_context(address).seal(&key, &sck)),
        "wrapped_sck": hex::encode(wrapped.bytes),
        "codes_key": "e5".repeat(32),
        "recovery_id": hex::encode(RECOVERY.as_bytes()),
        "requested_at": REQUESTED_AT.0.to_string(),
        "recovery_code": recovery().code(&keys.codes).unwrap().expose(),
        "recovery_cancel_mac": recovery().cancel_mac(&keys.codes).unwrap().to_string(),
        "freeze_link_mac": link.mac(&keys.codes).to_string(),
        "email_code": change.code(&keys.codes).unwrap().expose(),
        "contact_key": "b2".repeat(32),
        "sealed_email": hex::encode(sealer.seal_contact(ACCOUNT, "email", EMAIL)),
        "transfer_id": hex::encode(TRANSFER.as_bytes()),
        "transaction": hex::encode(TRANSACTION),
        "sealed_transaction":
            hex::encode(sealer.seal_transaction(TRANSFER, "payment", &TRANSACTION)),
    });
    println!("{set:#}");
    let (set, published) = (set.as_object().unwrap(), vectors.0.as_object().unwrap());
    assert_eq!(set.len(), published.len());
    for (name, value) in set {
        let published = published.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(value == published, !RANDOM.contains(&name.as_str()), "{name}");
    }
}

#[tokio::test]
async fn random_vectors_open() {
    let (keys, vectors) = (server_keys(), Vectors::read());
    let (sck, address) = (sck(&keys), private_key().address());
    let opened = seal_context(address).open(&vectors.bytes("sealed_private_key"), &sck).unwrap();
    assert_eq!(*opened.to_bytes(), *private_key().to_bytes());
    let wrapped = WrappedSck {
        id: SCK_ID,
        account: ACCOUNT,
        master_key: "kms-test".parse().unwrap(),
        bytes: vectors.bytes("wrapped_sck"),
    };
    let context = WrapContext { account: ACCOUNT, address, sck_id: SCK_ID };
    let unwrapped = context.unwrap(wrapped, &test_key::ring("kms-test")).await.unwrap();
    assert_eq!(unwrapped.expose(), sck.expose());
    let sealer = Sealer::new(keys);
    let email = sealer.open_contact(ACCOUNT, "email", &vectors.bytes("sealed_email"));
    assert_eq!(email.unwrap(), EMAIL);
    let sealed = vectors.bytes("sealed_transaction");
    let signed = sealer.open_transaction(TRANSFER, "payment", &sealed);
    assert_eq!(*signed.unwrap(), TRANSACTION);
}
