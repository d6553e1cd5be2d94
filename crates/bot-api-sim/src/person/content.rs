//! What a user sends besides plain text: formatted text, mentions, forwards, shared contacts,
//! pictures and so on.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Person, SimError};
use crate::html::utf16_len;
use crate::message::Message;

/// What a message consists of, if not of text.
#[derive(Clone, Debug)]
pub enum Attachment {
    /// Another person's contact; with a Telegram id if that person is on Telegram.
    Contact {
        /// The number, with or without a plus.
        phone: String,
        /// The person's Telegram id.
        user: Option<i64>,
    },
    /// A picture.
    Photo,
    /// A file.
    Document,
    /// A voice message.
    Voice,
    /// A sticker.
    Sticker,
    /// A video.
    Video,
    /// A round video message.
    VideoNote,
    /// A place.
    Location,
    /// A story of another chat.
    Story,
    /// A poll.
    Poll,
    /// A die that Telegram throws.
    Dice,
    /// Telegram's notice that messages are deleted after a day from now on.
    AutoDeleteTimer,
    /// Telegram's notice that the user pinned a message of the bot.
    Pinned,
}

impl Attachment {
    /// The fields of the message in the Bot API.
    fn fields(&self) -> Value {
        let file = json!({ "file_id": "file", "file_unique_id": "file", "file_size": 9 });
        let with = |fields: Value| {
            let mut file = file.clone();
            if let (Some(file), Some(fields)) = (file.as_object_mut(), fields.as_object()) {
                file.extend(fields.clone());
            }
            file
        };
        match self {
            Self::Contact { phone, user } => {
                let mut contact = json!({ "phone_number": phone, "first_name": "Shared" });
                if let Some(user) = user {
                    contact["user_id"] = json!(user);
                }
                json!({ "contact": contact })
            }
            Self::Photo => json!({ "photo": [with(json!({ "width": 9, "height": 9 }))] }),
            Self::Document => json!({ "document": file }),
            Self::Voice => {
                json!({ "voice": with(json!({ "duration": 2, "mime_type": "audio/ogg" })) })
            }
            Self::Sticker => json!({ "sticker": with(json!({
                "width": 9, "height": 9, "type": "regular", "is_animated": false,
                "is_video": false,
            })) }),
            Self::Location => json!({ "location": { "latitude": 1.5, "longitude": 2.5 } }),
            Self::Video => json!({ "video": with(json!({
                "width": 9, "height": 9, "duration": 2, "mime_type": "video/mp4",
            })) }),
            Self::VideoNote => {
                json!({ "video_note": with(json!({ "length": 9, "duration": 2 })) })
            }
            Self::Poll => json!({ "poll": {
                "id": "1", "question": "When?", "total_voter_count": 0, "type": "regular",
                "options": [
                    { "text": "today", "voter_count": 0 }, { "text": "later", "voter_count": 0 },
                ],
                "is_closed": false, "is_anonymous": true, "allows_multiple_answers": false,
            } }),
            Self::Story => {
                json!({ "story": { "chat": { "id": 1, "type": "private" }, "id": 1 } })
            }
            Self::Dice => json!({ "dice": { "emoji": "\u{1f3b2}", "value": 4 } }),
            Self::AutoDeleteTimer => json!({
                "message_auto_delete_timer_changed": { "message_auto_delete_time": 86_400 },
            }),
            Self::Pinned => json!({}),
        }
    }
}

