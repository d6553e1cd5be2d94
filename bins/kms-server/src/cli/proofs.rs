//! `kms-server audit verify --proofs`: compares acts with the openings that Telegram signed.
//!
//! An opening is verified by Telegram's public key alone: nothing that this system stores or keeps
//! secret can make one.

use anyhow::bail;
use kms_core::launch::{Launch, LaunchVerifier};
use kms_store::{AuditRow, Database};
use kms_types::Purpose;

use super::say;

/// How many rows are read at once.
const PAGE: u32 = 1_000;

/// How long after its signature an opening can act: 5 minutes until it is opened, 15 for its key,
/// and the difference of the clocks.
const ACTS_WITHIN: i64 = (5 + 15 + 1) * 60_000;

/// Acts that a proof is kept of.
const PROVED: [&str; 5] = ["create", "request_recovery", "confirm_recovery", "recover", "export"];

/// Verifies the proof of every act that has one, and names the acts that have none.
pub(super) async fn verify(database: &Database, verifier: &LaunchVerifier) -> anyhow::Result<()> {
    let (mut proved, mut without, mut bad) = (0_u64, 0_u64, 0_u64);
    let mut place = i64::MIN;
    loop {
        let rows = database.audit_after(place, PAGE).await?;
        let Some(last) = rows.last() else { break };
        place = last.sequence;
        for row in rows.iter().filter(|row| is_act(row)) {
            let Some(id) = row.actor.strip_prefix("launch ") else {
                without += 1;
                say(&format!(
                    "without a proof: seq {}, {} by {}",
                    row.sequence, row.action, row.actor
                ));
                continue;
            };
            match check(database, verifier, row, id).await? {
                Ok(()) => proved += 1,
                Err(why) => {
                    bad += 1;
                    say(&format!("bad proof: seq {}, {}: {why}", row.sequence, row.action));
                }
            }
        }
    }
    say(&format!("{proved} acts with a proof, {without} without"));
    if bad > 0 {
        bail!("{bad} acts have a proof that does not show them");
    }
    Ok(())
}

fn is_act(row: &AuditRow) -> bool {
    let is_done = row.phase == "outcome" && row.outcome.as_deref() == Some("ok");
    is_done && PROVED.contains(&row.action.as_str())
}

async fn check(
    database: &Database,
    verifier: &LaunchVerifier,
    row: &AuditRow,
    id: &str,
) -> anyhow::Result<Result<(), String>> {
    let kept = match database.launch(id).await {
        Ok(Some(kept)) => kept,
        Ok(None) => return Ok(Err("it was removed".to_owned())),
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(match verifier.verify_proof(&kept.proof) {
        Ok(launch) => shows(&launch, row).map_err(str::to_owned),
        Err(error) => Err(error.to_string()),
    })
}

/// Whether the opening is one of this act, by its owner, shortly before it.
fn shows(launch: &Launch, row: &AuditRow) -> Result<(), &'static str> {
    if row.telegram_id != Some(launch.user.as_i64()) {
        return Err("it is of another user");
    }
    let is_for = match launch.purpose {
        Purpose::NewWallet => row.action == "create",
        Purpose::RequestRecovery => row.action == "request_recovery",
        Purpose::Export => row.action == "export",
        Purpose::Recover(id) => {
            ["confirm_recovery", "recover"].contains(&row.action.as_str())
                && row.subject == Some(id.to_string())
        }
        Purpose::Confirm(_)
        | Purpose::SpeedUp(_)
        | Purpose::ChangePassword
        | Purpose::Email
        | Purpose::Lift
        | Purpose::Home => false,
    };
    if !is_for {
        return Err("it is for something else");
    }
    let age = row.at.0 - launch.signed_at.0;
    if (-60_000..=ACTS_WITHIN).contains(&age) { Ok(()) } else { Err("it is of another time") }
}
