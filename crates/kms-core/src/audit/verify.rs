//! Verifies the audit table in one pass, oldest row first, and reports the first row that is wrong.

use std::collections::{BTreeMap, HashMap};

use kms_types::Timestamp;

use super::checkpoint::{Checkpoint, CheckpointKeys};
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
    /// The table's own record of its end (`audit_head`) is of a row that is missing or another.
    #[error("the head of the chain is row {sequence}, which is missing or is another row")]
    Head {
        /// The row of the head.
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
    /// The checkpoint is under a version of the checkpoint key that a newer one had replaced: an
    /// attacker with the old version can sign it, also for a chain that they truncated.
    #[error(
        "the checkpoint of row {sequence} is under version {version} of the checkpoint key, though \
         an earlier one is under a newer version"
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
    /// The last row that a checkpoint under the newest version of its key covers. Removing rows
    /// after it would go unnoticed.
    pub checkpoint: Option<i64>,
    /// Uses of a key without an outcome, oldest first.
    pub open: Vec<OpenIntent>,
}

/// What an operator accepts beyond a chain without any irregularity.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leniency {
    /// Accepts, up to this row, rows under an older version of the audit key after a newer one, and
    /// likewise checkpoints. While a new version is rolled out, servers that are restarted last
    /// write such rows.
    pub older_key_until: i64,
}

/// What a chain is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Verifies that each row was written with the audit key. An auditor without it verifies what
    /// the checkpoints cover, and what follows is only consistent in itself.
    pub audit_keys: Option<&'a ServerKeySet>,
    /// Checkpoints whose signatures were verified.
    pub checkpoints: &'a [Checkpoint],
    /// The public halves of the checkpoint key.
    pub checkpoint_keys: &'a CheckpointKeys,
    /// The end that the table recorded before its rows were read.
    pub head: Tip,
    /// What is accepted beyond that.
    pub leniency: Leniency,
}

/// Verifies rows in the order of the table.
#[derive(Debug)]
pub struct Verifier<'a> {
    evidence: Evidence<'a>,
    /// The checkpoints, and whether their key was not replaced before them.
    checkpoints: BTreeMap<i64, Vec<(Checkpoint, bool)>>,
    /// The newest version of the audit key among the rows so far.
    newest: Option<ServerKeyId>,
    verified: Verified,
    open: HashMap<(String, String, Option<String>), Vec<OpenIntent>>,
}

