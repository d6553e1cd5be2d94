//! A signed record of where the chain ended, kept outside the table. It detects rows that were
//! removed from the end of the chain, and a chain that was rewritten as a whole. The signature is
//! asymmetric: an auditor verifies it with a public key, and cannot sign.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kms_types::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::Tip;
use crate::server_keys::{RowMacError, ServerKeyId, ServerKeySet, framed};

const LABEL: &[u8] = b"wallet-kms/v2/audit-checkpoint";
const VERSION: &str = "v2";

/// The end of the chain at some time, with an Ed25519 signature under the checkpoint key. As text
/// it is one line (`FORMAT.md`, "Audit checkpoint").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The end of the chain.
    pub tip: Tip,
    /// When it was signed.
    pub at: Timestamp,
    key: ServerKeyId,
    signature: [u8; 64],
}

/// The public halves of the versions of the checkpoint key. As text `1:HEX`, several separated by
/// commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointKeys(BTreeMap<ServerKeyId, [u8; 32]>);

/// The text is not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a checkpoint: v2, number, hash, time, key and signature, separated by spaces")]
pub struct CheckpointFormat;

/// The text is not a list of public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected id:hex, several separated by commas, with ids from 1 to 255 and 64 hexadecimal \
     digits each; `kms-server audit public-keys` prints them"
)]
pub struct CheckpointKeysFormat;

impl Checkpoint {
    /// Signs a checkpoint with the newest version of the checkpoint key.
    #[must_use]
    pub fn sign(tip: Tip, at: Timestamp, checkpoint_keys: &ServerKeySet) -> Self {
        let (key, pair) = (checkpoint_keys.current(), key_pair(checkpoint_keys.newest().expose()));
        let mut signature = [0; 64];
        signature.copy_from_slice(pair.sign(&message(&tip, at)).as_ref());
        Self { tip, at, key, signature }
    }

    /// Returns the version of the checkpoint key that signed it.
    #[must_use]
    pub fn key(&self) -> ServerKeyId {
        self.key
    }

    /// Verifies the signature.
    ///
    /// # Errors
    /// When it is invalid, or when the version of the key is not known.
    pub fn verify(&self, keys: &CheckpointKeys) -> Result<(), RowMacError> {
        let key = keys.0.get(&self.key).ok_or(RowMacError::NoKey(self.key))?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message(&self.tip, self.at), &self.signature)
            .map_err(|_unspecified| RowMacError::Mismatch)
    }
}

impl CheckpointKeys {
    /// Returns the public halves of all configured versions, retired ones included.
    #[must_use]
    pub fn of(checkpoint_keys: &ServerKeySet) -> Self {
        let public = |key: &[u8; 32]| {
            let mut public = [0; 32];
            public.copy_from_slice(key_pair(key).public_key().as_ref());
            public
        };
        Self(checkpoint_keys.iter().map(|(id, key)| (id, public(key.expose()))).collect())
    }

    /// Returns the newest version.
    #[must_use]
    pub fn newest(&self) -> Option<ServerKeyId> {
        self.0.keys().next_back().copied()
    }
}

#[expect(clippy::expect_used, reason = "fails only for seeds that are not 32 bytes")]
fn key_pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes")
}

fn message(tip: &Tip, at: Timestamp) -> Vec<u8> {
    framed(&[LABEL, &tip.sequence.to_be_bytes(), &tip.hash, &at.0.to_be_bytes()])
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tip, at, key, signature } = self;
        let (hash, signature) = (hex::encode(tip.hash), hex::encode(signature));
        write!(f, "{VERSION} {} {hash} {} {key} {signature}", tip.sequence, at.0)
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointFormat;

    fn from_str(text: &str) -> Result<Self, CheckpointFormat> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(CheckpointFormat);
        if word()? != VERSION {
            return Err(CheckpointFormat);
        }
        let tip = Tip { sequence: number(word()?)?, hash: bytes(word()?)? };
        let at = Timestamp(number(word()?)?);
        let key = word()?.parse().map_err(|_other| CheckpointFormat)?;
        let parsed = Self { tip, at, key, signature: bytes(word()?)? };
        // The parsers accept other spellings as well; only the one that is written is valid.
        if parsed.to_string() == text { Ok(parsed) } else { Err(CheckpointFormat) }
    }
}

