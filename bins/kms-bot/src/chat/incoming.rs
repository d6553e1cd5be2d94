//! Updates from Telegram, parsed into the kinds that the bot handles. Everything else is ignored,
//! and nothing of an update is logged.

use kms_types::{TelegramId, Timestamp, Username, Usernames, visible};
use teloxide_core::types::{
    CallbackQuery, CallbackQueryId, ChatId, ChatMemberUpdated, MediaKind, Message, MessageEntity,
    MessageEntityKind, MessageId, MessageKind, MessageOrigin, ThreadId, Update, UpdateKind,
    User as TelegramUser, UserId,
};
use zeroize::Zeroizing;

/// The user who caused an update.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: TelegramId,
    pub(crate) username: Option<Username>,
    pub(crate) first_name: String,
    pub(crate) last_name: Option<String>,
}

impl User {
    /// The names by which an attacker who knows the user would guess a password. `usernames` are
    /// all that the user has.
    pub(crate) fn names<'a>(&'a self, usernames: &'a Usernames) -> Vec<&'a str> {
        let names = [Some(self.first_name.as_str()), self.last_name.as_deref()];
        let usernames = usernames.iter().map(Username::as_str);
        names.into_iter().flatten().chain(usernames).collect()
    }
}

/// A text message that the user typed: no edit, no forward, not sent via another bot.
pub(crate) struct TextMessage {
    pub(crate) user: User,
    pub(crate) message: MessageId,
    pub(crate) at: Timestamp,
    pub(crate) text: TypedText,
    /// The group, if it was not the private chat.
    pub(crate) group: Option<Group>,
}

/// A text as the user typed it, with what Telegram's app made of it. May be a password.
pub(crate) struct TypedText {
    /// The text itself.
    pub(crate) plain: Zeroizing<String>,
    /// The text without invisible characters, and with each mention of a person without a username
    /// replaced by its link, `tg://user?id=4711`. The name in the text may be a username of another
    /// person.
    pub(crate) words: Zeroizing<String>,
    /// Whether the app took formatting marks such as `**` out of the text.
    pub(crate) formatted: bool,
}

/// A message in a group, and where an answer to it belongs.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    pub(crate) chat: ChatId,
    /// The topic, in a group with topics.
    pub(crate) topic: Option<ThreadId>,
    pub(crate) message: MessageId,
    /// Who wrote the message that this one replies to, if that is a person.
    pub(crate) replies_to: Option<TelegramId>,
}

/// A message in the private chat that is no typed text.
pub(crate) struct OtherMessage {
    pub(crate) user: User,
    pub(crate) message: MessageId,
    /// When it was written, or edited.
    pub(crate) at: Timestamp,
    /// The text below a picture, a video or a file.
    pub(crate) caption: Option<Zeroizing<String>>,
    /// The album that it is a part of: several pictures or files that were sent together.
    pub(crate) album: Option<String>,
    pub(crate) content: Content,
}

/// What a message is that is no typed text.
pub(crate) enum Content {
    /// An edit of an earlier message, with its new text.
    Edit(Zeroizing<String>),
    /// Another person's message, or one that was sent by way of another bot.
    Forward {
        text: Zeroizing<String>,
        /// Who wrote it, if Telegram shows that.
        author: Option<TelegramId>,
    },
    Contact {
        phone: String,
        /// The person, if Telegram knows the number.
        user: Option<TelegramId>,
    },
    Picture,
    Video,
    File,
    Voice,
    Sticker,
    Place,
    Poll,
    /// A notice of Telegram's about the chat, such as a pinned message.
    Notice,
    Other,
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
    Other(OtherMessage),
    Pressed(PressedButton),
    /// The user unblocked the bot.
    Returned(User),
}

impl Incoming {
    /// Parses an update. Returns `None` for channel posts, anonymous senders, other bots, and, in
    /// groups, for anything but typed text.
    pub(crate) fn parse(update: Update) -> Option<Self> {
        match update.kind {
            UpdateKind::Message(message) => message_of(message),
            UpdateKind::EditedMessage(message) => edit(message),
            UpdateKind::CallbackQuery(query) => pressed(query),
            UpdateKind::MyChatMember(change) => returned(change),
            _ => None,
        }
    }

