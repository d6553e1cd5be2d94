//! What events report: one enum for each subject, shared by the outbox, the API, e-mails and the
//! chat. A new value does not compile until each of them has decided on it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownText;

/// Declares the kinds of events about one subject: an exhaustive enum whose texts are the same in
/// the database and in the API.
macro_rules! event_kinds {
    ($(#[$about:meta])* $name:ident {
        $($(#[$meta:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum $name {
            $($(#[$meta])* #[serde(rename = $text)] $variant,)+
        }

        crate::text_table! {
            $name { $($variant = $text,)+ }
        }
    };
}

event_kinds! {
    /// An event about the account itself.
    AccountEvent {
        /// A wallet was created.
        Created = "account_created",
        /// A change of the e-mail address was requested with the password.
        EmailChangeRequested = "email_change_requested",
        /// The e-mail address was replaced or deleted.
        EmailChanged = "email_changed",
    }
}

event_kinds! {
    /// A change of a recovery.
    RecoveryStep {
        /// It was requested.
        Requested = "recovery_requested",
        /// The code that was sent by e-mail was confirmed; the wait is shorter now.
        CodeConfirmed = "recovery_confirmed",
        /// The new password can be set.
        Ready = "recovery_ready",
        /// The new password was set.
        Completed = "recovered",
        /// It was cancelled.
        Cancelled = "recovery_cancelled",
        /// The new password was not set in time.
        Expired = "recovery_expired",
        /// Two operators requested to move the wallet to another Telegram account.
        MoveRequested = "move_requested",
        /// The wait of the move is over.
        MoveReady = "move_ready",
        /// The wallet was moved. The user who had it is notified.
        Moved = "moved",
        /// The move was cancelled.
        MoveCancelled = "move_cancelled",
        /// The wallet was not moved in time.
        MoveExpired = "move_expired",
    }
}

event_kinds! {
    /// An event about a transfer of this system.
    TransferEvent {
        /// The state of a transfer that this account sends has changed.
        Changed = "transfer_changed",
        /// The state of a transfer to this account has changed: it arrives (mined), it is final, it
        /// is pending again because its block was removed, or it was taken back.
        Received = "received",
    }
}

event_kinds! {
    /// An event about a payment that this system did not send.
    DepositEvent {
        /// The account received it, in a finalized block.
        Received = "deposit_received",
    }
}

/// Passes the security events to a macro. A security event carries nothing but its time; its owner
/// is notified in the chat and by e-mail, by the message of this id in `kms-bot.ftl` and
/// `kms-server.ftl`. Without both messages the programs do not compile. The last word is its
/// [`Remedy`].
#[macro_export]
macro_rules! with_security_events {
    ($callback:ident) => {
        $callback! {
            /// The password was changed by its owner.
            PasswordChanged = "password_changed", "notice-password-changed", Freeze;
            /// The wallet's key was exported with the password.
            KeyExported = "key_exported", "notice-key-exported", Nothing;
            /// The account was frozen, by its owner or by an operator.
            AccountFrozen = "account_frozen", "notice-account-frozen", Nothing;
            /// The owner requested, with the password, to unfreeze the account. It waits.
            UnfreezeRequested = "unfreeze_requested", "notice-unfreeze-requested", KeepFrozen;
            /// A request to unfreeze the account was cancelled by another freeze.
            UnfreezeCancelled = "unfreeze_cancelled", "notice-unfreeze-cancelled", Nothing;
            /// The account was unfrozen.
            AccountUnfrozen = "account_unfrozen", "notice-account-unfrozen", Freeze;
            /// A higher spending limit was requested. It waits, and setting a lower one cancels it.
            LimitRaiseRequested = "limit_raise_requested", "notice-limit-raise-requested", Freeze;
            /// The owner requested on the page, with the password, that bearer tokens may act for
            /// the account again. It waits.
            PageLeaveRequested = "page_leave_requested", "notice-page-leave-requested", KeepPage;
            /// A request to leave the page was cancelled.
            PageLeaveCancelled = "page_leave_cancelled", "notice-page-leave-cancelled", Nothing;
            /// Bearer tokens may act for the account again.
            PageLeft = "page_left", "notice-page-left", Freeze;
        }
    };
}

macro_rules! security_event {
    ($($(#[$meta:meta])* $variant:ident = $text:literal, $id:literal, $remedy:ident;)+) => {
        event_kinds! {
            /// An act that affects who can use the wallet, or how much it can spend.
            SecurityEvent { $($(#[$meta])* $variant = $text,)+ }
        }

        impl SecurityEvent {
            /// What an owner who did not cause the event can do at once.
            #[must_use]
            pub const fn remedy(self) -> Remedy {
                match self { $(Self::$variant => Remedy::$remedy,)+ }
            }
        }
    };
}

with_security_events!(security_event);

/// What an owner who did not cause a security event can do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Freeze the account.
    Freeze,
    /// Keep it frozen, which cancels the request to unfreeze it.
    KeepFrozen,
    /// Cancel the request to leave the page.
    KeepPage,
    /// Nothing here: a freeze does not stop a party that has the key.
    Nothing,
}

/// What an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// About the account itself.
    Account(AccountEvent),
    /// About the security of the wallet.
    Security(SecurityEvent),
    /// About a recovery.
    Recovery(RecoveryStep),
    /// About a transfer of this system.
    Transfer(TransferEvent),
    /// About an external deposit.
    Deposit(DepositEvent),
}

/// Events that are delivered in one order: many payments do not delay a security event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventStream {
    /// About accounts, their security and their recoveries.
    Security,
    /// About transfers and deposits.
    Payments,
}

crate::text_table! {
    EventStream {
        Security = "security",
        Payments = "payments",
    }
}

impl EventKind {
    /// The text that is stored for this kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account(event) => event.as_str(),
            Self::Security(event) => event.as_str(),
            Self::Recovery(step) => step.as_str(),
            Self::Transfer(event) => event.as_str(),
            Self::Deposit(event) => event.as_str(),
        }
    }

    /// The stream that this kind belongs to.
    #[must_use]
    pub const fn stream(self) -> EventStream {
        match self {
            Self::Account(_) | Self::Security(_) | Self::Recovery(_) => EventStream::Security,
            Self::Transfer(_) | Self::Deposit(_) => EventStream::Payments,
        }
    }
}

impl FromStr for EventKind {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        text.parse()
            .map(Self::Account)
            .or_else(|_| text.parse().map(Self::Security))
            .or_else(|_| text.parse().map(Self::Recovery))
            .or_else(|_| text.parse().map(Self::Transfer))
            .or_else(|_| text.parse().map(Self::Deposit))
            .map_err(|unknown: UnknownText| UnknownText { kind: "event", ..unknown })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_text_of_its_own() {
        let kinds = (AccountEvent::ALL.iter().map(|event| EventKind::Account(*event)))
            .chain(SecurityEvent::ALL.iter().map(|event| EventKind::Security(*event)))
            .chain(RecoveryStep::ALL.iter().map(|step| EventKind::Recovery(*step)))
            .chain(TransferEvent::ALL.iter().map(|event| EventKind::Transfer(*event)))
            .chain(DepositEvent::ALL.iter().map(|event| EventKind::Deposit(*event)));
        let mut texts = HashSet::new();
        for kind in kinds {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert!(texts.insert(kind.as_str()), "{kind:?}");
        }
        assert!("from_the_future".parse::<EventKind>().is_err());
    }
}
