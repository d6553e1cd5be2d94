//! The rules of a recovery: how long it waits, what a code changes, and which step may follow
//! which. This module reads no clock and no store, and a [`Recovery`] contains no secret.

use std::time::Duration;

use kms_types::{AccountId, OneTimeCode, RecoveryId, TelegramId, Timestamp, text_table};

use crate::account::Account;
use crate::audit::Details;
use crate::server_keys::{RowMac, RowMacError, ServerKeyId, ServerKeySet};

/// Wrong codes after which the code is void, so that guessing succeeds once in twenty million.
const CODE_TRIES: u8 = 5;

/// The times of recoveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryRules {
    /// Whether codes can be sent by e-mail.
    pub sends_codes: bool,
    /// The wait after the code that was sent by e-mail was confirmed.
    pub wait_with_code: Duration,
    /// The wait of an account without a trusted e-mail address.
    pub wait_without_email: Duration,
    /// The wait of an account that was sent a code and did not confirm it.
    pub wait_without_code: Duration,
    /// How long an address must have been verified to be trusted. An untrusted one is notified, and
    /// does not shorten the wait; the one before it stays trusted meanwhile.
    pub email_trusted_after: Duration,
    /// How long a code is valid.
    pub code_lifetime: Duration,
    /// How long the new password can be set once the recovery is ready.
    pub open_for: Duration,
    /// How long after a recovery the account is on hold: no export, no change of contacts.
    pub hold: Duration,
    /// The wait before an owner's freeze is lifted.
    pub unfreeze_wait: Duration,
}

impl Default for RecoveryRules {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            sends_codes: true,
            wait_with_code: Duration::from_secs(HOUR),
            wait_without_email: Duration::from_secs(48 * HOUR),
            wait_without_code: Duration::from_secs(7 * 24 * HOUR),
            email_trusted_after: Duration::from_secs(7 * 24 * HOUR),
            code_lifetime: Duration::from_secs(10 * 60),
            open_for: Duration::from_secs(7 * 24 * HOUR),
            hold: Duration::from_secs(72 * HOUR),
            unfreeze_wait: Duration::from_secs(24 * HOUR),
        }
    }
}

/// The stage of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryStage {
    /// The owner has time to cancel it.
    Waiting,
    /// The new password can be set.
    Ready,
    /// The new password was set.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// The new password was not set in time.
    Expired,
}

text_table! {
    RecoveryStage {
        Waiting = "waiting",
        Ready = "ready",
        Completed = "completed",
        Cancelled = "cancelled",
        Expired = "expired",
    }
}

/// The state of the code of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryCode {
    /// No code was sent.
    None,
    /// It was sent by e-mail.
    Sent {
        /// When it expires.
        until: Timestamp,
        /// Attempts so far.
        tries: u8,
    },
    /// It was confirmed.
    Confirmed,
}

impl RecoveryCode {
    /// Returns the name of the state in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sent { .. } => "sent",
            Self::Confirmed => "confirmed",
        }
    }
}

/// A recovery, as a value: each step returns the next one, and a store replaces the one before by
/// it, if that is still stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The id, chosen by the client.
    pub id: RecoveryId,
    /// The account.
    pub account: AccountId,
    /// The stage that was stored last; [`Recovery::stage`] returns the present one.
    pub written: RecoveryStage,
    /// The state of the code of a recovery.
    pub code: RecoveryCode,
    /// The version of the codes key of its code and link: no other is accepted.
    pub codes_key: ServerKeyId,
    /// The Telegram account to which operators move the wallet: such a recovery sets no password.
    pub moves_to: Option<TelegramId>,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// When the wait ends.
    pub ready_at: Timestamp,
    /// When the new password can no longer be set.
    pub expires_at: Timestamp,
    /// Counts the steps, from 1.
    pub version: i64,
}

/// Why a step is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The wait is not over.
    #[error("the wait of the recovery is not over")]
    NotReady {
        /// When the wait ends.
        until: Timestamp,
    },
    /// It has ended.
    #[error("the recovery has ended")]
    Ended,
    /// No code was sent, or it expired or was tried too often.
    #[error("no code can be confirmed; request a new one")]
    NoCode,
}

