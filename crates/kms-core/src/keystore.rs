//! Exports a private key as a file that other wallets import: Web3 Secret Storage, version 3, with
//! scrypt (RFC 7914), AES-128-CTR and Keccak-256.
//!
//! The passphrase has 150 random bits, so security does not depend on the costs of scrypt; they are
//! chosen for the server's memory.

use aes::Aes128;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use kms_types::{EthAddress, Passphrase};
use sha3::{Digest, Keccak256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::private_key::PrivateKey;
use crate::random;

/// 32 MiB. With the usual 2^18, each export would need 256 MiB.
const LOG_N: u8 = 15;
const R: u32 = 8;
const P: u32 = 1;

/// Crockford's base32, which has no letters that look like digits.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const GROUPS: usize = 6;
const GROUP: usize = 5;

/// An exported key.
#[derive(Debug)]
pub struct ExportedKey {
    /// The wallet's address.
    pub address: EthAddress,
    /// The JSON of the keystore file.
    pub keystore: String,
    /// The passphrase of the file: shown once, stored nowhere.
    pub passphrase: Passphrase,
}

impl ExportedKey {
    /// Encrypts the key under a new passphrase. Takes about as long as the KDF of a password.
    pub(crate) fn new(key: &PrivateKey) -> Self {
        let (mut salt, mut iv) = ([0; 32], [0; 16]);
        random::fill(&mut salt);
        random::fill(&mut iv);
        let passphrase = passphrase();
        let address = key.address();
        let keystore = seal(key, passphrase.as_bytes(), &salt, &iv, LOG_N, R, P);
        Self { address, keystore, passphrase: passphrase.into() }
    }
}

fn seal(
    key: &PrivateKey,
    passphrase: &[u8],
    salt: &[u8],
    iv: &[u8; 16],
    log_n: u8,
    r: u32,
    p: u32,
) -> String {
    let mut derived = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "fails only for costs other than these constants")]
    scrypt::Params::new(log_n, r, p)
        .map(|params| scrypt::scrypt(passphrase, salt, &params, derived.as_mut_slice()))
        .expect("the costs are valid")
        .expect("32 bytes can be derived");
    let (cipher_key, mac_key) = derived.split_at(16);
    // Encrypted in place.
    let mut sealed = key.to_bytes();
    #[expect(clippy::expect_used, reason = "fails only for other lengths")]
    Ctr128BE::<Aes128>::new_from_slices(cipher_key, iv)
        .expect("16 bytes are an AES-128 key and an IV")
        .apply_keystream(sealed.as_mut_slice());
    let mac = Keccak256::new().chain_update(mac_key).chain_update(*sealed).finalize();
    let (id, n) = (Uuid::new_v4(), 1_u64 << log_n);
    let address = hex::encode(key.address().as_bytes());
    let (iv, sealed, salt, mac) =
        (hex::encode(iv), hex::encode(*sealed), hex::encode(salt), hex::encode(mac));
    let kdf = format!(r#"{{"dklen":32,"n":{n},"r":{r},"p":{p},"salt":"{salt}"}}"#);
    let crypto = format!(
        r#""cipher":"aes-128-ctr","cipherparams":{{"iv":"{iv}"}},"ciphertext":"{sealed}","#
    ) + &format!(r#""kdf":"scrypt","kdfparams":{kdf},"mac":"{mac}""#);
    format!(r#"{{"version":3,"id":"{id}","address":"{address}","crypto":{{{crypto}}}}}"#)
}

/// Generates a passphrase in groups of characters that are easy to copy.
fn passphrase() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; GROUPS * GROUP]);
    random::fill(bytes.as_mut_slice());
    // Allocated once: a string that grows leaves copies of its content behind.
    let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP + 1)));
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index.is_multiple_of(GROUP) {
            text.push('-');
        }
        // 256 is a multiple of 32, so the characters are equally likely.
        let character = ALPHABET.iter().cycle().nth(usize::from(*byte));
        text.extend(character.map(|character| char::from(*character)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scrypt example of the Web3 Secret Storage Definition.
    #[test]
    fn matches_the_example_of_the_definition() {
        let bytes = |text: &str| hex::decode(text).unwrap();
        let key = bytes("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d");
        let key = PrivateKey::from_bytes(&key.try_into().unwrap()).unwrap();
        let salt = bytes("ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19");
        let iv = bytes("83dbcc02d8ccb40e466191a123791e0e").try_into().unwrap();
        let json = seal(&key, b"testpassword", &salt, &iv, 18, 1, 8);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let crypto = &json["crypto"];
        assert_eq!(
            crypto["mac"],
            "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"
        );
        assert_eq!(
            crypto["ciphertext"],
            "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c"
        );
        assert_eq!(json["address"], "008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
    }

    #[test]
    fn passphrases_are_long_unique_and_hidden_from_debug() {
        let (one, other) = (passphrase(), passphrase());
        assert_ne!(one, other);
        assert_eq!(one.len(), 35);
        assert!(one.split('-').all(|group| group.len() == 5), "{}", *one);
        let exported = ExportedKey::new(&PrivateKey::random());
        assert!(!format!("{exported:?}").contains(exported.passphrase.expose()));
    }
}
