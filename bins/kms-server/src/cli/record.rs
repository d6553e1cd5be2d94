//! What operators do is in the audit too, where no account's own record says it.

use anyhow::Context;
use kms_core::audit::{Action, AuditRecord, Phase};
use kms_core::ports::AuditLog;
use kms_store::Database;
use uuid::Uuid;

use crate::clock;

/// Beside the output, which another program may read.
#[expect(clippy::print_stderr, reason = "this is where people read it")]
fn warn(text: &str) {
    eprintln!("{text}");
}

/// One command of an operator.
pub(super) struct Record<'a> {
    database: &'a Database,
    record: AuditRecord,
}

impl<'a> Record<'a> {
    /// `action` is the word in the audit, `about` what it is done to.
    pub(super) fn new(database: &'a Database, action: &'static str, about: &str) -> Self {
        let actor = format!("kms-server {} {about}", action.replace('_', " ")).trim().to_owned();
        let caller = kms_core::audit::Caller { actor, request_id: Uuid::new_v4().to_string() };
        let (action, phase) = (Action::Operate(action), Phase::Intent);
        let at = clock::now();
        let record = AuditRecord { at, caller, action, phase, account: None, telegram_id: None };
        Self { database, record }
    }

    /// Runs what changes something, between an INTENT and an OUTCOME.
    pub(super) async fn around<T>(
        self,
        work: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.write(Phase::Intent)
            .await
            .context("the audit can not be written; nothing was done")?;
        let done = work().await;
        let outcome = if done.is_ok() { "ok" } else { "failed" };
        let written = self.write(Phase::Outcome(outcome)).await;
        let done = done?;
        written.context("it was done, but the audit could not be written after it")?;
        Ok(done)
    }

    /// Writes down what was only read, or what could not be written down before it was done. Where it
    /// can not be written, it says so and goes on: who has such credentials can do the same without
    /// this program.
    pub(super) async fn note(self) {
        if let Err(error) = self.write(Phase::Outcome("ok")).await {
            warn(&format!("this is not in the audit: {error:#}"));
        }
    }

    async fn write(&self, phase: Phase) -> anyhow::Result<()> {
        // Under a wrong audit key it would break the chain.
        self.database.check_server_keys().await?;
        Ok(self.database.append(AuditRecord { phase, ..self.record.clone() }).await?)
    }
}