    /// The text in the private chat that may be a password: it is typed and no command.
    pub(crate) fn secret_text(&self) -> Option<&str> {
        match self {
            Self::Text(message) => {
                let text = message.text.plain.trim_start();
                (message.group.is_none() && !text.starts_with('/')).then_some(text)
            }
            Self::Other(_) | Self::Pressed(_) | Self::Returned(_) => None,
        }
    }

    /// What the user wrote in the private chat and that is no command: a text, an edit, a caption,
    /// or a text of unknown author that was forwarded.
    pub(crate) fn own_text(&self) -> Option<&str> {
        let Self::Other(message) = self else { return self.secret_text() };
        let text = match &message.content {
            Content::Forward { author: Some(author), .. } if *author != message.user.id => None,
            Content::Edit(text) | Content::Forward { text, .. } => Some(text.as_str()),
            Content::Contact { .. }
            | Content::Picture
            | Content::Video
            | Content::File
            | Content::Voice
            | Content::Sticker
            | Content::Place
            | Content::Poll
            | Content::Notice
            | Content::Other => message.caption.as_ref().map(|caption| caption.as_str()),
        };
        text.filter(|text| !text.trim_start().starts_with('/'))
    }

    /// When a message was written.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Text(message) => Some(message.at),
            Self::Other(message) => Some(message.at),
            Self::Pressed(_) | Self::Returned(_) => None,
        }
    }

    /// Reports whether the message may have to be deleted: it is no command and no press.
    pub(crate) fn may_be_secret(&self) -> bool {
        matches!(self, Self::Other(_)) || self.secret_text().is_some()
    }

    /// The query of a pressed button.
    pub(crate) fn query(&self) -> Option<CallbackQueryId> {
        match self {
            Self::Pressed(button) => Some(button.query.clone()),
            Self::Text(_) | Self::Other(_) | Self::Returned(_) => None,
        }
    }

    /// The message in the private chat that it is about.
    pub(crate) fn private_message(&self) -> Option<MessageId> {
        match self {
            Self::Text(message) => message.group.is_none().then_some(message.message),
            Self::Other(message) => Some(message.message),
            Self::Pressed(button) => button.message,
            Self::Returned(_) => None,
        }
    }

    pub(crate) fn user(&self) -> &User {
        match self {
            Self::Text(message) => &message.user,
            Self::Other(message) => &message.user,
            Self::Pressed(button) => &button.user,
            Self::Returned(user) => user,
        }
    }
}

fn user(user: TelegramUser) -> Option<User> {
    if user.is_bot {
        return None;
    }
    let username = user.username.and_then(|name| name.parse().ok());
    let TelegramUser { first_name, last_name, .. } = user;
    Some(User { id: telegram_id(user.id)?, username, first_name, last_name })
}

fn telegram_id(id: UserId) -> Option<TelegramId> {
    i64::try_from(id.0).ok()?.try_into().ok()
}

fn message_of(message: Message) -> Option<Incoming> {
    if message.sender_chat.is_some() {
        return None;
    }
    let typed =
        message.via_bot.is_none() && message.forward_origin().is_none() && message.text().is_some();
    if !typed {
        return other(message, content);
    }
    let replies_to = message.reply_to_message().and_then(author);
    let user = user(message.from?)?;
    let (chat, private) = (message.chat.id, message.chat.is_private());
    if private && chat.0 != i64::from(user.id) {
        return None;
    }
    let topic = message.thread_id.filter(|_| message.is_topic_message);
    let group = Group { chat, topic, message: message.id, replies_to };
    let MessageKind::Common(common) = message.kind else { return None };
    let MediaKind::Text(text) = common.media_kind else { return None };
    Some(Incoming::Text(TextMessage {
        user,
        message: message.id,
        at: Timestamp(message.date.timestamp_millis()),
        text: TypedText::new(Zeroizing::new(text.text), &text.entities),
        group: (!private).then_some(group),
    }))
}