impl Recovery {
    /// Starts a recovery of this account.
    #[must_use]
    pub fn request(
        id: RecoveryId,
        account: &Account,
        rules: &RecoveryRules,
        codes_key: ServerKeyId,
        now: Timestamp,
    ) -> Self {
        let trusted = account.trusted_email(now, rules.email_trusted_after).is_some();
        let until = now.plus(rules.code_lifetime);
        let (code, wait) = match (trusted, rules.sends_codes) {
            (true, true) => (RecoveryCode::Sent { until, tries: 0 }, rules.wait_without_code),
            // The address protects the account, even while codes cannot be sent.
            (true, false) => (RecoveryCode::None, rules.wait_without_code),
            (false, _) => (RecoveryCode::None, rules.wait_without_email),
        };
        let ready_at = now.plus(wait);
        Self {
            id,
            account: account.id,
            written: RecoveryStage::Waiting,
            code,
            codes_key,
            moves_to: None,
            requested_at: now,
            ready_at,
            expires_at: ready_at.plus(rules.open_for),
            version: 1,
        }
    }

    /// Starts a move of the wallet to another Telegram account. It has the longest wait, and no
    /// code makes it shorter.
    #[must_use]
    pub fn request_move(
        id: RecoveryId,
        account: &Account,
        to: TelegramId,
        rules: &RecoveryRules,
        codes_key: ServerKeyId,
        now: Timestamp,
    ) -> Self {
        let waits = [rules.wait_without_code, rules.wait_without_email, rules.wait_with_code];
        let ready_at = now.plus(waits.into_iter().max().unwrap_or_default());
        Self {
            id,
            account: account.id,
            written: RecoveryStage::Waiting,
            code: RecoveryCode::None,
            codes_key,
            moves_to: Some(to),
            requested_at: now,
            ready_at,
            expires_at: ready_at.plus(rules.open_for),
            version: 1,
        }
    }

    /// Returns what the audit states about it: how long the owner has, and whether a code came.
    #[must_use]
    pub fn details(&self) -> Details {
        Details::default()
            .with("code", self.code.as_str())
            .with("requested_at", self.requested_at.0)
            .with("ready_at", self.ready_at.0)
            .with("wait_seconds", self.ready_at.since(self.requested_at).as_secs())
            .with_some("moves_to", self.moves_to)
    }

    /// Returns the stage at this time, stored or not.
    #[must_use]
    pub fn stage(&self, now: Timestamp) -> RecoveryStage {
        match self.written {
            RecoveryStage::Waiting | RecoveryStage::Ready if now >= self.expires_at => {
                RecoveryStage::Expired
            }
            RecoveryStage::Waiting | RecoveryStage::Ready if now >= self.ready_at => {
                RecoveryStage::Ready
            }
            // Stored too early, by a server whose clock is ahead.
            RecoveryStage::Ready => RecoveryStage::Waiting,
            written => written,
        }
    }

