//! Walks the audit table once, oldest row first, and says where it was changed.

use std::collections::{BTreeMap, HashMap};

use kms_types::Timestamp;

use super::checkpoint::Checkpoint;
use super::{Entry, Link, Tip};
use crate::server_keys::{RowMacError, ServerKeyId, ServerKeySet};

/// What a row says of its place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaining {
    /// It has a link.
    Linked(Link),
    /// It has something that is no link.
    Malformed,
}

/// The first thing that is wrong. Rows are named by their number in the chain, or by their place
/// (`seq`) in the table where they have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// The row is not what was written, or was never written by a holder of the key.
    #[error("row {sequence} of the chain was changed")]
    Changed {
        /// Which.
        sequence: i64,
    },
    /// What stands in the columns of the chain is no link.
    #[error("the row at seq {place} was changed: its link is malformed")]
    Malformed {
        /// Where.
        place: i64,
    },
    /// The row is not between the two that it was written between.
    #[error("row {sequence} of the chain is not in its place: row {found} stands there")]
    Misplaced {
        /// Which.
        sequence: i64,
        /// What stands there.
        found: i64,
    },
    /// The row is nowhere, though later ones are there.
    #[error("row {sequence} of the chain was removed")]
    Removed {
        /// Which.
        sequence: i64,
    },
    /// The chain ends before a checkpoint.
    #[error("the chain was cut: row {sequence} is gone, and a checkpoint knew row {checkpoint}")]
    Cut {
        /// The first that is gone.
        sequence: i64,
        /// The last that is known to have been there.
        checkpoint: i64,
    },
    /// A row that was written for another chain: after a restore, or with an older copy.
    #[error("row {sequence} of the chain does not follow the row before it")]
    Detached {
        /// Which.
        sequence: i64,
    },
    /// The chain is whole, but not the one that the checkpoint saw.
    #[error("row {sequence} of the chain is not the one that a checkpoint saw: it was rewritten")]
    Rewritten {
        /// Which.
        sequence: i64,
    },
    /// A row under a version of the key that a later one had replaced: whoever has the old one can
    /// write it.
    #[error(
        "row {sequence} of the chain is under version {version} of the audit key, though a newer \
         one was in use before it"
    )]
    OlderKey {
        /// Which row.
        sequence: i64,
        /// Which version.
        version: ServerKeyId,
    },
    /// A checkpoint under a version of the key that a later one had replaced: whoever has the old one
    /// can sign it, also for a chain that they cut.
    #[error(
        "the checkpoint of row {sequence} is under version {version} of the audit key, though a \
         newer one was in use before it"
    )]
    OlderCheckpoint {
        /// Of which row.
        sequence: i64,
        /// Which version.
        version: ServerKeyId,
    },
    /// Nobody can tell without this version of the key.
    #[error("version {version} of the audit key is not configured; row {sequence} needs it")]
    NoKey {
        /// Which row.
        sequence: i64,
        /// Which version.
        version: ServerKeyId,
    },
}

impl Break {
    /// What it means that a row's hash was not taken.
    #[must_use]
    pub fn unverified(sequence: i64, error: RowMacError) -> Self {
        match error {
            RowMacError::NoKey(version) => Self::NoKey { sequence, version },
            RowMacError::Mismatch => Self::Changed { sequence },
        }
    }
}

/// A use of a key that nobody wrote the end of: the server died in it, or it is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// Its `seq` in the table.
    pub place: i64,
    /// When.
    pub at: Timestamp,
    /// The request, as logs know it.
    pub request_id: String,
    /// For what.
    pub action: String,
}

/// What a whole chain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where it ends.
    pub tip: Tip,
    /// The last row that a checkpoint vouches for. Later ones could be cut off unseen.
    pub checkpoint: Option<i64>,
    /// Uses of a key without an end, oldest first.
    pub open: Vec<OpenIntent>,
}

