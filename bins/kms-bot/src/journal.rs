//! What the bot has to remember across a restart, in a small file that only it reads: which updates
//! it handled, what it waits for in each chat, and which messages still show that it is working.
//!
//! The file holds no secret, and of payments only their ids: the rest is asked of the server. Only
//! a recipient whose amount is being asked for, and a new e-mail address whose password is, are in
//! it as the user wrote them. Each line has the
//! whole state of one chat, and the last line of a chat counts. A process that is killed may leave
//! half a line at the end, which is skipped. See ADR 42 for the alternatives.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use kms_types::{TelegramId, Timestamp};
use serde::{Deserialize, Serialize};
use teloxide_core::types::{ChatId, MessageId};

use self::missed::Missed;
use self::reports::{PaymentMessage, Reported, Sending};
use crate::chat::shown::Place;

pub(crate) mod missed;
pub(crate) mod reports;

/// The most update ids that are remembered.
const UPDATES: usize = 2_000;
/// The file is rewritten when it has this many lines more than needed.
const SPARE_LINES: usize = 5_000;
/// For this long after a password was asked for, in milliseconds, any text may be one: users repeat
/// it, or answer too late.
pub(crate) const PASSWORD_WINDOW: i64 = 60 * 60 * 1_000;
/// How long Telegram keeps what users write while the bot is stopped, in milliseconds.
const KEPT_BY_TELEGRAM: i64 = 24 * 60 * 60 * 1_000;

/// The state of all chats, in memory and in the file.
pub(crate) struct Journal(Mutex<Inner>);

struct Inner {
    /// When the file was last written before it was opened: about when the bot stopped.
    stopped: Timestamp,
    path: PathBuf,
    file: File,
    lines: usize,
    chats: HashMap<TelegramId, Chat>,
    updates: HashSet<u32>,
    order: VecDeque<u32>,
    last_message: i32,
    /// Whether the last write failed.
    failing: bool,
}

/// The state of one chat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Chat {
    /// The question that the user's next text answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<Asked>,
    /// When a password was last asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_asked: Option<Timestamp>,
    /// Whether the owner of a new wallet is still to be offered contacts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) owes_offer: bool,
    /// The messages that show that the bot is working.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) working: Vec<Working>,
    /// The updates that are being handled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) updates: Vec<u32>,
    /// The user's messages that may show a secret and are not deleted yet: chat and message id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) deleting: Vec<(i64, i32)>,
    /// The messages about payments that arrive, and those that took the place of a message about a
    /// payment that its sender deleted. They are edited when the payment changes; the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    payments: Vec<PaymentMessage>,
    /// The message about a payment or an event that is being sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sending: Option<Sending>,
    /// The events that were reported and that the server may deliver again.
    #[serde(skip_serializing_if = "Reported::is_empty")]
    reported: Reported,
    /// Commands that the user wrote in groups, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) requests: Vec<Request>,
    /// What the user was not notified of, because they blocked the bot.
    #[serde(skip_serializing_if = "Missed::is_empty")]
    pub(crate) missed: Missed,
}

/// A command that a user wrote in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// What the link to the private chat carries.
    pub(crate) key: String,
    /// The word of the command and its arguments.
    pub(crate) command: String,
    pub(crate) at: Timestamp,
}

/// A question in a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) at: Timestamp,
    /// Whether the answer is a secret.
    pub(crate) secret: bool,
    /// The callback data that asks the same again.
    pub(crate) resume: String,
    /// The message that asks.
    pub(crate) message: Option<i32>,
}

/// A message that shows that the bot is working.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Working {
    /// Absent until Telegram has returned it: it is sent after the message `after`.
    pub(crate) message: Option<i32>,
    pub(crate) after: i32,
    /// The callback data that shows how the work ended.
    pub(crate) resume: String,
}

impl Chat {
    /// Reports whether something is being handled, or shown as being worked on.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.working.is_empty() || !self.updates.is_empty()
    }

    fn remember_deletion(&mut self, (chat, message): Place) {
        if !self.deleting.contains(&(chat.0, message.0)) {
            self.deleting.push((chat.0, message.0));
        }
    }
}

/// A line of the file. `last_message` is the highest message id that was known when it was written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Chat { chat: TelegramId, state: Box<Chat>, last_message: i32 },
    Updates { updates: Vec<u32>, last_message: i32 },
}

