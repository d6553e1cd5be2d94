//! Messages and their buttons.

use serde_json::{Map, Value, json};

use crate::html;
use crate::refusal::Refusal;

/// A message in a chat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Its id, unique in this simulation.
    pub id: i64,
    /// The Telegram id of its sender, which may be the bot.
    pub from: i64,
    /// The text, or the caption, without formatting.
    pub text: String,
    /// The formatting, as entities of the Bot API.
    pub entities: Vec<Value>,
    /// The bytes of its picture.
    pub photo: Option<Vec<u8>>,
    /// The rows of buttons below it.
    pub keyboard: Vec<Vec<Button>>,
    /// Unix time in seconds, by the simulation's clock.
    pub date: i64,
    /// Whether it was edited.
    pub edited: bool,
    /// Whether it was forwarded.
    pub forwarded: bool,
    /// Further fields of the Bot API, of a message that is no text.
    pub fields: Value,
    /// The topic of a group that it belongs to.
    pub topic: Option<i64>,
    /// The message that it replies to.
    pub reply_to: Option<i64>,
    /// The keys that it shows in place of the user's keyboard.
    pub reply_keyboard: Vec<Vec<String>>,
}

/// A button below a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Button {
    /// Its text.
    pub text: String,
    /// Its action.
    pub kind: ButtonKind,
}

/// The action of a button.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ButtonKind {
    /// Sends this callback data to the bot.
    Callback(String),
    /// Opens this URL.
    Url(String),
    /// Copies this text.
    Copy(String),
}

impl Message {
    pub(crate) fn text(from: i64, text: &str) -> Self {
        Self { from, text: text.to_owned(), ..Self::default() }
    }

    /// The button with this text.
    #[must_use]
    pub fn button(&self, text: &str) -> Option<&Button> {
        self.keyboard.iter().flatten().find(|button| button.text == text)
    }

    /// The parts of the text that are entities of these kinds.
    #[must_use]
    pub fn marked(&self, kinds: &[&str]) -> Vec<String> {
        let units: Vec<_> = self.text.encode_utf16().collect();
        let part = |entity: &Value| {
            let number = |name| usize::try_from(entity.get(name)?.as_u64()?).ok();
            let (start, length) = (number("offset")?, number("length")?);
            let is_meant = kinds.contains(&entity.get("type")?.as_str()?);
            let part = units.get(start..start.checked_add(length)?)?;
            is_meant.then(|| String::from_utf16_lossy(part))
        };
        self.entities.iter().filter_map(part).collect()
    }

    /// Whether an edit from one to the other would change nothing.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        (&self.text, &self.entities, &self.keyboard)
            == (&other.text, &other.entities, &other.keyboard)
    }

    /// The message as the Bot API represents it.
    pub(crate) fn to_json(&self, chat: &Value, from: &Value) -> Value {
        let mut message = json!({
            "message_id": self.id, "date": self.date, "chat": chat, "from": from,
        });
        let (text, entities) = match self.photo {
            Some(_) => ("caption", "caption_entities"),
            None => ("text", "entities"),
        };
        // Every message without further fields has a text or a picture.
        if !self.text.is_empty() {
            message[text] = json!(self.text);
        }
        if !self.entities.is_empty() {
            message[entities] = json!(self.entities);
        }
        if let Some(photo) = &self.photo {
            let id = format!("photo-{}", self.id);
            message["photo"] = json!([{
                "file_id": id, "file_unique_id": id, "file_size": photo.len(),
                "width": 256, "height": 256,
            }]);
        }
        if !self.keyboard.is_empty() {
            let row = |row: &Vec<Button>| Value::from_iter(row.iter().map(Button::to_json));
            let rows = Value::from_iter(self.keyboard.iter().map(row));
            message["reply_markup"] = json!({ "inline_keyboard": rows });
        }
        if self.edited {
            message["edit_date"] = json!(self.date);
        }
        if self.forwarded && self.fields.get("forward_origin").is_none() {
            message["forward_origin"] =
                json!({ "type": "hidden_user", "date": self.date, "sender_user_name": "Carol" });
        }
        if let Some(topic) = self.topic {
            message["message_thread_id"] = json!(topic);
            message["is_topic_message"] = json!(true);
        }
        if let (Some(message), Some(fields)) = (message.as_object_mut(), self.fields.as_object()) {
            message.extend(fields.clone());
        }
        message
    }
}

