//! The audit table as a hash chain (`FORMAT.md`, "Audit chain"). The hash of a row is the SHA-256
//! of the row and of the hash before it, so that an auditor follows the chain without a secret.
//! Beside it stands an HMAC of the hash: only a holder of the audit key can append, or mend a chain
//! in which a row was modified, moved or removed.
//!
//! This module reads no clock and no table.

use kms_types::Timestamp;

use super::details::sha256;
use crate::server_keys::{RowMac, RowMacError, ServerKeySet, framed};

const LABEL: &[u8] = b"wallet-kms/v2/audit";
const MAC_LABEL: &[u8] = b"wallet-kms/v2/audit-row";

/// The columns of a row that its hash covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written.
    pub at: Timestamp,
    /// The caller's name.
    pub actor: &'a str,
    /// The request's id, as in the logs.
    pub request_id: &'a str,
    /// The action.
    pub action: &'a str,
    /// The object of the action, where it is not the account.
    pub subject: Option<&'a str>,
    /// The account's id.
    pub account: Option<&'a str>,
    /// The owner's Telegram id.
    pub telegram_id: Option<i64>,
    /// `intent`, `outcome` or `alarm`.
    pub phase: &'a str,
    /// The code of the outcome or alarm.
    pub outcome: Option<&'a str>,
    /// The text of [`Details`](super::Details).
    pub details: &'a str,
}

/// Binds a row to the row before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The row's number: 1, 2, 3 and so on, without a gap.
    pub sequence: i64,
    /// The hash of the row before it.
    pub previous: [u8; 32],
    /// The hash of this row.
    pub hash: [u8; 32],
    /// The MAC of the hash, and the version of the audit key that made it.
    pub mac: RowMac,
}

/// The end of the chain. Before the first row: number 0, and a hash of zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tip {
    /// The number of the last row.
    pub sequence: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Tip {
    /// Appends a row: returns its link, and advances the tip to it.
    pub fn append(&mut self, entry: &Entry<'_>, audit_keys: &ServerKeySet) -> Link {
        let (sequence, previous) = (self.sequence.saturating_add(1), self.hash);
        let hash = hash(sequence, &previous, entry);
        let mac = audit_keys.mac(&[MAC_LABEL, &hash]);
        *self = Self { sequence, hash };
        Link { sequence, previous, hash, mac }
    }
}

impl Link {
    /// Whether the row is the one that was written with this link. Anyone can compute that.
    #[must_use]
    pub fn is_of(&self, entry: &Entry<'_>) -> bool {
        hash(self.sequence, &self.previous, entry) == self.hash
    }

    /// Verifies that the row is the one that was written with this link, by a holder of the audit
    /// key.
    ///
    /// # Errors
    /// When it is not, or when the version of the audit key is not configured.
    pub fn verify(&self, entry: &Entry<'_>, audit_keys: &ServerKeySet) -> Result<(), RowMacError> {
        if self.is_of(entry) { self.authenticate(audit_keys) } else { Err(RowMacError::Mismatch) }
    }

    /// Verifies that the hash is one that a holder of the audit key wrote.
    pub(super) fn authenticate(&self, audit_keys: &ServerKeySet) -> Result<(), RowMacError> {
        audit_keys.verify(&self.mac, &[MAC_LABEL, &self.hash])
    }

    /// Returns the end of a chain whose last row this is.
    #[must_use]
    pub fn tip(&self) -> Tip {
        Tip { sequence: self.sequence, hash: self.hash }
    }
}

fn hash(sequence: i64, previous: &[u8; 32], entry: &Entry<'_>) -> [u8; 32] {
    let telegram_id = entry.telegram_id.map(i64::to_be_bytes);
    let fields = framed(&[
        LABEL,
        previous,
        &sequence.to_be_bytes(),
        &entry.at.0.to_be_bytes(),
        entry.actor.as_bytes(),
        entry.request_id.as_bytes(),
        entry.action.as_bytes(),
        &some(entry.subject.map(str::as_bytes)),
        &some(entry.account.map(str::as_bytes)),
        &some(telegram_id.as_ref().map(<[u8; 8]>::as_slice)),
        entry.phase.as_bytes(),
        &some(entry.outcome.map(str::as_bytes)),
        entry.details.as_bytes(),
    ]);
    sha256(&fields)
}

/// Encodes null and an empty value differently.
fn some(value: Option<&[u8]>) -> Vec<u8> {
    value.map_or_else(Vec::new, |value| [&[1], value].concat())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn audit_keys() -> ServerKeySet {
        format!("1:{}", "d4".repeat(32)).parse().unwrap()
    }

    pub(crate) fn entry() -> Entry<'static> {
        Entry {
            at: Timestamp(1_795_000_000_000),
            actor: "bot",
            request_id: "r-1",
            action: "send",
            subject: Some("cccccccc-cccc-cccc-cccc-cccccccccccc"),
            account: None,
            telegram_id: Some(4711),
            phase: "intent",
            outcome: None,
            details: "chain=1\nto=0xab",
        }
    }

    #[test]
    fn the_hash_covers_every_field_at_its_position() {
        let (keys, entry) = (audit_keys(), entry());
        let link = Tip::default().append(&entry, &keys);
        assert_eq!(link.verify(&entry, &keys), Ok(()));
        for changed in [
            Entry { at: Timestamp(0), ..entry },
            Entry { actor: "botr", request_id: "-1", ..entry },
            Entry { action: "sen", ..entry },
            Entry { subject: None, account: entry.subject, ..entry },
            Entry { account: Some(""), ..entry },
            Entry { telegram_id: None, ..entry },
            Entry { telegram_id: Some(4712), ..entry },
            Entry { phase: "outcome", ..entry },
            Entry { outcome: Some(""), ..entry },
            Entry { details: "chain=1\nto=0xac", ..entry },
            Entry { details: "", ..entry },
        ] {
            assert_eq!(link.verify(&changed, &keys), Err(RowMacError::Mismatch), "{changed:?}");
        }
        for moved in [Link { sequence: 2, ..link }, Link { previous: [1; 32], ..link }] {
            assert_eq!(moved.verify(&entry, &keys), Err(RowMacError::Mismatch));
        }
        // Anyone can compute the hash of another row, but not its MAC.
        let forged =
            Tip::default().append(&Entry { actor: "eve", ..entry }, &ServerKeySet::random());
        let forged_entry = Entry { actor: "eve", ..entry };
        assert!(forged.is_of(&forged_entry));
        assert_eq!(forged.verify(&forged_entry, &keys), Err(RowMacError::Mismatch));
    }

    #[test]
    fn a_link_contains_the_hash_before_it() {
        let (keys, mut tip) = (audit_keys(), Tip::default());
        let first = tip.append(&entry(), &keys);
        let second = tip.append(&entry(), &keys);
        assert_eq!((first.sequence, first.previous), (1, [0; 32]));
        assert_eq!((second.sequence, second.previous), (2, first.hash));
        assert_eq!(second.tip(), tip);
    }
}
