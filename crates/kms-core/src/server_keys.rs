//! The server's own symmetric keys: pepper, contact, row and audit key, each in numbered versions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kms_types::OneTimeCode;
use ring::hmac;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::random;

/// The version of a server key: 1 to 255. Stored in every blob and row that the version made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKeyId(u8);

/// 32 secret bytes. Lives as long as the process and never leaves it.
pub struct ServerKey(Box<Zeroizing<[u8; 32]>>);

/// All versions of one server key. The highest version is used for writing.
pub struct ServerKeySet {
    current: ServerKeyId,
    keys: BTreeMap<ServerKeyId, ServerKey>,
}

/// The four keys that a server needs beside the KMS key.
#[derive(Debug)]
pub struct ServerKeys {
    /// Part of every SCK, so that passwords cannot be guessed offline with a copy of the databases.
    pub pepper: ServerKeySet,
    /// Seals contacts and signed transactions.
    pub contact: ServerKeySet,
    /// Authenticates rows whose content decides something.
    pub row: ServerKeySet,
    /// Authenticates the audit chain and its checkpoints.
    pub audit: ServerKeySet,
}

/// The text is not a list of server keys. The error contains nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerKeyError {
    /// An entry is not `id:hex`.
    #[error(
        "expected id:hex, several separated by commas, with ids from 1 to 255 and 64 hexadecimal \
         digits each; `kms-server keys new` generates one"
    )]
    Format,
    /// Two entries have the same id.
    #[error("duplicate key id {0}")]
    Duplicate(u8),
}

/// A row's MAC, with the version of the row key that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMac {
    /// The version of the row key.
    pub key: ServerKeyId,
    /// HMAC-SHA256.
    pub tag: [u8; 32],
}

/// The text is not a row MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 66 lower-case hexadecimal digits: the key's id and the tag")]
pub struct RowMacFormat;

/// Why a row's MAC was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowMacError {
    /// The version of the key is not configured: an operator's mistake.
    #[error("version {0} of the row key is not configured")]
    NoKey(ServerKeyId),
    /// The MAC is not that of this row: either of them was modified.
    #[error("the row does not match its MAC")]
    Mismatch,
}

impl fmt::Display for RowMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{}", self.key.0, hex::encode(self.tag))
    }
}

impl FromStr for RowMac {
    type Err = RowMacFormat;

    fn from_str(text: &str) -> Result<Self, RowMacFormat> {
        let mut bytes = [0; 33];
        // The decoder accepts other spellings as well; only the one that is written is valid.
        hex::decode_to_slice(text, &mut bytes).map_err(|_other| RowMacFormat)?;
        let [key, tag @ ..] = bytes;
        let mac = Self { key: key.try_into().map_err(|_zero| RowMacFormat)?, tag };
        if mac.to_string() == text { Ok(mac) } else { Err(RowMacFormat) }
    }
}

impl ServerKeyId {
    /// Returns the id as it is stored in blobs and rows.
    #[must_use]
    pub fn as_u8(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for ServerKeyId {
    type Error = ServerKeyError;

    fn try_from(id: u8) -> Result<Self, ServerKeyError> {
        if id == 0 { Err(ServerKeyError::Format) } else { Ok(Self(id)) }
    }
}

impl fmt::Display for ServerKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ServerKey {
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives a public value that identifies the key. It is stored beside the data, so that a
    /// server that is started with another key is refused.
    #[must_use]
    pub fn check_value(&self) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.expose());
        tag(&key, &[b"wallet-kms/v1/check"])
    }
}

impl ServerKeySet {
    /// Generates one key with id 1, for tests and the sandbox.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        random::fill(bytes.as_mut_slice());
        let current = ServerKeyId(1);
        Self { current, keys: BTreeMap::from([(current, ServerKey(bytes))]) }
    }

    /// Returns the version that is used for writing.
    #[must_use]
    pub fn current(&self) -> ServerKeyId {
        self.current
    }

    /// Returns a version, if it is configured.
    #[must_use]
    pub fn get(&self, id: ServerKeyId) -> Option<&ServerKey> {
        self.keys.get(&id)
    }

    /// Returns all versions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (ServerKeyId, &ServerKey)> {
        self.keys.iter().map(|(id, key)| (*id, key))
    }

    /// Computes the MAC of these fields under the current version. The first field names the table.
    /// Fields are length-prefixed, so that different rows never have the same input.
    #[must_use]
    pub fn mac(&self, fields: &[&[u8]]) -> RowMac {
        #[expect(clippy::indexing_slicing, reason = "the current version is always in the map")]
        let key = &self.keys[&self.current];
        RowMac { key: self.current, tag: row_tag(key, fields) }
    }

    /// Derives a code from these fields and the current version. The first field names its purpose.
    #[must_use]
    pub fn one_time_code(&self, fields: &[&[u8]]) -> OneTimeCode {
        code_of(&self.mac(fields).tag)
    }

    /// Returns whether this is the code of these fields under any version. Compares in constant
    /// time.
    #[must_use]
    pub fn is_one_time_code(&self, code: &OneTimeCode, fields: &[&[u8]]) -> bool {
        let is = |key| {
            let right = code_of(&row_tag(key, fields));
            right.expose().as_bytes().ct_eq(code.expose().as_bytes())
        };
        self.keys.values().fold(Choice::from(0), |any, key| any | is(key)).into()
    }

    /// Verifies that `mac` is the MAC of these fields under the version that it names.
    ///
    /// # Errors
    /// When it is not, or when that version is not configured.
    pub fn verify(&self, mac: &RowMac, fields: &[&[u8]]) -> Result<(), RowMacError> {
        let key = self.get(mac.key).ok_or(RowMacError::NoKey(mac.key))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        hmac::verify(&key, &framed(fields), &mac.tag).map_err(|_mismatch| RowMacError::Mismatch)
    }
}