impl fmt::Display for CheckpointKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (id, key)) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "," };
            write!(f, "{separator}{id}:{}", hex::encode(key))?;
        }
        Ok(())
    }
}

impl FromStr for CheckpointKeys {
    type Err = CheckpointKeysFormat;

    fn from_str(text: &str) -> Result<Self, CheckpointKeysFormat> {
        let mut keys = BTreeMap::new();
        for entry in text.trim().split(',') {
            let (id, digits) = entry.split_once(':').ok_or(CheckpointKeysFormat)?;
            let id = id.parse().map_err(|_other| CheckpointKeysFormat)?;
            let key = bytes(digits).map_err(|_other| CheckpointKeysFormat)?;
            if keys.insert(id, key).is_some() {
                return Err(CheckpointKeysFormat);
            }
        }
        Ok(Self(keys))
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, CheckpointFormat> {
    text.parse().map_err(|_other| CheckpointFormat)
}

fn bytes<const N: usize>(digits: &str) -> Result<[u8; N], CheckpointFormat> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_other| CheckpointFormat)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn checkpoint_keys() -> ServerKeySet {
        format!("1:{}", "f6".repeat(32)).parse().unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint::sign(Tip { sequence: 7, hash: [9; 32] }, Timestamp(5), &checkpoint_keys())
    }

    #[test]
    fn parses_only_its_canonical_text() {
        let text = checkpoint().to_string();
        assert_eq!(text.parse(), Ok(checkpoint()));
        for bad in [
            "",
            "v2",
            &text[..text.len() - 1],
            &format!("{text} "),
            &format!("{text} 1"),
            &text.replace("v2", "v1"),
            &text.replace("v2 7", "v2 seven"),
            &text.replace("v2 7", "v2 07"),
            &text.replace("v2 7", "v2 +7"),
            &text.replace(' ', "  "),
            &text.to_uppercase(),
        ] {
            assert_eq!(bad.parse::<Checkpoint>(), Err(CheckpointFormat), "{bad}");
        }
    }

    #[test]
    fn rejects_checkpoints_that_were_not_signed() {
        let (keys, checkpoint) = (CheckpointKeys::of(&checkpoint_keys()), checkpoint());
        assert_eq!(checkpoint.verify(&keys), Ok(()));
        let other = CheckpointKeys::of(&ServerKeySet::random());
        assert_eq!(checkpoint.verify(&other), Err(RowMacError::Mismatch));
        for forged in [
            Checkpoint { tip: Tip { sequence: 8, ..checkpoint.tip }, ..checkpoint },
            Checkpoint { tip: Tip { hash: [8; 32], ..checkpoint.tip }, ..checkpoint },
            Checkpoint { at: Timestamp(6), ..checkpoint },
            Checkpoint { signature: [0; 64], ..checkpoint },
        ] {
            assert_eq!(forged.verify(&keys), Err(RowMacError::Mismatch));
        }
        let key = 2.try_into().unwrap();
        let unknown = Checkpoint { key, ..checkpoint };
        assert_eq!(unknown.verify(&keys), Err(RowMacError::NoKey(key)));
    }

    #[test]
    fn public_keys_are_read_back_from_their_text() {
        let text = format!("2:{},retired-1:{}", "e5".repeat(32), "d4".repeat(32));
        let keys = CheckpointKeys::of(&text.parse().unwrap());
        assert_eq!(keys.to_string().parse(), Ok(keys.clone()));
        assert_eq!(keys.newest(), Some(2.try_into().unwrap()));
        for bad in ["", "1", "1:00", "0:", ",", "1:00,1:00"] {
            let text = bad.replace("00", &"00".repeat(if bad.len() > 4 { 32 } else { 1 }));
            assert_eq!(text.parse::<CheckpointKeys>(), Err(CheckpointKeysFormat), "{bad}");
        }
    }
}
