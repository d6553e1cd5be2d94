//! The buttons below a transfer's message, as callback data.

use std::fmt;
use std::str::FromStr;

use kms_types::TransferId;

use super::terms::Fingerprint;
use crate::chat::keyboard::CallbackButton;
use crate::flow::ParseCallbackError;
use crate::texts::text;

pub(super) const WORD: &str = "send";

/// What a button does with a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendButton {
    /// Asks for the password.
    Confirm { transfer: TransferId, fingerprint: Fingerprint },
    /// The second confirmation if the username was reassigned recently.
    ConfirmReassigned { transfer: TransferId, fingerprint: Fingerprint },
    /// Cancels a quote, or a payment that waits.
    Cancel(TransferId),
    /// Asks for the password that signs a payment again at higher prices.
    SpeedUp(TransferId),
    /// Requests the same quote again.
    Renew(TransferId),
    /// Fetches the transfer's state.
    Check(TransferId),
}

impl SendButton {
    /// The transfer that it is about.
    pub(super) fn transfer(self) -> TransferId {
        match self {
            Self::Confirm { transfer, .. } | Self::ConfirmReassigned { transfer, .. } => transfer,
            Self::Cancel(transfer)
            | Self::SpeedUp(transfer)
            | Self::Renew(transfer)
            | Self::Check(transfer) => transfer,
        }
    }

    /// The button with its label.
    pub(super) fn labelled(self) -> CallbackButton {
        let label = match self {
            Self::Confirm { .. } => text!("send-confirm-button"),
            Self::ConfirmReassigned { .. } => text!("send-confirm-reassigned-button"),
            Self::Cancel(_) => text!("send-cancel-button"),
            Self::SpeedUp(_) => text!("send-speed-up-button"),
            Self::Renew(_) => text!("send-renew-button"),
            Self::Check(_) => text!("send-check-button"),
        };
        (label, self.to_string())
    }
}

impl fmt::Display for SendButton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirm { transfer, fingerprint } => {
                write!(f, "{WORD}:c:{transfer}:{fingerprint}")
            }
            Self::ConfirmReassigned { transfer, fingerprint } => {
                write!(f, "{WORD}:m:{transfer}:{fingerprint}")
            }
            Self::Cancel(transfer) => write!(f, "{WORD}:x:{transfer}"),
            Self::SpeedUp(transfer) => write!(f, "{WORD}:u:{transfer}"),
            Self::Renew(transfer) => write!(f, "{WORD}:r:{transfer}"),
            Self::Check(transfer) => write!(f, "{WORD}:k:{transfer}"),
        }
    }
}

/// Parses what follows the flow's word.
impl FromStr for SendButton {
    type Err = ParseCallbackError;

    fn from_str(data: &str) -> Result<Self, ParseCallbackError> {
        let (kind, rest) = data.split_once(':').ok_or(ParseCallbackError)?;
        let id = |text: &str| text.parse::<TransferId>().map_err(|_cause| ParseCallbackError);
        if let "c" | "m" = kind {
            let (transfer, fingerprint) = rest.split_once(':').ok_or(ParseCallbackError)?;
            let transfer = id(transfer)?;
            let fingerprint = fingerprint.parse().map_err(|_cause| ParseCallbackError)?;
            return Ok(match kind {
                "c" => Self::Confirm { transfer, fingerprint },
                _ => Self::ConfirmReassigned { transfer, fingerprint },
            });
        }
        match kind {
            "x" => id(rest).map(Self::Cancel),
            "u" => id(rest).map(Self::SpeedUp),
            "r" => id(rest).map(Self::Renew),
            "k" => id(rest).map(Self::Check),
            _ => Err(ParseCallbackError),
        }
    }
}