/// Exceptions for the rollover of the audit key: a server that restarts last still writes under the
/// replaced version.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leniency {
    /// Rows under an older version of the audit key after a newer one, and checkpoints of them, up to
    /// this number.
    pub older_key_until: i64,
}

/// Takes rows in the order of the table.
#[derive(Debug)]
pub struct Verifier<'a> {
    audit_keys: &'a ServerKeySet,
    checkpoints: BTreeMap<i64, Vec<Checkpoint>>,
    leniency: Leniency,
    /// The newest version of the key that a row was under.
    newest: Option<ServerKeyId>,
    verified: Verified,
    open: HashMap<(String, String, Option<String>), Vec<OpenIntent>>,
}

impl<'a> Verifier<'a> {
    /// Compares with these checkpoints, whose signatures were checked.
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
        let (tip, open) = (Tip::default(), Vec::new());
        let verified = Verified { tip, checkpoint, open };
        Self {
            audit_keys,
            checkpoints: known,
            leniency,
            newest: None,
            verified,
            open: HashMap::new(),
        }
    }

    /// The row at this place of the table, which must come after the one before.
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

    /// After the last row.
    ///
    /// # Errors
    /// When a checkpoint knows of more.
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

    /// Whether the checkpoint's key was still in use at the row that it is of.
    fn trust(&self, checkpoint: &Checkpoint) -> Result<(), Break> {
        let (sequence, version) = (checkpoint.tip.sequence, checkpoint.key());
        if self.newest > Some(version) && sequence > self.leniency.older_key_until {
            return Err(Break::OlderCheckpoint { sequence, version });
        }
        Ok(())
    }

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
    fn a_whole_chain_is_taken_and_its_open_intents_are_told() {
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
    fn the_first_bad_row_is_named() {
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
    fn a_row_of_another_chain_and_a_rewritten_chain_are_named() {
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
    fn a_malformed_link_is_named_by_its_place() {
        let keys = audit_keys();
        let mut verifier = Verifier::new(&keys, &[], Leniency::default());
        let refused = verifier.push(3, &entry(), Chaining::Malformed).unwrap_err();
        assert_eq!(refused, Break::Malformed { place: 3 });
    }

    /// The old one may have leaked; that is one reason to replace it.
    #[test]
    fn a_version_that_was_replaced_is_trusted_up_to_there() {
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
        // A server that was restarted last wrote it.
        assert_eq!(verified(4, &rows), Ok(5));
    }

    #[test]
    fn a_checkpoint_under_a_replaced_version_is_trusted_up_to_there() {
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
        // Whoever has the old key can not vouch for a chain that they cut after it.
        assert_eq!(verified(0, &rows[..3], &[before, signed(3, &old)]), older(3));
        assert_eq!(verified(3, &rows[..3], &[before, signed(3, &old)]), Ok(Some(3)));
        // Nor call one cut that is not, and hide that one is.
        assert_eq!(verified(0, &rows[..3], &[signed(4, &old)]), older(4));
        let cut = Err(Break::Cut { sequence: 4, checkpoint: 4 });
        assert_eq!(verified(0, &rows[..3], &[signed(4, &both), signed(4, &old)]), cut);
        // While no row is under a newer version, it is the key.
        assert_eq!(verified(0, &rows[..2], &[before]), Ok(Some(2)));
        assert_eq!(
            verified(0, &rows[..1], &[before]),
            Err(Break::Cut { sequence: 2, checkpoint: 2 })
        );
    }

    #[test]
    fn a_missing_version_of_the_key_is_no_tampering() {
        let chain = chain();
        let keys = format!("2:{}", "d4".repeat(32)).parse().unwrap();
        let mut verifier = Verifier::new(&keys, &[], Leniency::default());
        let refused = verifier.push(1, &chain[0].0, Chaining::Linked(chain[0].1)).unwrap_err();
        assert_eq!(refused, Break::NoKey { sequence: 1, version: 1.try_into().unwrap() });
    }
}
