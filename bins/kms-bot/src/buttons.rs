//! Buttons below messages, and the data that comes back when one is pressed.
//!
//! Data is at most 64 bytes and can be forged by whoever sees the message. So it names a thing
//! and never whose it is: the handler looks at who pressed.

use std::str::FromStr;

use kms_types::{RecoveryId, TransferId};
use teloxide_core::types::{
    CopyTextButton, InlineKeyboardButton, InlineKeyboardButtonKind, InlineKeyboardMarkup,
};

use crate::command::Name;
use crate::screen::Seen;

/// What a button asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Press {
    /// The same as the command.
    Command(Name),
    /// The balance again, in the same message.
    Refresh,
    /// How a forgotten password is recovered.
    HowRecovery,
    /// Leave the step that waits for an answer.
    Leave,
    /// A page of the history; the newest without a place.
    History(Place),
    /// Ask for the password of a transfer.
    Confirm {
        /// Which.
        transfer: TransferId,
        /// What the message with the button shows of it.
        seen: Seen,
    },
    /// The same although the name moved lately: the second press.
    ConfirmMoved {
        /// Which.
        transfer: TransferId,
        /// What the message with the button shows of it.
        seen: Seen,
    },
    /// Give a quote up.
    Cancel(TransferId),
    /// Quote the same again.
    Renew(TransferId),
    /// Look how a transfer stands.
    Check(TransferId),
    /// Ask for a recovery, under this id.
    RecoveryStart(RecoveryId),
    /// Ask for the new password of a recovery.
    RecoverySet(RecoveryId),
    /// Stop a recovery.
    RecoveryStop(RecoveryId),
    /// Ask for an e-mail address.
    Email,
    /// Forget the e-mail address.
    NoEmail,
}

/// A page of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first one.
    Newest,
    /// What is older than a place that the server gave.
    Older(String),
    /// What is newer than one.
    Newer(String),
}

/// The data is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPress;

impl Press {
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Command(name) => format!("/{}", name.as_str()),
            Self::Refresh => "refresh".to_owned(),
            Self::HowRecovery => "how".to_owned(),
            Self::Leave => "leave".to_owned(),
            Self::History(Place::Newest) => "h".to_owned(),
            Self::History(Place::Older(place)) => format!("h:{place}"),
            Self::History(Place::Newer(place)) => format!("n:{place}"),
            Self::Confirm { transfer, seen } => format!("c:{transfer}:{seen}"),
            Self::ConfirmMoved { transfer, seen } => format!("m:{transfer}:{seen}"),
            Self::Cancel(transfer) => format!("x:{transfer}"),
            Self::Renew(transfer) => format!("r:{transfer}"),
            Self::Check(transfer) => format!("k:{transfer}"),
            Self::RecoveryStart(id) => format!("f:{id}"),
            Self::RecoverySet(id) => format!("p:{id}"),
            Self::RecoveryStop(id) => format!("s:{id}"),
            Self::Email => "email".to_owned(),
            Self::NoEmail => "noemail".to_owned(),
        }
    }
}

impl FromStr for Press {
    type Err = NoPress;

    fn from_str(data: &str) -> Result<Self, NoPress> {
        if let Some(name) = data.strip_prefix('/') {
            let name = Name::ALL.into_iter().find(|known| known.as_str() == name);
            return name.map(Self::Command).ok_or(NoPress);
        }
        let id = |text: &str| text.parse::<TransferId>().map_err(|_cause| NoPress);
        let recovery = |text: &str| text.parse::<RecoveryId>().map_err(|_cause| NoPress);
        match data.split_once(':') {
            None => match data {
                "refresh" => Ok(Self::Refresh),
                "how" => Ok(Self::HowRecovery),
                "leave" => Ok(Self::Leave),
                "h" => Ok(Self::History(Place::Newest)),
                "email" => Ok(Self::Email),
                "noemail" => Ok(Self::NoEmail),
                _ => Err(NoPress),
            },
            Some(("h", place)) => Ok(Self::History(Place::Older(place.to_owned()))),
            Some(("n", place)) => Ok(Self::History(Place::Newer(place.to_owned()))),
            Some((kind @ ("c" | "m"), rest)) => {
                let (transfer, seen) = rest.split_once(':').ok_or(NoPress)?;
                let (transfer, seen) = (id(transfer)?, seen.parse()?);
                Ok(match kind {
                    "c" => Self::Confirm { transfer, seen },
                    _ => Self::ConfirmMoved { transfer, seen },
                })
            }
            Some(("x", rest)) => id(rest).map(Self::Cancel),
            Some(("r", rest)) => id(rest).map(Self::Renew),
            Some(("k", rest)) => id(rest).map(Self::Check),
            Some(("f", rest)) => recovery(rest).map(Self::RecoveryStart),
            Some(("p", rest)) => recovery(rest).map(Self::RecoverySet),
            Some(("s", rest)) => recovery(rest).map(Self::RecoveryStop),
            Some(_) => Err(NoPress),
        }
    }
}