/// The person who wrote a message. In a topic, what replies to no other message replies to the
/// notice that opened the topic, which no person wrote.
fn author(message: &Message) -> Option<TelegramId> {
    let written = matches!(message.kind, MessageKind::Common(_)) && message.sender_chat.is_none();
    let from = message.from.clone().filter(|_| written)?;
    user(from).map(|user| user.id)
}

fn edit(message: Message) -> Option<Incoming> {
    // Without a text it is the moving place of a person, or a poll.
    let text = message.text().or_else(|| message.caption())?.to_owned();
    other(message, |_| Content::Edit(Zeroizing::new(text)))
}

fn other(message: Message, content: impl FnOnce(MessageKind) -> Content) -> Option<Incoming> {
    let (chat, private, id) = (message.chat.id, message.chat.is_private(), message.id);
    let album = message.media_group_id().map(|album| album.0.clone());
    let at = message.edit_date().copied().unwrap_or(message.date);
    let at = Timestamp(at.timestamp_millis());
    let caption = message.caption().map(|caption| Zeroizing::new(caption.to_owned()));
    let user = user(message.from?)?;
    let own = private && chat.0 == i64::from(user.id);
    let content = content(message.kind);
    // An edit of a caption is a message of its own.
    let album = album.filter(|_| !matches!(content, Content::Edit(_)));
    own.then_some(Incoming::Other(OtherMessage { user, message: id, at, caption, album, content }))
}

fn content(kind: MessageKind) -> Content {
    let common = match kind {
        MessageKind::Common(common) => common,
        MessageKind::Dice(_) => return Content::Sticker,
        _ => return Content::Notice,
    };
    match common.media_kind {
        MediaKind::Contact(shared) => Content::Contact {
            phone: shared.contact.phone_number,
            user: shared.contact.user_id.and_then(telegram_id),
        },
        MediaKind::Text(text) => Content::Forward {
            text: Zeroizing::new(text.text),
            author: match common.forward_origin {
                Some(MessageOrigin::User { sender_user, .. }) => {
                    user(sender_user).map(|user| user.id)
                }
                _ => None,
            },
        },
        MediaKind::Photo(_) => Content::Picture,
        MediaKind::Video(_) | MediaKind::VideoNote(_) | MediaKind::Animation(_) => Content::Video,
        MediaKind::Document(_) => Content::File,
        MediaKind::Voice(_) | MediaKind::Audio(_) => Content::Voice,
        MediaKind::Sticker(_) => Content::Sticker,
        MediaKind::Location(_) | MediaKind::Venue(_) => Content::Place,
        MediaKind::Poll(_) | MediaKind::Checklist(_) => Content::Poll,
        MediaKind::Migration(_) => Content::Notice,
        MediaKind::Story(_) | MediaKind::Game(_) | MediaKind::PaidMedia(_) => Content::Other,
    }
}