impl Person {
    /// Sends something that is no text to the bot. Returns the message's id.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn sends(&self, attachment: &Attachment) -> i64 {
        self.sends_in(None, attachment, Duration::ZERO)
    }

    /// Sends something that is no text to the bot, which receives it only after this time.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn sent(&self, attachment: &Attachment, ago: Duration) -> i64 {
        self.sends_in(None, attachment, ago)
    }

    /// Sends several pictures, videos or files as one album, which has this id: a message for each.
    pub fn sends_album(&self, album: &str, attachments: &[Attachment]) {
        for attachment in attachments {
            self.sends_in(Some(album), attachment, Duration::ZERO);
        }
    }

    fn sends_in(&self, album: Option<&str>, attachment: &Attachment, ago: Duration) -> i64 {
        self.shared.change(|state| {
            state.private_chat(self.id);
            let mut fields = attachment.fields();
            if let Attachment::Pinned = attachment {
                let pinned = state.chats.get(&self.id).and_then(|chat| {
                    chat.messages.values().rev().find(|message| message.from != self.id).cloned()
                });
                let pinned = pinned.unwrap_or_default();
                fields = json!({ "pinned_message": state.message_json(self.id, &pinned) });
            }
            if let (Some(album), Some(fields)) = (album, fields.as_object_mut()) {
                fields.insert("media_group_id".to_owned(), album.into());
            }
            let message = Message { fields, ..Message::text(self.id, "") };
            self.send_late(state, self.id, message, false, ago)
        })
    }

    /// Presses the key of the reply keyboard that shares the user's own number.
    ///
    /// # Errors
    /// When the bot shows no such key.
    pub fn shares_own_number(&self, phone: &str) -> Result<i64, SimError> {
        let shown = self.shared.change(|state| {
            let chat = state.chats.get_mut(&self.id)?;
            chat.share_key.then_some(())
        });
        shown.ok_or_else(|| SimError::NoButton("request_contact".to_owned()))?;
        Ok(self.sends(&Attachment::Contact { phone: phone.to_owned(), user: Some(self.id) }))
    }

    /// Writes a text of which the app made this entity, for instance `bold`, of a part of it. The
    /// marks that stood around the part are gone.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn says_formatted(&self, text: &str, part: &str, kind: &str) -> i64 {
        self.says_with(text, part, json!({ "type": kind }))
    }

    /// Writes a text in which a part is a mention of a person by id, as Telegram's apps make for
    /// people without a username.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn says_mentioning(&self, text: &str, part: &str, whom: &Self) -> i64 {
        let user = self.shared.lock().user_json(whom.id);
        self.says_with(text, part, json!({ "type": "text_mention", "user": user }))
    }

    fn says_with(&self, text: &str, part: &str, mut entity: Value) -> i64 {
        let before = text.split(part).next().unwrap_or_default();
        entity["offset"] = json!(utf16_len(before));
        entity["length"] = json!(utf16_len(part));
        self.shared.change(|state| {
            state.private_chat(self.id);
            let message = Message { entities: vec![entity], ..Message::text(self.id, text) };
            self.send(state, self.id, message, false)
        })
    }

    /// Forwards a message that another user wrote, which shows its author.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn forwards_from(&self, author: &Self, text: &str) -> i64 {
        self.shared.change(|state| {
            state.private_chat(self.id);
            let sender = state.user_json(author.id);
            let origin = json!({ "type": "user", "date": 1, "sender_user": sender });
            let fields = json!({ "forward_origin": origin });
            let message = Message { fields, forwarded: true, ..Message::text(self.id, text) };
            self.send(state, self.id, message, false)
        })
    }

    /// Writes in a topic of a group.
    ///
    /// # Errors
    /// When the user is not a member.
    pub fn says_in_topic(&self, group: i64, topic: i64, text: &str) -> Result<i64, SimError> {
        self.shared.change(|state| {
            self.is_in(state, group)?;
            if let Some(chat) = state.chats.get_mut(&group) {
                chat.topics.insert(topic);
            }
            let message = Message { topic: Some(topic), ..Message::text(self.id, text) };
            Ok(self.send(state, group, message, false))
        })
    }

    /// Sets the last name.
    pub fn has_last_name(&self, last_name: &str) {
        self.shared.change(|state| {
            if let Some(user) = state.users.get_mut(&self.id) {
                user.last_name = Some(last_name.to_owned());
            }
        });
    }

    /// Sets the collectible usernames that the user has besides the one that they chose.
    pub fn also_has(&self, usernames: &[&str]) {
        self.shared.change(|state| {
            if let Some(user) = state.users.get_mut(&self.id) {
                let names = usernames.iter().map(|name| (*name).to_owned());
                user.collectible_usernames = names.collect();
            }
        });
    }
}
