//! The simulated methods of the Bot API. Other parameters than the listed ones are refused.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::entities;
use crate::form::Form;
use crate::html::{self, Formatted, utf16_len};
use crate::message::{Markup, Message, parse_keyboard};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::state::{BOT_ID, Change, PRESS_LIFETIME, State, is_old, now};

const LONGEST_TEXT: usize = 4_096;
const LONGEST_CAPTION: usize = 1_024;

pub(crate) async fn call(shared: &Shared, method: &str, form: Form) -> Result<Value, Refusal> {
    let method = method.to_ascii_lowercase();
    if method == "getupdates" {
        form.accepts_only(&["offset", "limit", "timeout", "allowed_updates"])?;
        return get_updates(shared, &form).await;
    }
    let result = change(&mut shared.lock(), &method, &form);
    shared.notify();
    result
}

fn change(state: &mut State, method: &str, form: &Form) -> Result<Value, Refusal> {
    form.accepts_only(parameters(method)?)?;
    match method {
        "getme" => Ok(me(state)),
        "getwebhookinfo" => {
            Ok(json!({ "url": "", "has_custom_certificate": false, "pending_update_count": 0 }))
        }
        "deletewebhook" => Ok(json!(true)),
        "setmycommands" => set_my_commands(state, form),
        "sendmessage" => {
            let text = formatted(form, "text", LONGEST_TEXT)?;
            if text.text.is_empty() {
                return Err(Refusal::bad_request("message text is empty"));
            }
            send(state, form, text, None)
        }
        "sendphoto" => {
            let missing = || Refusal::bad_request("there is no photo in the request");
            let photo = form.file("photo").ok_or_else(missing)?;
            if !is_picture(&photo) {
                return Err(Refusal::bad_request("IMAGE_PROCESS_FAILED"));
            }
            send(state, form, formatted(form, "caption", LONGEST_CAPTION)?, Some(photo))
        }
        "editmessagetext" => edit_message_text(state, form),
        "editmessagereplymarkup" => edit_message_reply_markup(state, form),
        "stopmessagelivelocation" => stop_message_live_location(state, form),
        "deletemessage" => delete_message(state, form),
        "answercallbackquery" => answer_callback_query(state, form),
        "getchat" => get_chat(state, form),
        _ => {
            let chat = chat_id(form)?;
            state.writable(chat)?;
            state.traffic.action(chat, "a chat action", Instant::now())?;
            Ok(json!(true))
        }
    }
}

/// The parameters of a method that are simulated.
fn parameters(method: &str) -> Result<&'static [&'static str], Refusal> {
    Ok(match method {
        "getme" | "getwebhookinfo" => &[],
        "deletewebhook" => &["drop_pending_updates"],
        "setmycommands" => &["commands", "scope", "language_code"],
        "sendmessage" => &[
            "chat_id",
            "text",
            "parse_mode",
            "reply_markup",
            "link_preview_options",
            "message_thread_id",
            "reply_parameters",
        ],
        "sendphoto" => &["chat_id", "photo", "caption", "parse_mode", "reply_markup"],
        "editmessagetext" => {
            &["chat_id", "message_id", "text", "parse_mode", "reply_markup", "link_preview_options"]
        }
        "editmessagereplymarkup" => &["chat_id", "message_id", "reply_markup"],
        "stopmessagelivelocation" => &["chat_id", "message_id"],
        "deletemessage" => &["chat_id", "message_id"],
        "answercallbackquery" => &["callback_query_id", "text", "show_alert"],
        "getchat" => &["chat_id"],
        "sendchataction" => &["chat_id", "action"],
        _ => return Err(Refusal::other(404, "Not Found")),
    })
}

async fn get_updates(shared: &Shared, form: &Form) -> Result<Value, Refusal> {
    let offset = form.integer("offset").unwrap_or(0);
    if offset < 0 {
        return Err(Refusal::bad_request("negative offsets are not simulated"));
    }
    let limit = form.integer("limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(100);
    let seconds = form.integer("timeout").and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(0).min(50));
    let mut watch = shared.watch();
    let poll = {
        let mut state = shared.lock();
        if let Some(Value::Array(kinds)) = form.json("allowed_updates") {
            let kinds = kinds.iter().filter_map(|kind| kind.as_str().map(str::to_owned));
            // An empty list means the default, which is every kind that is simulated.
            state.allowed = Some(kinds.collect()).filter(|kinds: &Vec<_>| !kinds.is_empty());
        }
        // The offset acknowledges all updates below it.
        state.updates.retain(|queued| queued.repeated || queued.id >= offset);
        state.poll += 1;
        state.poll
    };
    shared.notify();
    loop {
        watch.mark_unchanged();
        {
            let mut state = shared.lock();
            if state.poll != poll {
                let reason = "Conflict: terminated by other getUpdates request; make sure that \
                            only one bot instance is running";
                return Err(Refusal::other(409, reason));
            }
            let found = state.updates.iter().take(limit.clamp(1, 100));
            let found: Vec<_> = found.map(|queued| queued.update.clone()).collect();
            if !found.is_empty() || Instant::now() >= deadline {
                // What was acknowledged before is delivered only once more.
                state.updates.retain(|queued| !queued.repeated);
                return Ok(json!(found));
            }
        }
        let _ = timeout_at(deadline, watch.changed()).await;
    }
}