/// The rows of buttons below a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyboard(Vec<Vec<InlineKeyboardButton>>);

impl Keyboard {
    /// No buttons; an edit removes those that are there.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// One row of buttons that come back as these presses.
    pub(crate) fn row<const N: usize>(row: [(&str, Press); N]) -> Self {
        Self::none().and_row(row)
    }

    /// One more row.
    pub(crate) fn and_row<const N: usize>(mut self, row: [(&str, Press); N]) -> Self {
        let button =
            |(text, press): (&str, Press)| InlineKeyboardButton::callback(text, press.data());
        self.0.push(row.into_iter().map(button).collect());
        self
    }

    /// One more row with a link, if Telegram takes it: to a host with a dot.
    pub(crate) fn and_link(mut self, text: &str, url: &str) -> Self {
        if let Some(url) = is_public(url).then(|| url.parse().ok()).flatten() {
            self.0.push(vec![InlineKeyboardButton::url(text, url)]);
        }
        self
    }

    /// One more row that copies a text.
    pub(crate) fn and_copy(mut self, text: &str, copied: &str) -> Self {
        let kind = InlineKeyboardButtonKind::CopyText(CopyTextButton { text: copied.to_owned() });
        self.0.push(vec![InlineKeyboardButton::new(text, kind)]);
        self
    }

    pub(crate) fn into_markup(self) -> InlineKeyboardMarkup {
        InlineKeyboardMarkup::new(self.0)
    }
}

/// Whether Telegram shows the link. Others are refused in buttons and dropped in texts.
pub(crate) fn is_public(url: &str) -> bool {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    host.and_then(|rest| rest.split(['/', '?', '#', ':']).next())
        .is_some_and(|host| host.contains('.') && !host.starts_with('.') && !host.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_comes_back_as_it_was_and_fits() {
        let id = TransferId::random();
        let place = format!("1790000000000.{id}");
        let mut presses = vec![
            Press::Refresh,
            Press::HowRecovery,
            Press::Leave,
            Press::History(Place::Newest),
            Press::History(Place::Older(place.clone())),
            Press::History(Place::Newer(place)),
            Press::Confirm { transfer: id, seen: "0123456789abcdef".parse().unwrap() },
            Press::ConfirmMoved { transfer: id, seen: "0123456789abcdef".parse().unwrap() },
            Press::Cancel(id),
            Press::Renew(id),
            Press::Check(id),
            Press::RecoveryStart(RecoveryId::random()),
            Press::RecoverySet(RecoveryId::random()),
            Press::RecoveryStop(RecoveryId::random()),
            Press::Email,
            Press::NoEmail,
        ];
        presses.extend(Name::ALL.map(Press::Command));
        for press in presses {
            let data = press.data();
            assert!(data.len() <= 64, "{data}");
            assert_eq!(data.parse(), Ok(press));
        }
    }

    #[test]
    fn forged_data_is_none_of_ours() {
        let id = TransferId::random();
        for data in ["", "c", "c:", "c:1:2", "x:", "x:1", "/start", "/", "z:1", &format!("c:{id}")]
        {
            assert_eq!(data.parse::<Press>(), Err(NoPress), "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_written(
            data in "[a-z]:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(:[0-9a-f]{16})?|[hn]:.{0,40}|.{0,64}"
        ) {
            if let Ok(press) = data.parse::<Press>() {
                prop_assert_eq!(press.data(), data);
            }
        }
    }

    #[test]
    fn links_that_telegram_would_refuse_are_left_out() {
        let rows = |url| Keyboard::none().and_link("Open", url).0.len();
        assert_eq!(rows("https://etherscan.io/tx/0x1"), 1);
        assert_eq!(rows("http://localhost:3000/tx/0x1"), 0);
        assert_eq!(rows("javascript:alert(1.0)"), 0);
    }
}
