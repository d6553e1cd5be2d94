//! The server's own keys: pepper, contact, row, audit, codes and checkpoint key, each in numbered
//! versions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kms_types::{OneTimeCode, text_table};
use ring::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::random;

/// The version of a server key: 1 to 255. Stored in every blob and row that the version made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKeyId(u8);

/// 32 secret bytes. Lives as long as the process and never leaves it.
pub struct ServerKey(Box<Zeroizing<[u8; 32]>>);

/// All versions of one server key. The highest version is used for writing. A retired version is
/// not used at all, except by the commands that move its last dependants.
pub struct ServerKeySet {
    current: ServerKeyId,
    keys: BTreeMap<ServerKeyId, ServerKey>,
    retired: BTreeMap<ServerKeyId, ServerKey>,
}

/// One of the six server keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerKeyKind {
    /// See [`ServerKeys::pepper`].
    Pepper,
    /// See [`ServerKeys::contact`].
    Contact,
    /// See [`ServerKeys::row`].
    Row,
    /// See [`ServerKeys::audit`].
    Audit,
    /// See [`ServerKeys::codes`].
    Codes,
    /// See [`ServerKeys::checkpoint`].
    Checkpoint,
}

text_table! {
    ServerKeyKind {
        Pepper = "pepper",
        Contact = "contact",
        Row = "row",
        Audit = "audit",
        Codes = "codes",
        Checkpoint = "checkpoint",
    }
}

/// The six keys that a server needs beside the KMS key.
#[derive(Debug)]
pub struct ServerKeys {
    /// Part of every SCK, so that passwords cannot be guessed offline with a copy of the databases.
    pub pepper: ServerKeySet,
    /// Seals contacts and signed transactions.
    pub contact: ServerKeySet,
    /// Authenticates rows whose content decides something.
    pub row: ServerKeySet,
    /// Authenticates the audit chain.
    pub audit: ServerKeySet,
    /// Derives the codes and links in e-mails.
    pub codes: ServerKeySet,
    /// The seeds of the Ed25519 keys that sign checkpoints of the audit chain.
    pub checkpoint: ServerKeySet,
}

/// The text is not a list of server keys. The error contains nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerKeyError {
    /// An entry is not `id:hex`.
    #[error(
        "expected id:hex, several separated by commas, with ids from 1 to 255 and 64 hexadecimal \
         digits each, and `retired-` before a retired one; `kms-server keys new` generates one"
    )]
    Format,
    /// Every version is retired, or one that is newer than the current one.
    #[error("the version with the highest id is used for writing and cannot be retired")]
    Retired,
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
    #[error("version {0} of the key is not configured")]
    NoKey(ServerKeyId),
    /// The version of the key is retired: nothing that is served depends on it, so the row was
    /// restored from an old copy, or forged with a leaked key.
    #[error("version {0} of the key is retired")]
    Retired(ServerKeyId),
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

impl FromStr for ServerKeyId {
    type Err = ServerKeyError;

    fn from_str(text: &str) -> Result<Self, ServerKeyError> {
        text.parse::<u8>().map_err(|_other| ServerKeyError::Format)?.try_into()
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
        let keys = BTreeMap::from([(current, ServerKey(bytes))]);
        Self { current, keys, retired: BTreeMap::new() }
    }

    /// Returns the version that is used for writing.
    #[must_use]
    pub fn current(&self) -> ServerKeyId {
        self.current
    }

    /// Returns a version, if it is configured and not retired.
    #[must_use]
    pub fn get(&self, id: ServerKeyId) -> Option<&ServerKey> {
        self.keys.get(&id)
    }

    /// Returns whether a version is configured as retired.
    #[must_use]
    pub fn is_retired(&self, id: ServerKeyId) -> bool {
        self.retired.contains_key(&id)
    }

    /// Returns all versions, retired ones first.
    pub fn iter(&self) -> impl Iterator<Item = (ServerKeyId, &ServerKey)> {
        self.retired.iter().chain(&self.keys).map(|(id, key)| (*id, key))
    }

    /// Makes retired versions readable, for the commands that move what still depends on them.
    #[must_use]
    pub fn with_retired(mut self) -> Self {
        self.keys.append(&mut self.retired);
        self
    }

    fn usable(&self, id: ServerKeyId) -> Result<&ServerKey, RowMacError> {
        let missing =
            if self.is_retired(id) { RowMacError::Retired(id) } else { RowMacError::NoKey(id) };
        self.get(id).ok_or(missing)
    }

    /// Computes the MAC of these fields under the current version. The first field names the table.
    /// Fields are length-prefixed, so that different rows never have the same input.
    #[must_use]
    pub fn mac(&self, fields: &[&[u8]]) -> RowMac {
        RowMac { key: self.current, tag: row_tag(self.newest(), fields) }
    }

    #[expect(clippy::indexing_slicing, reason = "the current version is always in the map")]
    pub(crate) fn newest(&self) -> &ServerKey {
        &self.keys[&self.current]
    }

    /// Computes the MAC of these fields under this version. The first field names the purpose.
    ///
    /// # Errors
    /// When the version is not configured, or retired.
    pub fn mac_under(&self, id: ServerKeyId, fields: &[&[u8]]) -> Result<RowMac, RowMacError> {
        Ok(RowMac { key: id, tag: row_tag(self.usable(id)?, fields) })
    }