    /// Returns whether it has not ended.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        matches!(self.stage(now), RecoveryStage::Waiting | RecoveryStage::Ready)
    }

    /// Returns when the code expires, if it can be confirmed.
    #[must_use]
    pub fn code_until(&self, now: Timestamp) -> Option<Timestamp> {
        match self.code {
            RecoveryCode::Sent { until, tries }
                if self.is_open(now) && now < until && tries < CODE_TRIES =>
            {
                Some(until)
            }
            RecoveryCode::None | RecoveryCode::Sent { .. } | RecoveryCode::Confirmed => None,
        }
    }

    /// Counts an attempt at the code. Must be stored before the code is compared.
    ///
    /// # Errors
    /// `NoCode` when no code can be confirmed.
    pub fn code_tried(self, now: Timestamp) -> Result<Self, RecoveryError> {
        match (self.code_until(now), self.code) {
            (Some(_), RecoveryCode::Sent { until, tries }) => {
                let code = RecoveryCode::Sent { until, tries: tries.saturating_add(1) };
                Ok(Self { code, version: self.version + 1, ..self })
            }
            _ => Err(RecoveryError::NoCode),
        }
    }

    /// Confirms the code: the wait becomes the short one from now, if that ends sooner.
    ///
    /// # Errors
    /// When it has ended.
    pub fn code_confirmed(
        self,
        rules: &RecoveryRules,
        now: Timestamp,
    ) -> Result<Self, RecoveryError> {
        if !self.is_open(now) {
            return Err(RecoveryError::Ended);
        }
        let ready_at = self.ready_at.min(now.plus(rules.wait_with_code));
        let expires_at = ready_at.plus(rules.open_for);
        let code = RecoveryCode::Confirmed;
        Ok(Self { code, ready_at, expires_at, version: self.version + 1, ..self })
    }

    /// Makes the wait longer, by a time in which it was paused.
    #[must_use]
    pub fn longer(self, by: Duration) -> Self {
        let (ready_at, expires_at) = (self.ready_at.plus(by), self.expires_at.plus(by));
        Self { ready_at, expires_at, version: self.version + 1, ..self }
    }

    /// Returns the step that time alone has caused, if it is not stored yet.
    #[must_use]
    pub fn due(self, now: Timestamp) -> Option<Self> {
        let stage = self.stage(now);
        let is_news = stage != self.written && stage != RecoveryStage::Waiting;
        is_news.then(|| self.at(stage))
    }

    /// Cancels it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cancelled(self, now: Timestamp) -> Result<Self, RecoveryError> {
        if self.is_open(now) {
            Ok(self.at(RecoveryStage::Cancelled))
        } else {
            Err(RecoveryError::Ended)
        }
    }

    /// Completes it.
    ///
    /// # Errors
    /// When it still waits, or has ended.
    pub fn completed(self, now: Timestamp) -> Result<Self, RecoveryError> {
        match self.stage(now) {
            RecoveryStage::Ready => Ok(self.at(RecoveryStage::Completed)),
            RecoveryStage::Waiting => Err(RecoveryError::NotReady { until: self.ready_at }),
            RecoveryStage::Completed | RecoveryStage::Cancelled | RecoveryStage::Expired => {
                Err(RecoveryError::Ended)
            }
        }
    }

    fn at(self, written: RecoveryStage) -> Self {
        Self { written, version: self.version + 1, ..self }
    }

    /// Returns the code that is sent by e-mail. It is derived rather than stored, from the version
    /// of the codes key that the recovery was requested with.
    ///
    /// # Errors
    /// When that version is not configured, or retired.
    pub fn code(&self, codes_keys: &ServerKeySet) -> Result<OneTimeCode, RowMacError> {
        self.with_fields(CODE, |fields| codes_keys.one_time_code(self.codes_key, fields))
    }

    /// Returns the MAC of a link that cancels the recovery. It is derived like the code, and valid
    /// until the recovery ends.
    ///
    /// # Errors
    /// When its version of the codes key is not configured, or retired.
    pub fn cancel_mac(&self, codes_keys: &ServerKeySet) -> Result<RowMac, RowMacError> {
        self.with_fields(CANCEL, |fields| codes_keys.mac_under(self.codes_key, fields))
    }

    /// Verifies the MAC of a link.
    ///
    /// # Errors
    /// When it is not that of [`Recovery::cancel_mac`].
    pub fn check_cancel_mac(
        &self,
        mac: &RowMac,
        codes_keys: &ServerKeySet,
    ) -> Result<(), RowMacError> {
        if mac.key != self.codes_key {
            return Err(RowMacError::Mismatch);
        }
        self.with_fields(CANCEL, |fields| codes_keys.verify(mac, fields))
    }

    /// The id alone would not do: the client chooses it, and may reuse it after the row was
    /// removed.
    fn with_fields<T>(&self, purpose: &[u8], work: impl FnOnce(&[&[u8]]) -> T) -> T {
        let at = self.requested_at.0.to_be_bytes();
        work(&[purpose, self.id.as_bytes(), self.account.as_bytes(), &at])
    }
}

