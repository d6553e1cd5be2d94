//! Accounts that are used on the vault page alone: the rules. This module reads no clock and no
//! store.
//!
//! The first act on the page that needs a password or a recovery makes an account page-only. Its
//! owner leaves that on the page, with the password and after a wait, in which anyone who may act
//! for the owner cancels it; so do a freeze and a new password.

use kms_types::{SecurityEvent, Timestamp};

use crate::account::Account;

/// A change of whether an account is page-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageChange {
    /// The owner acts on the page.
    Enter {
        /// The present.
        now: Timestamp,
    },
    /// The owner requests, with the password, that bearer tokens may act again.
    RequestLeave {
        /// The version of the wallet that the password opened.
        wallet_version: i64,
        /// When they may.
        until: Timestamp,
    },
    /// The owner cancels such a request.
    Keep,
    /// The wait of such a request is over.
    LeaveDue {
        /// The present.
        now: Timestamp,
    },
}

impl PageChange {
    /// Applies the change and reports whether it changed the account; `None`, with the account as
    /// it was, if there is nothing to change or the change is not allowed.
    pub fn apply(self, account: &mut Account) -> Option<PageChanged> {
        let (since, until) = (account.page_only_since, account.page_only_until);
        let (since, until, changed) = match (self, since, until) {
            (Self::Enter { now }, None, _) => (Some(now), None, PageChanged::Silently),
            (Self::RequestLeave { wallet_version, until }, Some(_), None)
                if account.allows(wallet_version) =>
            {
                (since, Some(until), PageChanged::By(SecurityEvent::PageLeaveRequested))
            }
            (Self::Keep, Some(_), Some(_)) => {
                (since, None, PageChanged::By(SecurityEvent::PageLeaveCancelled))
            }
            (Self::LeaveDue { now }, Some(_), Some(until)) if until <= now => {
                (None, None, PageChanged::By(SecurityEvent::PageLeft))
            }
            (
                Self::Enter { .. } | Self::RequestLeave { .. } | Self::Keep | Self::LeaveDue { .. },
                _,
                _,
            ) => return None,
        };
        (account.page_only_since, account.page_only_until) = (since, until);
        Some(changed)
    }
}

/// How a change is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageChanged {
    /// Not at all: the act that caused it is.
    Silently,
    /// By this event.
    By(SecurityEvent),
}

#[cfg(test)]
mod tests {
    use super::PageChange::{Enter, Keep, LeaveDue, RequestLeave};
    use super::*;
    use crate::freeze::FreezeChange;
    use crate::test_account::account;

    fn page_only() -> Account {
        let mut ann = account();
        assert_eq!(enter(5).apply(&mut ann), Some(PageChanged::Silently));
        ann
    }

    fn enter(now: i64) -> PageChange {
        Enter { now: Timestamp(now) }
    }

    fn leave(wallet_version: i64) -> PageChange {
        RequestLeave { wallet_version, until: Timestamp(100) }
    }

    fn due(now: i64) -> PageChange {
        LeaveDue { now: Timestamp(now) }
    }

    #[test]
    fn an_account_leaves_the_page_after_the_wait() {
        let mut ann = page_only();
        for nothing in [enter(9), leave(6), Keep, due(i64::MAX)] {
            assert_eq!(nothing.apply(&mut ann), None, "{nothing:?}");
        }
        let requested = PageChanged::By(SecurityEvent::PageLeaveRequested);
        assert_eq!(leave(7).apply(&mut ann), Some(requested));
        // A second request does not move the time.
        let later = RequestLeave { wallet_version: 7, until: Timestamp(1) };
        for nothing in [later, due(99), enter(9)] {
            assert_eq!(nothing.apply(&mut ann), None, "{nothing:?}");
        }
        let dates = (Some(Timestamp(5)), Some(Timestamp(100)));
        assert_eq!((ann.page_only_since, ann.page_only_until), dates);
        assert_eq!(due(100).apply(&mut ann), Some(PageChanged::By(SecurityEvent::PageLeft)));
        assert_eq!((ann.page_only_since, ann.page_only_until), (None, None));
        assert_eq!(leave(7).apply(&mut ann), None);
    }

    #[test]
    fn a_request_to_leave_is_cancelled_and_by_a_freeze_too() {
        let mut ann = page_only();
        leave(7).apply(&mut ann);
        let cancelled = PageChanged::By(SecurityEvent::PageLeaveCancelled);
        assert_eq!(Keep.apply(&mut ann), Some(cancelled));
        assert_eq!(due(i64::MAX).apply(&mut ann), None);
        for freeze in [FreezeChange::ByOwner, FreezeChange::ByOperator] {
            let mut ann = page_only();
            leave(7).apply(&mut ann);
            assert!(freeze.apply(&mut ann).is_some());
            assert_eq!(due(i64::MAX).apply(&mut ann), None);
            assert_eq!(leave(7).apply(&mut ann), None, "a frozen account stays page-only");
            assert_eq!(ann.page_only_since, Some(Timestamp(5)));
        }
    }
}
