//! What comes from Telegram, parsed into what the bot looks at. Everything else is ignored, and
//! nothing of it is logged.

use kms_types::{TelegramId, Timestamp, Username};
use teloxide_core::types::{
    CallbackQuery, CallbackQueryId, ChatId, MediaKind, Message, MessageId, MessageKind, Update,
    UpdateKind, User,
};
use zeroize::Zeroizing;

use crate::buttons::Press;

/// Who acts.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: TelegramId,
    pub(crate) username: Option<Username>,
    pub(crate) first_name: String,
}

/// A text that somebody wrote themselves.
pub(crate) struct Said {
    pub(crate) who: Person,
    pub(crate) message: MessageId,
    pub(crate) at: Timestamp,
    /// May be a password.
    pub(crate) text: Zeroizing<String>,
    /// The group, if it was not the private chat.
    pub(crate) group: Option<ChatId>,
}

/// A button that somebody pressed.
pub(crate) struct Pressed {
    pub(crate) who: Person,
    pub(crate) query: CallbackQueryId,
    /// The message below which the button is, if the chat is the presser's own.
    pub(crate) message: Option<MessageId>,
    /// `None` for data that is none of ours.
    pub(crate) press: Option<Press>,
}

/// A message in the private chat that is not taken for anything: an edit, a forward, no text. It
/// may hold a password all the same.
pub(crate) struct Other {
    pub(crate) who: Person,
    pub(crate) message: MessageId,
}

/// One update.
pub(crate) enum Incoming {
    Said(Said),
    Other(Other),
    Pressed(Pressed),
}

impl Incoming {
    /// `None` for what the bot does not look at: channels, anonymous senders, other bots, and in
    /// groups anything but text that somebody wrote.
    pub(crate) fn parse(update: Update) -> Option<Self> {
        match update.kind {
            UpdateKind::Message(message) => said(message),
            UpdateKind::EditedMessage(message) => other(message),
            UpdateKind::CallbackQuery(query) => pressed(query).map(Self::Pressed),
            _ => None,
        }
    }

    pub(crate) fn who(&self) -> &Person {
        match self {
            Self::Said(said) => &said.who,
            Self::Other(other) => &other.who,
            Self::Pressed(pressed) => &pressed.who,
        }
    }
}

fn person(user: User) -> Option<Person> {
    if user.is_bot {
        return None;
    }
    let id = i64::try_from(user.id.0).ok()?.try_into().ok()?;
    let username = user.username.and_then(|name| name.parse().ok());
    Some(Person { id, username, first_name: user.first_name })
}

fn said(message: Message) -> Option<Incoming> {
    if message.sender_chat.is_some() {
        return None;
    }
    let written =
        message.via_bot.is_none() && message.forward_origin().is_none() && message.text().is_some();
    if !written {
        return other(message);
    }
    let who = person(message.from?)?;
    let (chat, private) = (message.chat.id, message.chat.is_private());
    if private && chat.0 != i64::from(who.id) {
        return None;
    }
    let MessageKind::Common(common) = message.kind else { return None };
    let MediaKind::Text(text) = common.media_kind else { return None };
    Some(Incoming::Said(Said {
        who,
        message: message.id,
        at: Timestamp(message.date.timestamp_millis()),
        text: Zeroizing::new(text.text),
        group: (!private).then_some(chat),
    }))
}

fn other(message: Message) -> Option<Incoming> {
    let (chat, private) = (message.chat.id, message.chat.is_private());
    let who = person(message.from?)?;
    let own = private && chat.0 == i64::from(who.id);
    own.then_some(Incoming::Other(Other { who, message: message.id }))
}

fn pressed(query: CallbackQuery) -> Option<Pressed> {
    let who = person(query.from)?;
    let own = query.message.filter(|message| message.chat().id.0 == i64::from(who.id));
    Some(Pressed {
        query: query.id,
        message: own.map(|message| message.id()),
        press: query.data.and_then(|data| data.parse().ok()),
        who,
    })
}
