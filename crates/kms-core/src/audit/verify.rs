//! Verifies the audit table in one pass, oldest row first, and reports the first row that is wrong.

use std::collections::{BTreeMap, HashMap};

use kms_types::Timestamp;

use super::checkpoint::Checkpoint;
use super::{Entry, Link, Tip};
use crate::server_keys::{RowMacError, ServerKeyId, ServerKeySet};

/// What a row's chain columns hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaining {
    /// A link to the row before.
    Linked(Link),
    /// Something else.
    Malformed,
}

/// The first thing that is wrong. A row is named by its number in the chain, or by its place
/// (`seq`) in the table where it has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// The row's hash does not match: the row was modified, or was not written with the audit key.
    #[error("row {sequence} of the chain was modified")]
    Changed {
        /// The row.
        sequence: i64,
    },
    /// The row's chain columns do not hold a link: they were modified, or the row was inserted by
    /// another program.
    #[error("the row at seq {place} has no valid link to the chain")]
    Malformed {
        /// The row's place.
        place: i64,
    },
    /// The row is not between the two rows that it was written between.
    #[error("row {found} is in the place of row {sequence} of the chain")]
    Misplaced {
        /// The expected row.
        sequence: i64,
        /// The row in its place.
        found: i64,
    },
    /// The row is missing, and later ones exist.
    #[error("row {sequence} of the chain was removed")]
    Removed {
        /// The row.
        sequence: i64,
    },
    /// The chain ends before a row that a checkpoint covers.
    #[error(
        "the chain was truncated: row {sequence} is missing, a checkpoint covers row {checkpoint}"
    )]
    Cut {
        /// The first missing row.
        sequence: i64,
        /// The last row that is known to have existed.
        checkpoint: i64,
    },
    /// The row was written for another chain: after a restore, or with an older copy.
    #[error("row {sequence} of the chain does not follow the row before it")]
    Detached {
        /// The row.
        sequence: i64,
    },
    /// The chain is consistent, but is not the one that the checkpoint covers.
    #[error(
        "row {sequence} of the chain is not the one that a checkpoint covers: it was rewritten"
    )]
    Rewritten {
        /// The row.
        sequence: i64,
    },
    /// The row is under a version of the audit key that a newer one had replaced: an attacker with
    /// the old version can write such a row.
    #[error(
        "row {sequence} of the chain is under version {version} of the audit key, though a newer \
         one was in use before it"
    )]
    OlderKey {
        /// The row.
        sequence: i64,
        /// The replaced version.
        version: ServerKeyId,
    },
    /// The checkpoint is under a version of the audit key that a newer one had replaced: an
    /// attacker with the old version can sign it, also for a chain that they truncated.
    #[error(
        "the checkpoint of row {sequence} is under version {version} of the audit key, though a \
         newer one was in use before it"
    )]
    OlderCheckpoint {
        /// The row that the checkpoint covers.
        sequence: i64,
        /// The replaced version.
        version: ServerKeyId,
    },
    /// The row cannot be verified without a version of the key that is not configured.
    #[error("version {version} of the audit key is not configured; row {sequence} needs it")]
    NoKey {
        /// The row.
        sequence: i64,
        /// The missing version.
        version: ServerKeyId,
    },
}

impl Break {
    /// Converts the failed verification of a row's hash.
    #[must_use]
    pub fn unverified(sequence: i64, error: RowMacError) -> Self {
        match error {
            RowMacError::NoKey(version) => Self::NoKey { sequence, version },
            RowMacError::Retired(version) => Self::OlderKey { sequence, version },
            RowMacError::Mismatch => Self::Changed { sequence },
        }
    }
}

/// A use of a key without an outcome: the server ended in the middle of it, or it is in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// The `seq` of the INTENT.
    pub place: i64,
    /// When it was written.
    pub at: Timestamp,
    /// The request, as in the logs.
    pub request_id: String,
    /// The action.
    pub action: String,
}

/// A chain that was verified to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The end of the chain.
    pub tip: Tip,
    /// The last row that a checkpoint covers. Removing rows after it would go unnoticed.
    pub checkpoint: Option<i64>,
    /// Uses of a key without an outcome, oldest first.
    pub open: Vec<OpenIntent>,
}