impl Button {
    fn to_json(&self) -> Value {
        match &self.kind {
            ButtonKind::Callback(data) => json!({ "text": self.text, "callback_data": data }),
            ButtonKind::Url(url) => json!({ "text": self.text, "url": url }),
            ButtonKind::Copy(text) => json!({ "text": self.text, "copy_text": { "text": text } }),
        }
    }

    fn parse(button: &Map<String, Value>) -> Result<Self, Refusal> {
        let text = button.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
        if text.is_empty() {
            return Err(Refusal::bad_request("inline keyboard button text is empty"));
        }
        let field = |name: &str| button.get(name).and_then(Value::as_str).map(str::to_owned);
        let copied = button.get("copy_text").and_then(|copy| copy.get("text")?.as_str());
        let kind = match (field("callback_data"), field("url"), copied) {
            (Some(data), None, None) => {
                if !(1..=64).contains(&data.len()) {
                    return Err(Refusal::bad_request("BUTTON_DATA_INVALID"));
                }
                ButtonKind::Callback(data)
            }
            (None, Some(url), None) => {
                if !html::is_public(&url) {
                    return Err(Refusal::bad_request(&format!(
                        "inline keyboard button URL '{url}' is invalid: Wrong HTTP URL"
                    )));
                }
                ButtonKind::Url(url)
            }
            (None, None, Some(copied)) => {
                if !(1..=256).contains(&html::utf16_len(copied)) {
                    return Err(Refusal::bad_request("BUTTON_COPY_TEXT_INVALID"));
                }
                ButtonKind::Copy(copied.to_owned())
            }
            _ => {
                return Err(Refusal::bad_request(
                    "Text buttons are unallowed in the inline keyboard",
                ));
            }
        };
        Ok(Self { text, kind })
    }
}

/// What `reply_markup` asks for.
#[derive(Debug, Default)]
pub(crate) struct Markup {
    /// The buttons below the message.
    pub(crate) inline: Vec<Vec<Button>>,
    /// The keys in place of the user's keyboard.
    pub(crate) keys: Vec<Vec<String>>,
    /// Whether a key shares the user's number.
    pub(crate) shares_number: bool,
    /// Whether the keys of an earlier message are removed.
    pub(crate) removes_keys: bool,
}

impl Markup {
    /// Parses `reply_markup` of a new message.
    pub(crate) fn parse(markup: Option<&Value>) -> Result<Self, Refusal> {
        let object = markup.and_then(Value::as_object);
        if object.is_some_and(|markup| markup.get("remove_keyboard") == Some(&json!(true))) {
            return Ok(Self { removes_keys: true, ..Self::default() });
        }
        let Some(rows) = object.and_then(|markup| markup.get("keyboard")) else {
            return Ok(Self { inline: parse_keyboard(markup)?, ..Self::default() });
        };
        let wrong = || Refusal::bad_request("object expected as reply markup");
        let mut parsed = Self::default();
        for row in rows.as_array().ok_or_else(wrong)? {
            let mut keys = Vec::new();
            for key in row.as_array().ok_or_else(wrong)? {
                let text = key.get("text").and_then(Value::as_str).unwrap_or_default();
                if text.is_empty() {
                    return Err(Refusal::bad_request("keyboard button text is empty"));
                }
                parsed.shares_number |= key.get("request_contact") == Some(&json!(true));
                keys.push(text.to_owned());
            }
            parsed.keys.push(keys);
        }
        Ok(parsed)
    }
}

/// The rows of `reply_markup`.
pub(crate) fn parse_keyboard(markup: Option<&Value>) -> Result<Vec<Vec<Button>>, Refusal> {
    let Some(markup) = markup.filter(|markup| !markup.is_null()) else { return Ok(Vec::new()) };
    let wrong = || Refusal::bad_request("object expected as reply markup");
    let rows = markup.get("inline_keyboard").and_then(Value::as_array);
    let Some(rows) = rows else {
        // Only inline keyboards are simulated.
        return Err(wrong());
    };
    let mut keyboard = Vec::new();
    for row in rows {
        let buttons = row.as_array().ok_or_else(wrong)?;
        let parse = |button: &Value| Button::parse(button.as_object().ok_or_else(wrong)?);
        let buttons = buttons.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        keyboard.push(buttons);
    }
    keyboard.retain(|row| !row.is_empty());
    Ok(keyboard)
}