const CODE: &[u8] = b"recovery-code";
const CANCEL: &[u8] = b"recovery-cancel";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_keys::is_same_code;

    const RULES: RecoveryRules = RecoveryRules {
        sends_codes: true,
        wait_with_code: Duration::from_millis(10),
        wait_without_email: Duration::from_millis(48),
        wait_without_code: Duration::from_millis(70),
        email_trusted_after: Duration::from_millis(7),
        code_lifetime: Duration::from_millis(5),
        open_for: Duration::from_millis(20),
        hold: Duration::from_millis(72),
        unfreeze_wait: Duration::from_millis(24),
    };

    fn recovery(code: RecoveryCode, ready: i64) -> Recovery {
        Recovery {
            id: RecoveryId::random(),
            account: AccountId::random(),
            written: RecoveryStage::Waiting,
            code,
            codes_key: 1.try_into().unwrap(),
            moves_to: None,
            requested_at: Timestamp(100),
            ready_at: Timestamp(ready),
            expires_at: Timestamp(ready + 20),
            version: 1,
        }
    }

    fn sent() -> RecoveryCode {
        RecoveryCode::Sent { until: Timestamp(105), tries: 0 }
    }

    #[test]
    fn becomes_ready_and_then_expires() {
        let recovery = recovery(RecoveryCode::None, 148);
        let at = |now| (recovery.stage(Timestamp(now)), recovery.completed(Timestamp(now)));
        let until = Timestamp(148);
        assert_eq!(at(147), (RecoveryStage::Waiting, Err(RecoveryError::NotReady { until })));
        assert_eq!(at(148).1.unwrap().written, RecoveryStage::Completed);
        assert_eq!(at(167).1.unwrap().version, 2);
        assert_eq!(at(168), (RecoveryStage::Expired, Err(RecoveryError::Ended)));
        assert_eq!(recovery.due(Timestamp(147)), None);
        assert_eq!(recovery.due(Timestamp(148)).unwrap().written, RecoveryStage::Ready);
        assert_eq!(recovery.due(Timestamp(168)).unwrap().written, RecoveryStage::Expired);
        // Stored by a server whose clock is ahead: the wait does not change.
        let early = recovery.due(Timestamp(148)).unwrap();
        assert_eq!(early.stage(Timestamp(147)), RecoveryStage::Waiting);
        assert_eq!(early.completed(Timestamp(147)), Err(RecoveryError::NotReady { until }));
        assert_eq!(early.due(Timestamp(147)), None);
    }

    #[test]
    fn an_ended_recovery_allows_no_step() {
        let ready = recovery(RecoveryCode::None, 148).due(Timestamp(148)).unwrap();
        let done = ready.completed(Timestamp(150)).unwrap();
        let stopped = ready.cancelled(Timestamp(150)).unwrap();
        for ended in [done, stopped] {
            assert_eq!(ended.cancelled(Timestamp(151)), Err(RecoveryError::Ended));
            assert_eq!(ended.completed(Timestamp(151)), Err(RecoveryError::Ended));
            assert_eq!(ended.code_confirmed(&RULES, Timestamp(151)), Err(RecoveryError::Ended));
            assert_eq!(ended.due(Timestamp(1_000)), None);
        }
    }

    #[test]
    fn a_code_allows_five_attempts_within_its_lifetime() {
        let mut recovery = recovery(sent(), 170);
        assert_eq!(recovery.code_until(Timestamp(105)), None);
        for _ in 0..5 {
            recovery = recovery.code_tried(Timestamp(104)).unwrap();
        }
        assert_eq!(recovery.code_tried(Timestamp(104)), Err(RecoveryError::NoCode));
        assert_eq!(recovery.version, 6);
    }

    #[test]
    fn a_confirmed_code_never_lengthens_the_wait() {
        let at = |now| recovery(sent(), 170).code_confirmed(&RULES, Timestamp(now)).unwrap();
        assert_eq!((at(104).ready_at, at(104).expires_at), (Timestamp(114), Timestamp(134)));
        assert_eq!(at(165).ready_at, Timestamp(170));
        assert_eq!(at(104).code_tried(Timestamp(104)), Err(RecoveryError::NoCode));
    }

    #[test]
    fn codes_and_links_are_valid_for_one_recovery_only() {
        let keys = ServerKeySet::random();
        let (one, other) = (recovery(sent(), 170), recovery(sent(), 170));
        let (code, mac) = (one.code(&keys).unwrap(), one.cancel_mac(&keys).unwrap());
        assert!(is_same_code(&code, &one.code(&keys).unwrap()));
        assert!(one.check_cancel_mac(&mac, &keys).is_ok());
        // Another id, another account, and the same id requested again after the row was removed.
        for other in [
            other,
            Recovery { account: other.account, ..one },
            Recovery { requested_at: Timestamp(101), ..one },
        ] {
            assert!(!is_same_code(&code, &other.code(&keys).unwrap()));
            assert!(other.check_cancel_mac(&mac, &keys).is_err());
        }
        assert!(!is_same_code(&code, &one.code(&ServerKeySet::random()).unwrap()));
    }

    #[test]
    fn codes_and_links_are_of_the_version_of_their_recovery() {
        let old: ServerKeySet = format!("1:{}", "11".repeat(32)).parse().unwrap();
        let both: ServerKeySet =
            format!("2:{},1:{}", "22".repeat(32), "11".repeat(32)).parse().unwrap();
        let older = recovery(sent(), 170);
        let newer = Recovery { codes_key: both.current(), ..older };
        // What was sent before the rotation stays valid.
        assert!(is_same_code(&older.code(&old).unwrap(), &older.code(&both).unwrap()));
        let link = older.cancel_mac(&old).unwrap();
        assert_eq!(older.check_cancel_mac(&link, &both), Ok(()));
        // A leaked older version makes nothing for a newer recovery.
        assert!(!is_same_code(&older.code(&old).unwrap(), &newer.code(&both).unwrap()));
        assert_eq!(newer.check_cancel_mac(&link, &both), Err(RowMacError::Mismatch));
        assert_eq!(newer.code(&old).unwrap_err(), RowMacError::NoKey(both.current()));
    }
}