/// What an operator accepts beyond a chain without any irregularity.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leniency {
    /// Accepts, up to this row, rows under an older version of the audit key after a newer one, and
    /// checkpoints of them. While a new version is rolled out, servers that are restarted last
    /// write such rows.
    pub older_key_until: i64,
}

/// Verifies rows in the order of the table.
#[derive(Debug)]
pub struct Verifier<'a> {
    audit_keys: &'a ServerKeySet,
    checkpoints: BTreeMap<i64, Vec<Checkpoint>>,
    leniency: Leniency,
    /// The newest version of the key among the rows so far.
    newest: Option<ServerKeyId>,
    verified: Verified,
    open: HashMap<(String, String, Option<String>), Vec<OpenIntent>>,
}

impl<'a> Verifier<'a> {
    /// Compares the chain with these checkpoints, whose signatures were verified.
    #[must_use]
    pub fn new(
        audit_keys: &'a ServerKeySet,
        checkpoints: &[Checkpoint],
        leniency: Leniency,
    ) -> Self {
        let mut known = BTreeMap::<_, Vec<_>>::new();
        for checkpoint in checkpoints {
            known.entry(checkpoint.tip.sequence).or_default().push(*checkpoint);
        }
        let checkpoint = known.keys().next_back().copied();
        Self {
            audit_keys,
            checkpoints: known,
            leniency,
            newest: None,
            verified: Verified { tip: Tip::default(), checkpoint, open: Vec::new() },
            open: HashMap::new(),
        }
    }

    /// Verifies the row at this place of the table, which follows the one before.
    ///
    /// # Errors
    /// When it is not the row that belongs there.
    pub fn push(&mut self, place: i64, entry: &Entry<'_>, chaining: Chaining) -> Result<(), Break> {
        match chaining {
            Chaining::Linked(link) => self.follow(entry, &link)?,
            Chaining::Malformed => return Err(Break::Malformed { place }),
        }
        self.pair(place, entry);
        Ok(())
    }

    /// Ends the verification after the last row.
    ///
    /// # Errors
    /// When a checkpoint covers a later row.
    pub fn finish(mut self) -> Result<Verified, Break> {
        let sequence = self.verified.tip.sequence.saturating_add(1);
        let mut beyond = self.checkpoints.range(sequence..).rev().flat_map(|(_, known)| known);
        let last = beyond.clone().next();
        if let Some(known) = beyond.find(|known| self.trust(known).is_ok()) {
            return Err(Break::Cut { sequence, checkpoint: known.tip.sequence });
        }
        last.map_or(Ok(()), |forged| self.trust(forged))?;
        self.verified.open = self.open.into_values().flatten().collect();
        self.verified.open.sort_by_key(|intent| intent.place);
        Ok(self.verified)
    }

    fn follow(&mut self, entry: &Entry<'_>, link: &Link) -> Result<(), Break> {
        let (tip, found) = (self.verified.tip, link.sequence);
        let sequence = tip.sequence.saturating_add(1);
        if found != sequence {
            return Err(Break::Misplaced { sequence, found });
        }
        let verified = link.verify(entry, self.audit_keys);
        verified.map_err(|error| Break::unverified(sequence, error))?;
        if link.previous != tip.hash {
            return Err(Break::Detached { sequence });
        }
        let (version, newest) = (link.mac.key, self.newest.max(Some(link.mac.key)));
        if newest > Some(version) && sequence > self.leniency.older_key_until {
            return Err(Break::OlderKey { sequence, version });
        }
        self.newest = newest;
        self.verified.tip = link.tip();
        for known in self.checkpoints.get(&sequence).into_iter().flatten() {
            self.trust(known)?;
            if known.tip.hash != link.mac.tag {
                return Err(Break::Rewritten { sequence });
            }
        }
        Ok(())
    }

    /// Checks that the checkpoint's key was still in use at the row that it covers.
    fn trust(&self, checkpoint: &Checkpoint) -> Result<(), Break> {
        let (sequence, version) = (checkpoint.tip.sequence, checkpoint.key());
        if self.newest > Some(version) && sequence > self.leniency.older_key_until {
            return Err(Break::OlderCheckpoint { sequence, version });
        }
        Ok(())
    }

