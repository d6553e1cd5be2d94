//! Updates from Telegram, parsed into the three kinds that the bot handles. Everything else is
//! ignored, and nothing of an update is logged.

use kms_types::{TelegramId, Timestamp, Username};
use teloxide_core::types::{
    CallbackQuery, CallbackQueryId, ChatId, MediaKind, Message, MessageId, MessageKind, Update,
    UpdateKind, User as TelegramUser,
};
use zeroize::Zeroizing;

/// The user who caused an update.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: TelegramId,
    pub(crate) username: Option<Username>,
    pub(crate) first_name: String,
}

/// A text message that the user typed: no edit, no forward, not sent via another bot.
pub(crate) struct TextMessage {
    pub(crate) user: User,
    pub(crate) message: MessageId,
    pub(crate) at: Timestamp,
    /// May be a password.
    pub(crate) text: Zeroizing<String>,
    /// The group, if it was not the private chat.
    pub(crate) group: Option<ChatId>,
}

/// A message in the private chat that the bot does not read: an edit, a forward, a picture. It may
/// contain a password all the same.
pub(crate) struct UnsupportedMessage {
    pub(crate) user: User,
    pub(crate) message: MessageId,
}

/// A pressed button.
pub(crate) struct PressedButton {
    pub(crate) user: User,
    pub(crate) query: CallbackQueryId,
    /// The message with the button, if it is in the user's private chat.
    pub(crate) message: Option<MessageId>,
    /// The callback data. Untrusted.
    pub(crate) data: Option<String>,
}

/// One update.
pub(crate) enum Incoming {
    Text(TextMessage),
    Unsupported(UnsupportedMessage),
    Pressed(PressedButton),
}

impl Incoming {
    /// Parses an update. Returns `None` for channel posts, anonymous senders, other bots, and, in
    /// groups, for anything but typed text.
    pub(crate) fn parse(update: Update) -> Option<Self> {
        match update.kind {
            UpdateKind::Message(message) => text(message),
            UpdateKind::EditedMessage(message) => unsupported(message),
            UpdateKind::CallbackQuery(query) => pressed(query),
            _ => None,
        }
    }

    /// The message in the private chat that it is about.
    pub(crate) fn private_message(&self) -> Option<MessageId> {
        match self {
            Self::Text(message) => message.group.is_none().then_some(message.message),
            Self::Unsupported(message) => Some(message.message),
            Self::Pressed(button) => button.message,
        }
    }

    pub(crate) fn user(&self) -> &User {
        match self {
            Self::Text(message) => &message.user,
            Self::Unsupported(message) => &message.user,
            Self::Pressed(button) => &button.user,
        }
    }
}

fn user(user: TelegramUser) -> Option<User> {
    if user.is_bot {
        return None;
    }
    let id = i64::try_from(user.id.0).ok()?.try_into().ok()?;
    let username = user.username.and_then(|name| name.parse().ok());
    Some(User { id, username, first_name: user.first_name })
}

fn text(message: Message) -> Option<Incoming> {
    if message.sender_chat.is_some() {
        return None;
    }
    let typed =
        message.via_bot.is_none() && message.forward_origin().is_none() && message.text().is_some();
    if !typed {
        return unsupported(message);
    }
    let user = user(message.from?)?;
    let (chat, private) = (message.chat.id, message.chat.is_private());
    if private && chat.0 != i64::from(user.id) {
        return None;
    }
    let MessageKind::Common(common) = message.kind else { return None };
    let MediaKind::Text(text) = common.media_kind else { return None };
    Some(Incoming::Text(TextMessage {
        user,
        message: message.id,
        at: Timestamp(message.date.timestamp_millis()),
        text: Zeroizing::new(text.text),
        group: (!private).then_some(chat),
    }))
}

fn unsupported(message: Message) -> Option<Incoming> {
    let (chat, private) = (message.chat.id, message.chat.is_private());
    let user = user(message.from?)?;
    let own = private && chat.0 == i64::from(user.id);
    own.then_some(Incoming::Unsupported(UnsupportedMessage { user, message: message.id }))
}

fn pressed(query: CallbackQuery) -> Option<Incoming> {
    let user = user(query.from)?;
    let own = query.message.filter(|message| message.chat().id.0 == i64::from(user.id));
    Some(Incoming::Pressed(PressedButton {
        query: query.id,
        message: own.map(|message| message.id()),
        data: query.data,
        user,
    }))
}
