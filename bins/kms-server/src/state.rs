//! The state that handlers and workers share.

use std::sync::Arc;
use std::time::Duration;

use kms_core::account::Account;
use kms_core::audit::{Action, AuditRecord, Caller, Details, Phase};
use kms_core::launch::LaunchVerifier;
use kms_core::ports::AuditLog;
use kms_core::{AlarmContext, Custody, Sealer, ServerKeys, integrity_alarm};
use kms_process::CancellationToken;
use kms_store::{Database, KeyDatabase};
use kms_types::{AppLink, ErrorCode};

use crate::chains::Chains;
use crate::clock;
use crate::config::LimitSettings;
use crate::error::{ApiError, Defect};
use crate::kms_key_status::KmsKeyStatus;
use crate::rate_limits::{OpeningLimits, Polls, ReadLimits};
use crate::readiness::Readiness;
use crate::request_id::request_id;
use crate::token_cache::TokenCache;

/// The parts of a running server.
pub(crate) struct State {
    pub(crate) custody: Arc<Custody>,
    pub(crate) chains: Chains,
    pub(crate) database: Database,
    pub(crate) key_database: Arc<dyn KeyDatabase>,
    pub(crate) sealer: Sealer,
    pub(crate) keys: Arc<ServerKeys>,
    /// Whether e-mail is configured, so that codes can be sent.
    pub(crate) sends_mail: bool,
    pub(crate) tokens: TokenCache,
    pub(crate) limits: LimitSettings,
    pub(crate) reads: ReadLimits,
    pub(crate) polls: Polls,
    /// Whose openings of the page count.
    pub(crate) launches: LaunchVerifier,
    pub(crate) openings: OpeningLimits,
    /// The link of the page at Telegram.
    pub(crate) app: Option<AppLink>,
    pub(crate) kms_keys: Arc<KmsKeyStatus>,
    pub(crate) readiness: Arc<Readiness>,
    /// Cancelled when the server stops, which ends long polls.
    pub(crate) shutdown: CancellationToken,
}

impl State {
    /// Refuses what the clock decides while those of the server and its database are far apart:
    /// limits of a day would be wider, and locks and waits shorter.
    pub(crate) fn check_clock(&self) -> Result<(), ApiError> {
        if !self.readiness.is_clock_far() {
            return Ok(());
        }
        let detail = "the clocks of this server and its database differ";
        let (code, after) = (ErrorCode::StoreUnavailable, Duration::from_secs(60));
        Err(ApiError::NotNow { code, detail, after })
    }

    /// Raises the alarm for a contact that failed its integrity check, and records it in the audit
    /// in the background, at most once a minute.
    pub(crate) fn alarm_of_contact(&self, account: &Account) {
        let context = AlarmContext { account: Some(account.id), ..AlarmContext::default() };
        integrity_alarm("a contact failed its integrity check", context);
        let caller = Caller::new("kms-server", request_id());
        let record = AuditRecord {
            at: clock::now(),
            caller,
            action: Action::ReadContact,
            phase: Phase::Alarm("tampered"),
            account: Some(account.id),
            telegram_id: Some(account.telegram_id),
            details: Details::default(),
        };
        let database = self.database.clone();
        tokio::spawn(async move {
            if let Err(error) = database.append_refusal(record).await {
                tracing::warn!(%error, event = "audit_append_failed", "alarm not audited");
            }
        });
    }
}

/// Runs work on a task of its own, so that a client that disconnects cannot stop it midway.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(|error| Defect::TaskEnded(error).into()).flatten()
}
