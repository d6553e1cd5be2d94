//! Compares the accounts with what the audit records of them. The rows can be changed by a party
//! that writes to the database, or restored from an old copy; the audit is only appended to.

use std::collections::BTreeMap;

use kms_core::account::{Account, AccountState};
use kms_core::audit::{Details, REVISION};
use kms_store::AuditRow;

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
pub(super) struct AuditedAccounts(BTreeMap<String, Expected>);

impl AuditedAccounts {
    /// Reads the next row of the chain.
    pub(super) fn push(&mut self, row: &AuditRow) {
        let Some(account) = &row.account else { return };
        if row.outcome.as_deref() != Some("ok") {
            return;
        }
        let details: Details = row.details.parse().unwrap_or_default();
        if let Some(revision) = details.get(REVISION).and_then(|it| it.parse().ok()) {
            let expected = self.0.entry(account.clone()).or_default();
            expected.revision = expected.revision.max(revision);
        }
        match &*row.action {
            "create" => {
                let address = details.get("address").map(str::to_owned);
                self.0.entry(account.clone()).or_default().address = address;
            }
            "freeze" => self.0.entry(account.clone()).or_default().is_frozen = true,
            "unfreeze" => self.0.entry(account.clone()).or_default().is_frozen = false,
            "recover" => self.0.entry(account.clone()).or_default().recoveries += 1,
            _ => {}
        }
    }

    /// Compares an account with what was read, and forgets it. Returns the contradictions.
    pub(super) fn compare(&mut self, account: &Account) -> Vec<&'static str> {
        let expected = self.0.remove(&account.id.to_string()).unwrap_or_default();
        let address = account.wallet.address.to_string();
        let is_frozen = account.state != AccountState::Active;
        let checks = [
            (account.revision < expected.revision, "an old copy of its row was put back"),
            (expected.address.is_none(), "its creation is not in the audit"),
            (
                expected.address.is_some_and(|created| created != address),
                "its address is not the one that was created",
            ),
            (is_frozen && !expected.is_frozen, "it is frozen, but the audit has no freeze"),
            (!is_frozen && expected.is_frozen, "it is active, but the audit has it as frozen"),
            (
                expected.recoveries > 0 && account.recovered_at.is_none(),
                "a recovery of it is in the audit, but not in its row",
            ),
        ];
        checks.into_iter().filter(|(contradicts, _)| *contradicts).map(|(_, what)| what).collect()
    }

    /// The accounts that were created, and not compared since.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        let created = self.0.iter().filter(|(_, expected)| expected.address.is_some());
        created.map(|(account, _)| &**account)
    }
}
