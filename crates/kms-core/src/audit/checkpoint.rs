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

/// The first word of the line and the label of the signature.
const CHECKPOINT: (&str, &[u8]) = ("v2", b"wallet-kms/v2/audit-checkpoint");
const ADOPTION: (&str, &[u8]) = ("v2-adopt", b"wallet-kms/v2/audit-adoption");

/// The end of the chain at some time, with an Ed25519 signature under the checkpoint key. As text
/// it is one line (`FORMAT.md`, "Audit checkpoint").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The end of the chain.
    pub tip: Tip,
    /// When it was signed.
    pub at: Timestamp,
    is_adoption: bool,
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
        Self::sign_as(false, tip, at, checkpoint_keys)
    }

    /// Signs an adoption: the statement of an operator that the rows after this one were lost in a
    /// restore, and that the chain goes on without them. Earlier checkpoints of these are void.
    #[must_use]
    pub fn adopt(tip: Tip, at: Timestamp, checkpoint_keys: &ServerKeySet) -> Self {
        Self::sign_as(true, tip, at, checkpoint_keys)
    }

    fn sign_as(is_adoption: bool, tip: Tip, at: Timestamp, keys: &ServerKeySet) -> Self {
        let (key, pair) = (keys.current(), key_pair(keys.newest().expose()));
        let mut signed = Self { tip, at, is_adoption, key, signature: [0; 64] };
        let signature = pair.sign(&signed.message());
        signed.signature.copy_from_slice(signature.as_ref());
        signed
    }

    /// Returns the checkpoints that no adoption voids. One under an older version of the key than a
    /// checkpoint does not void it: an attacker may have the older version.
    #[must_use]
    pub fn in_force(all: &[Self]) -> Vec<Self> {
        let adoptions: Vec<_> = all.iter().filter(|known| known.is_adoption).collect();
        let is_void = |known: &Self| {
            adoptions.iter().any(|adoption| {
                known.tip.sequence > adoption.tip.sequence
                    && known.at < adoption.at
                    && known.key <= adoption.key
            })
        };
        all.iter().filter(|known| !is_void(known)).copied().collect()
    }

    fn kind(&self) -> (&'static str, &'static [u8]) {
        if self.is_adoption { ADOPTION } else { CHECKPOINT }
    }

    fn message(&self) -> Vec<u8> {
        let (sequence, at) = (self.tip.sequence.to_be_bytes(), self.at.0.to_be_bytes());
        framed(&[self.kind().1, &sequence, &self.tip.hash, &at])
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
            .verify(&self.message(), &self.signature)
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

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tip, at, key, signature, .. } = self;
        let (word, hash) = (self.kind().0, hex::encode(tip.hash));
        let signature = hex::encode(signature);
        write!(f, "{word} {} {hash} {} {key} {signature}", tip.sequence, at.0)
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointFormat;

    fn from_str(text: &str) -> Result<Self, CheckpointFormat> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(CheckpointFormat);
        let is_adoption = word()? == ADOPTION.0;
        let tip = Tip { sequence: number(word()?)?, hash: bytes(word()?)? };
        let at = Timestamp(number(word()?)?);
        let key = word()?.parse().map_err(|_other| CheckpointFormat)?;
        let parsed = Self { tip, at, is_adoption, key, signature: bytes(word()?)? };
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
            Checkpoint { is_adoption: true, ..checkpoint },
        ] {
            assert_eq!(forged.verify(&keys), Err(RowMacError::Mismatch));
        }
        let key = 2.try_into().unwrap();
        let unknown = Checkpoint { key, ..checkpoint };
        assert_eq!(unknown.verify(&keys), Err(RowMacError::NoKey(key)));
    }

    #[test]
    fn an_adoption_voids_earlier_checkpoints_of_later_rows_under_its_key_or_an_older_one() {
        let old = checkpoint_keys();
        let both: ServerKeySet =
            format!("2:{},1:{}", "e5".repeat(32), "f6".repeat(32)).parse().unwrap();
        let tip = |sequence| Tip { sequence, hash: [9; 32] };
        let sign = |sequence, at, keys| Checkpoint::sign(tip(sequence), Timestamp(at), keys);
        let kept = [sign(5, 1, &old), sign(7, 9, &old), sign(8, 2, &both)];
        let void = [sign(6, 1, &old), sign(9, 4, &old)];
        let adoption = Checkpoint::adopt(tip(5), Timestamp(5), &old);
        assert_eq!(adoption.to_string().parse(), Ok(adoption));
        assert_eq!(adoption.verify(&CheckpointKeys::of(&old)), Ok(()));
        let all = [&kept[..], &void, &[adoption]].concat();
        assert_eq!(Checkpoint::in_force(&all), [&kept[..], &[adoption]].concat());
        let newer = Checkpoint::adopt(tip(5), Timestamp(5), &both);
        let all = [kept[2], newer];
        assert_eq!(Checkpoint::in_force(&all), [newer]);
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
