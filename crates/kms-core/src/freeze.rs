//! Freezing an account, and lifting that: the rules, and the link in e-mails that freezes. This
//! module reads no clock and no store.
//!
//! Anyone who may act for the owner freezes at once, without the password. Lifting requires the
//! password and a wait, in which every freeze cancels it; or an operator.

use std::fmt;
use std::time::Duration;

use kms_types::{AccountId, SecurityEvent, Timestamp};

use crate::account::{Account, AccountState};
use crate::recovery::RecoveryRules;
use crate::server_keys::{RowMac, RowMacError, ServerKeySet};

/// How long a link is valid at least.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A change of the state of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeChange {
    /// Its owner freezes it. A request to lift an earlier freeze is cancelled.
    ByOwner,
    /// An operator freezes it, also if its owner did before.
    ByOperator,
    /// Its owner requests, with the password, that the owner's freeze is lifted.
    RequestLift {
        /// The version of the wallet that the password opened.
        wallet_version: i64,
        /// When the freeze is lifted.
        until: Timestamp,
    },
    /// The wait of such a request is over.
    LiftDue {
        /// The present.
        now: Timestamp,
    },
    /// An operator lifts any freeze.
    LiftByOperator,
}

impl FreezeChange {
    /// Applies the change and returns the event that reports it; `None`, with the account as it
    /// was, if there is nothing to change or the change is not allowed.
    pub fn apply(self, account: &mut Account) -> Option<SecurityEvent> {
        let (state, unfreezes_at, event) = match (self, account.state, account.unfreezes_at) {
            (Self::ByOwner, AccountState::Active, _) => {
                (AccountState::FrozenByOwner, None, SecurityEvent::AccountFrozen)
            }
            (Self::ByOwner, AccountState::FrozenByOwner, Some(_)) => {
                (AccountState::FrozenByOwner, None, SecurityEvent::UnfreezeCancelled)
            }
            (Self::ByOperator, AccountState::Active | AccountState::FrozenByOwner, _) => {
                (AccountState::Frozen, None, SecurityEvent::AccountFrozen)
            }
            (Self::RequestLift { wallet_version, until }, AccountState::FrozenByOwner, None)
                if account.wallet.version == wallet_version =>
            {
                (AccountState::FrozenByOwner, Some(until), SecurityEvent::UnfreezeRequested)
            }
            (Self::LiftDue { now }, AccountState::FrozenByOwner, Some(until)) if until <= now => {
                (AccountState::Active, None, SecurityEvent::AccountUnfrozen)
            }
            (Self::LiftByOperator, AccountState::FrozenByOwner | AccountState::Frozen, _) => {
                (AccountState::Active, None, SecurityEvent::AccountUnfrozen)
            }
            (
                Self::ByOwner
                | Self::ByOperator
                | Self::RequestLift { .. }
                | Self::LiftDue { .. }
                | Self::LiftByOperator,
                AccountState::Active | AccountState::FrozenByOwner | AccountState::Frozen,
                _,
            ) => return None,
        };
        (account.state, account.unfreezes_at) = (state, unfreezes_at);
        account.page_only_until = None;
        Some(event)
    }
}

/// A link in an e-mail that freezes an account. It is derived rather than stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreezeLink {
    /// The account.
    pub account: AccountId,
    /// Until when it is valid.
    pub until: Timestamp,
}

impl FreezeLink {
    /// Returns the link of an e-mail about what happened at this time: valid for a week, and for as
    /// long as the hold after a recovery.
    #[must_use]
    pub fn new(account: AccountId, at: Timestamp, rules: &RecoveryRules) -> Self {
        Self { account, until: at.plus(rules.hold.max(LIFETIME)) }
    }

    /// Returns the MAC of the link.
    #[must_use]
    pub fn mac(&self, codes_keys: &ServerKeySet) -> RowMac {
        self.with_fields(|fields| codes_keys.mac(fields))
    }

