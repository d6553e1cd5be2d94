//! The vectors of `FORMAT.md`: `vectors/v1.json` is opened, and what is deterministic is made
//! again. Made once with this crate, and checked by `tests/second_implementation.py`.

use std::sync::Arc;

use kms_types::{AccountId, EthAddress, PasswordHash, SckId, Timestamp, TransferId};
use serde_json::Value;

use crate::audit::{Checkpoint, Entry, Tip};
use crate::kdf::{KdfParams, Salt};
use crate::ports::WrappedSck;
use crate::sck::Sck;
use crate::seal::{KeyOwner, Sealer};
use crate::server_keys::ServerKeys;
use crate::test_key;
use crate::wrap::WrapContext;

const VECTORS: &str = include_str!("../vectors/v1.json");

struct Vectors(Value);

impl Vectors {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.text(name)).unwrap()
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap()
    }
}

fn server_keys() -> ServerKeys {
    let key = |byte: &str| format!("1:{}", byte.repeat(32)).parse().unwrap();
    ServerKeys { pepper: key("a1"), contact: key("b2"), row: key("c3"), audit: key("d4") }
}

/// The hashes of an intent and of its outcome, the first rows of a chain, and a checkpoint of it.
fn audit_chain(keys: &ServerKeys) -> [String; 3] {
    let subject = TransferId::from_bytes([0xcc; 16]).to_string();
    let intent = Entry {
        at: Timestamp(1_795_000_000_000),
        actor: "bot",
        request_id: "r-1",
        action: "send",
        subject: Some(&subject),
        account: None,
        telegram_id: Some(4711),
        phase: "intent",
        outcome: None,
    };
    let outcome = Entry { phase: "outcome", outcome: Some("ok"), ..intent };
    let mut tip = Tip::default();
    let hashes = [intent, outcome].map(|entry| tip.append(&entry, &keys.audit).mac.tag);
    let checkpoint = Checkpoint::sign(tip, Timestamp(1_795_000_000_001), &keys.audit);
    [hex::encode(hashes[0]), hex::encode(hashes[1]), checkpoint.to_string()]
}

#[tokio::test]
async fn the_vectors_open() {
    let vectors = Vectors(serde_json::from_str(VECTORS).unwrap());
    let keys = server_keys();
    let pepper = keys.pepper.get(keys.pepper.current()).unwrap();
    assert_eq!(pepper.check_value().to_vec(), vectors.bytes("pepper_check_value"));
    let password = PasswordHash::fill(|bytes| *bytes = vectors.array("password_hash"));
    let salt = Salt(vectors.array("salt"));
    for (kdf, stretched) in [("argon2id", KdfParams::ARGON2ID), ("pbkdf2", KdfParams::PBKDF2)] {
        assert_eq!(stretched.to_string(), vectors.text(&format!("{kdf}_text")));
        let made = stretched.stretch(&password, &salt);
        assert_eq!(made.to_vec(), vectors.bytes(&format!("{kdf}_stretched")));
    }
    let sck = Sck::derive(KdfParams::ARGON2ID, &password, &salt, pepper);
    assert_eq!(sck.expose().to_vec(), vectors.bytes("sck"));
    assert_eq!(sck.seal_key().to_vec(), vectors.bytes("seal_key"));
    assert_eq!(sck.commitment().to_vec(), vectors.bytes("commitment"));
    let account = AccountId::from_bytes(vectors.array("account_id"));
    let sck_id = SckId::from_bytes(vectors.array("sck_id"));
    let address: EthAddress = vectors.text("address").parse().unwrap();
    let telegram_id = vectors.text("telegram_id").parse().unwrap();
    let owner = KeyOwner { account, telegram_id, address, sck_id };
    let key = owner.open(&vectors.bytes("sealed_private_key"), &sck).unwrap();
    assert_eq!(key.to_bytes().to_vec(), vectors.bytes("private_key"));
    assert_eq!(key.address(), address);
    let ring = test_key::ring("kms-test");
    let wrapped = WrappedSck {
        id: sck_id,
        account,
        master_key: "kms-test".parse().unwrap(),
        bytes: vectors.bytes("wrapped_sck"),
    };
    let unwrapped = WrapContext { account, address, sck_id }.unwrap(wrapped, &ring).await.unwrap();
    assert_eq!(unwrapped.expose(), sck.expose());
    let fields: [&[u8]; 3] = [b"accounts", account.as_bytes(), b"active"];
    assert_eq!(keys.row.mac(&fields).tag.to_vec(), vectors.bytes("row_mac"));
    let audit = audit_chain(&keys);
    let names = ["audit_intent_hash", "audit_outcome_hash", "audit_checkpoint"];
    assert_eq!(audit, names.map(|name| vectors.text(name).to_owned()));
    let sealer = Sealer::new(Arc::new(keys));
    let contact = sealer.open_contact(account, "email", &vectors.bytes("sealed_email")).unwrap();
    assert_eq!(contact, "ann@example.org");
    let transfer = TransferId::from_bytes(vectors.array("transfer_id"));
    let opened = sealer.open_transaction(transfer, &vectors.bytes("sealed_transaction")).unwrap();
    assert_eq!(opened.to_vec(), vectors.bytes("transaction"));
}

