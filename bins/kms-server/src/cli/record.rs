//! Audit records of operators' commands that no account's own record covers.

use anyhow::Context;
use kms_core::audit::{Action, AuditRecord, Details, Phase};
use kms_core::ports::AuditLog;
use kms_process::ErrorChain;
use kms_store::Database;

use super::operator::{Reason, operator};
use crate::clock;

/// Prints to standard error, because another program may read standard output.
#[expect(clippy::print_stderr, reason = "operators read it there")]
fn warn(text: &str) {
    eprintln!("{text}");
}

/// The audit record of one command.
pub(super) struct Record<'a> {
    database: &'a Database,
    record: AuditRecord,
}

impl<'a> Record<'a> {
    /// Creates a record: `action` is its name in the audit, `about` the object of the command.
    pub(super) fn new(database: &'a Database, action: &'static str, about: &str) -> Self {
        Self::of(database, Action::Operate(action), about)
    }

    /// Like [`Record::new`], for an action whose object the audit has as its subject.
    pub(super) fn of(database: &'a Database, action: Action, about: &str) -> Self {
        let actor = format!("{} {about}", action.as_str().replace('_', " ")).trim().to_owned();
        let (caller, phase) = (operator(&actor), Phase::Intent);
        let at = clock::now();
        let details = caller.details();
        let record =
            AuditRecord { at, caller, action, phase, account: None, telegram_id: None, details };
        Self { database, record }
    }

    /// Adds what the records state.
    pub(super) fn with(mut self, details: Details) -> Self {
        self.record.details.merge(details);
        self
    }

    /// Adds why the operator acts, if they say it.
    pub(super) fn because(self, reason: Option<&Reason>) -> Self {
        self.with(Details::default().with_some("reason", reason.map(|Reason(text)| text)))
    }

    /// Runs a command that changes something, between an INTENT and an OUTCOME.
    pub(super) async fn around<T>(
        self,
        work: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.write(Phase::Intent)
            .await
            .context("the audit cannot be written; nothing was changed")?;
        let done = work().await;
        let outcome = if done.is_ok() { "ok" } else { "failed" };
        let written = self.write(Phase::Outcome(outcome)).await;
        let done = done?;
        written.context("the command succeeded, but its outcome is not in the audit")?;
        Ok(done)
    }

    /// Records a command that only reads, or that cannot be recorded before it has run. If the
    /// audit cannot be written, prints a warning and continues: an operator with such credentials
    /// can read the same without this program.
    pub(super) async fn note(self) {
        if let Err(error) = self.write(Phase::Outcome("ok")).await {
            warn(&format!("not recorded in the audit: {}", ErrorChain(&*error)));
        }
    }

    async fn write(&self, phase: Phase) -> anyhow::Result<()> {
        // A record under a wrong audit key would break the chain.
        self.database.check_server_keys().await?;
        Ok(self.database.append(AuditRecord { phase, ..self.record.clone() }).await?)
    }
}