    /// Matches outcomes with their intents.
    fn pair(&mut self, place: i64, entry: &Entry<'_>) {
        let owned = str::to_owned;
        let key = (owned(entry.request_id), owned(entry.action), entry.subject.map(owned));
        if entry.phase == "intent" {
            let (at, request_id, action) = (entry.at, key.0.clone(), key.1.clone());
            let intent = OpenIntent { place, at, request_id, action };
            self.open.entry(key).or_default().push(intent);
        } else if let Some(intents) = self.open.get_mut(&key) {
            intents.pop();
            if intents.is_empty() {
                self.open.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{audit_keys, entry};
    use super::*;

    /// Three uses of a key in a chain, each with an intent and an outcome.
    fn chain() -> Vec<(Entry<'static>, Link)> {
        let (keys, mut tip) = (audit_keys(), Tip::default());
        ["1", "2", "3"]
            .into_iter()
            .flat_map(|request_id| {
                let intent = Entry { request_id, ..entry() };
                [intent, Entry { phase: "outcome", outcome: Some("ok"), ..intent }]
            })
            .map(|entry| (entry, tip.append(&entry, &keys)))
            .collect()
    }

    fn checkpoint(chain: &[(Entry<'_>, Link)], sequence: usize) -> Checkpoint {
        Checkpoint::sign(chain[sequence - 1].1.tip(), Timestamp(1), &audit_keys())
    }

    fn verify(chain: &[(Entry<'_>, Link)], checkpoints: &[Checkpoint]) -> Result<Verified, Break> {
        let keys = audit_keys();
        let mut verifier = Verifier::new(&keys, checkpoints, Leniency::default());
        for (place, (entry, link)) in (1..).zip(chain) {
            verifier.push(place, entry, Chaining::Linked(*link))?;
        }
        verifier.finish()
    }

    #[test]
    fn accepts_a_whole_chain_and_returns_open_intents() {
        let chain = chain();
        let verified = verify(&chain, &[checkpoint(&chain, 4)]).unwrap();
        assert_eq!(verified.tip, chain[5].1.tip());
        assert_eq!(verified.checkpoint, Some(4));
        assert_eq!(verified.open, []);
        let open = verify(&chain[..5], &[]).unwrap().open;
        let requests: Vec<_> = open.iter().map(|open| (open.place, &*open.request_id)).collect();
        assert_eq!(requests, [(5, "3")]);
        assert_eq!(verify(&[], &[]).unwrap().tip, Tip::default());
    }

    #[test]
    fn reports_the_first_bad_row() {
        let whole = chain();
        let mut changed = whole.clone();
        changed[2].0.actor = "eve";
        assert_eq!(verify(&changed, &[]), Err(Break::Changed { sequence: 3 }));
        let mut removed = whole.clone();
        removed.remove(1);
        assert_eq!(verify(&removed, &[]), Err(Break::Misplaced { sequence: 2, found: 3 }));
        let mut swapped = whole.clone();
        swapped.swap(3, 4);
        assert_eq!(verify(&swapped, &[]), Err(Break::Misplaced { sequence: 4, found: 5 }));
        let beginning = verify(&whole[2..], &[]);
        assert_eq!(beginning, Err(Break::Misplaced { sequence: 1, found: 3 }));
        let cut = verify(&whole[..4], &[checkpoint(&whole, 6), checkpoint(&whole, 2)]);
        assert_eq!(cut, Err(Break::Cut { sequence: 5, checkpoint: 6 }));
    }

    #[test]
    fn reports_rows_of_another_chain_and_rewritten_rows() {
        let whole = chain();
        let (keys, mut tip) = (audit_keys(), Tip::default());
        let other: Vec<_> = whole
            .iter()
            .map(|(entry, _)| Entry { actor: "eve", ..*entry })
            .map(|entry| (entry, tip.append(&entry, &keys)))
            .collect();
        let mixed = [&whole[..2], &other[2..]].concat();
        assert_eq!(verify(&mixed, &[]), Err(Break::Detached { sequence: 3 }));
        let rewritten = verify(&other, &[checkpoint(&whole, 4)]);
        assert_eq!(rewritten, Err(Break::Rewritten { sequence: 4 }));
    }

    #[test]
    fn a_row_without_a_link_is_reported() {
        let (keys, chain) = (audit_keys(), chain());
        let mut verifier = Verifier::new(&keys, &[], Leniency::default());
        verifier.push(1, &chain[0].0, Chaining::Linked(chain[0].1)).unwrap();
        assert_eq!(
            verifier.push(2, &chain[1].0, Chaining::Malformed),
            Err(Break::Malformed { place: 2 })
        );
    }

    /// A key is often replaced because it leaked.
    #[test]
    fn trusts_a_replaced_key_for_rows_before_its_replacement_only() {
        let both: ServerKeySet =
            format!("2:{},1:{}", "e5".repeat(32), "d4".repeat(32)).parse().unwrap();
        let mut tip = Tip::default();
        let rows: Vec<_> = [&audit_keys(), &audit_keys(), &both, &audit_keys(), &both]
            .into_iter()
            .map(|keys| tip.append(&entry(), keys))
            .collect();
        let verified = |older_key_until, rows: &[Link]| {
            let leniency = Leniency { older_key_until };
            let mut verifier = Verifier::new(&both, &[], leniency);
            for (place, link) in (1..).zip(rows) {
                verifier.push(place, &entry(), Chaining::Linked(*link))?;
            }
            verifier.finish().map(|verified| verified.tip.sequence)
        };
        assert_eq!(verified(0, &rows[..3]), Ok(3));
        let refused = Break::OlderKey { sequence: 4, version: 1.try_into().unwrap() };
        assert_eq!(verified(0, &rows), Err(refused));
        assert_eq!(verified(3, &rows), Err(refused));
        // Written by a server that was restarted last.
        assert_eq!(verified(4, &rows), Ok(5));
    }

    #[test]
    fn trusts_checkpoints_of_a_replaced_key_for_earlier_rows_only() {
        let both: ServerKeySet =
            format!("2:{},1:{}", "e5".repeat(32), "d4".repeat(32)).parse().unwrap();
        let old = audit_keys();
        let mut tip = Tip::default();
        let rows = [&old, &old, &both, &both].map(|keys| tip.append(&entry(), keys));
        let signed = |row: usize, keys| Checkpoint::sign(rows[row - 1].tip(), Timestamp(1), keys);
        let verified = |older_key_until, rows: &[Link], checkpoints: &[Checkpoint]| {
            let leniency = Leniency { older_key_until };
            let mut verifier = Verifier::new(&both, checkpoints, leniency);
            for (place, link) in (1..).zip(rows) {
                verifier.push(place, &entry(), Chaining::Linked(*link))?;
            }
            verifier.finish().map(|verified| verified.checkpoint)
        };
        let version = 1.try_into().unwrap();
        let older = |sequence| Err(Break::OlderCheckpoint { sequence, version });
        let before = signed(2, &old);
        assert_eq!(verified(0, &rows, &[before, signed(4, &both)]), Ok(Some(4)));
        // An attacker with the old key cannot cover a chain that they truncated after its
        // replacement,
        assert_eq!(verified(0, &rows[..3], &[before, signed(3, &old)]), older(3));
        assert_eq!(verified(3, &rows[..3], &[before, signed(3, &old)]), Ok(Some(3)));
        // nor make a whole chain look truncated, nor hide that one is.
        assert_eq!(verified(0, &rows[..3], &[signed(4, &old)]), older(4));
        let cut = Err(Break::Cut { sequence: 4, checkpoint: 4 });
        assert_eq!(verified(0, &rows[..3], &[signed(4, &both), signed(4, &old)]), cut);
        // Until a row is under a newer version, the old one is trusted.
        assert_eq!(verified(0, &rows[..2], &[before]), Ok(Some(2)));
        assert_eq!(
            verified(0, &rows[..1], &[before]),
            Err(Break::Cut { sequence: 2, checkpoint: 2 })
        );
    }

    #[test]
    fn reports_a_missing_key_version_apart_from_tampering() {
        let chain = chain();
        let keys = format!("2:{}", "d4".repeat(32)).parse().unwrap();
        let mut verifier = Verifier::new(&keys, &[], Leniency::default());
        let refused = verifier.push(1, &chain[0].0, Chaining::Linked(chain[0].1)).unwrap_err();
        assert_eq!(refused, Break::NoKey { sequence: 1, version: 1.try_into().unwrap() });
    }
}