/// How the vectors were made; prints a new set, whose random parts differ.
#[test]
fn a_new_set_can_be_made() {
    let keys = server_keys();
    let pepper = keys.pepper.get(keys.pepper.current()).unwrap();
    let (account, sck_id) = (AccountId::from_bytes([0xaa; 16]), SckId::from_bytes([0xbb; 16]));
    let private: [u8; 32] = std::array::from_fn(|index| u8::try_from(index + 1).unwrap());
    let key = crate::private_key::PrivateKey::from_bytes(&private).unwrap();
    let hash: [u8; 32] = std::array::from_fn(|index| u8::try_from(255 - index).unwrap());
    let password = PasswordHash::fill(|bytes| *bytes = hash);
    let salt = Salt([0x5a; 16]);
    let sck = Sck::derive(KdfParams::ARGON2ID, &password, &salt, pepper);
    let telegram_id = 4711.try_into().unwrap();
    let (address, transfer) = (key.address(), TransferId::from_bytes([0xcc; 16]));
    let sealed = KeyOwner { account, telegram_id, address, sck_id }.seal(&key, &sck);
    let ring = test_key::ring("kms-test");
    let wrapped = WrapContext { account, address, sck_id }.wrap(&sck, &ring).unwrap();
    let fields: [&[u8]; 3] = [b"accounts", account.as_bytes(), b"active"];
    let row_mac = hex::encode(keys.row.mac(&fields).tag);
    let check = hex::encode(pepper.check_value());
    let [audit_intent, audit_outcome, audit_checkpoint] = audit_chain(&keys);
    let sealer = Sealer::new(Arc::new(keys));
    let set = serde_json::json!({
        "password_hash": hex::encode(hash),
        "salt": hex::encode(salt.0),
        "argon2id_text": KdfParams::ARGON2ID.to_string(),
        "argon2id_stretched": hex::encode(*KdfParams::ARGON2ID.stretch(&password, &salt)),
        "pbkdf2_text": KdfParams::PBKDF2.to_string(),
        "pbkdf2_stretched": hex::encode(*KdfParams::PBKDF2.stretch(&password, &salt)),
        "pepper": "a1".repeat(32),
        "pepper_check_value": check,
        "sck": hex::encode(sck.expose()),
        "seal_key": hex::encode(*sck.seal_key()),
        "commitment": hex::encode(sck.commitment()),
        "account_id": hex::encode(account.as_bytes()),
        "telegram_id": "4711",
        "sck_id": hex::encode(sck_id.as_bytes()),
        "address": address.to_string(),
        "private_key": hex::encode(private),
        "public_key": hex::encode(key.public_key()),
        "sealed_private_key": hex::encode(sealed),
        "wrapped_sck": hex::encode(wrapped.bytes),
        "row_key": "c3".repeat(32),
        "row_mac": row_mac,
        "audit_key": "d4".repeat(32),
        "audit_intent_hash": audit_intent,
        "audit_outcome_hash": audit_outcome,
        "audit_checkpoint": audit_checkpoint,
        "contact_key": "b2".repeat(32),
        "sealed_email": hex::encode(sealer.seal_contact(account, "email", "ann@example.org")),
        "transfer_id": hex::encode(transfer.as_bytes()),
        "transaction": "02f8",
        "sealed_transaction": hex::encode(sealer.seal_transaction(transfer, &[0x02, 0xf8])),
    });
    println!("{set:#}");
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    for (name, value) in set.as_object().unwrap() {
        // What has a random nonce or padding differs every time.
        let random = name.starts_with("sealed_") || name == "wrapped_sck";
        assert_eq!(value == &vectors[name], !random, "{name}");
    }
}
