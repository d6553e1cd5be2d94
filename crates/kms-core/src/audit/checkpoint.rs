//! A signed record of where the chain ended, kept outside the table. It detects rows that were
//! removed from the end of the chain, and a chain that was rewritten as a whole.

use std::fmt;
use std::str::FromStr;

use kms_types::Timestamp;

use super::Tip;
use crate::server_keys::{RowMac, RowMacError, ServerKeyId, ServerKeySet};

const LABEL: &[u8] = b"wallet-kms/v1/audit-checkpoint";
const VERSION: &str = "v1";

/// The end of the chain at some time, with an HMAC under the audit key. As text it is one line
/// (`FORMAT.md`, "Audit checkpoint").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The end of the chain.
    pub tip: Tip,
    /// When it was signed.
    pub at: Timestamp,
    mac: RowMac,
}

/// The text is not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a checkpoint: v1, number, hash, time, key and signature, separated by spaces")]
pub struct CheckpointFormat;

impl Checkpoint {
    /// Signs a checkpoint.
    #[must_use]
    pub fn sign(tip: Tip, at: Timestamp, audit_keys: &ServerKeySet) -> Self {
        Self { tip, at, mac: with_fields(&tip, at, |fields| audit_keys.mac(fields)) }
    }

    /// Returns the version of the audit key that signed it.
    #[must_use]
    pub fn key(&self) -> ServerKeyId {
        self.mac.key
    }

    /// Verifies the signature.
    ///
    /// # Errors
    /// When it is invalid, or when the version of the key is not configured.
    pub fn verify(&self, audit_keys: &ServerKeySet) -> Result<(), RowMacError> {
        with_fields(&self.tip, self.at, |fields| audit_keys.verify(&self.mac, fields))
    }
}

fn with_fields<T>(tip: &Tip, at: Timestamp, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    work(&[LABEL, &tip.sequence.to_be_bytes(), &tip.hash, &at.0.to_be_bytes()])
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tip, at, mac } = self;
        let (hash, tag) = (hex::encode(tip.hash), hex::encode(mac.tag));
        write!(f, "{VERSION} {} {hash} {} {} {tag}", tip.sequence, at.0, mac.key)
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
        let key: u8 = number(word()?)?;
        let key = key.try_into().map_err(|_zero| CheckpointFormat)?;
        let mac = RowMac { key, tag: bytes(word()?)? };
        if words.next().is_some() { Err(CheckpointFormat) } else { Ok(Self { tip, at, mac }) }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, CheckpointFormat> {
    text.parse().map_err(|_other| CheckpointFormat)
}

fn bytes(digits: &str) -> Result<[u8; 32], CheckpointFormat> {
    let mut bytes = [0; 32];
    // The decoder accepts a prefix as well, which is never written.
    if digits.len() != 64 {
        return Err(CheckpointFormat);
    }
    hex::decode_to_slice(digits, &mut bytes).map_err(|_other| CheckpointFormat)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::audit_keys;
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint::sign(Tip { sequence: 7, hash: [9; 32] }, Timestamp(5), &audit_keys())
    }

    #[test]
    fn parses_only_its_canonical_text() {
        let text = checkpoint().to_string();
        assert_eq!(text.parse(), Ok(checkpoint()));
        for bad in [
            "",
            "v1",
            &text[..text.len() - 1],
            &format!("{text} "),
            &format!("{text} 1"),
            &text.replace("v1", "v2"),
            &text.replace("v1 7", "v1 seven"),
            &text.replace(' ', "  "),
        ] {
            assert_eq!(bad.parse::<Checkpoint>(), Err(CheckpointFormat), "{bad}");
        }
    }

    #[test]
    fn rejects_checkpoints_that_were_not_signed() {
        let (keys, checkpoint) = (audit_keys(), checkpoint());
        assert_eq!(checkpoint.verify(&keys), Ok(()));
        for forged in [
            Checkpoint { tip: Tip { sequence: 8, ..checkpoint.tip }, ..checkpoint },
            Checkpoint { tip: Tip { hash: [8; 32], ..checkpoint.tip }, ..checkpoint },
            Checkpoint { at: Timestamp(6), ..checkpoint },
        ] {
            assert_eq!(forged.verify(&keys), Err(RowMacError::Mismatch));
        }
    }
}