fn returned(change: ChatMemberUpdated) -> Option<Incoming> {
    let came_back = change.chat.is_private()
        && !change.old_chat_member.is_present()
        && change.new_chat_member.is_present();
    came_back.then(|| user(change.from)).flatten().map(Incoming::Returned)
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

impl TypedText {
    fn new(plain: Zeroizing<String>, entities: &[MessageEntity]) -> Self {
        let words = Zeroizing::new(visible(&with_mentions(&plain, entities)));
        let formatted = entities.iter().any(|entity| hides_marks(&entity.kind));
        Self { plain, words, formatted }
    }
}

/// Whether an app makes this entity of marks that it takes out of the text.
fn hides_marks(kind: &MessageEntityKind) -> bool {
    match kind {
        MessageEntityKind::Bold
        | MessageEntityKind::Blockquote
        | MessageEntityKind::ExpandableBlockquote
        | MessageEntityKind::Italic
        | MessageEntityKind::Underline
        | MessageEntityKind::Strikethrough
        | MessageEntityKind::Spoiler
        | MessageEntityKind::Code
        | MessageEntityKind::Pre { .. }
        | MessageEntityKind::TextLink { .. } => true,
        MessageEntityKind::Mention
        | MessageEntityKind::Hashtag
        | MessageEntityKind::Cashtag
        | MessageEntityKind::BotCommand
        | MessageEntityKind::Url
        | MessageEntityKind::Email
        | MessageEntityKind::PhoneNumber
        | MessageEntityKind::TextMention { .. }
        | MessageEntityKind::CustomEmoji { .. } => false,
    }
}

/// Replaces each mention by id with its link. Entities count UTF-16 units.
fn with_mentions(plain: &str, entities: &[MessageEntity]) -> Zeroizing<String> {
    let mentions: Vec<_> = entities
        .iter()
        .filter_map(|entity| match &entity.kind {
            MessageEntityKind::TextMention { user } => {
                Some((entity.offset, entity.offset + entity.length, user.id))
            }
            _ => None,
        })
        .collect();
    let links = mentions.len().saturating_mul(40);
    let mut replaced = Zeroizing::new(String::with_capacity(plain.len().saturating_add(links)));
    let mut at = 0;
    for character in plain.chars() {
        match mentions.iter().find(|(start, end, _)| (*start..*end).contains(&at)) {
            Some((start, _, id)) if *start == at => {
                replaced.push_str(&format!(" tg://user?id={id} "));
            }
            Some(_) => {}
            None => replaced.push(character),
        }
        at += character.len_utf16();
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mention(offset: usize, length: usize, id: u64) -> MessageEntity {
        let user = serde_json::json!({ "id": id, "is_bot": false, "first_name": "Bob" });
        let kind = MessageEntityKind::TextMention { user: serde_json::from_value(user).unwrap() };
        MessageEntity { kind, offset, length }
    }

    #[test]
    fn a_mention_by_id_is_replaced_by_its_link() {
        let replaced = |text: &str, entities: &[MessageEntity]| {
            let words = with_mentions(text, entities);
            words.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(replaced("/send bobby 1", &[mention(6, 5, 7)]), "/send tg://user?id=7 1");
        // Offsets count UTF-16 units, and a name may have several words.
        let text = "/send \u{1f600} B 1";
        assert_eq!(replaced(text, &[mention(6, 4, 7)]), "/send tg://user?id=7 1");
        assert_eq!(replaced("/send bobby 1", &[]), "/send bobby 1");
        // Offsets that do not fit the text change nothing.
        assert_eq!(replaced("ab", &[mention(9, 9, 7)]), "ab");
    }

    #[test]
    fn a_caption_and_the_time_of_an_edit_are_read() {
        let message = |field: &str, more: serde_json::Value| {
            let mut message = serde_json::json!({
                "message_id": 5, "date": 100, "chat": { "id": 7, "type": "private" },
                "from": { "id": 7, "is_bot": false, "first_name": "Ann" },
            });
            message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let update = serde_json::json!({ "update_id": 1, field: message });
            // From text, as it comes: teloxide does not read an update from a value.
            Incoming::parse(serde_json::from_str(&update.to_string()).unwrap()).unwrap()
        };
        let photo = serde_json::json!({
            "photo": [{ "file_id": "f", "file_unique_id": "f", "width": 9, "height": 9,
                "file_size": 9 }],
            "caption": "orange ladder",
        });
        let incoming = message("message", photo);
        assert_eq!(incoming.own_text(), Some("orange ladder"));
        assert_eq!(incoming.at(), Some(Timestamp(100_000)));
        let edit = serde_json::json!({ "text": "orange ladder", "edit_date": 160 });
        let incoming = message("edited_message", edit);
        assert_eq!(incoming.own_text(), Some("orange ladder"));
        assert_eq!(incoming.at(), Some(Timestamp(160_000)));
    }
}
