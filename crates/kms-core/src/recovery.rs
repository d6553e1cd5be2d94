//! The rules of a recovery: how long it waits, what a code changes, and which step may follow
//! which. Nothing here reads a clock or a store, and no secret waits in a [`Recovery`].

use std::time::Duration;

use kms_types::{AccountId, OneTimeCode, RecoveryId, Timestamp, text_table};

use crate::account::Account;
use crate::server_keys::{RowMac, RowMacError, ServerKeySet};

/// How many wrong codes end the code, so that a guess succeeds once in twenty million.
const CODE_TRIES: u8 = 5;

/// How long a recovery takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryRules {
    /// Whether codes can be sent by e-mail.
    pub sends_codes: bool,
    /// The wait after a code that was sent by e-mail was confirmed.
    pub wait_with_code: Duration,
    /// The wait of an account without an e-mail address that is known to be its own.
    pub wait_without_email: Duration,
    /// The wait of an account that was sent a code, and never confirmed it.
    pub wait_without_code: Duration,
    /// An address younger than this is told, and shortens nothing.
    pub email_trusted_after: Duration,
    /// How long a code can be confirmed.
    pub code_lifetime: Duration,
    /// How long the new password can be given once it is ready.
    pub open_for: Duration,
    /// For how long after a recovery nothing that helps a thief is done.
    pub hold: Duration,
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
        }
    }
}

/// How far a recovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryStage {
    /// Its owner has time to cancel it.
    Waiting,
    /// The new password can be given.
    Ready,
    /// The new password works.
    Completed,
    /// Somebody who may has stopped it.
    Cancelled,
    /// Nobody gave the new password in time.
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

/// A change of a recovery that its owner is notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryStep {
    /// It was requested.
    Requested,
    /// The code that was sent by e-mail was confirmed; the wait is shorter now.
    CodeConfirmed,
    /// The new password can be set.
    Ready,
    /// The new password was set.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// The new password was not set in time.
    Expired,
}

/// What became of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryCode {
    /// There is nowhere to send one.
    None,
    /// It was sent by e-mail.
    Sent {
        /// Until when it can be confirmed.
        until: Timestamp,
        /// How often one was tried.
        tries: u8,
    },
    /// It was confirmed.
    Confirmed,
}

impl RecoveryCode {
    /// What became of it, in a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sent { .. } => "sent",
            Self::Confirmed => "confirmed",
        }
    }
}

/// A recovery. It is a value: each step makes the next one, and a store puts it in the place of
/// the one before, if that is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// As the client chose it.
    pub id: RecoveryId,
    /// Whose wallet.
    pub account: AccountId,
    /// How far it is, as it was written last; [`Recovery::stage`] tells how far it is now.
    pub written: RecoveryStage,
    /// What became of the code.
    pub code: RecoveryCode,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// From when on the new password can be given.
    pub ready_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// Counts its steps, from 1.
    pub version: i64,
}

/// Why a step can not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// It still waits.
    #[error("the recovery still has to wait")]
    NotReady {
        /// Until when.
        until: Timestamp,
    },
    /// It has ended.
    #[error("the recovery has ended")]
    Ended,
    /// There is no code that can be confirmed.
    #[error("there is no code that can be confirmed; ask for a new one")]
    NoCode,
}

impl Recovery {
    /// A new one for this account.
    #[must_use]
    pub fn request(
        id: RecoveryId,
        account: &Account,
        rules: &RecoveryRules,
        now: Timestamp,
    ) -> Self {
        let verified = account.email.as_ref().and(account.email_verified_at);
        let trusted = verified.is_some_and(|at| now >= at.plus(rules.email_trusted_after));
        let until = now.plus(rules.code_lifetime);
        let (code, wait) = match (trusted, rules.sends_codes) {
            (true, true) => (RecoveryCode::Sent { until, tries: 0 }, rules.wait_without_code),
            // Its owner chose the stronger way.
            (true, false) => (RecoveryCode::None, rules.wait_without_code),
            (false, _) => (RecoveryCode::None, rules.wait_without_email),
        };
        let ready_at = now.plus(wait);
        Self {
            id,
            account: account.id,
            written: RecoveryStage::Waiting,
            code,
            requested_at: now,
            ready_at,
            expires_at: ready_at.plus(rules.open_for),
            version: 1,
        }
    }

    /// How far it is at this time, whether that was written yet or not.
    #[must_use]
    pub fn stage(&self, now: Timestamp) -> RecoveryStage {
        match self.written {
            RecoveryStage::Waiting | RecoveryStage::Ready if now >= self.expires_at => {
                RecoveryStage::Expired
            }
            RecoveryStage::Waiting | RecoveryStage::Ready if now >= self.ready_at => {
                RecoveryStage::Ready
            }
            // Whatever a server wrote whose clock ran ahead.
            RecoveryStage::Ready => RecoveryStage::Waiting,
            written => written,
        }
    }