    /// Derives a code from these fields and this version. The first field names its purpose.
    ///
    /// # Errors
    /// When the version is not configured, or retired.
    pub fn one_time_code(
        &self,
        id: ServerKeyId,
        fields: &[&[u8]],
    ) -> Result<OneTimeCode, RowMacError> {
        let [a, b, c, d, e, f, g, h, ..] = self.mac_under(id, fields)?.tag;
        Ok(OneTimeCode::from_bits(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    /// Verifies that `mac` is the MAC of these fields under the version that it names.
    ///
    /// # Errors
    /// When it is not, or when that version is not configured, or retired.
    pub fn verify(&self, mac: &RowMac, fields: &[&[u8]]) -> Result<(), RowMacError> {
        let key = self.usable(mac.key)?;
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
            codes: ServerKeySet::random(),
            checkpoint: ServerKeySet::random(),
        }
    }

    /// Returns all versions of one key.
    #[must_use]
    pub fn set(&self, kind: ServerKeyKind) -> &ServerKeySet {
        match kind {
            ServerKeyKind::Pepper => &self.pepper,
            ServerKeyKind::Contact => &self.contact,
            ServerKeyKind::Row => &self.row,
            ServerKeyKind::Audit => &self.audit,
            ServerKeyKind::Codes => &self.codes,
            ServerKeyKind::Checkpoint => &self.checkpoint,
        }
    }

    /// Returns every version of every key, retired ones included.
    pub fn iter(&self) -> impl Iterator<Item = (ServerKeyKind, ServerKeyId, &ServerKey)> {
        let kinds = ServerKeyKind::ALL.iter();
        kinds.flat_map(|kind| self.set(*kind).iter().map(|(id, key)| (*kind, id, key)))
    }

    /// Makes retired versions readable, for the commands that move what still depends on them.
    #[must_use]
    pub fn with_retired(self) -> Self {
        Self {
            pepper: self.pepper.with_retired(),
            contact: self.contact.with_retired(),
            row: self.row.with_retired(),
            audit: self.audit.with_retired(),
            codes: self.codes.with_retired(),
            checkpoint: self.checkpoint.with_retired(),
        }
    }
}

impl FromStr for ServerKeySet {
    type Err = ServerKeyError;

    /// Parses `3:<64 hex digits>,2:<64 hex digits>,retired-1:<64 hex digits>`, in any order.
    fn from_str(text: &str) -> Result<Self, ServerKeyError> {
        let (mut keys, mut retired) = (BTreeMap::new(), BTreeMap::new());
        for entry in text.trim().split(',') {
            let (id, digits) = entry.split_once(':').ok_or(ServerKeyError::Format)?;
            let (id, versions) = match id.strip_prefix("retired-") {
                Some(id) => (id, &mut retired),
                None => (id, &mut keys),
            };
            let id: ServerKeyId = id.parse()?;
            let mut bytes = Box::new(Zeroizing::new([0; 32]));
            hex::decode_to_slice(digits, bytes.as_mut_slice())
                .map_err(|_secret| ServerKeyError::Format)?;
            if versions.insert(id, ServerKey(bytes)).is_some() {
                return Err(ServerKeyError::Duplicate(id.0));
            }
        }
        if let Some(id) = retired.keys().find(|id| keys.contains_key(id)) {
            return Err(ServerKeyError::Duplicate(id.0));
        }
        let current = *keys.keys().next_back().ok_or(ServerKeyError::Retired)?;
        if retired.keys().next_back().is_some_and(|id| *id > current) {
            return Err(ServerKeyError::Retired);
        }
        Ok(Self { current, keys, retired })
    }
}

/// Compares two codes in constant time.
pub(crate) fn is_same_code(one: &OneTimeCode, other: &OneTimeCode) -> bool {
    one.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
}

pub(crate) fn framed(fields: &[&[u8]]) -> Vec<u8> {
    let mut row = Vec::new();
    for field in fields {
        row.extend_from_slice(&(field.len() as u64).to_be_bytes());
        row.extend_from_slice(field);
    }
    row
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
        f.debug_set().entries(self.iter().map(|(id, _)| id.0)).finish()
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
    fn a_retired_version_is_used_by_no_server() {
        let old: ServerKeySet = format!("1:{}", "11".repeat(32)).parse().unwrap();
        let text = format!("2:{},retired-1:{}", "22".repeat(32), "11".repeat(32));
        let set: ServerKeySet = text.parse().unwrap();
        let (row, first): ([&[u8]; 1], _) = ([b"accounts"], ServerKeyId(1));
        assert_eq!(set.verify(&old.mac(&row), &row), Err(RowMacError::Retired(first)));
        assert_eq!(set.one_time_code(first, &row).unwrap_err(), RowMacError::Retired(first));
        assert!(set.get(first).is_none() && set.is_retired(first) && set.iter().count() == 2);
        assert_eq!(set.with_retired().verify(&old.mac(&row), &row), Ok(()));
        for (bad, error) in [
            (text.replace("2:", "retired-2:"), ServerKeyError::Retired),
            (text.replace("retired-1:", "retired-3:"), ServerKeyError::Retired),
            (text.replace("retired-1:", "retired-2:"), ServerKeyError::Duplicate(2)),
            (text.replace("retired-1:", "retired-:"), ServerKeyError::Format),
        ] {
            assert_eq!(bad.parse::<ServerKeySet>().unwrap_err(), error);
        }
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
