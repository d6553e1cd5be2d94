//! Compares the accounts with what the audit records of them. The rows can be changed by a party
//! that writes to the database, or restored from an old copy; the audit is only appended to.

use std::collections::BTreeMap;

use kms_core::account::{Account, AccountState};
use kms_core::audit::{Details, REVISION};
use kms_store::AuditRow;

/// The outcome of an act whose commit was not answered: it may have been stored.
const UNANSWERED: &str = "store_unavailable";

/// What the audit records of an account.
#[derive(Default)]
struct Expected {
    address: Option<String>,
    is_frozen: bool,
    recoveries: u32,
    revision: i64,
}

/// What the audit records of all accounts, read row by row.
#[derive(Default)]
pub(super) struct AuditedAccounts {
    accounts: BTreeMap<String, Expected>,
    /// The users of acts that may have been stored, by request and action: INTENTs without an
    /// outcome so far, or whose commit was not answered.
    open: BTreeMap<(String, String), Option<i64>>,
}

impl AuditedAccounts {
    /// Reads the next row of the chain.
    pub(super) fn push(&mut self, row: &AuditRow) {
        let act = (row.request_id.clone(), row.action.clone());
        if row.phase == "intent" {
            self.open.insert(act, row.telegram_id);
        } else if row.outcome.as_deref() != Some(UNANSWERED) {
            self.open.remove(&act);
        }
        let Some(account) = &row.account else { return };
        if row.outcome.as_deref() != Some("ok") {
            return;
        }
        let details: Details = row.details.parse().unwrap_or_default();
        if let Some(revision) = details.get(REVISION).and_then(|it| it.parse().ok()) {
            let expected = self.entry(account);
            expected.revision = expected.revision.max(revision);
        }
        match &*row.action {
            "create" => {
                let address = details.get("address").map(str::to_owned);
                self.entry(account).address = address;
            }
            "freeze" | "unfreeze" => {
                // An act that was open before is over, whether it was stored or not.
                self.open.retain(|(_, action), of| {
                    *of != row.telegram_id || !matches!(&**action, "freeze" | "unfreeze")
                });
                self.entry(account).is_frozen = row.action == "freeze";
            }
            "recover" => self.entry(account).recoveries += 1,
            _ => {}
        }
    }

    fn entry(&mut self, account: &str) -> &mut Expected {
        self.accounts.entry(account.to_owned()).or_default()
    }

    /// Compares an account with what was read, and forgets it. Returns the contradictions. What an
    /// open act explains is none: the server or the database died between the act and its outcome,
    /// or a backup was made there.
    pub(super) fn compare(&mut self, account: &Account) -> Vec<&'static str> {
        let expected = self.accounts.remove(&account.id.to_string()).unwrap_or_default();
        let is_open = |action| self.is_open(action, account.telegram_id.into());
        let address = account.wallet.address.to_string();
        let is_frozen = account.state != AccountState::Active;
        let checks = [
            (account.revision < expected.revision, "an old copy of its row was put back"),
            (expected.address.is_none() && !is_open("create"), "its creation is not in the audit"),
            (
                expected.address.is_some_and(|created| created != address),
                "its address is not the one that was created",
            ),
            (
                is_frozen && !expected.is_frozen && !is_open("freeze"),
                "it is frozen, but the audit has no freeze",
            ),
            (
                !is_frozen && expected.is_frozen && !is_open("unfreeze"),
                "it is active, but the audit has it as frozen",
            ),
            (
                expected.recoveries > 0 && account.recovered_at.is_none(),
                "a recovery of it is in the audit, but not in its row",
            ),
        ];
        checks.into_iter().filter(|(contradicts, _)| *contradicts).map(|(_, what)| what).collect()
    }

    /// Whether an act of this user may have been stored.
    fn is_open(&self, action: &str, user: i64) -> bool {
        self.open.iter().any(|((_, open), of)| open == action && *of == Some(user))
    }

    /// The accounts that were created, and not compared since.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        let created = self.accounts.iter().filter(|(_, expected)| expected.address.is_some());
        created.map(|(account, _)| &**account)
    }
}

#[cfg(test)]
mod tests {
    use kms_core::audit::Chaining;
    use kms_types::Timestamp;

    use super::*;

    #[test]
    fn an_act_may_have_been_stored_until_another_outcome_is_recorded() {
        for (outcomes, is_open) in [
            (&[][..], true),
            (&[UNANSWERED][..], true),
            (&[UNANSWERED, "ok"][..], false),
            (&["ok"][..], false),
            (&["account_exists"][..], false),
        ] {
            let mut audited = AuditedAccounts::default();
            audited.push(&row("request", "intent", None));
            audited.push(&row("another request", "outcome", Some("ok")));
            for outcome in outcomes {
                audited.push(&row("request", "outcome", Some(outcome)));
            }
            assert_eq!(audited.is_open("create", 7), is_open, "{outcomes:?}");
            assert!(!audited.is_open("freeze", 7) && !audited.is_open("create", 8));
        }
    }

    fn row(request_id: &str, phase: &str, outcome: Option<&str>) -> AuditRow {
        AuditRow {
            sequence: 1,
            at: Timestamp(1),
            actor: "bot".to_owned(),
            request_id: request_id.to_owned(),
            action: "create".to_owned(),
            subject: None,
            account: None,
            telegram_id: Some(7),
            phase: phase.to_owned(),
            outcome: outcome.map(str::to_owned),
            details: String::new(),
            chaining: Chaining::Malformed,
        }
    }
}
