//! A transfer as its message shows it, from the quote to its end.

use std::fmt;
use std::str::FromStr;

use kms_types::wire::{Network, Transfer, TransferState};
use kms_types::{EthAddress, TelegramId, Token, TransferId, Units, Wei};
use sha2::{Digest, Sha256};
use teloxide_core::types::MessageId;

use crate::app::{App, Done};
use crate::buttons::{Keyboard, NoPress, Press};
use crate::incoming::Person;
use crate::telegram::TelegramError;
use crate::texts;

/// What a person agrees to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) to_address: EthAddress,
    pub(crate) token: Option<Token>,
    pub(crate) value: Units,
    pub(crate) max_fee: Wei,
    /// The confirm screen, in HTML.
    pub(crate) screen: String,
}

/// A fingerprint of what a message shows: 64 bits of a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen([u8; 8]);

impl Seen {
    pub(crate) fn of(transfer: &Transfer) -> Self {
        let Transfer { to, token, value, max_fee, .. } = transfer;
        Self::of_parts(to.address, token.as_ref(), *value, *max_fee)
    }

    fn of_parts(to: EthAddress, token: Option<&Token>, value: Units, max_fee: Wei) -> Self {
        let mut text = format!("{to} {value} {max_fee}");
        if let Some(Token { symbol, address, decimals }) = token {
            text.push_str(&format!(" {symbol} {address} {decimals}"));
        }
        let hash = Sha256::digest(text);
        let mut seen = [0; 8];
        seen.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(seen)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl FromStr for Seen {
    type Err = NoPress;

    fn from_str(text: &str) -> Result<Self, NoPress> {
        let seen = u64::from_str_radix(text, 16).map_err(|_cause| NoPress)?;
        Some(Self(seen.to_be_bytes())).filter(|seen| seen.to_string() == text).ok_or(NoPress)
    }
}

/// What a transfer remembers for the bot: the message that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientRef {
    pub(crate) message: MessageId,
    /// Whether everything was to be sent, so that a renewal means everything again.
    pub(crate) all: bool,
}

impl fmt::Display for ClientRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "telegram:{}{}", self.message, if self.all { ":all" } else { "" })
    }
}

impl ClientRef {
    pub(crate) fn of(transfer: &Transfer) -> Option<Self> {
        let text = transfer.client_ref.as_deref()?.strip_prefix("telegram:")?;
        let (message, all) = match text.strip_suffix(":all") {
            Some(message) => (message, true),
            None => (text, false),
        };
        Some(Self { message: MessageId(message.parse().ok()?), all })
    }
}

/// Shows a transfer as it stands, in its message.
pub(crate) async fn show(
    app: &App,
    who: TelegramId,
    message: MessageId,
    transfer: &Transfer,
) -> Done {
    let (text, keyboard) = screen(transfer, &app.network_of(transfer.chain_id).await?);
    Ok(app.telegram.edit_or_say(who, message, &text, keyboard).await?)
}

/// The same, if the message is still there.
pub(crate) async fn update(
    app: &App,
    who: TelegramId,
    message: MessageId,
    transfer: &Transfer,
) -> Done {
    let (text, keyboard) = screen(transfer, &app.network_of(transfer.chain_id).await?);
    match app.telegram.edit(who, message, &text, keyboard).await {
        Err(TelegramError::Refused(_)) => Ok(()),
        other => Ok(other?),
    }
}

fn screen(transfer: &Transfer, network: &Network) -> (String, Keyboard) {
    match (transfer.state, &transfer.tx_hash, &network.explorer) {
        (TransferState::Quoted, ..) => {
            let keyboard = confirm_or_cancel(transfer.id, Seen::of(transfer));
            (texts::quote(transfer, network, None), keyboard)
        }
        (TransferState::Expired, ..) => (
            texts::transfer(transfer, network),
            Keyboard::row([(texts::RENEW, Press::Renew(transfer.id))]),
        ),
        (_, Some(hash), Some(explorer)) => (
            texts::transfer(transfer, network),
            Keyboard::none().and_link(texts::EXPLORER, &texts::explorer_link(explorer, hash)),
        ),
        _ => (texts::transfer(transfer, network), Keyboard::none()),
    }
}

pub(crate) fn confirm_or_cancel(transfer: TransferId, seen: Seen) -> Keyboard {
    let confirm = Press::Confirm { transfer, seen };
    Keyboard::row([(texts::CONFIRM, confirm), cancel_press(transfer)])
}

pub(crate) fn cancel_press(id: TransferId) -> (&'static str, Press) {
    (texts::CANCEL, Press::Cancel(id))
}

pub(crate) fn cancel_button(id: TransferId) -> Keyboard {
    Keyboard::row([cancel_press(id)])
}

/// Takes the question for the password back: the screen is as it was before `Confirm`.
pub(crate) async fn unask(
    app: &App,
    who: &Person,
    message: MessageId,
    id: TransferId,
    shown: &Shown,
) -> Done {
    let Shown { to_address, token, value, max_fee, .. } = shown;
    let seen = Seen::of_parts(*to_address, token.as_ref(), *value, *max_fee);
    let keyboard = confirm_or_cancel(id, seen);
    Ok(app.telegram.edit(who.id, message, &shown.screen, keyboard).await?)
}