    /// Verifies the MAC of a link.
    ///
    /// # Errors
    /// When it is not that of [`FreezeLink::mac`].
    pub fn check_mac(&self, mac: &RowMac, codes_keys: &ServerKeySet) -> Result<(), RowMacError> {
        self.with_fields(|fields| codes_keys.verify(mac, fields))
    }

    fn with_fields<T>(&self, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        work(&[b"freeze-link", self.account.as_bytes(), &self.until.0.to_be_bytes()])
    }
}

/// The path of the link, without its MAC.
impl fmt::Display for FreezeLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/accounts/{}/freeze/{}", self.account, self.until.0)
    }
}

#[cfg(test)]
mod tests {
    use super::FreezeChange::{ByOperator, ByOwner, LiftByOperator, LiftDue, RequestLift};
    use super::*;
    use crate::test_account::account;

    fn apply(account: &mut Account, changes: &[FreezeChange]) -> Vec<Option<SecurityEvent>> {
        changes.iter().map(|change| change.apply(account)).collect()
    }

    fn lift(wallet_version: i64) -> FreezeChange {
        RequestLift { wallet_version, until: Timestamp(100) }
    }

    fn due(now: i64) -> FreezeChange {
        LiftDue { now: Timestamp(now) }
    }

    #[test]
    fn a_freeze_of_the_owner_is_lifted_after_the_wait() {
        let mut ann = account();
        let events = apply(&mut ann, &[lift(7), ByOwner, ByOwner, due(i64::MAX), lift(6), lift(7)]);
        let (frozen, asked) = (SecurityEvent::AccountFrozen, SecurityEvent::UnfreezeRequested);
        assert_eq!(events, [None, Some(frozen), None, None, None, Some(asked)]);
        // A second request does not move the time, and the freeze holds until then.
        let later = RequestLift { wallet_version: 7, until: Timestamp(1) };
        assert_eq!(apply(&mut ann, &[later, due(99)]), [None, None]);
        assert_eq!(
            (ann.state, ann.unfreezes_at),
            (AccountState::FrozenByOwner, Some(Timestamp(100)))
        );
        assert_eq!(due(100).apply(&mut ann), Some(SecurityEvent::AccountUnfrozen));
        assert_eq!((ann.state, ann.unfreezes_at), (AccountState::Active, None));
    }

    #[test]
    fn every_freeze_cancels_a_request_to_lift_it() {
        for freeze in [ByOwner, ByOperator] {
            let mut ann = account();
            apply(&mut ann, &[ByOwner, lift(7)]);
            assert!(freeze.apply(&mut ann).is_some());
            assert_eq!(ann.unfreezes_at, None);
            assert_eq!(due(i64::MAX).apply(&mut ann), None);
            assert_ne!(ann.state, AccountState::Active);
        }
    }

    #[test]
    fn a_freeze_of_an_operator_is_lifted_by_operators_only() {
        let mut ann = account();
        assert!(ByOperator.apply(&mut ann).is_some());
        let events = apply(&mut ann, &[ByOperator, ByOwner, lift(7), due(i64::MAX)]);
        assert_eq!((events, ann.state), (vec![None; 4], AccountState::Frozen));
        assert_eq!(LiftByOperator.apply(&mut ann), Some(SecurityEvent::AccountUnfrozen));
        assert_eq!(LiftByOperator.apply(&mut ann), None);
    }

    #[test]
    fn a_link_is_valid_for_its_account_and_time_only() {
        let (keys, id) = (ServerKeySet::random(), AccountId::random());
        let link = FreezeLink { account: id, until: Timestamp(100) };
        let mac = link.mac(&keys);
        assert!(link.check_mac(&mac, &keys).is_ok());
        for other in [
            FreezeLink { until: Timestamp(101), ..link },
            FreezeLink { account: AccountId::random(), ..link },
        ] {
            assert!(other.check_mac(&mac, &keys).is_err());
        }
        assert!(link.check_mac(&mac, &ServerKeySet::random()).is_err());
        assert_eq!(link.to_string(), format!("/accounts/{id}/freeze/100"));
    }
}