impl Journal {
    /// Reads the file, or creates it.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(path: &Path, now: Timestamp) -> io::Result<Self> {
        let file = append(path)?;
        let written = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let stopped = Timestamp(written.as_millis().try_into().unwrap_or(now.0));
        let mut inner = Inner {
            stopped: stopped.min(now),
            path: path.to_owned(),
            file,
            lines: 0,
            chats: HashMap::new(),
            updates: HashSet::new(),
            order: VecDeque::new(),
            last_message: 0,
            failing: false,
        };
        // What a kill cut off is no UTF-8, perhaps, and no JSON.
        for line in String::from_utf8_lossy(&fs::read(path)?).lines() {
            match serde_json::from_str(line) {
                Ok(Line::Chat { chat, state, last_message }) => {
                    inner.read(&state.updates, last_message);
                    inner.chats.insert(chat, *state);
                }
                Ok(Line::Updates { updates, last_message }) => inner.read(&updates, last_message),
                Err(_cut) => {}
            }
        }
        for chat in inner.chats.values_mut() {
            // What was written in the window may come only now.
            let expired =
                |at: &Timestamp| now.0.saturating_sub(at.0) > PASSWORD_WINDOW + KEPT_BY_TELEGRAM;
            if chat.password_asked.as_ref().is_some_and(expired) {
                chat.password_asked = None;
            }
            chat.requests.retain(|request| request.is_fresh(now));
            // What was sent since is not known.
            chat.sending.take_if(|sending| sending.missing);
        }
        inner.chats.retain(|_, chat| *chat != Chat::default());
        inner.rewrite()?;
        Ok(Self(Mutex::new(inner)))
    }

    /// The state of a chat.
    pub(crate) fn chat(&self, chat: TelegramId) -> Chat {
        self.lock().chats.get(&chat).cloned().unwrap_or_default()
    }

    /// The chats that a restart interrupted: something was asked, handled or shown as being worked
    /// on.
    pub(crate) fn interrupted(&self) -> Vec<(TelegramId, Chat)> {
        let inner = self.lock();
        let open = |chat: &Chat| chat.asked.is_some() || chat.is_at_work();
        let chats = inner.chats.iter().filter(|(_, chat)| open(chat));
        chats.map(|(id, chat)| (*id, chat.clone())).collect()
    }

    /// The users for whom notices are kept although they have not blocked the bot.
    pub(crate) fn given_up(&self) -> Vec<TelegramId> {
        let inner = self.lock();
        let given_up = inner.chats.iter().filter(|(_, chat)| chat.missed.given_up);
        given_up.map(|(user, _)| *user).collect()
    }

    /// Reports whether a question was open when the bot stopped, and its answer may still come.
    pub(crate) fn was_open(&self, asked: &Asked, lifetime: i64, now: Timestamp) -> bool {
        let before_the_stop = self.lock().stopped.0.saturating_sub(asked.at.0) < lifetime;
        before_the_stop && now.0.saturating_sub(asked.at.0) < KEPT_BY_TELEGRAM
    }

    /// The messages that may show a secret and were not deleted, and who wrote them.
    pub(crate) fn deletions(&self) -> Vec<(TelegramId, Place)> {
        let inner = self.lock();
        let deleting = |(user, chat): (&TelegramId, &Chat)| {
            let user = *user;
            chat.deleting.clone().into_iter().map(move |message| (user, message))
        };
        let messages = inner.chats.iter().flat_map(deleting);
        messages.map(|(user, (chat, message))| (user, (ChatId(chat), MessageId(message)))).collect()
    }

    /// Records a message that has to be deleted, also after a restart.
    pub(crate) fn begin_deletion(&self, user: TelegramId, place: Place) {
        self.change(user, |chat| chat.remember_deletion(place));
    }

    /// Records that a message is deleted, cannot be, or holds no secret.
    pub(crate) fn end_deletion(&self, user: TelegramId, (chat, message): Place) {
        self.change(user, |state| state.deleting.retain(|open| *open != (chat.0, message.0)));
    }

    /// The chats in which a password was asked for, and when.
    pub(crate) fn passwords_asked(&self) -> Vec<(TelegramId, Timestamp)> {
        let inner = self.lock();
        let asked = |(id, chat): (&TelegramId, &Chat)| Some((*id, chat.password_asked?));
        inner.chats.iter().filter_map(asked).collect()
    }

    /// The highest message id that was known when the file was last written.
    pub(crate) fn last_message(&self) -> i32 {
        self.lock().last_message
    }

    /// Changes the state of a chat, and stores it before this returns.
    pub(crate) fn change<T>(&self, chat: TelegramId, change: impl FnOnce(&mut Chat) -> T) -> T {
        self.lock().change(chat, change)
    }

    /// Records that an update is being handled, and the message of it that may show a secret.
    /// Returns `false` for an update that is known already.
    pub(crate) fn begin(
        &self,
        chat: TelegramId,
        update: u32,
        last_message: i32,
        secret: Option<Place>,
    ) -> bool {
        let mut inner = self.lock();
        let new = inner.remember(update);
        if new {
            inner.last_message = inner.last_message.max(last_message);
            inner.change(chat, |chat| {
                chat.updates.push(update);
                if let Some(place) = secret {
                    chat.remember_deletion(place);
                }
            });
        }
        new
    }

    /// Records that an update was handled.
    pub(crate) fn end(&self, chat: TelegramId, update: u32, last_message: i32) {
        let mut inner = self.lock();
        inner.last_message = inner.last_message.max(last_message);
        inner.change(chat, |chat| chat.updates.retain(|open| *open != update));
    }

    /// Records the highest message id that is known, after a message that no update caused.
    pub(crate) fn record_message(&self, last_message: i32) {
        let mut inner = self.lock();
        if inner.last_message < last_message {
            inner.last_message = last_message;
            inner.write(&Line::Updates { updates: Vec::new(), last_message });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn read(&mut self, updates: &[u32], last_message: i32) {
        self.last_message = self.last_message.max(last_message);
        for update in updates {
            self.remember(*update);
        }
    }

    fn change<T>(&mut self, chat: TelegramId, change: impl FnOnce(&mut Chat) -> T) -> T {
        let state = self.chats.entry(chat).or_default();
        let before = state.clone();
        let result = change(state);
        let state = state.clone();
        if state == Chat::default() {
            self.chats.remove(&chat);
        }
        if state != before {
            let (state, last_message) = (Box::new(state), self.last_message);
            self.write(&Line::Chat { chat, state, last_message });
        }
        result
    }

    /// Returns `false` if the update is known.
    fn remember(&mut self, update: u32) -> bool {
        if !self.updates.insert(update) {
            return false;
        }
        self.order.push_back(update);
        if self.order.len() > UPDATES
            && let Some(oldest) = self.order.pop_front()
        {
            self.updates.remove(&oldest);
        }
        true
    }

    fn write(&mut self, line: &Line) {
        let written = self.append(line);
        if let Err(error) = &written
            && !self.failing
        {
            tracing::error!(%error, event = "state_not_written", "state file not written");
        }
        self.failing = written.is_err();
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        if self.lines > SPARE_LINES + 2 * self.chats.len() {
            self.rewrite()?;
        }
        self.lines += 1;
        let mut text = encode(line)?;
        if self.failing {
            // The last line may be cut off.
            text.insert(0, b'\n');
        }
        self.file.write_all(&text)
    }

    /// Writes a new file with the present state, in place of the old one. A file or a link that
    /// stands at its temporary name is removed: it may be readable by others.
    fn rewrite(&mut self) -> io::Result<()> {
        let (new, last_message) = (self.path.with_extension("new"), self.last_message);
        let mut text = Vec::new();
        for (chat, state) in &self.chats {
            let (chat, state) = (*chat, Box::new(state.clone()));
            text.extend(encode(&Line::Chat { chat, state, last_message })?);
        }
        let updates = self.order.iter().copied().collect();
        text.extend(encode(&Line::Updates { updates, last_message })?);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new();
        file.write(true).create_new(true).mode(0o600).open(&new)?.write_all(&text)?;
        fs::rename(&new, &self.path)?;
        self.file = append(&self.path)?;
        self.lines = self.chats.len() + 1;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// One line, written at once.
fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use kms_types::TransferId;
    use kms_types::wire::TransferState;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("kms-bot-journal-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn open(&self) -> Journal {
            Journal::open(&self.0.join("state"), Timestamp(6)).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn ann() -> TelegramId {
        1.try_into().unwrap()
    }

    fn asked() -> Asked {
        Asked { at: Timestamp(5), secret: true, resume: "password".to_owned(), message: Some(7) }
    }

    #[test]
    fn what_a_chat_waits_for_survives_a_restart() {
        let folder = Folder::new("restart");
        let journal = folder.open();
        journal.change(ann(), |chat| chat.asked = Some(asked()));
        assert!(journal.begin(ann(), 10, 7, None));
        assert!(!journal.begin(ann(), 10, 7, None), "the update is known");
        let journal = folder.open();
        assert!(!journal.begin(ann(), 10, 7, None), "after a restart, too");
        assert_eq!(journal.last_message(), 7);
        let [(id, chat)] = &journal.interrupted()[..] else { panic!("one chat is open") };
        assert_eq!((*id, chat.asked.clone(), &chat.updates[..]), (ann(), Some(asked()), &[10][..]));
        journal.end(ann(), 10, 8);
        journal.change(ann(), |chat| chat.asked = None);
        let journal = folder.open();
        assert!(journal.interrupted().is_empty());
        assert_eq!(journal.last_message(), 8);
    }

    #[test]
    fn an_update_is_one_line_when_it_begins_and_one_when_it_ends() {
        let folder = Folder::new("lines");
        let journal = folder.open();
        let lines = || fs::read_to_string(folder.0.join("state")).unwrap().lines().count();
        let before = lines();
        journal.begin(ann(), 10, 7, None);
        assert_eq!(lines(), before + 1);
        journal.end(ann(), 10, 8);
        assert_eq!(lines(), before + 2);
    }

    #[test]
    fn a_message_that_may_show_a_secret_is_remembered_until_it_is_deleted() {
        let folder = Folder::new("deleting");
        let journal = folder.open();
        let [own, in_group] = [(ChatId(1), MessageId(7)), (ChatId(-5), MessageId(9))];
        assert!(journal.begin(ann(), 10, 7, Some(own)));
        journal.end(ann(), 10, 7);
        journal.begin_deletion(ann(), own);
        journal.begin_deletion(ann(), in_group);
        let journal = folder.open();
        assert_eq!(journal.deletions(), [(ann(), own), (ann(), in_group)]);
        journal.end_deletion(ann(), own);
        journal.end_deletion(ann(), in_group);
        assert_eq!(folder.open().deletions(), []);
    }

    #[test]
    fn all_unfinished_work_survives_a_restart() {
        let folder = Folder::new("working");
        let journal = folder.open();
        let work = [7, 8].map(|message| {
            let resume = format!("start:{message}");
            Working { message: Some(message), after: 0, resume }
        });
        for working in &work {
            journal.change(ann(), |chat| chat.working.push(working.clone()));
        }
        assert_eq!(folder.open().chat(ann()).working, work);
    }

    #[test]
    fn a_message_that_is_being_sent_is_known_after_a_restart() {
        let (folder, id) = (Folder::new("sending"), TransferId::random());
        let report = reports::Report::Payment(id, TransferState::Mined);
        folder.open().begin_report(ann(), report, 7);
        let journal = folder.open();
        assert_eq!(journal.unsettled(), [ann()]);
        journal.end_report(ann(), Some(9));
        let journal = folder.open();
        assert_eq!((journal.unsettled(), journal.last_message()), (Vec::new(), 9));
        assert_eq!(journal.chat(ann()).payment(id).unwrap().message, Some(9));
    }

    #[test]
    fn half_a_line_at_the_end_is_skipped() {
        let folder = Folder::new("half");
        folder.open().change(ann(), |chat| chat.asked = Some(asked()));
        let path = folder.0.join("state");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"chat\":1,\"state\":{\xc3").unwrap();
        assert_eq!(folder.open().chat(ann()).asked, Some(asked()));
    }

    #[test]
    fn the_file_stays_small_and_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("small");
        // What others may read, or lead elsewhere, is not written to.
        for name in ["state", "state.new"] {
            fs::write(folder.0.join(name), "").unwrap();
            let everyone = fs::Permissions::from_mode(0o666);
            fs::set_permissions(folder.0.join(name), everyone).unwrap();
        }
        let journal = folder.open();
        for update in 0..20_000 {
            journal.begin(ann(), update, 1, None);
            journal.end(ann(), update, 1);
        }
        let file = fs::metadata(folder.0.join("state")).unwrap();
        assert!(file.len() < 1_000_000, "{} bytes", file.len());
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(!journal.begin(ann(), 19_999, 1, None));
    }
}