fn me(state: &State) -> Value {
    let mut me = state.user_json(BOT_ID);
    me["can_join_groups"] = json!(true);
    me["can_read_all_group_messages"] = json!(false);
    me["supports_inline_queries"] = json!(false);
    me["can_connect_to_business"] = json!(false);
    me["has_main_web_app"] = json!(false);
    me
}

fn set_my_commands(state: &mut State, form: &Form) -> Result<Value, Refusal> {
    let wrong = |reason| Refusal::bad_request(reason);
    let Some(Value::Array(commands)) = form.json("commands") else {
        return Err(wrong("can't parse commands"));
    };
    let mut parsed = Vec::new();
    for command in &commands {
        let field = |name| command.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, description) = (field("command"), field("description"));
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(good) {
            return Err(wrong("BOT_COMMAND_INVALID"));
        }
        if description.is_empty() || utf16_len(&description) > 256 {
            return Err(wrong("BOT_COMMAND_DESCRIPTION_INVALID"));
        }
        parsed.push((name, description));
    }
    if parsed.len() > 100 {
        return Err(wrong("BOT_COMMANDS_TOO_MUCH"));
    }
    state.commands = parsed;
    Ok(json!(true))
}

fn send(
    state: &mut State,
    form: &Form,
    formatted: Formatted,
    photo: Option<Vec<u8>>,
) -> Result<Value, Refusal> {
    let chat = chat_id(form)?;
    let markup = Markup::parse(form.json("reply_markup").as_ref())?;
    let place = state.writable(chat)?;
    if place.title.is_some() && markup.shares_number {
        return Err(Refusal::bad_request("phone number can be requested in private chats only"));
    }
    let topic = form.integer("message_thread_id");
    if topic.is_some_and(|topic| !place.topics.contains(&topic)) {
        return Err(Refusal::bad_request("message thread not found"));
    }
    let reply = form.json("reply_parameters");
    let reply_to = reply.as_ref().and_then(|reply| reply.get("message_id")?.as_i64());
    let lenient = |reply: &Value| reply.get("allow_sending_without_reply") == Some(&json!(true));
    if reply_to.is_some_and(|id| !place.messages.contains_key(&id))
        && !reply.as_ref().is_some_and(lenient)
    {
        return Err(Refusal::bad_request("message to be replied not found"));
    }
    state.traffic.message(chat, "a message", Instant::now())?;
    let place = state.writable(chat)?;
    place.share_key = (place.share_key && !markup.removes_keys) || markup.shares_number;
    let Formatted { text, entities } = formatted;
    let message = Message {
        from: BOT_ID,
        text,
        entities,
        photo,
        keyboard: markup.inline,
        reply_keyboard: markup.keys,
        topic,
        reply_to,
        ..Message::default()
    };
    let message = state.store(chat, message, Duration::ZERO);
    Ok(state.message_json(chat, &message))
}

fn edit_message_text(state: &mut State, form: &Form) -> Result<Value, Refusal> {
    let (chat, id) = (chat_id(form)?, form.integer("message_id").unwrap_or_default());
    let keyboard = parse_keyboard(form.json("reply_markup").as_ref())?;
    let Formatted { text, entities } = formatted(form, "text", LONGEST_TEXT)?;
    let wrong = |reason| Refusal::bad_request(reason);
    let old = editable(state, chat, id)?;
    if old.photo.is_some() {
        return Err(wrong("there is no text in the message to edit"));
    }
    if text.is_empty() {
        return Err(wrong("message text is empty"));
    }
    state.traffic.message(chat, "an edit", Instant::now())?;
    // An edit without a keyboard removes the keyboard.
    edit(state, chat, &old, Message { text, entities, keyboard, ..old.clone() })
}

fn edit_message_reply_markup(state: &mut State, form: &Form) -> Result<Value, Refusal> {
    let (chat, id) = (chat_id(form)?, form.integer("message_id").unwrap_or_default());
    let keyboard = parse_keyboard(form.json("reply_markup").as_ref())?;
    let old = editable(state, chat, id)?;
    edit(state, chat, &old, Message { keyboard, ..old.clone() })
}