impl ServerKeys {
    /// Generates keys for tests and the sandbox.
    #[must_use]
    pub fn random() -> Self {
        Self {
            pepper: ServerKeySet::random(),
            contact: ServerKeySet::random(),
            row: ServerKeySet::random(),
            audit: ServerKeySet::random(),
        }
    }

    /// Returns every version of every key with the name of its kind.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, ServerKeyId, &ServerKey)> {
        [
            ("pepper", &self.pepper),
            ("contact", &self.contact),
            ("row", &self.row),
            ("audit", &self.audit),
        ]
        .into_iter()
        .flat_map(|(kind, set)| set.iter().map(move |(id, key)| (kind, id, key)))
    }
}

impl FromStr for ServerKeySet {
    type Err = ServerKeyError;

    /// Parses `2:<64 hex digits>,1:<64 hex digits>`, in any order.
    fn from_str(text: &str) -> Result<Self, ServerKeyError> {
        let mut keys = BTreeMap::new();
        for entry in text.trim().split(',') {
            let (id, digits) = entry.split_once(':').ok_or(ServerKeyError::Format)?;
            let id: u8 = id.parse().map_err(|_secret| ServerKeyError::Format)?;
            let mut bytes = Box::new(Zeroizing::new([0; 32]));
            hex::decode_to_slice(digits, bytes.as_mut_slice())
                .map_err(|_secret| ServerKeyError::Format)?;
            if keys.insert(id.try_into()?, ServerKey(bytes)).is_some() {
                return Err(ServerKeyError::Duplicate(id));
            }
        }
        let current = *keys.keys().next_back().ok_or(ServerKeyError::Format)?;
        Ok(Self { current, keys })
    }
}

fn framed(fields: &[&[u8]]) -> Vec<u8> {
    let mut row = Vec::new();
    for field in fields {
        row.extend_from_slice(&(field.len() as u64).to_be_bytes());
        row.extend_from_slice(field);
    }
    row
}

fn code_of(tag: &[u8; 32]) -> OneTimeCode {
    let [a, b, c, d, e, f, g, h, ..] = *tag;
    OneTimeCode::from_bits(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

fn row_tag(key: &ServerKey, fields: &[&[u8]]) -> [u8; 32] {
    tag(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), &[&framed(fields)])
}

fn tag(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey(..)")
    }
}

impl fmt::Debug for ServerKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys().map(|id| id.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_writes_and_all_verify() {
        let old: ServerKeySet = format!("1:{}", "11".repeat(32)).parse().unwrap();
        let both: ServerKeySet =
            format!("2:{},1:{}", "22".repeat(32), "11".repeat(32)).parse().unwrap();
        let row: [&[u8]; 2] = [b"accounts", b"x"];
        assert_eq!(both.mac(&row).key.as_u8(), 2);
        assert_eq!(both.verify(&old.mac(&row), &row), Ok(()));
        assert_eq!(old.verify(&both.mac(&row), &row), Err(RowMacError::NoKey(ServerKeyId(2))));
        let moved: [&[u8]; 2] = [b"accountsx", b""];
        assert_eq!(both.verify(&both.mac(&row), &moved), Err(RowMacError::Mismatch));
    }

    #[test]
    fn a_mac_parses_only_from_its_canonical_text() {
        let mac = RowMac { key: ServerKeyId(1), tag: [0xab; 32] };
        let text = mac.to_string();
        assert_eq!(text.parse(), Ok(mac));
        for bad in [
            "",
            &text[2..],
            &text[1..],
            &format!("{text}00"),
            &format!("0x{text}"),
            &text.to_uppercase(),
            &text.replacen("01", "00", 1),
        ] {
            assert_eq!(bad.parse::<RowMac>(), Err(RowMacFormat), "{bad}");
        }
    }

    #[test]
    fn rejects_other_texts_and_shows_no_key() {
        let digits = "1f".repeat(32);
        for bad in [
            "",
            "1",
            "0:",
            &digits,
            &format!("0:{digits}"),
            &format!("256:{digits}"),
            &format!("1:{digits}0"),
            &format!("1:{},", digits),
            &format!("1:+{}", &digits[1..]),
        ] {
            let error = bad.parse::<ServerKeySet>().unwrap_err();
            assert!(!error.to_string().contains("1f1f"), "{bad}");
        }
        assert_eq!(
            format!("1:{digits},1:{digits}").parse::<ServerKeySet>().unwrap_err(),
            ServerKeyError::Duplicate(1)
        );
        let keys: ServerKeySet = format!("7:{digits}").parse().unwrap();
        assert_eq!(format!("{keys:?}"), "{7}");
        assert_eq!(format!("{:?}", keys.get(keys.current()).unwrap()), "ServerKey(..)");
    }
}
