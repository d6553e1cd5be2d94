//! The rows of the audit as JSON lines, and their verification by an auditor without any secret.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::Path;

use anyhow::Context;
use kms_core::RowMac;
use kms_core::audit::{
    Chaining, Checkpoint, CheckpointKeys, Entry, Evidence, Leniency, Link, Tip, Verified, Verifier,
};
use kms_store::AuditRow;
use kms_types::Timestamp;
use serde::{Deserialize, Serialize};

/// A row of the table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportedRow<'a> {
    seq: i64,
    at: i64,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    account: Option<Cow<'a, str>>,
    telegram_id: Option<i64>,
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
    #[serde(borrow)]
    details: Cow<'a, str>,
    /// Null for a link that cannot be parsed.
    #[serde(borrow)]
    chain: Option<ExportedLink<'a>>,
}

/// The row's link in the chain; hashes are in hex.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedLink<'a> {
    number: i64,
    #[serde(borrow)]
    previous: Cow<'a, str>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    key: u8,
    #[serde(borrow)]
    keyed_hash: Cow<'a, str>,
}

impl<'a> From<&'a AuditRow> for ExportedRow<'a> {
    fn from(row: &'a AuditRow) -> Self {
        let entry = row.entry();
        let chain = match row.chaining {
            Chaining::Malformed => None,
            Chaining::Linked(link) => Some(ExportedLink {
                number: link.sequence,
                previous: hex::encode(link.previous).into(),
                hash: hex::encode(link.hash).into(),
                key: link.mac.key.as_u8(),
                keyed_hash: hex::encode(link.mac.tag).into(),
            }),
        };
        Self {
            seq: row.sequence,
            at: entry.at.0,
            actor: entry.actor.into(),
            request_id: entry.request_id.into(),
            action: entry.action.into(),
            subject: entry.subject.map(Into::into),
            account: entry.account.map(Into::into),
            telegram_id: entry.telegram_id,
            phase: entry.phase.into(),
            outcome: entry.outcome.map(Into::into),
            details: entry.details.into(),
            chain,
        }
    }
}

impl ExportedRow<'_> {
    fn entry(&self) -> Entry<'_> {
        Entry {
            at: Timestamp(self.at),
            actor: &self.actor,
            request_id: &self.request_id,
            action: &self.action,
            subject: self.subject.as_deref(),
            account: self.account.as_deref(),
            telegram_id: self.telegram_id,
            phase: &self.phase,
            outcome: self.outcome.as_deref(),
            details: &self.details,
        }
    }

    fn link(&self) -> Option<Link> {
        let chain = self.chain.as_ref()?;
        Some(Link {
            sequence: chain.number,
            previous: bytes(&chain.previous)?,
            hash: bytes(&chain.hash)?,
            mac: RowMac { key: chain.key.try_into().ok()?, tag: bytes(&chain.keyed_hash)? },
        })
    }
}

fn bytes(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

/// Verifies exported rows, of a file or of standard input, against checkpoints whose signatures
/// were verified.
pub(super) fn verify_rows(
    rows: Option<&Path>,
    checkpoints: &[Checkpoint],
    checkpoint_keys: &CheckpointKeys,
    leniency: Leniency,
) -> anyhow::Result<Verified> {
    let mut input: Box<dyn BufRead> = match rows {
        Some(path) => {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(stdin().lock()),
    };
    let (audit_keys, head) = (None, Tip::default());
    let evidence = Evidence { audit_keys, checkpoints, checkpoint_keys, head, leniency };
    let mut verifier = Verifier::new(evidence);
    let mut line = String::new();
    for number in 1_u64.. {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            break;
        }
        let row: ExportedRow<'_> =
            serde_json::from_str(&line).with_context(|| format!("line {number}"))?;
        let chaining = row.link().map_or(Chaining::Malformed, Chaining::Linked);
        verifier.push(row.seq, &row.entry(), chaining)?;
    }
    Ok(verifier.finish()?)
}