/// Bots send no live locations here.
fn stop_message_live_location(state: &mut State, form: &Form) -> Result<Value, Refusal> {
    let (chat, id) = (chat_id(form)?, form.integer("message_id").unwrap_or_default());
    editable(state, chat, id)?;
    Err(Refusal::bad_request("there is no live location in the message to edit"))
}

fn editable(state: &mut State, chat: i64, id: i64) -> Result<Message, Refusal> {
    let wrong = |reason| Refusal::bad_request(reason);
    let chat = state.writable(chat)?;
    let old = chat.messages.get(&id).ok_or_else(|| wrong("message to edit not found"))?;
    if old.from != BOT_ID {
        return Err(wrong("message can't be edited"));
    }
    Ok(old.clone())
}

fn edit(state: &mut State, chat: i64, old: &Message, new: Message) -> Result<Value, Refusal> {
    if new.looks_like(old) {
        state.vain_edits += usize::from(!state.unsure.remove(&(chat, old.id)));
        return Err(Refusal::bad_request(
            "message is not modified: specified new message content and reply markup are exactly \
             the same as a current content and reply markup of the message",
        ));
    }
    let new = Message { edited: true, ..new };
    state.writable(chat)?.edit(new.clone());
    Ok(state.message_json(chat, &new))
}

fn delete_message(state: &mut State, form: &Form) -> Result<Value, Refusal> {
    let (chat, id) = (chat_id(form)?, form.integer("message_id").unwrap_or_default());
    let messages = state.writable(chat)?;
    let message = messages.messages.get(&id);
    let foreign = message.is_some_and(|message| message.from != BOT_ID);
    // In a group, only administrators may delete messages of others.
    if foreign && messages.title.is_some() && !messages.bot_is_admin {
        return Err(Refusal::bad_request("message can't be deleted"));
    }
    if message.is_some_and(|message| is_old(message.date)) {
        return Err(Refusal::bad_request("message can't be deleted for everyone"));
    }
    if !messages.delete(id) {
        return Err(Refusal::bad_request("message to delete not found"));
    }
    Ok(json!(true))
}

fn answer_callback_query(state: &mut State, form: &Form) -> Result<Value, Refusal> {
    let text = form.text("text").unwrap_or_default();
    if utf16_len(text) > 200 {
        return Err(Refusal::bad_request("MESSAGE_TOO_LONG"));
    }
    let id = form.text("callback_query_id").unwrap_or_default();
    let query = state.queries.remove(id).filter(|query| now() - query.date < PRESS_LIFETIME);
    let query = query.ok_or_else(|| {
        Refusal::bad_request("query is too old and response timeout expired or query ID is invalid")
    })?;
    if let Some(chat) = state.chats.get_mut(&query.chat).filter(|_| !text.is_empty()) {
        chat.changes.push(Change::Notice { text: text.to_owned() });
    }
    Ok(json!(true))
}

fn get_chat(state: &State, form: &Form) -> Result<Value, Refusal> {
    let chat = chat_id(form)?;
    if !state.chats.contains_key(&chat) {
        return Err(Refusal::bad_request("chat not found"));
    }
    let mut full = state.chat_json(chat);
    if let Some(user) = state.users.get(&chat)
        && user.active_usernames().next().is_some()
    {
        full["active_usernames"] = json!(user.active_usernames().collect::<Vec<_>>());
    }
    full["accent_color_id"] = json!(0);
    full["max_reaction_count"] = json!(11);
    full["accepted_gift_types"] = json!({
        "unlimited_gifts": true, "limited_gifts": true, "unique_gifts": true,
        "premium_subscription": true, "gifts_from_channels": true,
    });
    Ok(full)
}

/// Whether the bytes are a complete PNG within Telegram's limit of width plus height.
fn is_picture(bytes: &[u8]) -> bool {
    let decode = || -> Option<bool> {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().ok()?;
        let (width, height) = reader.info().size();
        let mut pixels = vec![0; reader.output_buffer_size()?];
        reader.next_frame(&mut pixels).ok()?;
        Some(width.saturating_add(height) <= 10_000)
    };
    decode().unwrap_or(false)
}

/// Numeric ids only: a bot cannot address a user by username.
fn chat_id(form: &Form) -> Result<i64, Refusal> {
    form.integer("chat_id").ok_or_else(|| Refusal::bad_request("chat not found"))
}

fn formatted(form: &Form, name: &str, longest: usize) -> Result<Formatted, Refusal> {
    let text = form.text(name).unwrap_or_default();
    let formatted = match form.text("parse_mode") {
        Some("HTML") => html::parse(text)?,
        None => Formatted { text: text.trim().to_owned(), entities: Vec::new() },
        Some(_) => return Err(Refusal::bad_request("unsupported parse_mode")),
    };
    if utf16_len(&formatted.text) > longest {
        return Err(Refusal::bad_request("message is too long"));
    }
    Ok(entities::with_found(formatted))
}
