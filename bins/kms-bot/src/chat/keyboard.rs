//! Inline buttons below messages.

use teloxide_core::types::{
    ButtonRequest, CopyTextButton, InlineKeyboardButton, InlineKeyboardButtonKind,
    InlineKeyboardMarkup, KeyboardButton, KeyboardMarkup, KeyboardRemove, ReplyMarkup,
};

use super::html::is_public_link;
use crate::texts::Text;

/// A label and the callback data that Telegram returns when the button is pressed: at most 64
/// bytes, and any user can forge it. Data names a thing, never its owner; handlers check who
/// pressed.
pub(crate) type CallbackButton = (Text, String);

/// The rows of buttons below a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyboard(Vec<Vec<InlineKeyboardButton>>);

impl Keyboard {
    /// No buttons. An edit with this keyboard removes the buttons that the message had.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// One row of buttons.
    pub(crate) fn row<const N: usize>(row: [CallbackButton; N]) -> Self {
        Self::none().and_row(row)
    }

    /// Adds a row.
    pub(crate) fn and_row<const N: usize>(mut self, row: [CallbackButton; N]) -> Self {
        let button = |(label, data): CallbackButton| {
            InlineKeyboardButton::callback(label.into_string(), data)
        };
        self.0.push(row.into_iter().map(button).collect());
        self
    }

    /// Adds a row with a link, unless Telegram would refuse the link.
    pub(crate) fn and_link(mut self, label: Text, url: &str) -> Self {
        if let Some(url) = is_public_link(url).then(|| url.parse().ok()).flatten() {
            self.0.push(vec![InlineKeyboardButton::url(label.into_string(), url)]);
        }
        self
    }

    /// Adds a row with a button that copies a text.
    pub(crate) fn and_copy(mut self, label: Text, copied: &str) -> Self {
        let kind = InlineKeyboardButtonKind::CopyText(CopyTextButton { text: copied.to_owned() });
        self.0.push(vec![InlineKeyboardButton::new(label.into_string(), kind)]);
        self
    }

    pub(crate) fn into_markup(self) -> InlineKeyboardMarkup {
        InlineKeyboardMarkup::new(self.0)
    }
}

/// The keys that Telegram shows in place of the user's own keyboard. They stay until a later
/// message removes them.
pub(crate) enum Keys {
    /// A key that shares the user's own number, and one that sends its label, to cancel.
    ShareNumber { share: Text, cancel: Text },
    /// No keys.
    Remove,
}

impl Keys {
    pub(crate) fn into_markup(self) -> ReplyMarkup {
        match self {
            Self::ShareNumber { share, cancel } => {
                let share =
                    KeyboardButton::new(share.into_string()).request(ButtonRequest::Contact);
                let cancel = KeyboardButton::new(cancel.into_string());
                let keys = KeyboardMarkup::new([[share], [cancel]]);
                ReplyMarkup::Keyboard(keys.resize_keyboard().one_time_keyboard())
            }
            Self::Remove => ReplyMarkup::KeyboardRemove(KeyboardRemove::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::text;

    #[test]
    fn links_that_telegram_would_refuse_are_left_out() {
        let rows = |url| Keyboard::none().and_link(text!("send-explorer-button"), url).0.len();
        assert_eq!(rows("https://etherscan.io/tx/0x1"), 1);
        assert_eq!(rows("http://localhost:3000/tx/0x1"), 0);
    }
}