    /// Whether it can still come to something.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        matches!(self.stage(now), RecoveryStage::Waiting | RecoveryStage::Ready)
    }

    /// Until when a code can be confirmed, if one can.
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

    /// One more code was tried. To be written before the code is looked at.
    ///
    /// # Errors
    /// `NoCode` when it is too late or was too often.
    pub fn code_tried(self, now: Timestamp) -> Result<Self, RecoveryError> {
        match (self.code_until(now), self.code) {
            (Some(_), RecoveryCode::Sent { until, tries }) => {
                let code = RecoveryCode::Sent { until, tries: tries.saturating_add(1) };
                Ok(Self { code, version: self.version + 1, ..self })
            }
            _ => Err(RecoveryError::NoCode),
        }
    }

    /// The code was right: the wait is the short one from now, if that is sooner.
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

    /// What time made of it, if that is not written yet.
    #[must_use]
    pub fn due(self, now: Timestamp) -> Option<Self> {
        let stage = self.stage(now);
        let is_news = stage != self.written && stage != RecoveryStage::Waiting;
        is_news.then(|| self.at(stage))
    }

    /// Stopped.
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

    /// Done.
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

    /// The code that is sent by e-mail. It follows from the row key, so that it is stored nowhere.
    #[must_use]
    pub fn code(&self, row_keys: &ServerKeySet) -> OneTimeCode {
        self.with_fields(CODE, |fields| row_keys.one_time_code(fields))
    }

    /// Whether this is the code. Also under older versions of the row key.
    #[must_use]
    pub fn is_code(&self, code: &OneTimeCode, row_keys: &ServerKeySet) -> bool {
        self.with_fields(CODE, |fields| row_keys.is_one_time_code(code, fields))
    }

    /// What a link must hold to cancel it. Stored nowhere either; it works until the recovery has
    /// ended.
    #[must_use]
    pub fn cancel_mac(&self, row_keys: &ServerKeySet) -> RowMac {
        self.with_fields(CANCEL, |fields| row_keys.mac(fields))
    }

    /// Checks what a link holds.
    ///
    /// # Errors
    /// When it is not what [`Recovery::cancel_mac`] made for this recovery.
    pub fn check_cancel_mac(
        &self,
        mac: &RowMac,
        row_keys: &ServerKeySet,
    ) -> Result<(), RowMacError> {
        self.with_fields(CANCEL, |fields| row_keys.verify(mac, fields))
    }

    /// Its id alone is chosen by whoever asks, and may come again after a row was removed.
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

    const RULES: RecoveryRules = RecoveryRules {
        sends_codes: true,
        wait_with_code: Duration::from_millis(10),
        wait_without_email: Duration::from_millis(48),
        wait_without_code: Duration::from_millis(70),
        email_trusted_after: Duration::from_millis(7),
        code_lifetime: Duration::from_millis(5),
        open_for: Duration::from_millis(20),
        hold: Duration::from_millis(72),
    };

    fn recovery(code: RecoveryCode, ready: i64) -> Recovery {
        Recovery {
            id: RecoveryId::random(),
            account: AccountId::random(),
            written: RecoveryStage::Waiting,
            code,
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
    fn time_makes_it_ready_and_then_expired() {
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
        // Written by a server whose clock runs ahead: the wait is what it was.
        let early = recovery.due(Timestamp(148)).unwrap();
        assert_eq!(early.stage(Timestamp(147)), RecoveryStage::Waiting);
        assert_eq!(early.completed(Timestamp(147)), Err(RecoveryError::NotReady { until }));
        assert_eq!(early.due(Timestamp(147)), None);
    }

    #[test]
    fn what_has_ended_stays_so() {
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
    fn a_code_counts_five_tries_within_its_time() {
        let mut recovery = recovery(sent(), 170);
        assert_eq!(recovery.code_until(Timestamp(105)), None);
        for _ in 0..5 {
            recovery = recovery.code_tried(Timestamp(104)).unwrap();
        }
        assert_eq!(recovery.code_tried(Timestamp(104)), Err(RecoveryError::NoCode));
        assert_eq!(recovery.version, 6);
    }

    #[test]
    fn a_confirmed_code_shortens_and_never_lengthens() {
        let at = |now| recovery(sent(), 170).code_confirmed(&RULES, Timestamp(now)).unwrap();
        assert_eq!((at(104).ready_at, at(104).expires_at), (Timestamp(114), Timestamp(134)));
        assert_eq!(at(165).ready_at, Timestamp(170));
        assert_eq!(at(104).code_tried(Timestamp(104)), Err(RecoveryError::NoCode));
    }

    #[test]
    fn codes_and_links_are_of_one_recovery() {
        let keys = ServerKeySet::random();
        let (one, other) = (recovery(sent(), 170), recovery(sent(), 170));
        assert!(one.is_code(&one.code(&keys), &keys));
        assert!(!one.is_code(&other.code(&keys), &keys));
        assert!(!one.is_code(&one.code(&keys), &ServerKeySet::random()));
        let mac = one.cancel_mac(&keys);
        assert!(one.check_cancel_mac(&mac, &keys).is_ok());
        assert!(other.check_cancel_mac(&mac, &keys).is_err());
        // Nor of the same id once more.
        let again = Recovery { account: other.account, ..one };
        assert!(!again.is_code(&one.code(&keys), &keys));
        let later = Recovery { requested_at: Timestamp(101), ..one };
        assert!(!later.is_code(&one.code(&keys), &keys));
    }

    #[test]
    fn an_older_row_key_still_knows_its_codes() {
        let old: ServerKeySet = format!("1:{}", "11".repeat(32)).parse().unwrap();
        let both: ServerKeySet =
            format!("2:{},1:{}", "22".repeat(32), "11".repeat(32)).parse().unwrap();
        let recovery = recovery(sent(), 170);
        assert!(recovery.is_code(&recovery.code(&old), &both));
        assert!(!recovery.is_code(&recovery.code(&both), &old));
    }
}