impl<'a> Verifier<'a> {
    /// Compares the chain with this evidence.
    #[must_use]
    pub fn new(evidence: Evidence<'a>) -> Self {
        let mut sorted = Checkpoint::in_force(evidence.checkpoints);
        sorted.sort_by_key(|checkpoint| (checkpoint.tip.sequence, checkpoint.key()));
        let mut checkpoints = BTreeMap::<_, Vec<_>>::new();
        let (mut newest, mut last) = (None, None);
        for checkpoint in sorted {
            let (sequence, version) = (checkpoint.tip.sequence, Some(checkpoint.key()));
            let is_trusted = newest <= version || sequence <= evidence.leniency.older_key_until;
            newest = newest.max(version);
            if version == evidence.checkpoint_keys.newest() {
                last = Some(sequence);
            }
            checkpoints.entry(sequence).or_default().push((checkpoint, is_trusted));
        }
        Self {
            evidence,
            checkpoints,
            newest: None,
            verified: Verified { tip: Tip::default(), checkpoint: last, open: Vec::new() },
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
    /// When a checkpoint covers a later row, or the table recorded a later end.
    pub fn finish(mut self) -> Result<Verified, Break> {
        let sequence = self.verified.tip.sequence.saturating_add(1);
        let mut beyond = self.checkpoints.range(sequence..).rev().flat_map(|(_, known)| known);
        if let Some((known, _)) = beyond.clone().find(|(_, is_trusted)| *is_trusted) {
            return Err(Break::Cut { sequence, checkpoint: known.tip.sequence });
        }
        beyond.next().map_or(Ok(()), trust)?;
        let head = self.evidence.head.sequence;
        if head >= sequence {
            return Err(Break::Head { sequence: head });
        }
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
        if !link.is_of(entry) {
            return Err(Break::Changed { sequence });
        }
        if let Some(audit_keys) = self.evidence.audit_keys {
            self.authenticate(link, audit_keys)?;
        }
        if link.previous != tip.hash {
            return Err(Break::Detached { sequence });
        }
        self.verified.tip = link.tip();
        let head = self.evidence.head;
        if head.sequence == sequence && head != link.tip() {
            return Err(Break::Head { sequence });
        }
        for known in self.checkpoints.get(&sequence).into_iter().flatten() {
            trust(known)?;
            if known.0.tip.hash != link.hash {
                return Err(Break::Rewritten { sequence });
            }
        }
        Ok(())
    }

    /// Verifies the row's MAC, and that its key was still in use.
    fn authenticate(&mut self, link: &Link, audit_keys: &ServerKeySet) -> Result<(), Break> {
        let (sequence, version) = (link.sequence, link.mac.key);
        let verified = link.authenticate(audit_keys);
        verified.map_err(|error| Break::unverified(sequence, error))?;
        let newest = self.newest.max(Some(version));
        if newest > Some(version) && sequence > self.evidence.leniency.older_key_until {
            return Err(Break::OlderKey { sequence, version });
        }
        self.newest = newest;
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

/// Refuses a checkpoint whose key was replaced before it.
fn trust((checkpoint, is_trusted): &(Checkpoint, bool)) -> Result<(), Break> {
    let (sequence, version) = (checkpoint.tip.sequence, checkpoint.key());
    if *is_trusted { Ok(()) } else { Err(Break::OlderCheckpoint { sequence, version }) }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{audit_keys, entry};
    use super::super::checkpoint::tests::checkpoint_keys;
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
        Checkpoint::sign(chain[sequence - 1].1.tip(), Timestamp(1), &checkpoint_keys())
    }

    fn evidence<'a>(keys: &'a ServerKeySet, public: &'a CheckpointKeys) -> Evidence<'a> {
        Evidence {
            audit_keys: Some(keys),
            checkpoints: &[],
            checkpoint_keys: public,
            head: Tip::default(),
            leniency: Leniency::default(),
        }
    }

    fn run(evidence: Evidence<'_>, chain: &[(Entry<'_>, Link)]) -> Result<Verified, Break> {
        let mut verifier = Verifier::new(evidence);
        for (place, (entry, link)) in (1..).zip(chain) {
            verifier.push(place, entry, Chaining::Linked(*link))?;
        }
        verifier.finish()
    }

    fn verify(chain: &[(Entry<'_>, Link)], checkpoints: &[Checkpoint]) -> Result<Verified, Break> {
        let (keys, public) = (audit_keys(), CheckpointKeys::of(&checkpoint_keys()));
        run(Evidence { checkpoints, ..evidence(&keys, &public) }, chain)
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
    fn the_recorded_end_must_be_a_row_of_the_chain() {
        let chain = chain();
        let (keys, public) = (audit_keys(), CheckpointKeys::of(&checkpoint_keys()));
        let verified = |head: Tip, rows: &[(Entry<'_>, Link)]| {
            let verified = run(Evidence { head, ..evidence(&keys, &public) }, rows);
            verified.map(|verified| verified.tip.sequence)
        };
        let head = chain[3].1.tip();
        assert_eq!(verified(head, &chain), Ok(6));
        assert_eq!(verified(head, &chain[..4]), Ok(4));
        assert_eq!(verified(head, &chain[..3]), Err(Break::Head { sequence: 4 }));
        let other = Tip { hash: [1; 32], ..head };
        assert_eq!(verified(other, &chain), Err(Break::Head { sequence: 4 }));
    }

    /// Rows as an attacker without the audit key writes them again after a change.
    fn rewritten(rows: &[(Entry<'static>, Link)]) -> Vec<(Entry<'static>, Link)> {
        let (strangers, mut tip) = (ServerKeySet::random(), Tip::default());
        rows.iter().map(|(entry, _)| (*entry, tip.append(entry, &strangers))).collect()
    }

    /// An auditor has the public key of the checkpoints alone.
    #[test]
    fn without_the_audit_key_what_a_checkpoint_covers_is_proved() {
        let whole = chain();
        let (checkpoints, public) =
            ([checkpoint(&whole, 4)], CheckpointKeys::of(&checkpoint_keys()));
        let by_auditor = |rows: &[(Entry<'_>, Link)]| {
            let keys = audit_keys();
            let evidence = evidence(&keys, &public);
            run(Evidence { audit_keys: None, checkpoints: &checkpoints, ..evidence }, rows)
                .map(|verified| verified.checkpoint)
        };
        assert_eq!(by_auditor(&whole), Ok(Some(4)));
        let mut changed = whole.clone();
        changed[2].0.actor = "eve";
        assert_eq!(by_auditor(&changed), Err(Break::Changed { sequence: 3 }));
        let covered = rewritten(&changed);
        assert_eq!(by_auditor(&covered), Err(Break::Rewritten { sequence: 4 }));
        // Rows after the last checkpoint are proved by the audit key alone.
        let mut later = whole.clone();
        later[4].0.actor = "eve";
        let later = rewritten(&later);
        assert_eq!(by_auditor(&later), Ok(Some(4)));
        assert_eq!(verify(&later, &[]), Err(Break::Changed { sequence: 1 }));
    }

    #[test]
    fn a_row_without_a_link_is_reported() {
        let chain = chain();
        let (keys, public) = (audit_keys(), CheckpointKeys::of(&checkpoint_keys()));
        let mut verifier = Verifier::new(evidence(&keys, &public));
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
        let public = CheckpointKeys::of(&checkpoint_keys());
        let mut tip = Tip::default();
        let rows: Vec<_> = [&audit_keys(), &audit_keys(), &both, &audit_keys(), &both]
            .into_iter()
            .map(|keys| (entry(), tip.append(&entry(), keys)))
            .collect();
        let verified = |older_key_until, rows: &[(Entry<'_>, Link)]| {
            let leniency = Leniency { older_key_until };
            let verified = run(Evidence { leniency, ..evidence(&both, &public) }, rows);
            verified.map(|verified| verified.tip.sequence)
        };
        assert_eq!(verified(0, &rows[..3]), Ok(3));
        let refused = Break::OlderKey { sequence: 4, version: 1.try_into().unwrap() };
        assert_eq!(verified(0, &rows), Err(refused));
        assert_eq!(verified(3, &rows), Err(refused));
        // Written by a server that was restarted last.
        assert_eq!(verified(4, &rows), Ok(5));
    }

    #[test]
    fn trusts_checkpoints_of_a_replaced_key_before_its_replacement_only() {
        let (chain, keys, old) = (chain(), audit_keys(), checkpoint_keys());
        let both: ServerKeySet =
            format!("2:{},1:{}", "e5".repeat(32), "f6".repeat(32)).parse().unwrap();
        let public = CheckpointKeys::of(&both);
        let signed =
            |row: usize, keys| Checkpoint::sign(chain[row - 1].1.tip(), Timestamp(1), keys);
        let verified = |older_key_until, rows: usize, checkpoints: &[Checkpoint]| {
            let leniency = Leniency { older_key_until };
            let evidence = Evidence { checkpoints, leniency, ..evidence(&keys, &public) };
            run(evidence, &chain[..rows]).map(|verified| verified.checkpoint)
        };
        let version = 1.try_into().unwrap();
        let older = |sequence| Err(Break::OlderCheckpoint { sequence, version });
        let (before, after) = (signed(1, &old), signed(2, &both));
        assert_eq!(verified(0, 4, &[before, after]), Ok(Some(2)));
        assert_eq!(verified(0, 4, &[before, after, signed(2, &old)]), Ok(Some(2)));
        // An attacker with the old key cannot cover a chain that they truncated after its
        // replacement,
        assert_eq!(verified(0, 3, &[before, after, signed(3, &old)]), older(3));
        assert_eq!(verified(3, 3, &[before, after, signed(3, &old)]), Ok(Some(2)));
        // nor make a whole chain look truncated, nor hide that one is.
        assert_eq!(verified(0, 3, &[after, signed(4, &old)]), older(4));
        let cut = Err(Break::Cut { sequence: 4, checkpoint: 4 });
        assert_eq!(verified(0, 3, &[signed(4, &both), signed(4, &old)]), cut);
        // Where no checkpoint of the newest version is left, none covers the end.
        assert_eq!(verified(0, 3, &[before, signed(3, &old)]), Ok(None));
    }

    #[test]
    fn reports_a_missing_key_version_apart_from_tampering() {
        let chain = chain();
        let keys = format!("2:{}", "d4".repeat(32)).parse().unwrap();
        let public = CheckpointKeys::of(&checkpoint_keys());
        let mut verifier = Verifier::new(evidence(&keys, &public));
        let refused = verifier.push(1, &chain[0].0, Chaining::Linked(chain[0].1)).unwrap_err();
        assert_eq!(refused, Break::NoKey { sequence: 1, version: 1.try_into().unwrap() });
    }
}
